"""Which documents may be evaluated at all: a bounded, safe subset of JSON. Checked once, before anything reads them."""

from __future__ import annotations

from typing import Any

import orjson


class DocumentError(ValueError):
    """The document is no JSON, or holds what no policy can judge safely; the message says what."""


def load_document(body: bytes) -> Any:
    """Parse bytes that hold JSON. Raises `DocumentError`."""
    if b"\\u0000" in body:
        raise DocumentError("a string holds a NUL character")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise DocumentError("the body is no JSON") from None
    return document


def check_document(document: Any) -> None:
    """Check an already parsed document. Raises `DocumentError`."""
    try:
        load_document(orjson.dumps(document))
    except (TypeError, orjson.JSONEncodeError):
        raise DocumentError("the document holds what JSON cannot express") from None
