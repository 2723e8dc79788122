"""The form of cosign 2: a manifest whose layers are the signed content, with the signature material as annotations.

Rules: github.com/sigstore/cosign, specs/SIGNATURE_SPEC.md and BUNDLE_SPEC.md.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from webhook.provenance import documents
from webhook.provenance.bundle import LogEntry, Material
from webhook.provenance.errors import MalformedError, TamperedError

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNATURE_LAYER: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE_LAYER: Final = "application/vnd.dsse.envelope.v1+json"
_SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_CERTIFICATE: Final = "dev.sigstore.cosign/certificate"
_CHAIN: Final = "dev.sigstore.cosign/chain"
_BUNDLE: Final = "dev.sigstore.cosign/bundle"
_TIMESTAMP: Final = "dev.sigstore.cosign/rfc3161timestamp"
_MAX_ANNOTATION: Final = 256 * 1024
_MAX_PAYLOAD: Final = 256 * 1024
_TYPES: Final = ("cosign container image signature", "atomic container signature")


def signature_of(annotations: Mapping[str, str]) -> bytes:
    """Return the signature over a layer. Raises `MalformedError`."""
    return documents.binary(annotations.get(_SIGNATURE), _SIGNATURE)


def check_payload(content: bytes, digest: str) -> None:
    """Check that a verified simple-signing payload is about a digest.

    Raises:
        TamperedError: It is about another image.
        MalformedError: It is not a simple-signing payload.
    """
    payload = documents.parse_strictly(content, "the signed payload", _MAX_PAYLOAD)
    critical = documents.fields(payload.get("critical"), "critical")
    if critical.get("type") not in _TYPES:
        raise MalformedError("the signed payload is not a container image signature")
    signed = documents.text(
        documents.fields(critical.get("image"), "image").get("docker-manifest-digest"),
        "docker-manifest-digest",
    )
    if not hmac.compare_digest(signed.encode(), digest.encode()):
        raise TamperedError("the signature is about another image")


def material_of(annotations: Mapping[str, str], envelope: bytes = b"") -> Material:
    """Return the verification material in annotations. ``envelope`` is the layer of an attestation.

    Raises:
        MalformedError: An annotation does not have the form of its specification.
    """
    if any(len(text) > _MAX_ANNOTATION for text in annotations.values()):
        raise MalformedError("an annotation of the signature is too large")
    chain = (*_certificates(annotations.get(_CERTIFICATE, "")), *_certificates(annotations.get(_CHAIN, "")))
    if chain and not annotations.get(_CERTIFICATE):
        raise MalformedError("the signature has a certificate chain without its certificate")
    bundle, stamp = annotations.get(_BUNDLE), annotations.get(_TIMESTAMP)
    entries = (_entry(documents.parse(bundle.encode(), _BUNDLE)),) if bundle else ()
    timestamps: tuple[bytes, ...] = ()
    if stamp:
        document = documents.parse(stamp.encode(), _TIMESTAMP)
        timestamps = (documents.binary(document.get("SignedRFC3161Timestamp"), _TIMESTAMP),)
    return Material(chain, entries, timestamps, stamped=envelope)


def _certificates(pem: str) -> list[x509.Certificate]:
    if not pem:
        return []
    try:
        return x509.load_pem_x509_certificates(pem.encode())[:10]
    except ValueError as error:
        raise MalformedError("a certificate of the signature is not PEM") from error


def _entry(bundle: dict[str, Any]) -> LogEntry:
    """Return the log entry: a promise of Rekor v1, without a proof."""
    payload = documents.fields(bundle.get("Payload"), "Payload")
    log_id = documents.text(payload.get("logID"), "logID")
    try:
        identifier = bytes.fromhex(log_id)
    except ValueError as error:
        raise MalformedError("logID is not hexadecimal") from error
    return LogEntry(
        log_id=identifier,
        kind="",
        version="",
        body=documents.binary(payload.get("body"), "body"),
        index=documents.number(payload.get("logIndex", 0), "logIndex"),
        integrated=documents.number(payload.get("integratedTime", 0), "integratedTime"),
        promise=documents.binary(bundle.get("SignedEntryTimestamp"), "SignedEntryTimestamp"),
        proof=None,
    )
