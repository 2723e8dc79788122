"""Times and tables as people read them. Pure: the present moment is always passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def span(length: timedelta) -> str:
    """A length of time in its two largest units, rounded down: ``3 h``, ``1 h 30 min``, ``2 d 4 h``, ``40
    s``.
    """
    rest = int(length.total_seconds())
    if rest <= 0:
        return "0 s"
    parts: list[str] = []
    for index, (seconds, unit) in enumerate(_UNITS):
        number, rest = divmod(rest, seconds)
        if number:
            parts.append(f"{number} {unit}")
        if len(parts) == 2 or (parts and index == len(_UNITS) - 2):
            break
    return " ".join(parts[:2])


def when(moment: datetime, now: datetime) -> str:
    """A moment as seen from now: ``in 3 h``, ``20 min ago``, ``just now``."""
    if abs((moment - now).total_seconds()) < 1:
        return "just now"
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell and three spaces apart, as kubectl lays them out; no trailing
    spaces.
    """
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def people(names: Sequence[str], *, none: str = "nobody") -> str:
    """``alice``, ``alice and bob``, ``alice, bob and carol``."""
    if len(names) <= 1:
        return names[0] if names else none
    return f"{', '.join(names[:-1])} and {names[-1]}"
