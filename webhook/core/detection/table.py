"""A bounded table of groups. If it is full, the group that was used least recently makes room, and is counted."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


class Table(Generic[T]):
    """Values by key, created on demand."""

    __slots__ = ("_limit", "_make", "_rows", "evicted")

    def __init__(self, make: Callable[[], T], limit: int) -> None:
        self._make, self._limit = make, limit
        self._rows: OrderedDict[str, T] = OrderedDict()
        self.evicted = 0

    def get(self, key: str) -> T:
        """Return the value of a key, and mark it as used."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._make()
            if len(self._rows) > self._limit:
                self._rows.popitem(last=False)
                self.evicted += 1
        else:
            self._rows.move_to_end(key)
        return row

    def peek(self, key: str) -> T | None:
        """Return the value of a key, or None."""
        return self._rows.get(key)

    def put(self, key: str, row: T) -> None:
        """Add a value as the most recently used one."""
        self._rows[key] = row
        self._rows.move_to_end(key)
        if len(self._rows) > self._limit:
            self._rows.popitem(last=False)
            self.evicted += 1

    def drop(self, key: str) -> None:
        """Remove a key if it exists."""
        self._rows.pop(key, None)

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield keys and values, the least recently used first."""
        yield from self._rows.items()

    def __len__(self) -> int:
        return len(self._rows)

    def shrink(self, limit: int) -> None:
        """Drop the least recently used rows above a number."""
        while len(self._rows) > limit:
            self._rows.popitem(last=False)
            self.evicted += 1
