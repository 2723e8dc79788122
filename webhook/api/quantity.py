"""Kubernetes quantities in Weightlock's own types: sizes in bytes and rates in bits a second, in any spelling.

The grammar is that of k8s.io/apimachinery pkg/api/resource. Fractions of the unit are rounded up, as Kubernetes does.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic_core import core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

PATTERN = r"^\+?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"
_SHAPE = re.compile(PATTERN)
_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50, "Ei": 1 << 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_LONGEST = 64


def whole(text: str) -> int:
    """Return the value of a quantity, rounded up to a whole number. Raises `ValueError`."""
    match = _SHAPE.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(f"{text!r:.40} is not a quantity: use a form such as 810Gi or 2M")
    digits, suffix = match[1], match[3] or ""
    if suffix in _BINARY:
        factor = Fraction(_BINARY[suffix])
    else:
        exponent = _DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:])
        factor = Fraction(10) ** exponent
    value = Fraction(f"0{digits}" if digits.startswith(".") else digits.removesuffix(".")) * factor
    return -(-value.numerator // value.denominator)


class Quantity(str):
    """A quantity in its written form; ``value`` is a whole number. Raises `ValueError` out of its bounds."""

    __slots__ = ()
    LEAST: ClassVar[int] = 1
    MOST: ClassVar[int] = (1 << 63) - 1

    def __new__(cls, text: str | int) -> Self:  # noqa: D102 - see the class
        if isinstance(text, bool):
            raise ValueError("is not a quantity")
        if not cls.LEAST <= whole(str(text)) <= cls.MOST:
            raise ValueError(f"{text!r:.40} is out of bounds: use {cls.LEAST} to {cls.MOST}")
        return super().__new__(cls, text)

    @property
    def value(self) -> int:
        """The whole number."""
        return whole(self)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Accept a string or an integer, as the API server does."""
        either = core_schema.union_schema(
            [core_schema.int_schema(strict=True), core_schema.str_schema(strict=True, max_length=_LONGEST)]
        )
        return core_schema.no_info_after_validator_function(cls, either)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe a value that is a string or an integer, in the form of Kubernetes' own quantities."""
        return {"x-kubernetes-int-or-string": True, "pattern": PATTERN, "maxLength": _LONGEST}


class ByteCount(Quantity):
    """A number of bytes."""

    __slots__ = ()


class BitRate(Quantity):
    """Bits a second, within the bounds of the annotation (k8s.io/kubernetes pkg/util/bandwidth)."""

    __slots__ = ()
    LEAST: ClassVar[int] = 1_000
    MOST: ClassVar[int] = 10**15
