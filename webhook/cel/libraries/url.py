"""The ``url`` library: the functions of k8s.io/apiserver ``pkg/cel/library/urls.go`` over `locations`.

A URL must be absolute, or an absolute path. Nothing here opens one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final, Self

from webhook.cel.libraries import opaque, url_parser
from webhook.cel.libraries.declarations import BOOL, STRING, CelType, Overload, list_of, map_of, method

_CACHED_LENGTH: Final = 1024


@dataclass(frozen=True, slots=True)
class URL:
    """A parsed URL; two are equal when they are written the same."""

    TYPE: ClassVar[str] = opaque.URL

    location: url_parser.Location
    source: str

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`. Go prints a few URLs in a form that parses differently; their source is used instead."""
        text = str(self)
        try:
            faithful = _shown(url_parser.parse(text)) == _shown(self.location)
        except ValueError:
            faithful = False
        return (text,) if faithful else (text, self.source)

    @classmethod
    def of(cls, text: str, source: str = "") -> Self:
        """See `opaque.Opaque`."""
        return cls(url_parser.parse(source or text), source or text)

    def __str__(self) -> str:
        return _text(bytes(self.location))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, URL) and bytes(self.location) == bytes(other.location)

    def __hash__(self) -> int:
        return hash(bytes(self.location))


def parse(text: str) -> URL:
    """Return the URL ``text`` denotes; raises ValueError with the API server's words."""
    return _parse(text) if len(text) <= _CACHED_LENGTH else _parse.__wrapped__(text)


@lru_cache(maxsize=512)
def _parse(text: str) -> URL:
    try:
        url_parser.check_request_uri(text)
        # The first parser supports no fragments, so the second decides what the parts are.
        return URL(url_parser.parse(text), text)
    except ValueError as error:
        raise ValueError(f"URL parse error during conversion from string: {error}") from None


def is_url(text: str) -> bool:
    """Return whether ``text`` is an absolute URL or an absolute path."""
    try:
        url_parser.check_request_uri(text)
    except ValueError:
        return False
    return True


def _shown(location: url_parser.Location) -> tuple[object, ...]:
    """Return all properties of a URL that the functions of this library expose."""
    return location.scheme, location.host, location.escaped_path(), location.query


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _query(url: URL) -> dict[str, list[str]]:
    return {
        _text(key): [_text(value) for value in values] for key, values in url.location.parameters().items()
    }


_URL: Final = CelType(opaque.URL)

OVERLOADS: Final = (
    Overload("url", "string_to_url", (STRING,), _URL, parse),
    Overload("isURL", "is_url_string", (STRING,), BOOL, is_url),
    method("getScheme", "url_get_scheme", (_URL,), STRING, lambda url: url.location.scheme),
    method("getHost", "url_get_host", (_URL,), STRING, lambda url: _text(url.location.host)),
    method(
        "getHostname", "url_get_hostname", (_URL,), STRING, lambda url: _text(url.location.host_and_port()[0])
    ),
    method("getPort", "url_get_port", (_URL,), STRING, lambda url: _text(url.location.host_and_port()[1])),
    method(
        "getEscapedPath",
        "url_get_escaped_path",
        (_URL,),
        STRING,
        lambda url: _text(url.location.escaped_path()),
    ),
    method("getQuery", "url_get_query", (_URL,), map_of(STRING, list_of(STRING)), _query),
)
