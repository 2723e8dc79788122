"""Read fields of foreign JSON documents: each reader checks the type, and each error names the field."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final

import orjson

from webhook.provenance.errors import MalformedError

MAX_DOCUMENT: Final = 16 * 1024 * 1024


def parse(data: bytes, what: str, limit: int = MAX_DOCUMENT) -> dict[str, Any]:
    """Parse a JSON object of at most ``limit`` bytes. Raises `MalformedError`."""
    if len(data) > limit:
        raise MalformedError(f"{what} is larger than {limit} bytes")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"{what} is not valid JSON") from error
    if not isinstance(document, dict):
        raise MalformedError(f"{what} is not a JSON object")
    return document


def parse_strictly(data: bytes, what: str, limit: int = MAX_DOCUMENT) -> dict[str, Any]:
    """Parse a JSON object without duplicate names: two readers of a duplicate would see two documents.

    The parsers of protobuf reject duplicates as well, and other tools of Sigstore use them.

    Raises:
        MalformedError: The data is too large, not a JSON object, or has a duplicate name.
    """
    document = parse(data, what, limit)
    try:
        json.loads(data, object_pairs_hook=_unique)
    except _DuplicateError as error:
        raise MalformedError(f"{what} has the field {str(error)[:64]!r} twice") from None
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{what} is not valid JSON") from error
    return document


class _DuplicateError(Exception):
    """A JSON object has one name twice."""


def _unique(pairs: list[tuple[str, Any]]) -> None:
    names = set()
    for name, _ in pairs:
        if name in names:
            raise _DuplicateError(name)
        names.add(name)


def fields(value: Any, what: str) -> dict[str, Any]:
    """Return an object. Raises `MalformedError`."""
    if not isinstance(value, dict):
        raise MalformedError(f"{what} is not an object")
    return value


def items(value: Any, what: str, limit: int) -> list[Any]:
    """Return a list of at most ``limit`` items; absent is empty. Raises `MalformedError`."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedError(f"{what} is not a list")
    if len(value) > limit:
        raise MalformedError(f"{what} has more than {limit} items")
    return value


def text(value: Any, what: str) -> str:
    """Return a string. Raises `MalformedError`."""
    if not isinstance(value, str):
        raise MalformedError(f"{what} is not a string")
    return value


def binary(value: Any, what: str) -> bytes:
    """Return decoded base64, standard or URL-safe. Raises `MalformedError`."""
    encoded = text(value, what).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError(f"{what} is not base64") from error


def number(value: Any, what: str) -> int:
    """Return a non-negative integer, also from the decimal text of protobuf's JSON. Raises `MalformedError`."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 18:
        return int(value)
    raise MalformedError(f"{what} is not a number")
