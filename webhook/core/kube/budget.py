"""The work that one request may cause: one budget, passed down to everything that works on the request.

An object of a few megabytes can ask for millions of steps. Each part of an evaluation charges its steps before it takes
them. The request is denied when the budget is used up, and the denial names the part that used the most. A step is
about a microsecond of CPU. The limits are far above what real workloads need: a pod of 20 KB uses some 200 steps.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_STEPS: Final = 300_000
MAX_SECONDS: Final = 1.0
# What may be evaluated beside other requests; larger ones are evaluated in a process of their own.
INLINE_STEPS: Final = 30_000
# Objects that are not in the snapshot, and access checks, of one request.
MAX_LOOKUPS: Final = 256
# Facts of one kind of one pod template: the CEL engine takes time by the square of a list's length for `map`.
MAX_FACTS: Final = 2_000


class BudgetExceededError(Exception):
    """The request needs more work than one request may cause. ``part`` names what was too large."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason


class Budget:
    """What is left for one request. ``clock`` counts seconds from any moment; without one only the steps count.

    A budget that is not ``final`` ends in no denial: the caller evaluates the request again with a larger one.
    """

    __slots__ = ("_clock", "_end", "_left", "_seconds", "_steps", "_used", "final")

    def __init__(
        self,
        steps: int = MAX_STEPS,
        *,
        clock: Callable[[], float] | None = None,
        seconds: float = MAX_SECONDS,
        final: bool = True,
    ) -> None:
        self.final = final
        self._steps = self._left = steps
        self._clock, self._seconds = clock, seconds
        self._end = clock() + seconds if clock is not None else 0.0
        self._used: dict[str, int] = defaultdict(int)

    def charge(self, part: str, steps: int = 1) -> None:
        """Take steps for a part of the object, named in the plural. Raises `BudgetExceededError` when none are left."""
        self._left = left = self._left - steps
        self._used[part] += steps
        if left < 0:
            raise BudgetExceededError(
                self._largest(), f"evaluating them needs more than {self._steps:,} steps"
            )
        if self._clock is not None and self._clock() > self._end:
            raise BudgetExceededError(self._largest(), f"evaluating them takes more than {self._seconds:g} s")

    @property
    def used(self) -> int:
        """Number of steps taken."""
        return self._steps - self._left

    def _largest(self) -> str:
        return max(self._used, key=self._used.__getitem__)


def check_facts(part: str, count: int) -> None:
    """Raise `BudgetExceededError` if a pod template has more facts of one kind than policies may read."""
    if count > MAX_FACTS:
        raise BudgetExceededError(part, f"there are {count:,}, more than {MAX_FACTS:,}")


def check_lookups(count: int) -> None:
    """Raise `BudgetExceededError` if a request refers to more objects than may be looked up for it."""
    if count > MAX_LOOKUPS:
        raise BudgetExceededError(
            "references to other objects", f"{count:,} must be looked up, more than {MAX_LOOKUPS:,}"
        )
