"""The key sets of attestation issuers: fetched from the configured address only, kept for an hour, bounded in size.

A set is read again before its time when a token names a key that is not in it, but not more than once a minute.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from webhook.api.codes import ISSUER_UNAVAILABLE
from webhook.keys.broker.refusal import UnavailableError
from webhook.keys.http_body import TooLargeError, read_body

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

KEEP_SECONDS = 3600.0
REFRESH_SECONDS = 60.0
_MAX_BYTES = 256 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=5)


@dataclass(frozen=True, slots=True)
class _Kept:
    keys: Mapping[str, Any]
    at: float

    def holds(self, key_ids: frozenset[str]) -> bool:
        return key_ids <= {
            str(item.get("kid")) for item in self.keys.get("keys") or () if isinstance(item, dict)
        }


class KeySets:
    """Use from one event loop; `close` when done. ``tls`` is for issuers with an authority of their own."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._kept: dict[str, _Kept] = {}
        self._lock = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str, key_ids: frozenset[str]) -> Mapping[str, Any]:
        """The key set at ``url``, which should hold ``key_ids``; the caller finds out whether it does.

        Raises:
            UnavailableError: it cannot be had.
        """
        async with self._lock:
            kept = self._kept.get(url)
            age = time.monotonic() - kept.at if kept is not None else 0.0
            if kept is not None and age < (KEEP_SECONDS if kept.holds(key_ids) else REFRESH_SECONDS):
                return kept.keys
            keys = await self._fetch(url)
            self._kept[url] = _Kept(keys, time.monotonic())
            return keys

    async def close(self) -> None:
        """Close connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _fetch(self, url: str) -> Mapping[str, Any]:
        if not url.startswith("https://"):
            raise UnavailableError(
                ISSUER_UNAVAILABLE, f"the attestation issuer's key set has no https address: {url}"
            )
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        try:
            async with self._session.get(url, allow_redirects=False, ssl=self._tls or True) as response:
                body = await read_body(response.content, _MAX_BYTES)
                document = orjson.loads(body) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, TooLargeError, orjson.JSONDecodeError) as error:
            said = (str(error) or type(error).__name__)[:200]
            raise UnavailableError(
                ISSUER_UNAVAILABLE, f"the attestation issuer cannot be asked: {said}"
            ) from None
        if not isinstance(document, dict):
            raise UnavailableError(ISSUER_UNAVAILABLE, f"the attestation issuer gave no key set at {url}")
        return document
