"""Stateless nonces: time and randomness under a MAC whose key all replicas share, so any replica can verify them.

A nonce is bound to the public key of the agent that requested it. Only that agent can decrypt the response to a
replayed request, and evidence over the nonce also covers the public key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.api.codes import NONCE
from webhook.keys.broker.refusal import RefusedError

if TYPE_CHECKING:
    from webhook.keys.secret import Secret

LIFETIME = 120
SKEW = 5
_TIME, _RANDOM, _MAC = 8, 16, 32


@dataclass(frozen=True, slots=True)
class Challenges:
    """Issues and checks nonces under ``key``, which all replicas share. Times are Unix seconds."""

    key: Secret

    def issue(self, public_key: bytes, now: float) -> str:
        """Issue a nonce for the agent with this public key."""
        body = int(now).to_bytes(_TIME) + os.urandom(_RANDOM)
        return base64.urlsafe_b64encode(body + self._mac(body, public_key)).decode()

    def check(self, nonce: str, public_key: bytes, now: float) -> None:
        """Verify that this broker issued the nonce for this public key, and that it is recent.

        Raises:
            RefusedError: with code `NONCE`.
        """
        try:
            raw = base64.b64decode(nonce, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        # Base64 has several spellings of the same bytes. A nonce is spent by its text, so only one spelling is valid.
        if base64.urlsafe_b64encode(raw).decode() != nonce:
            raw = b""
        body, mac = raw[: _TIME + _RANDOM], raw[_TIME + _RANDOM :]
        if len(raw) != _TIME + _RANDOM + _MAC or not hmac.compare_digest(self._mac(body, public_key), mac):
            raise RefusedError(NONCE, "the nonce was not issued by this broker for this agent's key")
        age = now - int.from_bytes(body[:_TIME])
        if not -SKEW <= age <= LIFETIME:
            raise RefusedError(NONCE, f"the nonce is older than {LIFETIME} seconds: request a new one")

    def _mac(self, body: bytes, public_key: bytes) -> bytes:
        with self.key.view() as key:
            return hmac.digest(bytes(key), b"weightlock challenge v1\n" + body + public_key, "sha256")


def evidence_nonce(nonce: str) -> str:
    """The nonce for attestation evidence: 32 bytes in hexadecimal, as NVIDIA's tools require it."""
    return hashlib.sha256(b"weightlock evidence v1\n" + nonce.encode()).hexdigest()
