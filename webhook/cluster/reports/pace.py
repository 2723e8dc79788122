"""Keeps a background task slow, so that what people wait for goes first."""

from __future__ import annotations

import asyncio
import time

# A sleep of less is not worth its cost; the loop gets its turn anyway.
_SHORTEST = 0.01


class Pace:
    """At most so many steps a second, none of them made up for later."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        self._next = 0.0

    async def step(self) -> None:
        """Wait until the next step may be made."""
        now = time.monotonic()
        self._next = max(self._next, now - _SHORTEST) + self._gap
        wait = self._next - now
        await asyncio.sleep(wait if wait > _SHORTEST else 0)
