"""A KMS with a timeout for each call, retries with full jitter and a circuit breaker.

Only temporary failures are retried; a rejection is final. While the circuit is open, calls fail at once, until one
trial call succeeds.
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
class RetryPolicy:
    """Timeouts and pauses in seconds, and the number of attempts."""

    call: float = 5.0
    attempts: int = 4
    first_pause: float = 0.2
    longest_pause: float = 5.0
    failures_to_open: int = 5
    open_for: float = 15.0


class ResilientKms:
    """A `Kms` around another one. ``clock``, ``sleep`` and ``jitter`` exist for tests."""

    def __init__(
        self,
        inner: Kms,
        url: str,
        policy: RetryPolicy = RetryPolicy(),
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.url = url
        self._inner, self._policy = inner, policy
        self._clock, self._sleep, self._jitter = clock, sleep, jitter
        self._failures = 0
        self._opened_at: float | None = None
        self._trial = False

    async def wrap(self, plaintext: Secret, context: KeyContext) -> bytes:
        """See `Kms.wrap`; raises `KmsUnavailableError` only after the last attempt."""
        return await self._with_retries(lambda: self._inner.wrap(plaintext, context))

    async def unwrap(self, wrapped: bytes, context: KeyContext) -> bytearray:
        """See `Kms.unwrap`; raises `KmsUnavailableError` only after the last attempt."""
        return await self._with_retries(lambda: self._inner.unwrap(wrapped, context))

    async def close(self) -> None:
        """See `Kms.close`."""
        await self._inner.close()

    async def _with_retries(self, call: Callable[[], Awaitable[T]]) -> T:
        pause = self._policy.first_pause
        for attempt in range(1, self._policy.attempts + 1):
            try:
                return await self._once(call)
            except KmsUnavailableError:
                if attempt == self._policy.attempts or self._opened_at is not None:
                    raise
            await self._sleep(self._jitter(0, pause))
            pause = min(pause * 2, self._policy.longest_pause)
        raise AssertionError("unreachable")

    async def _once(self, call: Callable[[], Awaitable[T]]) -> T:
        self._enter()
        try:
            async with asyncio.timeout(self._policy.call):
                answer = await call()
        except (KmsUnavailableError, TimeoutError) as error:
            self._failed()
            if isinstance(error, KmsUnavailableError):
                raise
            raise KmsUnavailableError(f"{self.url} timed out after {self._policy.call:g} s") from None
        except KmsRefusedError:
            self._answered()  # a rejection shows that the KMS is reachable
            raise
        except BaseException:
            self._trial = False
            raise
        self._answered()
        return answer

    def _enter(self) -> None:
        if self._opened_at is None:
            return
        elapsed = self._clock() - self._opened_at
        if elapsed < self._policy.open_for or self._trial:
            remaining = max(self._policy.open_for - elapsed, 0)
            raise KmsUnavailableError(f"{self.url}: circuit breaker open, next attempt in {remaining:.0f} s")
        self._trial = True

    def _answered(self) -> None:
        self._failures, self._opened_at, self._trial = 0, None, False

    def _failed(self) -> None:
        self._failures += 1
        self._trial = False
        if self._opened_at is not None or self._failures >= self._policy.failures_to_open:
            self._opened_at = self._clock()
