"""Exponential backoff with jitter."""

from __future__ import annotations

import random


class Backoff:
    """Doubles from ``first`` to ``most`` seconds; each wait is between half of that and the whole."""

    __slots__ = ("_first", "_most", "_next")

    def __init__(self, *, first: float = 0.1, most: float = 10.0) -> None:
        self._first = first
        self._most = most
        self._next = first

    def next(self) -> float:
        """Return the seconds to wait now."""
        ceiling = self._next
        self._next = min(self._most, ceiling * 2)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - to spread load, not to keep a secret

    def reset(self) -> None:
        """Start over after a success."""
        self._next = self._first
