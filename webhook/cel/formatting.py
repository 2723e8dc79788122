"""Values in words as cel-go's ``string.format`` writes them where cel-cpp's writes them otherwise.

Lists, maps and doubles differ: cel-go quotes strings inside a list, groups the digits of ``%f`` and prints shortest
doubles (``ext/formatting.go`` of cel-go 0.29 with the strings library at version 2). The rest is left to the engine.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

_SUPERSCRIPT: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_ESCAPES: Final = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}


def formatted(value: Any, clause: str) -> str:
    """Return ``value`` by a clause without its percent sign: ``s``, ``f``, ``.3f``, ``e``.

    Raises ValueError for a value that the clause does not take.
    """
    if clause == "s":
        return shortest(value) if isinstance(value, float) else nested(value)
    precision = int(clause[1:-1]) if clause[0] == "." else 6
    if math.isnan(value) or math.isinf(value):
        word = "NaN" if math.isnan(value) else "-∞" if value < 0 else "∞"
        return word.rjust(6) if clause.endswith("e") else word
    if clause.endswith("f"):
        return f"{value:,.{precision}f}"
    mantissa, _, exponent = f"{value:.{precision}e}".partition("e")
    return f"{mantissa}\u00d710{exponent.removeprefix('+').translate(_SUPERSCRIPT)}"


def shortest(value: float) -> str:
    """Return the shortest decimal that reads back as ``value``, as Go's ``FormatFloat(v, 'g', -1, 64)``."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "-Inf" if value < 0 else "+Inf"
    exact = Decimal(repr(value)).normalize()
    magnitude = exact.adjusted()
    if -4 <= magnitude < 6 or not exact:
        return f"{exact:f}"
    mantissa = exact.scaleb(-magnitude).normalize()
    return f"{mantissa:f}e{'-' if magnitude < 0 else '+'}{abs(magnitude):02}"


def nested(value: Any) -> str:
    """Return ``value`` as a CEL literal, as it stands inside a list or map; raises ValueError for what has none."""
    if isinstance(value, list):
        return f"[{', '.join(map(nested, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}:{item}' for key, item in sorted(_entries(value)))}}}"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bytes | bytearray):
        return f"b{_quoted(bytes(value).decode())}"
    if isinstance(value, float):
        special = math.isnan(value) or math.isinf(value)
        return f'"{shortest(value)}"' if special else f"{value:.6f}"
    return _scalar(value)


def _entries(value: dict[Any, Any]) -> list[tuple[str, str]]:
    return [(nested(key), nested(item)) for key, item in value.items()]


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime):
        return f'timestamp("{value.isoformat().replace("+00:00", "Z")}")'
    if isinstance(value, timedelta):
        return f'duration("{Decimal(str(value.total_seconds())).normalize():f}s")'
    raise ValueError(f"no formatting function for {type(value).__name__}")


def _quoted(text: str) -> str:
    """Return ``text`` in double quotes as Go's ``%q`` does."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
