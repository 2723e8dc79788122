"""Signing keys in a KMS or a PKCS#11 token: ECDSA over a digest that is computed here.

Only the digest leaves this process. Each provider returns its public key once and then signs. The providers ``gcp`` and
``azure`` wrap keys but do not sign here, and ``local`` has only symmetric keys.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from webhook.keys.errors import KmsConfigError, KmsUnavailableError
from webhook.keys.kms.base import load_extra

if TYPE_CHECKING:
    from collections.abc import Callable

_HASHES: dict[str, tuple[type[hashes.HashAlgorithm], int]] = {
    "secp256r1": (hashes.SHA256, 256),
    "secp384r1": (hashes.SHA384, 384),
    "secp521r1": (hashes.SHA512, 512),
}
_CALL_SECONDS = 30.0


class SigningBackend(Protocol):
    """One provider. Both methods may block."""

    def public_key(self) -> Any:
        """Return the public key. Raises `KmsError`."""

    def sign_digest(self, digest: bytes, bits: int) -> bytes:
        """Return the DER signature of a digest of ``bits`` bits. Raises `KmsError`."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An elliptic curve key that signs messages."""

    public: ec.EllipticCurvePublicKey
    sign: Callable[[bytes], bytes]


def open_signing_key(url: str, *, production: bool = False) -> SigningKey:
    """Return the key at ``url``, such as ``vault://transit/NAME`` or ``pkcs11://TOKEN/KEY``.

    Raises:
        KmsConfigError: the URL names no provider that can sign, or the key is not an elliptic curve key.
        KmsError: the KMS rejected the request, or failed.
    """
    provider, separator, path = url.partition("://")
    if not separator or provider not in _PROVIDERS or not re.fullmatch(r"[^\x00-\x20\x7f]{1,1000}", path):
        schemes = ", ".join(f"{name}://" for name in _PROVIDERS)
        raise KmsConfigError(f"{url[:200]!r} is not a signing key: use a file, or one of {schemes}")
    backend = _PROVIDERS[provider](path, production)
    public = backend.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name not in _HASHES:
        raise KmsConfigError(f"{url} is not an elliptic curve key on P-256, P-384 or P-521")
    algorithm, bits = _HASHES[public.curve.name]

    def sign(message: bytes) -> bytes:
        digest = hashes.Hash(algorithm())
        digest.update(message)
        return backend.sign_digest(digest.finalize(), bits)

    return SigningKey(public, sign)


class _Vault:
    """A Transit key of type ecdsa-p256, ecdsa-p384 or ecdsa-p521."""

    def __init__(self, path: str, production: bool) -> None:
        from webhook.keys.kms.vault import VaultKms  # noqa: PLC0415 - only this provider needs it

        self._path, self._production, self._make = path, production, VaultKms
        self._version = 0

    def public_key(self) -> Any:
        fields = self._run(lambda vault: vault.read_key())
        try:
            self._version = int(fields["latest_version"])
            return load_pem_public_key(str(fields["keys"][str(self._version)]["public_key"]).encode())
        except (KeyError, TypeError, ValueError):
            raise KmsConfigError(f"vault://{self._path} is not an elliptic curve key of Transit") from None

    def sign_digest(self, digest: bytes, bits: int) -> bytes:
        fields = {
            "input": base64.b64encode(digest).decode(),
            "prehashed": True,
            "marshaling_algorithm": "asn1",
            "key_version": self._version,
        }
        answer = self._run(lambda vault: vault.sign(fields, f"sha2-{bits}"))
        try:
            return base64.b64decode(str(answer["signature"]).rpartition(":")[2], validate=True)
        except (KeyError, binascii.Error):
            raise KmsUnavailableError(
                f"vault://{self._path} returned a response that is not Transit's"
            ) from None

    def _run(self, call: Callable[[Any], Any]) -> Any:
        async def run() -> Any:
            vault = self._make(self._path, production=self._production)
            try:
                return await call(vault)
            finally:
                await vault.close()

        return asyncio.run(asyncio.wait_for(run(), _CALL_SECONDS))


class _Aws:
    """A KMS key of usage SIGN_VERIFY."""

    def __init__(self, path: str, _production: bool) -> None:
        from webhook.keys.kms.aws import AwsKms  # noqa: PLC0415 - only this provider needs it

        self._path, self._make = path, AwsKms

    def public_key(self) -> Any:
        answer = self._run("get_public_key", {})
        return load_der_public_key(answer["PublicKey"])

    def sign_digest(self, digest: bytes, bits: int) -> bytes:
        fields = {"Message": digest, "MessageType": "DIGEST", "SigningAlgorithm": f"ECDSA_SHA_{bits}"}
        return bytes(self._run("sign", fields)["Signature"])

    def _run(self, operation: str, fields: dict[str, Any]) -> Any:
        async def run() -> Any:
            kms = self._make(self._path)
            try:
                return await kms.request(operation, fields)
            finally:
                await kms.close()

        return asyncio.run(asyncio.wait_for(run(), _CALL_SECONDS))


class _Pkcs11:
    """An elliptic curve key pair in a token; the private key never leaves it."""

    def __init__(self, path: str, _production: bool) -> None:
        from webhook.keys.kms.pkcs11 import Pkcs11Kms  # noqa: PLC0415 - only this provider needs it

        self._path, self._token = path, Pkcs11Kms(path)
        self._pkcs11 = load_extra("pkcs11", "pkcs11")
        self._ec = load_extra("pkcs11.util.ec", "pkcs11")

    def public_key(self) -> Any:
        kind = self._pkcs11.ObjectClass.PUBLIC_KEY
        return load_der_public_key(self._token.use_key(kind, self._ec.encode_ec_public_key))

    def sign_digest(self, digest: bytes, bits: int) -> bytes:  # noqa: ARG002 - the token signs any digest
        def sign(key: Any) -> bytes:
            return bytes(key.sign(digest, mechanism=self._pkcs11.Mechanism.ECDSA))

        return _der(self._token.use_key(self._pkcs11.ObjectClass.PRIVATE_KEY, sign))


def _der(raw: bytes) -> bytes:
    """The DER form of a signature that is r and s one after the other."""
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))


_PROVIDERS: dict[str, Callable[[str, bool], SigningBackend]] = {
    "vault": _Vault,
    "aws": _Aws,
    "pkcs11": _Pkcs11,
}
