"""Sigstore bundles: parse the JSON of versions 0.1 to 0.3 into one form. Nothing here is verified.

A bundle holds either a DSSE envelope or a signature over a message, and the material to verify it: a key hint or
certificates, entries of transparency logs, RFC 3161 timestamps. `verify.verify_bundle` verifies it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from webhook.provenance import documents
from webhook.provenance.errors import MalformedError
from webhook.provenance.trusted_root import load_certificate

if TYPE_CHECKING:
    from cryptography import x509

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
MEDIA_TYPES: Final = (
    MEDIA_TYPE,
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
)
_FIRST: Final = "application/vnd.dev.sigstore.bundle+json;version=0.1"
_MAX_ITEMS: Final = 32
_MAX_PROOF: Final = 64


@dataclass(frozen=True, slots=True)
class Envelope:
    """A DSSE envelope. `signed` is the content of its signatures."""

    payload_type: str
    payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def signed(self) -> bytes:
        """The pre-authentication encoding (DSSE v1.0.2, protocol.md)."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of a transparency log, with its promise (SET) or its proof, or both."""

    log_id: bytes
    kind: str
    version: str
    body: bytes
    index: int
    integrated: int
    promise: bytes
    proof: InclusionProof | None


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """The path from an entry to the root of a signed checkpoint."""

    index: int
    size: int
    root: bytes
    hashes: tuple[bytes, ...]
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Material:
    """What a signature is verified with. A keyed signature has no chain."""

    chain: tuple[x509.Certificate, ...] = ()
    entries: tuple[LogEntry, ...] = ()
    timestamps: tuple[bytes, ...] = ()
    key_hint: str = ""
    # The other content that a timestamp may be of: cosign 2 timestamps the whole envelope of an attestation.
    stamped: bytes = b""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One signature: over an envelope, or over a message whose digest is ``digest``."""

    material: Material
    envelope: Envelope | None
    signature: bytes
    digest: bytes = b""
    algorithm: str = ""


def parse_bundle(data: bytes) -> Bundle:
    """Parse a bundle. Raises `MalformedError`."""
    document = documents.parse_strictly(data, "the bundle")
    media_type = documents.text(document.get("mediaType"), "mediaType")
    if media_type not in MEDIA_TYPES:
        raise MalformedError(f"the bundle version {media_type[:100]} is not supported")
    material = _material(documents.fields(document.get("verificationMaterial"), "verificationMaterial"))
    # protobuf-specs, TransparencyLogEntry: version 0.1 needs the promise, later versions the proof.
    if media_type != _FIRST and any(entry.proof is None for entry in material.entries):
        raise MalformedError("a log entry of the bundle has no inclusion proof")
    if media_type == _FIRST and not all(entry.promise for entry in material.entries):
        raise MalformedError("a log entry of the bundle has no inclusion promise")
    if "dsseEnvelope" in document and "messageSignature" in document:
        raise MalformedError("the bundle has two contents: an envelope and a message")
    if "dsseEnvelope" in document:
        envelope = parse_envelope(documents.fields(document["dsseEnvelope"], "dsseEnvelope"))
        if len(envelope.signatures) != 1:
            raise MalformedError("the envelope of a bundle has exactly one signature")
        return Bundle(material, envelope, envelope.signatures[0])
    message = documents.fields(document.get("messageSignature"), "messageSignature")
    digest = documents.fields(message.get("messageDigest", {}), "messageDigest")
    return Bundle(
        material,
        None,
        documents.binary(message.get("signature"), "signature"),
        documents.binary(digest.get("digest", ""), "digest"),
        str(digest.get("algorithm", "")),
    )


def parse_envelope(envelope: dict[str, Any]) -> Envelope:
    """Parse a DSSE envelope. Raises `MalformedError`."""
    signatures = tuple(
        documents.binary(documents.fields(item, "signatures").get("sig"), "sig")
        for item in documents.items(envelope.get("signatures"), "signatures", _MAX_ITEMS)
    )
    if not signatures:
        raise MalformedError("the envelope has no signature")
    return Envelope(
        documents.text(envelope.get("payloadType"), "payloadType"),
        documents.binary(envelope.get("payload"), "payload"),
        signatures,
    )


def _material(material: dict[str, Any]) -> Material:
    chain: tuple[x509.Certificate, ...] = ()
    if "certificate" in material:
        certificate = documents.fields(material["certificate"], "certificate")
        chain = (load_certificate(certificate.get("rawBytes")),)
    elif "x509CertificateChain" in material:
        whole = documents.fields(material["x509CertificateChain"], "x509CertificateChain")
        chain = tuple(
            load_certificate(documents.fields(item, "certificates").get("rawBytes"))
            for item in documents.items(whole.get("certificates"), "certificates", _MAX_ITEMS)
        )
        if not chain:
            raise MalformedError("x509CertificateChain is empty")
    elif "publicKey" not in material:
        raise MalformedError("the bundle names neither a certificate nor a public key")
    public = documents.fields(material.get("publicKey", {}), "publicKey")
    times = documents.fields(material.get("timestampVerificationData") or {}, "timestampVerificationData")
    return Material(
        chain,
        tuple(
            _entry(documents.fields(item, "tlogEntries"))
            for item in documents.items(material.get("tlogEntries"), "tlogEntries", _MAX_ITEMS)
        ),
        tuple(
            documents.binary(
                documents.fields(item, "rfc3161Timestamps").get("signedTimestamp"), "signedTimestamp"
            )
            for item in documents.items(times.get("rfc3161Timestamps"), "rfc3161Timestamps", _MAX_ITEMS)
        ),
        str(public.get("hint", "")),
    )


def _entry(entry: dict[str, Any]) -> LogEntry:
    kind = documents.fields(entry.get("kindVersion", {}), "kindVersion")
    promise = documents.fields(entry.get("inclusionPromise") or {}, "inclusionPromise")
    proof = entry.get("inclusionProof")
    return LogEntry(
        log_id=documents.binary(documents.fields(entry.get("logId"), "logId").get("keyId"), "keyId"),
        kind=str(kind.get("kind", "")),
        version=str(kind.get("version", "")),
        body=documents.binary(entry.get("canonicalizedBody"), "canonicalizedBody"),
        index=documents.number(entry.get("logIndex", 0), "logIndex"),
        integrated=documents.number(entry.get("integratedTime", 0), "integratedTime"),
        promise=documents.binary(promise.get("signedEntryTimestamp", ""), "signedEntryTimestamp"),
        proof=_proof(documents.fields(proof, "inclusionProof")) if proof else None,
    )


def _proof(proof: dict[str, Any]) -> InclusionProof:
    checkpoint = documents.fields(proof.get("checkpoint", {}), "checkpoint")
    return InclusionProof(
        documents.number(proof.get("logIndex", 0), "logIndex"),
        documents.number(proof.get("treeSize"), "treeSize"),
        documents.binary(proof.get("rootHash"), "rootHash"),
        tuple(
            documents.binary(item, "hashes")
            for item in documents.items(proof.get("hashes"), "hashes", _MAX_PROOF)
        ),
        documents.text(checkpoint.get("envelope", ""), "envelope"),
    )
