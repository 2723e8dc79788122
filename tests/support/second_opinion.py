"""The independent second opinion: expressions evaluated by cel-python, which shares no code with the deciding engine.

It never decides at run time. It answers None where it cannot parse an expression or does not know a function.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import celpy
from celpy import celtypes

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Opinion:
    """What cel-python made of an expression: a plain value, or an error."""

    value: Any = None
    error: str = ""


def opinion(source: str, data: Mapping[str, Any]) -> Opinion | None:
    """Evaluate ``source`` on plain JSON-like ``data``; None where cel-python cannot read it."""
    program = _program(source)
    if program is None:
        return None
    try:
        value = program.evaluate({name: celpy.json_to_cel(item) for name, item in data.items()})
    except celpy.CELEvalError as error:
        text = str(error)
        return None if "undeclared reference" in text and "function" in text else Opinion(error=text)
    return Opinion(value=_plain(value))


@lru_cache(4096)
def _program(source: str) -> Any:
    environment = celpy.Environment()
    try:
        return environment.program(environment.compile(source))
    except celpy.CELParseError:
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, celtypes.BoolType):
        return bool(value)
    if isinstance(value, celtypes.MapType):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, celtypes.ListType):
        return [_plain(item) for item in value]
    for celtype, python in (
        (celtypes.IntType, int),
        (celtypes.UintType, int),
        (celtypes.DoubleType, float),
        (celtypes.StringType, str),
        (celtypes.BytesType, bytes),
    ):
        if isinstance(value, celtype):
            return python(value)
    return value
