"""Keys that all parts share and that are made once: what access objects are signed with, what nonces are made under.

The Secrets are there and empty at first, and whoever of the controllers comes first fills them: a write meets the
version that was read. A key that is there is never replaced. Nothing of a key is logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from webhook.cluster.client.api import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.api.config import KeySecrets
    from webhook.cluster.controller.secrets import Secrets

    Files = Mapping[str, bytes]

SIGNING_KEY, SIGNING_PUBLIC, CHALLENGE_KEY = "signing.key", "signing.pub", "key"
_CHALLENGE_BYTES = 32
_FIRST_SECONDS, _LOOK_SECONDS = 2.0, 30.0
_OVERTAKEN = 409

log = logging.getLogger(__name__)


class KeyMissingError(Exception):
    """A Secret holds something, and not the key; the message is one line for an admin."""


@dataclass(slots=True)
class Keys:
    """The shared keys. What was read or made first is what this process works with, and is put back if it is lost."""

    secrets: Secrets
    settings: KeySecrets
    _held: dict[str, Files] = field(default_factory=dict)
    _said: str = ""

    @property
    def signing(self) -> bytes:
        """The private key in PEM; empty where it is nothing of ours, or `filled` has not ended."""
        return self._held.get(self.settings.signing, {}).get(SIGNING_KEY, b"")

    async def filled(self) -> None:
        """Return once every Secret holds its key."""
        while True:
            if await self.look():
                return
            await asyncio.sleep(_FIRST_SECONDS)

    async def keep(self) -> None:
        """Look again and again, until cancelled: an upgrade of the chart puts a Secret that was deleted back empty."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                await self.look()
            except Exception:  # the next look may go better, and what was read already is of use meanwhile
                log.exception("internal error")

    async def look(self) -> bool:
        """Fill what is empty; whether all is there now. What is in the way is said once."""
        try:
            for name, file, make in (
                (self.settings.signing, SIGNING_KEY, _signing),
                (self.settings.challenge, CHALLENGE_KEY, _challenge),
            ):
                if name:
                    await self._fill(name, file, make)
        except (ApiError, KeyMissingError) as error:
            if isinstance(error, ApiError) and error.status == _OVERTAKEN:
                return False
            if str(error) != self._said:
                self._said = str(error)
                log.error("keys cannot be read or made", extra={"fields": {"why": self._said}})  # noqa: TRY400
            return False
        self._said = ""
        return True

    async def _fill(self, name: str, file: str, make: Callable[[], Files]) -> None:
        secret = await self.secrets.read(name)
        if not secret.data:
            files = self._held.get(name) or make()
            await self.secrets.write(secret, files)
            self._held[name] = files
            log.info("filled a Secret with a key", extra={"fields": {"secret": name}})
        elif not secret.data.get(file):
            raise KeyMissingError(
                f"Secret {name} has no {file}: put it back, or empty the Secret for a new one"
            )
        else:
            self._held.setdefault(name, secret.data)


def _signing() -> Files:
    key = Ed25519PrivateKey.generate()
    return {
        SIGNING_KEY: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        SIGNING_PUBLIC: key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    }


def _challenge() -> Files:
    return {CHALLENGE_KEY: os.urandom(_CHALLENGE_BYTES)}
