"""Lets reviews in as fast as they can be judged, and turns the rest away while that is still of use.

Judging a review keeps the event loop busy, so under overload the loop itself is the queue, and one that nobody can
see. The gate makes it visible: within one turn of the loop reviews are judged for `SLICE_SECONDS` at most; those that
come later in the turn wait in line, in order, while the loop goes on to read, to refuse and to answer health checks.
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
    """There is no room, or the answer would come too late; the message says which."""


class Gate:
    """One gate for all reviews of a process. Use it from the event loop's thread only.

    ``waiting_limit`` reviews may wait in line, and ``asking_limit`` may at once be out asking the cluster something.
    """

    __slots__ = ("_asking", "_asking_limit", "_line", "_loop", "_pumping", "_slice_end", "_waiting_limit")

    def __init__(self, *, waiting_limit: int, asking_limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting_limit = waiting_limit
        self._asking_limit = asking_limit
        self._asking = 0
        self._line: deque[tuple[asyncio.Future[None], float]] = deque()
        self._pumping = False
        self._slice_end = 0.0

    @property
    def waiting(self) -> int:
        """How many reviews stand in line."""
        return len(self._line)

    @property
    def asking_now(self) -> int:
        """How many reviews wait for the cluster's answer."""
        return self._asking

    def open(self) -> bool:
        """Whether a review may be judged right now; if not, `wait` for its turn."""
        if self._pumping:
            return not self._line and self._loop.time() < self._slice_end
        self._slice_end = self._loop.time() + SLICE_SECONDS
        self._keep_pumping()
        return True

    async def wait(self, deadline: float) -> None:
        """Stand in line until it is this review's turn; ``deadline`` is in the loop's time.

        Raises `OverloadedError` where the line is full, or the turn comes after the deadline.
        """
        if len(self._line) >= self._waiting_limit:
            raise OverloadedError(f"{len(self._line)} requests are waiting already")
        turn: asyncio.Future[None] = self._loop.create_future()
        self._line.append((turn, deadline))
        if not self._pumping:
            self._keep_pumping()
        await turn

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Held while the cluster is asked something. Raises `OverloadedError` where too many are."""
        if self._asking >= self._asking_limit:
            raise OverloadedError(f"{self._asking} requests are waiting for the API server")
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1

    def _pump(self) -> None:
        """Once a turn of the loop: whoever waits too long is told so, and then the next one is let in."""
        now = self._loop.time()
        while self._line:
            turn, deadline = self._line.popleft()
            if turn.done():
                continue
            if now >= deadline:
                turn.set_exception(OverloadedError("the line is longer than the API server waits"))
                continue
            turn.set_result(None)
            break
        self._pumping = False
        if self._line:
            self._slice_end = 0.0
            self._keep_pumping()

    def _keep_pumping(self) -> None:
        self._pumping = True
        self._loop.call_soon(self._pump)
