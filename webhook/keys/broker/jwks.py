"""The key sets of attestation issuers: fetched from the configured URL only, cached for an hour, bounded in size.

A set is fetched again early if a token names a key that is not in it, but at most once a minute. Each issuer has its
own lock, a failure is remembered for some seconds, and an old set stays valid for some hours while its issuer is
unreachable: one issuer that does not respond must not delay the others.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
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
STALE_SECONDS = 6 * 3600.0
FAILURE_SECONDS = 10.0
_MAX_BYTES = 256 * 1024
_MAX_ISSUERS = 1024
_TIMEOUT = aiohttp.ClientTimeout(total=5)


@dataclass(frozen=True, slots=True)
class _KeySet:
    keys: Mapping[str, Any]
    at: float

    def contains(self, key_ids: frozenset[str]) -> bool:
        return key_ids <= {
            str(item.get("kid")) for item in self.keys.get("keys") or () if isinstance(item, dict)
        }


@dataclass(slots=True)
class _Issuer:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    cached: _KeySet | None = None
    failure: UnavailableError | None = None
    failed_at: float = 0.0


class KeySets:
    """Use from one event loop, and `close` when done. ``tls`` is for issuers with a private CA."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._issuers: OrderedDict[str, _Issuer] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str, key_ids: frozenset[str]) -> Mapping[str, Any]:
        """The key set at ``url``, which should contain ``key_ids``; the caller checks whether it does.

        Raises:
            UnavailableError: the key set cannot be fetched, and no recent copy is cached.
        """
        issuer = self._issuer(url)
        if (fresh := self._fresh(issuer, key_ids)) is not None:
            return fresh
        async with issuer.lock:
            if (fresh := self._fresh(issuer, key_ids)) is not None:
                return fresh  # another request fetched it while this one waited
            if issuer.failure is not None and time.monotonic() - issuer.failed_at < FAILURE_SECONDS:
                return self._stale(issuer, issuer.failure)
            try:
                keys = await self._fetch(url)
            except UnavailableError as error:
                issuer.failure, issuer.failed_at = error, time.monotonic()
                return self._stale(issuer, error)
            issuer.cached, issuer.failure = _KeySet(keys, time.monotonic()), None
            return keys

    async def close(self) -> None:
        """Close connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _issuer(self, url: str) -> _Issuer:
        issuer = self._issuers.setdefault(url, _Issuer())
        self._issuers.move_to_end(url)
        if len(self._issuers) > _MAX_ISSUERS:
            self._issuers.popitem(last=False)
        return issuer

    def _fresh(self, issuer: _Issuer, key_ids: frozenset[str]) -> Mapping[str, Any] | None:
        cached = issuer.cached
        if cached is None:
            return None
        limit = KEEP_SECONDS if cached.contains(key_ids) else REFRESH_SECONDS
        return cached.keys if time.monotonic() - cached.at < limit else None

    def _stale(self, issuer: _Issuer, error: UnavailableError) -> Mapping[str, Any]:
        cached = issuer.cached
        if cached is None or time.monotonic() - cached.at >= STALE_SECONDS:
            raise UnavailableError(error.code, str(error))
        return cached.keys

    async def _fetch(self, url: str) -> Mapping[str, Any]:
        if not url.startswith("https://"):
            raise UnavailableError(
                ISSUER_UNAVAILABLE,
                f"the URL of the attestation issuer's key set must begin with https://: {url}",
            )
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        try:
            async with self._session.get(url, allow_redirects=False, ssl=self._tls or True) as response:
                body = await read_body(response.content, _MAX_BYTES)
                document = orjson.loads(body) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, TooLargeError, orjson.JSONDecodeError) as error:
            reason = (str(error) or type(error).__name__)[:200]
            raise UnavailableError(
                ISSUER_UNAVAILABLE, f"cannot fetch the attestation issuer's key set: {reason}"
            ) from None
        if not isinstance(document, dict):
            raise UnavailableError(ISSUER_UNAVAILABLE, f"the attestation issuer has no key set at {url}")
        return document
