"""Waits for something to become true, within a bound, and says what it last saw when it does not.

The one place where the harness sleeps: no test should sleep for a fixed time of its own. A bound is in seconds of a
machine that has nothing else to do. On a busy one it is longer by the number of processes that share a core.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
LOAD = Path("/proc/loadavg")


def slowness() -> float:
    """Return how many processes share a core, now or in the last minute; at least 1."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = LOAD.read_text().split()
        running = max(float(fields[0]), float(fields[3].partition("/")[0]))
        return max(1.0, running / len(os.sched_getaffinity(0)))
    return 1.0


def eventually(
    look: Callable[[], T],
    what: str,
    *,
    seconds: float = 30.0,
    every: float = 0.05,
    give_up: Callable[[], str | None] = lambda: None,
) -> T:
    """Call `look` until it returns something true, and return that.

    An AssertionError or OSError from `look` counts as not yet. `give_up` may return a reason to stop early.
    Raises AssertionError naming `what`, the seconds waited and what was seen last.
    """
    begun, load, looks = time.monotonic(), 0.0, 0
    while True:
        try:
            seen: object = look()
            if seen:
                return seen  # type: ignore[return-value]
        except (AssertionError, OSError) as problem:
            seen = problem
        reason, waited = give_up(), time.monotonic() - begun
        load, looks = load + slowness(), looks + 1
        slow = load / looks
        if reason is None and waited >= seconds * slow:
            reason = f"not within {waited:.0f} s ({seconds:g} s, and {slow:.1f} processes on a core)"
        if reason is not None:
            raise AssertionError(f"{what}: {reason}; last seen: {seen!r}")
        time.sleep(every)
