"""Attestations about a model: SLSA provenance, CycloneDX and SPDX documents, and any other in-toto statement.

A file is a Sigstore bundle, a DSSE envelope, a bare in-toto statement, or a bare CycloneDX or SPDX document, or several
of these as JSON lines. A signed one must have a trusted signer: it never counts as an unsigned one. An in-toto
statement must be about the model, so its subject is the root digest or one of the signed files.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

import orjson

from webhook.core.kube.strict_json import DocumentError, Limits, check
from webhook.core.provenance.models import MAX_ATTESTATIONS, MAX_BYTES, Attestation, ModelProvenance, Signer
from webhook.provenance.bundle import parse_envelope
from webhook.provenance.errors import MalformedError, TamperedError, WrongSignerError
from webhook.provenance.models import PAYLOAD_TYPE, verify_envelope
from webhook.provenance.signatures import fingerprint, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from webhook.provenance.models import ModelTrust, SignedModel

MAX_FILE: Final = 16 << 20
_LIMITS: Final = Limits(depth=100)
_STATEMENTS: Final = "https://in-toto.io/Statement/"
_CYCLONEDX: Final = "https://cyclonedx.org/bom"
_SPDX: Final = "https://spdx.dev/Document"


def provenance_of(
    model: SignedModel, files: Iterable[tuple[str, bytes]], trust: ModelTrust, now: datetime
) -> tuple[ModelProvenance, list[str]]:
    """Return the provenance of a model with its attestations, and notes for the user.

    ``files``: the name and the content of each attestation file. A predicate that is too large for a manifest is left
    out, and its digest stays.

    Raises:
        ProvenanceError: an attestation is malformed, not about the model, or not signed by a trusted signer.
    """
    attestations: list[Attestation] = []
    notes: list[str] = []
    for name, raw in files:
        if len(raw) > MAX_FILE:
            raise MalformedError(f"attestation {name} is larger than {MAX_FILE >> 20} MiB")
        for part, document in _documents(name, raw):
            attestations.append(_attestation(name, part, document, model, trust, now))
            if not _can_be_evaluated(attestations[-1].predicate):
                attestations[-1] = _without_predicate(attestations[-1])
                notes.append(
                    f"{name}: only its type and digest are bound: it is too long or too deep for a rule"
                )
    if len(attestations) > MAX_ATTESTATIONS:
        raise MalformedError(f"there are more than {MAX_ATTESTATIONS} attestations")
    while _size(provenance := ModelProvenance(model.signature, tuple(attestations))) > MAX_BYTES:
        index = max(
            range(len(attestations)), key=lambda index: len(json.dumps(attestations[index].predicate))
        )
        if attestations[index].predicate is None:
            raise MalformedError("the attestations are too large")
        notes.append(
            f"{attestations[index].type}: only its type and digest are bound: the predicate is too large"
        )
        attestations[index] = _without_predicate(attestations[index])
    return provenance, notes


def _documents(name: str, raw: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Return each document with its bytes: the whole file, or its lines."""
    parts = [raw]
    try:
        documents = [orjson.loads(raw)]
    except orjson.JSONDecodeError:
        parts = [line for line in raw.splitlines() if line.strip()]
        try:
            documents = [orjson.loads(part) for part in parts]
        except orjson.JSONDecodeError:
            raise MalformedError(f"attestation {name} is not JSON") from None
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise MalformedError(f"attestation {name} is not a JSON object")
    yield from zip(parts, documents, strict=True)


def _attestation(
    name: str, raw: bytes, document: dict[str, Any], model: SignedModel, trust: ModelTrust, now: datetime
) -> Attestation:
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    if document.get("bomFormat") == "CycloneDX":
        return Attestation(_CYCLONEDX, digest, (), document)
    if isinstance(document.get("spdxVersion"), str):
        return Attestation(_SPDX, digest, (), document)
    signers: tuple[Signer, ...] = ()
    if "dsseEnvelope" in document or "verificationMaterial" in document:
        payload, signer = verify_envelope(raw, trust, now)
        signers, document = (signer,), _payload(name, payload)
    elif "payload" in document:
        payload, signers = _verify_bare(document, trust)
        document = _payload(name, payload)
    kind, predicate_type = document.get("_type"), document.get("predicateType")
    if not isinstance(kind, str) or not kind.startswith(_STATEMENTS) or not isinstance(predicate_type, str):
        raise MalformedError(f"attestation {name} is not an in-toto, CycloneDX or SPDX document")
    if not _is_about(document.get("subject"), model):
        raise TamperedError(f"attestation {name} is not about this model")
    return Attestation(predicate_type, digest, signers, document.get("predicate"))


def _verify_bare(document: dict[str, Any], trust: ModelTrust) -> tuple[bytes, tuple[Signer, ...]]:
    """Verify a DSSE envelope without a bundle: every signature of a trusted key counts, and one is required."""
    envelope = parse_envelope(document)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise MalformedError(f"the envelope has payload type {envelope.payload_type[:100]!r}")
    signers = []
    for item in trust.signers.keys:
        for signature in envelope.signatures:
            try:
                verify(item.key, signature, envelope.signed)
            except TamperedError:
                continue
            signers.append(Signer("key", key=fingerprint(item.key)))
            break
    if not signers:
        raise WrongSignerError("no trusted key signed the attestation, or it was changed")
    return envelope.payload, tuple(signers)


def _payload(name: str, payload: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(payload)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise MalformedError(f"the payload of attestation {name} is not a JSON object")
    return document


def _is_about(subjects: Any, model: SignedModel) -> bool:
    allowed_digests = {model.signature.root_digest.removeprefix("sha256:")}
    if model.hash_type == "sha256" and not model.shard_size:
        allowed_digests |= {file.digests[0].hex() for file in model.files.values()}
    if not isinstance(subjects, list):
        return False
    digests = [subject.get("digest") for subject in subjects if isinstance(subject, dict)]
    return any(isinstance(digest, dict) and digest.get("sha256") in allowed_digests for digest in digests)


def _can_be_evaluated(predicate: Any) -> bool:
    try:
        check(predicate, _LIMITS)
    except DocumentError:
        return False
    return True


def _without_predicate(attestation: Attestation) -> Attestation:
    return Attestation(attestation.type, attestation.digest, attestation.signers)


def _size(provenance: ModelProvenance) -> int:
    return len(json.dumps(provenance.document(), separators=(",", ":"), ensure_ascii=False).encode())
