"""Which namespace a background scan looks at next: what waited longest, and nothing twice for one reason.

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
    """A namespace to look at. ``whole``: not because something changed, but because its time has come again."""

    namespace: str
    whole: bool


class Agenda:
    """Every ``interval`` seconds everything, and in between what was touched, ``settle`` seconds later."""

    def __init__(self, interval: float, settle: float) -> None:
        self._interval = interval
        self._settle = settle
        self._turns: dict[str, _Turn] = {}

    def keep(self, namespaces: Iterable[str], now: float) -> set[str]:
        """Know these namespaces and no others; those that are gone."""
        wanted = set(namespaces)
        gone = self._turns.keys() - wanted
        for name in gone:
            del self._turns[name]
        for name in sorted(wanted - self._turns.keys()):
            self._turns[name] = _Turn(now)
        return gone

    def touch(self, namespace: str, now: float) -> None:
        """Something changed there; a namespace that is not known is none of ours."""
        turn = self._turns.get(namespace)
        if turn is not None:
            due = now + self._settle
            if due < turn.due:
                turn.due, turn.whole = due, False

    def touch_all(self, now: float) -> None:
        """Something changed that everything depends on."""
        for name in self._turns:
            self.touch(name, now)

    def take(self, now: float) -> Turn | None:
        """The namespace whose turn it is, if any; what touches it from now on brings it back."""
        if not self._turns:
            return None
        name, turn = min(self._turns.items(), key=lambda item: (item[1].due, item[1].taken, item[0]))
        if turn.due > now:
            return None
        found = Turn(name, turn.whole)
        turn.taken, turn.due, turn.whole = now, now + self._interval, True
        return found

    def retry(self, namespace: str, now: float, seconds: float) -> None:
        """It could not be looked at; come back later."""
        turn = self._turns.get(namespace)
        if turn is not None:
            turn.due = min(turn.due, now + seconds)

    def waiting(self, now: float) -> int:
        """How many namespaces are due."""
        return sum(turn.due <= now for turn in self._turns.values())
