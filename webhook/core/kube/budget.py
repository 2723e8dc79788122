"""The work that one request may cause: one budget, passed down to everything that works on the request.

An object of a few megabytes can ask for millions of steps. Each part of the evaluation charges what it does before it
does it; the request is denied when the budget is used up, and the denial names the part that used the most. The limits
are far above what any workload in the project's corpora needs (`bench/growth.py` prints their use).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# One step is about a microsecond.
MAX_STEPS: Final = 400_000
MAX_SECONDS: Final = 1.0
# Objects that are not in the snapshot, and access checks.
MAX_LOOKUPS: Final = 256


class BudgetExceededError(Exception):
    """The request needs more work than one request may cause. ``part`` names what was too large."""

    def __init__(self, part: str, detail: str) -> None:
        super().__init__(f"{part}: {detail}")
        self.part = part
        self.detail = detail


class Budget:
    """What is left for one request. ``clock`` counts seconds; without one, only the steps count."""

    __slots__ = ("_clock", "_end", "_largest", "_steps", "_used")

    def __init__(
        self,
        steps: int = MAX_STEPS,
        *,
        clock: Callable[[], float] | None = None,
        seconds: float = MAX_SECONDS,
    ) -> None:
        self._steps = steps
        self._clock = clock
        self._end = clock() + seconds if clock is not None else 0.0
        self._used: dict[str, int] = {}

    def charge(self, part: str, steps: int = 1) -> None:
        """Take steps for a part of the object. Raises `BudgetExceededError` when none are left."""
        self._steps -= steps
        self._used[part] = self._used.get(part, 0) + steps
        if self._steps < 0:
            raise BudgetExceededError(self.largest, f"evaluating it needs more than {MAX_STEPS:,} steps")
        if self._clock is not None and self._clock() > self._end:
            raise BudgetExceededError(self.largest, f"evaluating it takes more than {MAX_SECONDS:g} s")

    @property
    def largest(self) -> str:
        """The part that has used the most steps."""
        return max(self._used, key=self._used.__getitem__, default="the object")
