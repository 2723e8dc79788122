"""Build entries of the log: a CloudEvents 1.0 envelope as RFC 8785 canonical JSON.

Entries contain ASCII keys, strings, integers, booleans, lists and objects only. For these, JSON with sorted keys and
without spaces is RFC 8785's form, and orjson writes it. A test compares it with an independent implementation.
"""

from __future__ import annotations

from datetime import UTC
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson

from webhook.api.entries import DATA, SCHEMA_ROOT, SCHEMA_VERSION, TYPE_PREFIX, Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

MAX_TEXT = 1024


class EntryError(ValueError):
    """The bytes are not a canonical entry. The message is one line."""


def canonical(document: Any) -> bytes:
    """Return RFC 8785 JSON of a document without fractions."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def digest(document: Any) -> str:
    """Return the SHA-256 of an object's JSON with sorted keys, as ``sha256:…``."""
    return f"sha256:{sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()}"


def timestamp(moment: datetime) -> str:
    """Return aware UTC in RFC 3339 with microseconds."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def envelope(
    kind: str, source: str, identifier: str, moment: str, data: Mapping[str, Any], subject: str = ""
) -> dict[str, Any]:
    """Return an entry. ``kind`` is the type after ``dev.weightlock.``. Empty values of ``data`` are dropped."""
    entry = {
        "specversion": "1.0",
        "id": identifier,
        "source": source,
        "type": f"{TYPE_PREFIX}{kind}",
        "time": moment,
        "datacontenttype": "application/json",
        "dataschema": f"{SCHEMA_ROOT}/{SCHEMA_VERSION}/{kind}.json",
        "data": {key: value for key, value in data.items() if value or (value == 0 and value is not False)},
    }
    if subject:
        entry["subject"] = clip(subject)
    return entry


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """Shorten a text that a user controls."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def parse_entry(raw: bytes) -> dict[str, Any]:
    """Read one entry and check that its bytes are the canonical form.

    Raises:
        EntryError: the bytes are not JSON, not canonical, or not an entry.
    """
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise EntryError(f"not JSON: {error.msg}") from None
    if not isinstance(document, dict) or canonical(document) != raw:
        raise EntryError("not canonical JSON")
    if document.get("specversion") != "1.0" or not all(
        isinstance(document.get(key), str) for key in ("id", "source", "type", "time")
    ):
        raise EntryError("not a CloudEvents 1.0 entry")
    if not document["type"].startswith(TYPE_PREFIX) or not isinstance(document.get("data"), dict):
        raise EntryError(f"unknown type {document['type'][:80]!r}")
    return document


def validate_entry(document: Mapping[str, Any]) -> None:
    """Check an entry against the schema of its type. Raises pydantic's `ValidationError`, or `EntryError`."""
    Envelope.model_validate(dict(document))
    model = DATA.get(kind_of(document))
    if model is None:
        raise EntryError(f"unknown type {document['type'][:80]!r}")
    model.model_validate(document["data"])


def kind_of(document: Mapping[str, Any]) -> str:
    """Return the type without its prefix."""
    return str(document["type"]).removeprefix(TYPE_PREFIX)
