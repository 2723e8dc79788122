"""What travels from broker to agent: the keys, encrypted to the agent's one-time public key with HPKE (RFC 9180).

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, base mode, one message a key pair. The info string binds nonce and
model, so an answer cannot be used in place of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from webhook.keys.errors import SealedDataError
from webhook.keys.sealed.streaming import KEY_SIZE
from webhook.keys.secret import Secret, wipe

if TYPE_CHECKING:
    from collections.abc import Mapping

PUBLIC_KEY_SIZE = 32
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class AgentKey:
    """The agent's key pair for one exchange."""

    private: X25519PrivateKey

    @classmethod
    def generate(cls) -> AgentKey:
        """A fresh one."""
        return cls(X25519PrivateKey.generate())

    @property
    def public(self) -> bytes:
        """The 32 bytes that go to the broker."""
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def open(self, encrypted: bytes, nonce: str, model: str) -> dict[str, Secret]:
        """The keys in an answer, by key id.

        Raises:
            SealedDataError: the answer was not made for this key, nonce and model.
        """
        try:
            packed = bytearray(_SUITE.decrypt(encrypted, self.private, info=_info(nonce, model)))
        except (InvalidTag, ValueError):
            raise SealedDataError("the broker's answer was not made for this request") from None
        try:
            return _unpack(packed)
        finally:
            wipe(packed)


def seal_keys(keys: Mapping[str, Secret], public_key: bytes, nonce: str, model: str) -> bytes:
    """Encrypt ``keys``, by key id, to the agent with this public key.

    Raises:
        ValueError: the public key is no usable X25519 key.
    """
    recipient = X25519PublicKey.from_public_bytes(public_key)
    packed = bytearray()
    try:
        for key_id, key in keys.items():
            name = key_id.encode()
            with key.view() as view:
                packed += bytes([len(name)]) + name + view
        return _SUITE.encrypt(packed, recipient, info=_info(nonce, model))
    finally:
        wipe(packed)


def _unpack(packed: bytearray) -> dict[str, Secret]:
    keys: dict[str, Secret] = {}
    position = 0
    while position < len(packed):
        start = position + 1
        end = start + packed[position]
        position = end + KEY_SIZE
        if position > len(packed):
            raise SealedDataError("the broker's answer was cut short")
        keys[packed[start:end].decode()] = Secret(packed[end:position])
    return keys


def _info(nonce: str, model: str) -> bytes:
    return f"weightlock.dev/release/v1\n{nonce}\n{model}".encode()
