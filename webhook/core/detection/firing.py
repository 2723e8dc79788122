"""What a rule reports to the engine: a group, the events, and the comparison that made it report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from webhook.core.detection.match import reader, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from webhook.core.detection.match import Event

_SEPARATOR = "\x1f"
_MAX_VALUE = 253
MAX_REFS = 16


class Ref(NamedTuple):
    """An event of the log: its log, its index, its id, its type and its time in Unix seconds."""

    origin: str
    entry: int
    id: str
    type: str
    time: float


@dataclass(frozen=True, slots=True)
class Firing:
    """One report. ``group`` maps the fields of the group to their values."""

    group: tuple[tuple[str, str], ...]
    refs: tuple[Ref, ...]
    baseline: str
    event: Event


def grouper(fields: Sequence[str]) -> Callable[[Event], tuple[str, ...]]:
    """Return a function that reads the values of a group. An absent field is empty."""
    readers = [reader(each) for each in fields]
    if len(readers) == 1:
        only = readers[0]
        return lambda event: (_value(only(event)),)
    return lambda event: tuple(_value(read(event)) for read in readers)


def _value(values: list[object]) -> str:
    if len(values) == 1:
        return text_of(values[0])[:_MAX_VALUE]
    return ",".join(text_of(each) for each in values)[:_MAX_VALUE]


def key_of(values: Sequence[str]) -> str:
    """Return one text for the values of a group, unambiguous."""
    return _SEPARATOR.join(value.replace(_SEPARATOR, " ") for value in values)


def named(fields: Sequence[str], values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the pairs of fields and values that have a value."""
    return tuple((name, value) for name, value in zip(fields, values, strict=True) if value)


def duration(seconds: float) -> str:
    """Return a length of time in its largest fitting unit, such as ``7d``."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size and (seconds % size == 0 or seconds >= 10 * size):
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds:.0f}s"


def day(moment: float) -> str:
    """Return the date of a time in UTC."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
