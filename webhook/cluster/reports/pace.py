"""Limits the rate of a background task, so that requests of users come first."""

from __future__ import annotations

import asyncio
import time

# A shorter sleep is not worth its cost.
_SHORTEST = 0.01


class Pace:
    """At most so many steps a second; missed steps are not made up for."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        self._next = 0.0

    async def step(self) -> None:
        """Wait until the next step is due."""
        now = time.monotonic()
        self._next = max(self._next, now - _SHORTEST) + self._gap
        wait = self._next - now
        await asyncio.sleep(wait if wait > _SHORTEST else 0)
