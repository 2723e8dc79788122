"""Attestation of confidential virtual machines: SEV-SNP reports and TDX quotes, verified offline.

Pure: the caller passes the trusted root certificates, the accepted measurements and the time. A chain must end at one
of these roots, byte for byte; no certificate of the evidence is trusted by itself. The layouts are those of AMD's SEV
Secure Nested Paging ABI (document 56860, table "ATTESTATION_REPORT") and of Intel's TDX DCAP quote, version 4. Neither
revocation lists nor TCB collateral are fetched: a rule can require versions.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

from webhook.api.codes import EVIDENCE, NO_EVIDENCE
from webhook.keys.broker.refusal import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.api.modelweights import CpuAttestation

SNP, TDX = "sev-snp", "tdx"
_MAX_REPORT, _MAX_CERTIFICATE, _MAX_CHAIN = 32 * 1024, 8 * 1024, 4
_NONCE_SIZE, _DATA_SIZE = 32, 64

_SNP_SIZE, _SNP_SIGNED = 1184, 0x2A0
_SNP_NUMBER = 72  # bytes of each half of the signature, little-endian
_SNP_ECDSA_P384 = 1
_SNP_DEBUG, _SNP_MIGRATION = 1 << 19, 1 << 18
_SNP_VCEK, _SNP_VLEK = 0, 1
_SNP_MASKED = 1 << 1
# The versions in a VCEK or VLEK certificate (AMD document 57230), and their bytes in a TCB version before Turin.
_AMD = "1.3.6.1.4.1.3704.1"
_SNP_TCB = {
    "bootloader": (f"{_AMD}.3.1", 0),
    "tee": (f"{_AMD}.3.2", 1),
    "snp": (f"{_AMD}.3.3", 6),
    "microcode": (f"{_AMD}.3.8", 7),
}
_SNP_TURIN = {
    "fmc": (f"{_AMD}.3.9", 0),
    "bootloader": (f"{_AMD}.3.1", 1),
    "tee": (f"{_AMD}.3.2", 2),
    "snp": (f"{_AMD}.3.3", 3),
    "microcode": (f"{_AMD}.3.8", 7),
}
_SNP_CHIP = ObjectIdentifier(f"{_AMD}.4")

_TDX_HEADER, _TDX_BODY = 48, 584
_TDX_SIGNED = _TDX_HEADER + _TDX_BODY
_TDX_VERSION, _TDX_ECDSA_P256, _TDX_TEE = 4, 2, 0x81
_TDX_DEBUG = 1
_QE_REPORT, _QE_DEBUG = 384, 1 << 1
_CERTIFIED_BY_QE, _PCK_CHAIN = 6, 5
# Intel's signer of its quoting enclave (the "mrsigner" of the QE identity), and the product id of the TDX one.
_QE_SIGNER = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")
_TDX_QE_PRODUCT = 2


@dataclass(frozen=True, slots=True)
class _Evidence:
    kind: str
    report: bytes
    certificates: tuple[bytes, ...]


def verify(evidence: Any, required: CpuAttestation, nonce: str, now: float) -> dict[str, Any]:
    """Verify ``evidence``: ``{"kind", "report", "certificates"}``, base64. Return its claims for a rule.

    The first 32 bytes of the report's data must be ``nonce`` (hexadecimal), and the others zero. ``now`` is in Unix
    seconds.

    Raises:
        RefusedError: a check failed; the message names it.
    """
    parsed = _parsed(evidence)
    if parsed.kind not in required.kinds:
        raise _refused(f"{parsed.kind} is not an accepted kind of CPU evidence")
    roots = _roots(required.roots)
    moment = datetime.fromtimestamp(now, UTC)
    claims = (_snp if parsed.kind == SNP else _tdx)(parsed, roots, moment)
    expected = bytes.fromhex(nonce).ljust(_DATA_SIZE, b"\0")
    if not hmac.compare_digest(claims.pop("data"), expected):
        raise _refused("the CPU report was not made for this release (report data)")
    if not any(
        hmac.compare_digest(claims["measurement"], measurement) for measurement in required.measurements
    ):
        raise _refused(f"the measurement {claims['measurement'][:24]}… is not an accepted one")
    return {"kind": parsed.kind, **claims}


def _parsed(evidence: Any) -> _Evidence:
    if evidence is None:
        raise RefusedError(
            NO_EVIDENCE, "this model requires an attested CPU, but the sidecar sent no CPU evidence"
        )
    try:
        kind, report = evidence["kind"], _decoded(evidence["report"], _MAX_REPORT)
        certificates = evidence.get("certificates") or []
        if kind not in {SNP, TDX} or not isinstance(certificates, list) or len(certificates) > _MAX_CHAIN:
            raise ValueError
        return _Evidence(kind, report, tuple(_decoded(item, _MAX_CERTIFICATE) for item in certificates))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _refused("the CPU evidence is not {kind, report, certificates}") from None


def _decoded(text: Any, limit: int) -> bytes:
    if not isinstance(text, str) or len(text) > 2 * limit:
        raise ValueError
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError from None


def _snp(evidence: _Evidence, roots: Sequence[x509.Certificate], now: datetime) -> dict[str, Any]:
    raw = evidence.report
    if len(raw) != _SNP_SIZE:
        raise _refused("the report is not a SEV-SNP report")
    version, algorithm, policy, key = (
        _number(raw, 0, 4), _number(raw, 0x34, 4), _number(raw, 8, 8), _number(raw, 0x48, 4),
    )  # fmt: skip
    if version < 2 or algorithm != _SNP_ECDSA_P384:
        raise _refused("the SEV-SNP report has an unknown version or signature")
    if policy & (_SNP_DEBUG | _SNP_MIGRATION):
        raise _refused("the guest's policy permits debugging or a migration agent")
    leaf = _chain(evidence.certificates, roots, now)
    _check_snp_certificate(leaf, raw, signer=(key >> 2) & 7, masked=bool(key & _SNP_MASKED))
    number_r, number_s = (
        int.from_bytes(raw[start : start + _SNP_NUMBER], "little")
        for start in (_SNP_SIGNED, _SNP_SIGNED + _SNP_NUMBER)
    )
    _check_signature(
        leaf.public_key(), (number_r, number_s), raw[:_SNP_SIGNED], hashes.SHA384(), "SEV-SNP report"
    )
    return {
        "data": raw[0x50:0x90],
        "measurement": raw[0x90:0xC0].hex(),
        "hostData": raw[0xC0:0xE0].hex(),
        "idKeyDigest": raw[0xE0:0x110].hex(),
        "guestSvn": _number(raw, 4, 4),
        "policy": policy,
        "vmpl": _number(raw, 0x30, 4),
        "platformInfo": _number(raw, 0x40, 8),
        "chipId": raw[0x1A0:0x1E0].hex(),
        "tcb": _tcb(raw),
    }


def _tcb(raw: bytes) -> dict[str, int]:
    """The reported TCB versions. Reports since version 3 name the processor, and family 1Ah has another layout."""
    turin = _number(raw, 0, 4) >= 3 and raw[0x188] >= 0x1A
    return {
        name: raw[0x180 + position] for name, (_, position) in (_SNP_TURIN if turin else _SNP_TCB).items()
    }


def _check_snp_certificate(leaf: x509.Certificate, raw: bytes, *, signer: int, masked: bool) -> None:
    """The certificate must be for the reported versions, and a VCEK for the reported chip."""
    if signer not in {_SNP_VCEK, _SNP_VLEK}:
        raise _refused("the SEV-SNP report is signed with neither a VCEK nor a VLEK")
    oids = {name: oid for table in (_SNP_TCB, _SNP_TURIN) for name, (oid, _) in table.items()}
    for name, version in _tcb(raw).items():
        if _extension(leaf, ObjectIdentifier(oids[name])) != bytes([2, 1, version]) and (
            version < 0x80 or _extension(leaf, ObjectIdentifier(oids[name])) != bytes([2, 2, 0, version])
        ):
            raise _refused(f"the certificate is not for the reported version of {name}")
    if signer == _SNP_VCEK and not masked:
        chip = _extension(leaf, _SNP_CHIP)
        # AMD writes the identifier without the octet string around it.
        if chip is None or not hmac.compare_digest(chip[-64:], raw[0x1A0:0x1E0]):
            raise _refused("the certificate is not for the reported chip")


def _tdx(evidence: _Evidence, roots: Sequence[x509.Certificate], now: datetime) -> dict[str, Any]:
    raw = evidence.report
    if len(raw) < _TDX_SIGNED + 4 + 64 + 64 + 6 + _QE_REPORT + 64 + 2:
        raise _refused("the report is not a TDX quote")
    kind = (_number(raw, 0, 2), _number(raw, 2, 2), _number(raw, 4, 4))
    if kind != (_TDX_VERSION, _TDX_ECDSA_P256, _TDX_TEE):
        raise _refused("the TDX quote has an unknown version, key type or TEE type")
    body = raw[_TDX_HEADER:_TDX_SIGNED]
    attributes = _number(body, 120, 8)
    if attributes & _TDX_DEBUG:
        raise _refused("the trust domain permits debugging")
    signature, key, qe_report, qe_signature, qe_data, pem = _tdx_parts(raw)
    leaf = _chain(_pem_chain(pem), roots, now)
    _check_signature(
        leaf.public_key(), _halves(qe_signature), qe_report, hashes.SHA256(), "quoting enclave's report"
    )
    _check_quoting_enclave(qe_report, key + qe_data)
    try:
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key)
    except ValueError:
        raise _refused("the attestation key of the TDX quote is not a point of P-256") from None
    _check_signature(point, _halves(signature), raw[:_TDX_SIGNED], hashes.SHA256(), "TDX quote")
    return {
        "data": body[520:584],
        "measurement": body[136:184].hex(),
        "mrConfigId": body[184:232].hex(),
        "mrOwner": body[232:280].hex(),
        "mrOwnerConfig": body[280:328].hex(),
        "rtmr": [body[start : start + 48].hex() for start in range(328, 520, 48)],
        "mrSeam": body[16:64].hex(),
        "seamSigner": body[64:112].hex(),
        "attributes": attributes,
        "xfam": _number(body, 128, 8),
        "tcbSvn": list(body[:16]),
    }


def _tdx_parts(raw: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]:
    """Signature, attestation key, report of the quoting enclave with its signature and data, and the chain in PEM."""
    length = _number(raw, _TDX_SIGNED, 4)
    rest = memoryview(raw)[_TDX_SIGNED + 4 : _TDX_SIGNED + 4 + length]
    if len(rest) != length:
        raise _refused("the TDX quote is truncated")
    signature, key, rest = bytes(rest[:64]), bytes(rest[64:128]), rest[128:]
    kind, size, rest = _number(rest, 0, 2), _number(rest, 2, 4), rest[6:]
    if kind != _CERTIFIED_BY_QE or size > len(rest):
        raise _refused("the TDX quote is not certified by a quoting enclave")
    report, qe_signature, rest = (
        bytes(rest[:_QE_REPORT]),
        bytes(rest[_QE_REPORT : _QE_REPORT + 64]),
        rest[448:],
    )
    length = _number(rest, 0, 2)
    data, rest = bytes(rest[2 : 2 + length]), rest[2 + length :]
    if len(data) != length or len(rest) < 6 or _number(rest, 0, 2) != _PCK_CHAIN:
        raise _refused("the TDX quote has no chain of PCK certificates")
    size = _number(rest, 2, 4)
    pem = bytes(rest[6 : 6 + size])
    if len(pem) != size:
        raise _refused("the TDX quote is truncated")
    return signature, key, report, qe_signature, data, pem.rstrip(b"\0")


def _check_quoting_enclave(report: bytes, bound: bytes) -> None:
    """It must be Intel's, not in debug mode, and its report must have the digest of the attestation key."""
    if _number(report, 48, 8) & _QE_DEBUG:
        raise _refused("the quoting enclave is in debug mode")
    if not hmac.compare_digest(report[128:160], _QE_SIGNER) or _number(report, 256, 2) != _TDX_QE_PRODUCT:
        raise _refused("the quoting enclave is not Intel's for TDX")
    expected = hashlib.sha256(bound).digest().ljust(_DATA_SIZE, b"\0")
    if not hmac.compare_digest(report[320:384], expected):
        raise _refused("the quoting enclave did not certify the attestation key")


def _pem_chain(pem: bytes) -> tuple[bytes, ...]:
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise _refused("the TDX quote has no chain of PCK certificates") from None
    if len(certificates) > _MAX_CHAIN:
        raise _refused("the chain of certificates is too long")
    return tuple(item.public_bytes(Encoding.DER) for item in certificates)


def _roots(pem: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise _refused("the ModelWeights has no usable root certificates for CPU evidence") from None


def _chain(
    certificates: Sequence[bytes], roots: Sequence[x509.Certificate], now: datetime
) -> x509.Certificate:
    """The leaf of a chain that ends at a trusted root; each certificate must be valid now, and each issuer a CA."""
    try:
        path = [x509.load_der_x509_certificate(item) for item in certificates]
    except ValueError:
        raise _refused("a certificate of the CPU evidence cannot be read") from None
    trusted = {root.fingerprint(hashes.SHA256()): root for root in roots}
    path = [item for item in path if item.fingerprint(hashes.SHA256()) not in trusted]
    if not path:
        raise _refused("the CPU evidence has no certificates")
    last = path[-1]
    root = next((item for item in roots if item.subject == last.issuer and _issued(last, item)), None)
    if root is None:
        raise _refused("the chain of the CPU evidence does not end at a root of the ModelWeights")
    chain = [*path, root]
    if _is_ca(chain[0]):
        raise _refused("the report is signed with the key of a CA")
    for certificate, issuer in pairwise(chain):
        if not _issued(certificate, issuer) or not _is_ca(issuer):
            raise _refused("the chain of the CPU evidence is broken")
    if any(not item.not_valid_before_utc <= now <= item.not_valid_after_utc for item in chain):
        raise _refused("a certificate of the CPU evidence is expired or not valid yet")
    return chain[0]


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        value = certificate.extensions.get_extension_for_oid(ExtensionOID.BASIC_CONSTRAINTS).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return isinstance(value, x509.BasicConstraints) and value.ca


def _extension(certificate: x509.Certificate, oid: ObjectIdentifier) -> bytes | None:
    try:
        value = certificate.extensions.get_extension_for_oid(oid).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    return value.value if isinstance(value, x509.UnrecognizedExtension) else None


def _check_signature(
    key: Any, numbers: tuple[int, int], signed: bytes, digest: hashes.HashAlgorithm, what: str
) -> None:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _refused(f"the signature of the {what} is not ECDSA")
    try:
        key.verify(encode_dss_signature(*numbers), signed, ec.ECDSA(digest))
    except InvalidSignature:
        raise _refused(f"the signature of the {what} is invalid") from None


def _halves(signature: bytes) -> tuple[int, int]:
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")


def _number(raw: bytes | memoryview, offset: int, size: int) -> int:
    return int.from_bytes(raw[offset : offset + size], "little")


def _refused(reason: str) -> RefusedError:
    return RefusedError(EVIDENCE, f"attestation: {reason}")
