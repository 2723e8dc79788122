"""The encrypted keys between broker and agent, with HPKE (RFC 9180).

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, base mode, one message for each key pair. The info string binds
nonce, model and lease, so a response is never valid for another request, and a proxy cannot extend a lease. RFC 9180
(section 8.1) allows application data in the info string as well as in the associated data; `cryptography` offers the
former.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from webhook.keys.errors import SealedDataError
from webhook.keys.secret import unpack_keys, wipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.keys.secret import Secret

PUBLIC_KEY_SIZE = 32
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class AgentKey:
    """The agent's key pair for one exchange."""

    private: X25519PrivateKey

    @classmethod
    def generate(cls) -> AgentKey:
        """Generate a new key pair."""
        return cls(X25519PrivateKey.generate())

    @property
    def public(self) -> bytes:
        """The 32 bytes that are sent to the broker."""
        return self.private.public_key().public_bytes_raw()

    def open(self, encrypted: bytes, nonce: str, model: str, lease: bytes | None) -> dict[str, Secret]:
        """Decrypt the keys of a response, by key id. ``lease`` are the canonical bytes of its lease.

        Raises:
            SealedDataError: the response was not made for this key, nonce, model and lease.
        """
        packed = self.open_packed(encrypted, nonce, model, lease)
        try:
            return unpack_keys(packed)
        finally:
            wipe(packed)

    def open_packed(self, encrypted: bytes, nonce: str, model: str, lease: bytes | None) -> bytearray:
        """Decrypt a response as `open` does, but leave its keys packed: see `webhook.keys.secret.unpack_keys`."""
        try:
            return bytearray(_SUITE.decrypt(encrypted, self.private, info=_info(nonce, model, lease)))
        except (InvalidTag, ValueError):
            raise SealedDataError("the broker's response does not belong to this request") from None

    def close(self) -> None:
        """Do nothing: the key pair leaves with the object. `ExchangeProcess` has a process to end."""


def check_public_key(public_key: bytes) -> None:
    """Reject a public key of low order: keys encrypted to it are readable without any private key (RFC 7748, 6.1).

    Raises:
        ValueError: the key is not a usable X25519 public key.
    """
    X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public_key))


def seal_keys(
    keys: Mapping[str, Secret], public_key: bytes, nonce: str, model: str, lease: bytes | None
) -> bytes:
    """Encrypt ``keys``, by key id, to the agent with this public key. ``lease`` is None for agents of version 0.2.

    Raises:
        ValueError: the key is not a usable X25519 public key.
    """
    recipient = X25519PublicKey.from_public_bytes(public_key)
    packed = bytearray()
    try:
        for key_id, key in keys.items():
            name = key_id.encode()
            with key.view() as view:
                packed += bytes([len(name)]) + name + view
        return _SUITE.encrypt(packed, recipient, info=_info(nonce, model, lease))
    finally:
        wipe(packed)


def _info(nonce: str, model: str, lease: bytes | None) -> bytes:
    if lease is None:
        return f"weightlock.dev/release/v1\n{nonce}\n{model}".encode()
    return f"weightlock.dev/release/v2\n{nonce}\n{model}\n{hashlib.sha256(lease).hexdigest()}".encode()
