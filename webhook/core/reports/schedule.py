"""Which namespace a background scan evaluates next: the one that has waited longest, once per reason.

Pure; times are seconds of whichever clock the caller has. However often things change, every namespace gets its turn,
and none is looked at more often than once in ``settle`` seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True)
class _Turn:
    due: float
    taken: float = float("-inf")
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Turn:
    """A namespace to scan. ``whole``: because the interval has passed, not because an object changed."""

    namespace: str
    whole: bool


class Agenda:
    """Everything each ``interval`` seconds, and namespaces with changes ``settle`` seconds after them."""

    def __init__(self, interval: float, settle: float) -> None:
        self._interval = interval
        self._settle = settle
        self._turns: dict[str, _Turn] = {}

    def keep(self, namespaces: Iterable[str], now: float) -> set[str]:
        """Set the namespaces; return those that are gone."""
        current = set(namespaces)
        stale = self._turns.keys() - current
        for name in stale:
            del self._turns[name]
        for name in sorted(current - self._turns.keys()):
            self._turns[name] = _Turn(now)
        return stale

    def touch(self, namespace: str, now: float) -> None:
        """Note a change in a namespace; unknown namespaces are ignored."""
        turn = self._turns.get(namespace)
        if turn is not None:
            due = now + self._settle
            if due < turn.due:
                turn.due, turn.whole = due, False

    def touch_all(self, now: float) -> None:
        """Note a change that concerns all namespaces."""
        for name in self._turns:
            self.touch(name, now)

    def take(self, now: float) -> Turn | None:
        """Return the namespace that is due, if any; a later change makes it due again."""
        if not self._turns:
            return None
        name, turn = min(self._turns.items(), key=lambda item: (item[1].due, item[1].taken, item[0]))
        if turn.due > now:
            return None
        due = Turn(name, turn.whole)
        turn.taken, turn.due, turn.whole = now, now + self._interval, True
        return due

    def retry(self, namespace: str, now: float, seconds: float) -> None:
        """Note that a namespace could not be scanned, so that it is due again later."""
        turn = self._turns.get(namespace)
        if turn is not None:
            turn.due = min(turn.due, now + seconds)

    def waiting(self, now: float) -> int:
        """Number of namespaces that are due."""
        return sum(turn.due <= now for turn in self._turns.values())
