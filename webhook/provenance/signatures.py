"""Public keys and raw signatures: ECDSA (P-256, P-384, P-521), Ed25519 and RSA of at least 2,048 bits.

A key decides the algorithm, never the signed document. Weak keys are rejected when they are loaded.
"""

from __future__ import annotations

import hashlib
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from webhook.provenance import ed25519ph
from webhook.provenance.errors import MalformedError, TamperedError

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | Ed25519PublicKey | rsa.RSAPublicKey

_MIN_RSA_BITS: Final = 2048
_MAX_RSA_BITS: Final = 8192
_MAX_PEM: Final = 16 * 1024
_CURVES: Final[dict[str, type[hashes.HashAlgorithm]]] = {
    "secp256r1": hashes.SHA256,
    "secp384r1": hashes.SHA384,
    "secp521r1": hashes.SHA512,
}


def load_public_key(data: bytes) -> PublicKey:
    """Load a public key from PEM, DER or a PEM certificate.

    Raises:
        MalformedError: The data is not a public key, or the key is too weak or of another type.
    """
    if len(data) > _MAX_PEM:
        raise MalformedError("the public key is larger than 16 KiB")
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            key: object = x509.load_pem_x509_certificate(data).public_key()
        elif data.lstrip().startswith(b"-----BEGIN"):
            key = load_pem_public_key(data)
        else:
            key = load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedError(f"cannot read the public key: {error}") from error
    return checked(key)


def certificate_key(data: bytes) -> PublicKey:
    """Return the key of a DER certificate. Raises `MalformedError`."""
    try:
        return checked(x509.load_der_x509_certificate(data).public_key())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedError(f"cannot read the certificate: {error}") from error


def checked(key: object) -> PublicKey:
    """Return the key if its type and size are accepted. Raises `MalformedError` otherwise."""
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise MalformedError(f"the curve {key.curve.name} is not accepted: use P-256, P-384 or P-521")
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if not _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
            raise MalformedError(
                f"an RSA key of {key.key_size} bits is not accepted: use 2,048 to 8,192 bits"
            )
        return key
    raise MalformedError("the key is not an ECDSA, Ed25519 or RSA key")


def spki(key: PublicKey) -> bytes:
    """Return the SubjectPublicKeyInfo (DER)."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem(key: PublicKey) -> bytes:
    """Return the SubjectPublicKeyInfo (PEM)."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: PublicKey) -> str:
    """Return ``sha256:<hex>`` of the SubjectPublicKeyInfo: the name of the key in statements and in CEL."""
    return f"sha256:{hashlib.sha256(spki(key)).hexdigest()}"


def verify(key: PublicKey, signature: bytes, message: bytes) -> None:
    """Verify a signature over a message. Raises `TamperedError` if it does not match."""
    if isinstance(key, Ed25519PublicKey):
        try:
            key.verify(signature, message)
        except InvalidSignature as error:
            raise TamperedError("the signature does not match the content") from error
        return
    for algorithm in _hashes(key):
        digest = hashes.Hash(algorithm)
        digest.update(message)
        if _matches(key, signature, digest.finalize(), algorithm):
            return
    raise TamperedError("the signature does not match the content")


def verify_signer(key: PublicKey, signature: bytes, message: bytes) -> None:
    """Verify a signature by a signer's key: as `verify`, and for Ed25519 keys also Ed25519ph, which cosign uses.

    Raises:
        TamperedError: The signature does not match.
    """
    try:
        verify(key, signature, message)
    except TamperedError:
        if not isinstance(key, Ed25519PublicKey):
            raise
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        if not ed25519ph.verifies(raw, signature, message):
            raise


def verify_sha256(key: PublicKey, signature: bytes, digest: bytes) -> None:
    """Verify a signature over content of which only the SHA-256 is available. Ed25519 keys need the content."""
    if not isinstance(key, Ed25519PublicKey) and _matches(key, signature, digest, hashes.SHA256()):
        return
    raise TamperedError("the signature does not match the digest")


def _hashes(key: PublicKey) -> tuple[hashes.HashAlgorithm, ...]:
    """cosign signs with SHA-256 for every key; the algorithm registry of Sigstore pairs each curve with its hash."""
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name != "secp256r1":
        return (_CURVES[key.curve.name](), hashes.SHA256())
    return (hashes.SHA256(),)


def _matches(key: PublicKey, signature: bytes, digest: bytes, algorithm: hashes.HashAlgorithm) -> bool:
    prehashed = Prehashed(algorithm)
    if isinstance(key, ec.EllipticCurvePublicKey):
        try:
            key.verify(signature, digest, ec.ECDSA(prehashed))
        except InvalidSignature:
            return False
        return True
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    # A KMS may sign with PSS. Its salt is as long as the digest.
    pss = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
    for scheme in (padding.PKCS1v15(), pss):
        try:
            key.verify(signature, digest, scheme, prehashed)
        except InvalidSignature:
            continue
        return True
    return False
