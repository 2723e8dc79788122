"""The ``quantity`` library: Kubernetes resource quantities with the arithmetic of ``resource.Quantity``.

Follows k8s.io/apimachinery ``pkg/api/resource`` (quantity.go, amount.go) and k8s.io/apiserver
``pkg/cel/library/quantity.go``: a quantity is stored either as an int64 and a power of ten or, if that does not fit,
as a decimal of any size. The form decides ``isInteger``, so both forms are distinguished here. No binary floating
point takes part except in ``asApproximateFloat``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final, Self

from webhook.cel.libraries import opaque
from webhook.cel.libraries.declarations import BOOL, DOUBLE, INT, STRING, CelType, Overload, method

_INT64_MAX: Final = 2**63 - 1
_INT64_MIN: Final = -(2**63)
_INT64_DIGITS: Final = 18
_NANO: Final = -9
# Longer texts and wider gaps between two exponents are rejected: the API server would compute with millions of digits.
_LONGEST: Final = 512
_MOST_DIGITS: Final = 4000

_SHAPE: Final = re.compile(r"([+-]?)([0-9]*+)(?:\.([0-9]*+))?([eEinumkKMGTP]*+[+-]?[0-9]*+)")
_DECIMAL: Final = {
    "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_EXPONENT: Final = re.compile(r"[eE]([+-]?[0-9]+)")

_WRONG_SHAPE: Final = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
_WRONG_NUMBER: Final = "unable to parse numeric part of quantity"
_WRONG_SUFFIX: Final = "unable to parse quantity's suffix"


@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """``unscaled`` times ten to the power of ``exponent``; ``fixed`` while it is computed in an int64."""

    TYPE: ClassVar[str] = opaque.QUANTITY

    unscaled: int
    exponent: int
    fixed: bool

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`."""
        return str(self.unscaled), str(self.exponent), "fixed" if self.fixed else "decimal"

    @classmethod
    def of(cls, unscaled: str, exponent: str, form: str) -> Self:
        """See `opaque.Opaque`."""
        return cls(int(unscaled), int(exponent), form == "fixed")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.compare(other) == 0

    def __hash__(self) -> int:
        return hash(self.compare(_ZERO))

    def compare(self, other: Quantity) -> int:
        """Return -1, 0 or 1 as this is less than, equal to or greater than ``other``, exactly."""
        sign, other_sign = _sign(self.unscaled), _sign(other.unscaled)
        if sign != other_sign or not sign:
            return _sign(sign - other_sign)
        magnitude = len(str(abs(self.unscaled))) + self.exponent
        other_magnitude = len(str(abs(other.unscaled))) + other.exponent
        if magnitude != other_magnitude:
            return sign * _sign(magnitude - other_magnitude)
        # Of equal magnitude: the exponents differ by no more than the digits do.
        lowest = min(self.exponent, other.exponent)
        return _sign(
            self.unscaled * 10 ** (self.exponent - lowest) - other.unscaled * 10 ** (other.exponent - lowest)
        )

    def add(self, other: Quantity) -> Quantity:
        """Return the sum; raises ValueError when it would have thousands of digits."""
        if self.fixed and other.fixed:
            total = _add_fixed(self, other)
            if total is not None:
                return total
        low, high = sorted((self, other), key=lambda quantity: quantity.exponent)
        gap = high.exponent - low.exponent
        if gap > _MOST_DIGITS:
            raise ValueError("quantity out of range")
        return Quantity(low.unscaled + high.unscaled * 10**gap, low.exponent, fixed=False)

    def subtract(self, other: Quantity) -> Quantity:
        """Return the difference; the negation of an int64 wraps as it does in Go."""
        negated = -other.unscaled
        if other.fixed and negated > _INT64_MAX:
            negated = _INT64_MIN if self.fixed else negated
        return self.add(Quantity(negated, other.exponent, other.fixed))

    def integer(self) -> int | None:
        """Return the value as an int64, or None where the API server does not see one (even if there is)."""
        if not self.fixed or self.exponent < 0:
            return None
        return _raise(self.unscaled, self.exponent)

    def approximate(self) -> float:
        """Return the nearest double Go computes; infinite when out of range."""
        try:
            base = float(self.unscaled)
        except OverflowError:
            base = float("inf") * _sign(self.unscaled)
        return base if self.exponent == 0 else base * _power_of_ten(self.exponent)


_ZERO: Final = Quantity(0, 0, fixed=True)


def parse(text: str) -> Quantity:
    """Return the quantity ``text`` denotes; raises ValueError with the API server's words."""
    if len(text) > _LONGEST:
        raise ValueError(_WRONG_NUMBER)
    return _parse(text)


@lru_cache(maxsize=1024)
def _parse(text: str) -> Quantity:
    match = _SHAPE.fullmatch(text)
    if match is None or not text:
        raise ValueError(_WRONG_SHAPE)
    sign, whole, fraction, suffix = match[1], match[2].lstrip("0") or "0", match[3] or "", match[4]
    binary, exponent = _suffix(suffix)
    if binary:
        # 15 decimal digits, less what the power of two takes of them.
        exact = not fraction and 15 - len(whole) - exponent * 3 // 10 - 1 >= 0
        scale, factor = 0, 2**exponent
    else:
        exact = len(whole) + len(fraction) <= _INT64_DIGITS
        scale, factor = _int32(exponent - len(fraction)), 1
    digits = int(whole + fraction)
    if exact and scale >= _NANO:
        return Quantity(-digits * factor if sign == "-" else digits * factor, scale, fixed=True)
    if not match[2] and not fraction:
        raise ValueError(_WRONG_NUMBER)
    amount, scale = _rounded(digits * factor, -len(fraction) if binary else scale)
    if binary and amount * 10 ** max(scale, 0) > _INT64_MAX * 10 ** max(-scale, 0):
        amount, scale = _INT64_MAX, 0
    return Quantity(-amount if sign == "-" else amount, scale, fixed=False)


def _suffix(suffix: str) -> tuple[bool, int]:
    if suffix in _DECIMAL:
        return False, _DECIMAL[suffix]
    if suffix in _BINARY:
        return True, _BINARY[suffix]
    match = _EXPONENT.fullmatch(suffix)
    if match is None or not _INT64_MIN <= int(match[1]) <= _INT64_MAX:
        raise ValueError(_WRONG_SUFFIX)
    return False, _int32(int(match[1]))


def _rounded(amount: int, exponent: int) -> tuple[int, int]:
    """Bring ``amount`` to nanos, rounding up: a request below the smallest unit gets the smallest unit."""
    if not amount:
        return amount, exponent
    if exponent >= _NANO:
        if exponent > _MOST_DIGITS - _LONGEST:
            raise ValueError(_WRONG_NUMBER)
        return amount * 10 ** (exponent - _NANO), _NANO
    dropped = _NANO - exponent
    if dropped > _LONGEST + 60:
        return 1, _NANO
    quotient, remainder = divmod(amount, 10**dropped)
    return quotient + (remainder > 0), _NANO


def _add_fixed(left: Quantity, right: Quantity) -> Quantity | None:
    """Add within an int64 as ``int64Amount.Add`` does, or return None where that overflows."""
    if not right.unscaled:
        return left
    if not left.unscaled:
        return right
    lowest = min(left.exponent, right.exponent)
    addends = (_raise(left.unscaled, left.exponent - lowest), _raise(right.unscaled, right.exponent - lowest))
    if addends[0] is None or addends[1] is None:
        return None
    total = addends[0] + addends[1]
    return Quantity(total, lowest, fixed=True) if _INT64_MIN <= total <= _INT64_MAX else None


def _raise(value: int, power: int) -> int | None:
    """Return ``value`` times ten to the ``power``, or None if it does not fit an int64."""
    if not value or not power:
        return value
    if power > _INT64_DIGITS or value == _INT64_MIN:
        return None
    result: int = value * 10**power
    return result if _INT64_MIN <= result <= _INT64_MAX else None


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


def _int32(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def _power_of_ten(exponent: int) -> float:
    """Return 10**exponent as Go's ``math.Pow10`` does: a product of two table entries, not the nearest double."""
    if 0 <= exponent <= 308:
        return float(f"1e{exponent // 32 * 32}") * float(f"1e{exponent % 32}")
    if -323 <= exponent <= 0:
        return float(f"1e-{-exponent // 32 * 32}") / float(f"1e{-exponent % 32}")
    return float("inf") if exponent > 0 else 0.0


def _is_quantity(text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _as_integer(quantity: Quantity) -> int:
    value = quantity.integer()
    if value is None:
        raise ValueError("cannot convert value to integer")
    return value


def _whole(number: int) -> Quantity:
    return Quantity(number, 0, fixed=True)


_QUANTITY: Final = CelType(opaque.QUANTITY)
_TWO: Final = (_QUANTITY, _QUANTITY)

OVERLOADS: Final = (
    Overload("quantity", "string_to_quantity", (STRING,), _QUANTITY, parse),
    Overload("isQuantity", "is_quantity_string", (STRING,), BOOL, _is_quantity),
    Overload("sign", "quantity_sign", (_QUANTITY,), INT, lambda it: it.compare(_ZERO)),
    method("isGreaterThan", "quantity_is_greater_than", _TWO, BOOL, lambda it, other: it.compare(other) == 1),
    method("isLessThan", "quantity_is_less_than", _TWO, BOOL, lambda it, other: it.compare(other) == -1),
    method("compareTo", "quantity_compare_to", _TWO, INT, Quantity.compare),
    method("asApproximateFloat", "quantity_get_float", (_QUANTITY,), DOUBLE, Quantity.approximate),
    method("asInteger", "quantity_get_int", (_QUANTITY,), INT, _as_integer),
    method("isInteger", "quantity_is_integer", (_QUANTITY,), BOOL, lambda it: it.integer() is not None),
    method("add", "quantity_add", _TWO, _QUANTITY, Quantity.add),
    method("add", "quantity_add_int", (_QUANTITY, INT), _QUANTITY, lambda it, number: it.add(_whole(number))),
    method("sub", "quantity_sub", _TWO, _QUANTITY, Quantity.subtract),
    method(
        "sub", "quantity_sub_int", (_QUANTITY, INT), _QUANTITY, lambda it, number: it.subtract(_whole(number))
    ),
)
