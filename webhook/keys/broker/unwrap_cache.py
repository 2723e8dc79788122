"""A short cache of unwrapped keys, so that a job of a thousand pods does not exceed the quota of the KMS.

Off by default. It only avoids the call to the KMS: each release is decided before the cache is read. Concurrent
requests for one key share one call. Keys are on locked pages, and a timer wipes them when they expire.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from webhook.keys.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

_MAX_KEYS = 256


@dataclass(slots=True)
class UnwrapCache:
    """Use from one event loop. ``seconds`` is how long a key stays; 0 turns the cache off."""

    seconds: float = 0.0
    _keys: dict[Hashable, Secret] = field(default_factory=dict)
    _calls: dict[Hashable, asyncio.Task[Secret]] = field(default_factory=dict)
    _timers: dict[Hashable, asyncio.TimerHandle] = field(default_factory=dict)

    async def get(self, name: Hashable, unwrap: Callable[[], Awaitable[Secret]]) -> Secret:
        """The key ``name``: a copy of the cached one, or the result of ``unwrap``. The caller wipes it.

        Raises:
            Exception: whatever ``unwrap`` raises; a failure is never cached.
        """
        if self.seconds <= 0:
            return await unwrap()
        while (cached := self._keys.get(name)) is None:
            call = self._calls.get(name)
            if call is None:
                call = self._calls[name] = asyncio.create_task(self._fill(name, unwrap))
                call.add_done_callback(_retrieve)
            # One request that is cancelled must not cancel the call that the others wait for. The key may be dropped
            # before this request continues. Then it is unwrapped again.
            await asyncio.shield(call)
        return _copy(cached)

    async def _fill(self, name: Hashable, unwrap: Callable[[], Awaitable[Secret]]) -> Secret:
        try:
            secret = await unwrap()
        finally:
            self._calls.pop(name, None)
        self._drop(name)
        if len(self._keys) >= _MAX_KEYS:
            self._drop(next(iter(self._keys)))
        self._keys[name] = secret
        self._timers[name] = asyncio.get_running_loop().call_later(self.seconds, self._drop, name)
        return secret

    def _drop(self, name: Hashable) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()
        if (secret := self._keys.pop(name, None)) is not None:
            secret.wipe()

    def close(self) -> None:
        """Wipe all keys."""
        for call in self._calls.values():
            call.cancel()
        for name in list(self._keys):
            self._drop(name)


def _copy(secret: Secret) -> Secret:
    with secret.view() as view:
        return Secret(view)


def _retrieve(call: asyncio.Task[Secret]) -> None:
    """Mark the exception of a call as retrieved, in case all requests that waited for it were cancelled."""
    if not call.cancelled():
        call.exception()
