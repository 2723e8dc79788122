"""Delays before a retry: exponential, and jittered so that replicas do not retry at the same time."""

from __future__ import annotations

import random


def jittered(seconds: float) -> float:
    """Return a random delay between half of ``seconds`` and ``seconds``."""
    return random.uniform(seconds / 2, seconds)  # noqa: S311 - to spread load, not to keep a secret


class Backoff:
    """Delays that double from ``first`` to ``most`` seconds, each jittered."""

    __slots__ = ("_first", "_most", "_next")

    def __init__(self, *, first: float = 0.1, most: float = 10.0) -> None:
        self._first = first
        self._most = most
        self._next = first

    def next(self) -> float:
        """Return the seconds to wait before the next attempt."""
        ceiling = self._next
        self._next = min(self._most, ceiling * 2)
        return jittered(ceiling)

    def reset(self) -> None:
        """Start again at ``first``, after a success."""
        self._next = self._first
