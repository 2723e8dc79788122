"""Checks of a document before the engine reads it: one pass, cheap for valid documents.

The limits are guards: NUL, because cel-expr-python 0.1.3 cuts strings there (``"allowed\\0evil" == "allowed"``); long
lists, because its ``map`` and ``filter`` take time by the square of their length; depth and size, because it crashes or
stalls. Such a document is denied; it is never truncated or repaired.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

Reason = Literal["size", "nul", "json", "integer", "unicode", "depth", "length", "type"]

# Backslashes pair up, so only an odd one before "u0000" starts an escape.
_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
# The JSON parser makes a float of anything outside, as Go does; the engine makes an error of the whole variable.
_LEAST: Final = -(2**63)
_MOST: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a document may be.

    ``size`` is in bytes; ``length`` is the number of entries of one list or map: the engine needs about 0.2 s to map
    over 2,000. ``depth`` counts nested lists and maps in what `check` walks; the JSON parser stops at 1,024, and the
    engine crashes at some ten thousand.
    """

    size: int = 4 * 1024 * 1024
    length: int = 2_000
    depth: int = 1_000


DEFAULT_LIMITS: Final = Limits()


class DocumentError(ValueError):
    """A document that is rejected. ``reason`` is a stable word, the message names the fault and its position."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def parse(body: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Parse untrusted JSON and return it. Raises DocumentError.

    A valid document costs its parsing and two searches of its bytes. The parser itself rejects raw control
    characters, lone surrogates, bytes that are no UTF-8 and nesting beyond 1,024.
    """
    if len(body) > limits.size:
        raise DocumentError("size", f"document has {len(body)} bytes, more than {limits.size}")
    if b"\\u0000" in body and _ESCAPED_NUL.search(body):
        raise DocumentError("nul", "document contains a NUL character")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DocumentError(*_fault(error)) from None
    # Every entry but the first takes a comma, so with few of them no list can be too long.
    if body.count(b",") >= limits.length:
        _check_lengths(document, limits.length)
    return document


def check(document: Any, limits: Limits = DEFAULT_LIMITS) -> None:
    """Check a document that something else parsed, such as YAML; raises DocumentError.

    It must consist of exactly dict, list, str, int, float, bool and None: the engine takes no subclass of them.
    """
    pending: list[tuple[Any, int]] = [(document, 0)]
    while pending:
        value, depth = pending.pop()
        kind = type(value)
        if kind is dict or kind is list:
            if len(value) > limits.length:
                raise DocumentError(
                    "length", f"a list or map has {len(value)} entries, more than {limits.length}"
                )
            if depth >= limits.depth:
                raise DocumentError("depth", f"document is nested more than {limits.depth} levels deep")
            if kind is dict:
                for key in value:
                    _check_text(key)
            pending.extend((item, depth + 1) for item in (value.values() if kind is dict else value))
        elif kind is str:
            _check_text(value)
        elif kind is int and not _LEAST <= value <= _MOST:
            raise DocumentError("integer", "document contains an integer beyond 64 bits")
        elif kind not in _SCALARS:
            raise DocumentError(
                "type", f"document contains a value of type {kind.__name__}, which JSON does not have"
            )


def check_parsed(document: Any) -> None:
    """Check a document of a parser's own types, such as YAML or JSON; raises DocumentError.

    The result is that of `check`, which takes ten times as long. The encoder rejects integers beyond 64 bits, lone
    surrogates and more than 254 levels, and `check` then names the fault.
    """
    try:
        body = orjson.dumps(document)
    except TypeError:
        check(document)
        return
    # Every entry but the first takes a comma, and a NUL is always written as this escape.
    if b"\\u0000" in body or body.count(b",") >= DEFAULT_LIMITS.length:
        check(document)


def _check_lengths(document: Any, length: int) -> None:
    pending = [document] if type(document) is dict or type(document) is list else []
    while pending:
        value = pending.pop()
        if len(value) > length:
            raise DocumentError("length", f"a list or map has {len(value)} entries, more than {length}")
        items = value.values() if type(value) is dict else value
        pending += [item for item in items if type(item) is dict or type(item) is list]


def longest(document: Any) -> tuple[str, int]:
    """Return where the longest list or map of a parsed document stands, and its number of entries."""
    pending: list[tuple[Any, str]] = [(document, "")]
    place, length = "", 0
    while pending:
        value, path = pending.pop()
        if type(value) is not dict and type(value) is not list:
            continue
        if len(value) > length:
            place, length = path, len(value)
        items = value.items() if type(value) is dict else enumerate(value)
        pending += [
            (item, f"{path}.{key}" if type(value) is dict else f"{path}[{key}]")
            for key, item in items
            if type(item) is dict or type(item) is list
        ]
    return place.lstrip("."), length


_SCALARS: Final = frozenset({int, float, bool, type(None)})


def _check_text(text: Any) -> None:
    if type(text) is not str:
        raise DocumentError("type", "a key of a map is not a string")
    if "\0" in text:
        raise DocumentError("nul", "document contains a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DocumentError("unicode", "document contains text that is not valid Unicode") from None


def _fault(error: orjson.JSONDecodeError) -> tuple[Reason, str]:
    # The parser distinguishes these by its text only (orjson 3.13). Every other text is invalid JSON.
    if "surrogate" in error.msg:
        return "unicode", "document contains text that is not valid Unicode"
    if "depth limit" in error.msg:
        return "depth", "document is nested too deeply"
    return "json", f"document is not JSON: line {error.lineno}, column {error.colno}"
