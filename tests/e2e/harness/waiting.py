"""Waits for something to become true, within a bound, and says what it last saw when it does not.

The one place where the harness sleeps: no test should sleep for a fixed time of its own.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


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
    deadline = time.monotonic() + seconds
    while True:
        try:
            seen: object = look()
            if seen:
                return seen  # type: ignore[return-value]
        except (AssertionError, OSError) as problem:
            seen = problem
        reason = give_up()
        if reason is None and time.monotonic() >= deadline:
            reason = f"not within {seconds:g} s"
        if reason is not None:
            raise AssertionError(f"{what}: {reason}; last seen: {seen!r}")
        time.sleep(every)
