"""Keeps a key management service well treated: a time limit a call, retries with full jitter, a circuit breaker.

Only failures that may pass are retried; a refusal goes to the caller at once. While the circuit is open the service
is not asked at all, until one trial call shows that it is back.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from webhook.keys.errors import KmsRefusedError, KmsUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from webhook.keys.kms.base import KeyContext, Kms
    from webhook.keys.secret import Secret

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds, and how often to ask."""

    call: float = 5.0
    attempts: int = 4
    first_pause: float = 0.2
    longest_pause: float = 5.0
    failures_to_open: int = 5
    open_for: float = 15.0


class GuardedKms:
    """A `Kms` around another one. ``clock``, ``sleep`` and ``jitter`` are there for tests."""

    def __init__(
        self,
        inner: Kms,
        url: str,
        patience: Patience = Patience(),
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.url = url
        self._inner, self._patience = inner, patience
        self._clock, self._sleep, self._jitter = clock, sleep, jitter
        self._failures = 0
        self._opened_at: float | None = None
        self._trial = False

    async def wrap(self, plaintext: Secret, context: KeyContext) -> bytes:
        """See `Kms.wrap`; `KmsUnavailableError` comes only after the last attempt."""
        return await self._patiently(lambda: self._inner.wrap(plaintext, context))

    async def unwrap(self, wrapped: bytes, context: KeyContext) -> bytearray:
        """See `Kms.unwrap`; `KmsUnavailableError` comes only after the last attempt."""
        return await self._patiently(lambda: self._inner.unwrap(wrapped, context))

    async def close(self) -> None:
        """See `Kms.close`."""
        await self._inner.close()

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        pause = self._patience.first_pause
        for attempt in range(1, self._patience.attempts + 1):
            try:
                return await self._once(call)
            except KmsUnavailableError:
                if attempt == self._patience.attempts or self._opened_at is not None:
                    raise
            await self._sleep(self._jitter(0, pause))
            pause = min(pause * 2, self._patience.longest_pause)
        raise AssertionError("unreachable")

    async def _once(self, call: Callable[[], Awaitable[T]]) -> T:
        self._enter()
        try:
            async with asyncio.timeout(self._patience.call):
                answer = await call()
        except (KmsUnavailableError, TimeoutError) as error:
            self._failed()
            if isinstance(error, KmsUnavailableError):
                raise
            raise KmsUnavailableError(f"{self.url} did not answer within {self._patience.call:g} s") from None
        except KmsRefusedError:
            self._answered()  # "no" is an answer: the service is there
            raise
        except BaseException:
            self._trial = False
            raise
        self._answered()
        return answer

    def _enter(self) -> None:
        if self._opened_at is None:
            return
        waited = self._clock() - self._opened_at
        if waited < self._patience.open_for or self._trial:
            remaining = max(self._patience.open_for - waited, 0)
            raise KmsUnavailableError(
                f"{self.url} failed repeatedly and is left alone for {remaining:.0f} s more"
            )
        self._trial = True

    def _answered(self) -> None:
        self._failures, self._opened_at, self._trial = 0, None, False

    def _failed(self) -> None:
        self._failures += 1
        self._trial = False
        if self._opened_at is not None or self._failures >= self._patience.failures_to_open:
            self._opened_at = self._clock()
