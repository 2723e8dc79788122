"""Lets reviews in as fast as they can be evaluated, and rejects the rest while that still helps the caller.

Evaluating a review keeps the event loop busy, so under overload the loop itself would be an invisible queue. The
admission queue makes it visible: within one turn of the loop reviews are evaluated for `SLICE_SECONDS` at most; those
that come later wait in order, while the loop continues to read, to reject and to report its state.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SLICE_SECONDS = 0.05


class OverloadedError(Exception):
    """The queue is full, or the response would come too late; the message reports which."""


class AdmissionQueue:
    """The queue of all reviews of a process. Use it from the event loop's thread only.

    ``max_queued`` reviews may wait to be evaluated, ``max_lookups`` may wait for the API server at a time.
    """

    __slots__ = ("_lookups", "_loop", "_max_lookups", "_max_queued", "_pumping", "_queue", "_slice_end")

    def __init__(self, *, max_queued: int, max_lookups: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._max_queued = max_queued
        self._max_lookups = max_lookups
        self._lookups = 0
        self._queue: deque[tuple[asyncio.Future[None], float]] = deque()
        self._pumping = False
        self._slice_end = 0.0

    @property
    def waiting(self) -> int:
        """Number of reviews that wait to be evaluated."""
        return len(self._queue)

    @property
    def lookups(self) -> int:
        """Number of reviews that wait for the API server."""
        return self._lookups

    def is_open(self) -> bool:
        """Whether a review may be evaluated right now; if not, `wait`."""
        if self._pumping:
            return not self._queue and self._loop.time() < self._slice_end
        self._slice_end = self._loop.time() + SLICE_SECONDS
        self._schedule()
        return True

    async def wait(self, deadline: float) -> None:
        """Wait until this review may be evaluated; ``deadline`` is in the loop's time.

        Raises `OverloadedError` if the queue is full, or if the review's turn comes after the deadline.
        """
        if len(self._queue) >= self._max_queued:
            raise OverloadedError(f"{len(self._queue)} requests are queued already")
        slot: asyncio.Future[None] = self._loop.create_future()
        self._queue.append((slot, deadline))
        if not self._pumping:
            self._schedule()
        await slot

    @asynccontextmanager
    async def lookup(self) -> AsyncIterator[None]:
        """Hold a place while the API server is queried. Raises `OverloadedError` if there is none."""
        if self._lookups >= self._max_lookups:
            raise OverloadedError(f"{self._lookups} requests are waiting for the API server")
        self._lookups += 1
        try:
            yield
        finally:
            self._lookups -= 1

    def _pump(self) -> None:
        """Once per turn of the loop, reject the reviews that have waited too long, and let the next one in."""
        now = self._loop.time()
        while self._queue:
            slot, deadline = self._queue.popleft()
            if slot.done():
                continue
            if now >= deadline:
                slot.set_exception(OverloadedError("queue time exceeds the admission timeout"))
                continue
            slot.set_result(None)
            break
        self._pumping = False
        if self._queue:
            self._slice_end = 0.0
            self._schedule()

    def _schedule(self) -> None:
        self._pumping = True
        self._loop.call_soon(self._pump)
