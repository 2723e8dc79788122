"""Durations as Kubernetes users write them: ``90s``, ``30m``, ``8h``, ``2d``, or a sequence such as ``1h30m``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic_core import core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_PATTERN = r"^([0-9]{1,6}d)?([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$"
_SHAPE = re.compile(_PATTERN)


class Duration(str):
    """A duration in its written form; ``timedelta`` is its value. Raises `ValueError` on anything else."""

    __slots__ = ()

    def __new__(cls, text: str) -> Duration:  # noqa: D102 - see the class
        if not text or not _SHAPE.fullmatch(text):
            raise ValueError(f"{text!r:.40} is not a duration: use a form such as 30m, 8h or 1h30m")
        return super().__new__(cls, text)

    @property
    def timedelta(self) -> timedelta:
        """The length of time, in whole seconds."""
        parts = re.findall(r"([0-9]+)([dhms])", self)
        return timedelta(seconds=sum(int(number) * _UNITS[unit] for number, unit in parts))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema(max_length=32))

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "pattern": _PATTERN, "maxLength": 32, "minLength": 2}
