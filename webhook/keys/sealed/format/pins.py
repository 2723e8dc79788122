"""Pins: what a ModelWeights object demands of a sealed directory's manifest.

A manifest's MAC proves only that a holder of the data key wrote it, and every pod that reads the weights holds that
key. The pins come from the ModelWeights object with each lease, so they also detect a rollback of the whole directory
and a manifest forged by a reader.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from dataclasses import dataclass
from typing import Any, Protocol

from webhook.keys.errors import SealedDataError

MAX_SIGNERS = 16
MAX_GENERATION = (1 << 53) - 1  # the largest integer that every JSON reader keeps exact
_KEY_SIZE = 32


class PinnedManifest(Protocol):
    """The fields of a verified manifest that pins restrict."""

    @property
    def generation(self) -> int:
        """The generation of the content."""

    @property
    def digest(self) -> str:
        """The digest of the stored manifest, empty if it was not read from storage."""

    @property
    def signer(self) -> str:
        """The public key of the verified signature, empty without one."""


@dataclass(frozen=True, slots=True)
class Pins:
    """``min_generation``: the oldest accepted generation. ``digest``: the manifest's digest, if only one is accepted.

    ``signers``: Ed25519 public keys in base64; if there are any, one of them must have signed the manifest.
    """

    min_generation: int = 0
    digest: str = ""
    signers: tuple[str, ...] = ()

    @classmethod
    def parse(cls, fields: Any) -> Pins:
        """Read the fields ``minGeneration``, ``manifestDigest`` and ``signers``; missing ones pin nothing.

        Raises:
            ValueError: a field has another form. A pin that cannot be read must not be ignored.
        """
        if not isinstance(fields, dict):
            raise ValueError("pins are not a JSON object")
        generation, digest, signers = (
            fields.get("minGeneration") or 0,
            fields.get("manifestDigest") or "",
            fields.get("signers") or [],
        )
        if type(generation) is not int or not 0 <= generation <= MAX_GENERATION:
            raise ValueError("minGeneration is not a generation number")
        if not isinstance(digest, str) or len(digest) > 128:
            raise ValueError("manifestDigest is not a digest")
        if not isinstance(signers, list) or len(signers) > MAX_SIGNERS:
            raise ValueError("signers is not a list of public keys")
        for signer in signers:
            public_key(signer)
        return cls(generation, digest, tuple(signers))

    def encode(self) -> bytes:
        """The pins as `parse` reads them."""
        fields = {
            "minGeneration": self.min_generation,
            "manifestDigest": self.digest,
            "signers": list(self.signers),
        }
        return json.dumps(fields).encode()

    def check(self, manifest: PinnedManifest, where: str) -> None:
        """Reject a verified manifest that does not meet the pins. ``where`` names the directory.

        Raises:
            SealedDataError: the manifest is too old, not the pinned one, or not signed by a pinned signer.
        """
        if manifest.generation < self.min_generation:
            raise SealedDataError(
                f"{where} was rolled back: it contains generation {manifest.generation}, "
                f"but generation {self.min_generation} or newer is required"
            )
        if self.digest and not hmac.compare_digest(self.digest.encode(), manifest.digest.encode()):
            raise SealedDataError(
                f"{where} does not contain the manifest that the ModelWeights pins: "
                f"its digest is {manifest.digest or 'unknown'}, not {self.digest[:80]}"
            )
        if not self.signers:
            return
        if not manifest.signer:
            raise SealedDataError(
                f"{where} has an unsigned manifest, but the ModelWeights pins its signers: "
                "sign it with `weightlock weights sign`"
            )
        if not any(hmac.compare_digest(signer.encode(), manifest.signer.encode()) for signer in self.signers):
            raise SealedDataError(
                f"{where} is signed by a key that the ModelWeights does not pin: {manifest.signer}"
            )


NO_PINS = Pins()


def public_key(text: Any) -> bytes:
    """The 32 bytes of an Ed25519 public key in base64.

    Raises:
        ValueError: it is not one.
    """
    if not isinstance(text, str) or len(text) > 64:
        raise ValueError("not an Ed25519 public key in base64")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not an Ed25519 public key in base64") from None
    # Base64 has several spellings of the same bytes, and signers are compared by their text.
    if len(raw) != _KEY_SIZE or base64.b64encode(raw).decode() != text:
        raise ValueError("not an Ed25519 public key in base64")
    return raw
