"""What is wrong with an object, in words: where, and what would be right; never what it held."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_SHOWN = 3


def faults(error: ValidationError) -> list[tuple[str, str]]:
    """Each fault as (dotted place, what is expected there); the place of the object itself is ``object``."""
    return [
        (".".join(str(part) for part in item["loc"]) or "object", item["msg"].removeprefix("Value error, "))
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def describe(error: ValidationError) -> str:
    """The faults on one line, the first three of them."""
    found = faults(error)
    more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
    return "; ".join(f"{place}: {expected}" for place, expected in found[:_SHOWN]) + more
