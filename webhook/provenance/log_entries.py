"""Entries of a transparency log: Rekor v1 (promise or proof) and Rekor v2 (proof).

An entry counts only if the log vouches for it *and* its body names the same signature, content and signer. Without the
second check, any entry of the log would do (CVE-2022-36056).
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from webhook.core.audit.merkle import leaf_hash, verify_inclusion
from webhook.core.audit.notes import NoteError, b64decode, parse_note
from webhook.provenance import documents
from webhook.provenance.errors import MalformedError, TamperedError, UntrustedError
from webhook.provenance.signatures import certificate_key, load_public_key, spki, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from webhook.provenance.bundle import Envelope, InclusionProof, LogEntry
    from webhook.provenance.signatures import PublicKey
    from webhook.provenance.trusted_root import Log, TrustedRoot

_MAX_SIGNATURES: Final = 32
# Rekor v2 has no integrated time, so its logs are checked against the time of a timestamp authority.
_NO_TIME: Final = 0
# 9999-12-31, the last day that a datetime has.
_LAST_SECOND: Final = 253_402_214_400


def verify_entry(
    entry: LogEntry,
    root: TrustedRoot,
    *,
    key: PublicKey,
    certificate: bytes,
    signature: bytes,
    signed: bytes,
    envelope: Envelope | None,
) -> datetime | None:
    """Verify one entry. Returns its integrated time if the log signed it, otherwise None.

    ``signed`` is the content of the signature. ``certificate`` is DER, or empty for a signature by a key.

    Raises:
        UntrustedError: The trusted root does not contain the log, or not at this time.
        TamperedError: The log did not sign the entry, or the entry is of another signature.
        MalformedError: The entry does not have the form of its version.
    """
    log = _log(entry, root)
    if not entry.promise and entry.proof is None:
        raise MalformedError("the log entry has neither a promise nor a proof")
    time: datetime | None = None
    if entry.promise:
        time = _verify_promise(entry, log)
    if entry.proof is not None:
        _verify_proof(entry, entry.proof, log)
    _Body(entry, key, certificate, signature, signed, envelope).check()
    return time


def _log(entry: LogEntry, root: TrustedRoot) -> Log:
    if entry.integrated > _LAST_SECOND:
        raise MalformedError("the integrated time of the log entry is out of range")
    for log in root.logs:
        if log.id == entry.log_id and (
            entry.integrated == _NO_TIME or log.period.covers(datetime.fromtimestamp(entry.integrated, UTC))
        ):
            return log
    raise UntrustedError("the trusted root does not contain the transparency log of the entry at its time")


def is_trusted_at(entry: LogEntry, root: TrustedRoot, times: Sequence[datetime]) -> bool:
    """Report whether the root trusts the log of an entry at all of these times."""
    return any(log.id == entry.log_id and all(map(log.period.covers, times)) for log in root.logs)


def _verify_promise(entry: LogEntry, log: Log) -> datetime:
    """Verify the signed entry timestamp (SET) of Rekor v1."""
    payload = {
        "body": base64.b64encode(entry.body).decode(),
        "integratedTime": entry.integrated,
        "logID": entry.log_id.hex(),
        "logIndex": entry.index,
    }
    try:
        verify(log.key, entry.promise, orjson.dumps(payload, option=orjson.OPT_SORT_KEYS))
    except TamperedError as error:
        raise TamperedError("the log did not sign the promise of the entry") from error
    return datetime.fromtimestamp(entry.integrated, UTC)


def _verify_proof(entry: LogEntry, proof: InclusionProof, log: Log) -> None:
    """Verify the path to the root of a checkpoint that the log signed."""
    try:
        note = parse_note(proof.checkpoint.encode())
        origin, size, encoded = note.text.split("\n")[:3]
        root = b64decode(encoded)
    except (NoteError, ValueError) as error:
        raise MalformedError(f"the checkpoint of the log is not a signed note: {error}") from error
    if not origin or not size.isascii() or not size.isdecimal() or len(size) > 18 or int(size) != proof.size:
        raise TamperedError("the checkpoint is not of the tree of the proof")
    if root != proof.root:
        raise TamperedError("the checkpoint does not sign the root of the proof")
    _verify_note(note.text, [item.value for item in note.signatures if item.key_id == log.id[:4]], log)
    if not verify_inclusion(leaf_hash(entry.body), proof.index, proof.size, proof.hashes, proof.root):
        raise TamperedError("the proof does not lead from the entry to the root of the log")


def _verify_note(text: str, signatures: list[bytes], log: Log) -> None:
    for signature in signatures[:_MAX_SIGNATURES]:
        try:
            verify(log.key, signature, text.encode())
        except TamperedError:
            continue
        return
    raise TamperedError("the log did not sign the checkpoint of the entry")


class _Body:
    """Compare the body of an entry with the signature that it vouches for."""

    def __init__(
        self,
        entry: LogEntry,
        key: PublicKey,
        certificate: bytes,
        signature: bytes,
        signed: bytes,
        envelope: Envelope | None,
    ) -> None:
        self._key = key
        self._certificate = certificate
        self._signature = signature
        self._signed = signed
        self._envelope = envelope
        self._body = documents.parse(entry.body, "the body of the log entry")
        self._kind = (str(self._body.get("kind", "")), str(self._body.get("apiVersion", "")))
        if entry.kind and (entry.kind, entry.version) != self._kind:
            raise TamperedError("the log entry is of another kind than its body")

    def check(self) -> None:
        """Raise `TamperedError` if the entry is of another signature."""
        forms: dict[tuple[str, str], Callable[[dict[str, Any]], None]] = {
            ("hashedrekord", "0.0.1"): self._hashedrekord,
            ("hashedrekord", "0.0.2"): self._hashedrekord_v2,
            ("dsse", "0.0.1"): self._dsse,
            ("dsse", "0.0.2"): self._dsse_v2,
            ("intoto", "0.0.1"): self._intoto,
            ("intoto", "0.0.2"): self._intoto,
        }
        form = forms.get(self._kind)
        if form is None:
            raise MalformedError(
                f"log entries of kind {self._kind[0][:40]} {self._kind[1][:20]} are not supported"
            )
        form(documents.fields(self._body.get("spec"), "spec"))

    def _hashedrekord(self, spec: dict[str, Any]) -> None:
        data = documents.fields(documents.fields(spec.get("data"), "data").get("hash"), "hash")
        self._digest(str(data.get("algorithm")), str(data.get("value")), self._signed)
        signature = documents.fields(spec.get("signature"), "signature")
        self._same_signature(documents.binary(signature.get("content"), "content"))
        public = documents.fields(signature.get("publicKey"), "publicKey")
        self._same_signer(documents.binary(public.get("content"), "publicKey.content"))

    def _hashedrekord_v2(self, spec: dict[str, Any]) -> None:
        entry = documents.fields(spec.get("hashedRekordV002"), "hashedRekordV002")
        self._digest_v2(documents.fields(entry.get("data"), "data"), self._signed)
        signature = documents.fields(entry.get("signature"), "signature")
        self._same_signature(documents.binary(signature.get("content"), "content"))
        self._same_verifier(documents.fields(signature.get("verifier"), "verifier"))

    def _dsse(self, spec: dict[str, Any]) -> None:
        payload = documents.fields(spec.get("payloadHash"), "payloadHash")
        self._digest(str(payload.get("algorithm")), str(payload.get("value")), self._payload())
        for item in documents.items(spec.get("signatures"), "signatures", _MAX_SIGNATURES):
            signature = documents.fields(item, "signatures")
            if documents.binary(signature.get("signature"), "signature") == self._signature:
                self._same_signer(documents.binary(signature.get("verifier"), "verifier"))
                return
        raise TamperedError("the log entry is of another signature")

    def _dsse_v2(self, spec: dict[str, Any]) -> None:
        entry = documents.fields(spec.get("dsseV002"), "dsseV002")
        self._digest_v2(documents.fields(entry.get("payloadHash"), "payloadHash"), self._payload())
        for item in documents.items(entry.get("signatures"), "signatures", _MAX_SIGNATURES):
            signature = documents.fields(item, "signatures")
            if documents.binary(signature.get("content"), "content") == self._signature:
                self._same_verifier(documents.fields(signature.get("verifier"), "verifier"))
                return
        raise TamperedError("the log entry is of another signature")

    def _intoto(self, spec: dict[str, Any]) -> None:
        content = documents.fields(spec.get("content"), "content")
        payload = documents.fields(content.get("payloadHash"), "payloadHash")
        self._digest(str(payload.get("algorithm")), str(payload.get("value")), self._payload())
        if self._kind[1] == "0.0.1":
            # This form names no signature: its payload and its signer bind it (rekor, pkg/types/intoto/v0.0.1).
            self._same_signer(documents.binary(spec.get("publicKey"), "publicKey"))
            return
        envelope = documents.fields(content.get("envelope"), "envelope")
        for item in documents.items(envelope.get("signatures"), "signatures", _MAX_SIGNATURES):
            signature = documents.fields(item, "signatures")
            # Rekor encodes the base64 text of the envelope again.
            inner = documents.binary(signature.get("sig"), "sig").decode("ascii", "replace")
            if documents.binary(inner, "sig") == self._signature:
                self._same_signer(documents.binary(signature.get("publicKey"), "publicKey"))
                return
        raise TamperedError("the log entry is of another signature")

    def _payload(self) -> bytes:
        if self._envelope is None:
            raise TamperedError("the log entry is of an attestation, and the signature is not")
        return self._envelope.payload

    @staticmethod
    def _digest(algorithm: str, value: str, content: bytes) -> None:
        if algorithm not in {"sha256", "sha384", "sha512"}:
            raise MalformedError("the log entry uses a hash that is not accepted")
        if hashlib.new(algorithm, content).hexdigest() != value:
            raise TamperedError("the log entry is of other content")

    @staticmethod
    def _digest_v2(data: dict[str, Any], content: bytes) -> None:
        names = {"SHA2_256": "sha256", "SHA2_384": "sha384", "SHA2_512": "sha512"}
        algorithm = names.get(str(data.get("algorithm")), "")
        if not algorithm:
            raise MalformedError("the log entry uses a hash that is not accepted")
        if hashlib.new(algorithm, content).digest() != documents.binary(data.get("digest"), "digest"):
            raise TamperedError("the log entry is of other content")

    def _same_signature(self, signature: bytes) -> None:
        if signature != self._signature:
            raise TamperedError("the log entry is of another signature")

    def _same_verifier(self, verifier: dict[str, Any]) -> None:
        certificate = documents.fields(verifier.get("x509Certificate") or {}, "x509Certificate")
        public = documents.fields(verifier.get("publicKey") or {}, "publicKey")
        raw = documents.binary((certificate or public).get("rawBytes"), "rawBytes")
        if certificate and not self._certificate:
            # The signature is by a trusted key, and the entry names it by a certificate of this key.
            raw = spki(certificate_key(raw))
        self._same_signer(raw)

    def _same_signer(self, content: bytes) -> None:
        """Compare a PEM or DER certificate or key."""
        if self._certificate:
            try:
                load = (
                    x509.load_pem_x509_certificate
                    if content.lstrip().startswith(b"-----")
                    else x509.load_der_x509_certificate
                )
                same = load(content).public_bytes(Encoding.DER) == self._certificate
            except ValueError as error:
                raise MalformedError("the log entry names no certificate") from error
        else:
            same = spki(load_public_key(content)) == spki(self._key)
        if not same:
            raise TamperedError("the log entry is of another signer")
