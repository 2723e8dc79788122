"""Keys that all components share and that are generated once: the signing key and the key for nonces.

The chart creates the Secrets empty, and the first controller fills them. A write must match the resource version of
the read. An existing key is never replaced. Keys are never logged.
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

SIGNING_KEY, SIGNING_PUBLIC, CHALLENGE_KEY, STAMP_KEY = "signing.key", "signing.pub", "key", "key"
_RANDOM_BYTES = 32
_FIRST_SECONDS, _CHECK_SECONDS = 2.0, 30.0
_OVERTAKEN = 409

log = logging.getLogger(__name__)


class KeyMissingError(Exception):
    """A Secret has content but lacks the key; the message is one line for an admin."""


@dataclass(slots=True)
class Keys:
    """The shared keys. This process uses the first key it read or generated, and restores it if it is lost."""

    secrets: Secrets
    settings: KeySecrets
    _files: dict[str, Files] = field(default_factory=dict)
    _last_error: str = ""

    @property
    def signing(self) -> bytes:
        """The private key in PEM; empty if it is managed elsewhere, or before `filled` returned."""
        return self._files.get(self.settings.signing, {}).get(SIGNING_KEY, b"")

    @property
    def stamp(self) -> bytes:
        """The key for stamps; empty if there is none, or before `filled` returned."""
        return self._files.get(self.settings.stamp, {}).get(STAMP_KEY, b"")

    async def filled(self) -> None:
        """Return when every Secret contains its key."""
        while True:
            if await self.check():
                return
            await asyncio.sleep(_FIRST_SECONDS)

    async def watch(self) -> None:
        """Check until cancelled: an upgrade of the chart restores a deleted Secret without its key."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            try:
                await self.check()
            except Exception:  # the next check may succeed, and the keys in memory remain usable
                log.exception("internal error")

    async def check(self) -> bool:
        """Fill empty Secrets; return whether all have their key. An error is logged once."""
        try:
            for name, file, make in (
                (self.settings.signing, SIGNING_KEY, _signing),
                (self.settings.challenge, CHALLENGE_KEY, _random),
                (self.settings.stamp, STAMP_KEY, _random),
            ):
                if name:
                    await self._fill(name, file, make)
        except (ApiError, KeyMissingError) as error:
            if isinstance(error, ApiError) and error.status == _OVERTAKEN:
                return False
            if str(error) != self._last_error:
                self._last_error = str(error)
                log.error("cannot read or create keys", extra={"fields": {"why": self._last_error}})  # noqa: TRY400
            return False
        self._last_error = ""
        return True

    async def _fill(self, name: str, file: str, make: Callable[[], Files]) -> None:
        secret = await self.secrets.read(name)
        if not secret.data:
            files = self._files.get(name) or make()
            await self.secrets.write(secret, files)
            self._files[name] = files
            log.info("created a key", extra={"fields": {"secret": name}})
        elif not secret.data.get(file):
            raise KeyMissingError(
                f"Secret {name} has no {file}: restore it, or remove all data from the Secret for a new key"
            )
        else:
            self._files.setdefault(name, secret.data)


def _signing() -> Files:
    key = Ed25519PrivateKey.generate()
    return {
        SIGNING_KEY: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        SIGNING_PUBLIC: key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    }


def _random() -> Files:
    return {CHALLENGE_KEY: os.urandom(_RANDOM_BYTES)}
