"""Validation errors in words: the field and the expected value. They must never contain the field's value."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_SHOWN = 3


def faults(error: ValidationError) -> list[tuple[str, str]]:
    """Each error as (dotted field, expectation); the field of the object itself is ``object``."""
    return [
        (".".join(str(part) for part in item["loc"]) or "object", item["msg"].removeprefix("Value error, "))
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def describe(error: ValidationError) -> str:
    """The first three errors on one line."""
    errors = faults(error)
    more = f" (and {len(errors) - _SHOWN} more)" if len(errors) > _SHOWN else ""
    return "; ".join(f"{place}: {expected}" for place, expected in errors[:_SHOWN]) + more
