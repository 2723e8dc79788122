"""URLs as Go's ``net/url`` parses, escapes and writes them.

Follows net/url of Go 1.26, which current API servers are built with. ``urllib.parse`` is not used: it accepts what Go
rejects and unescapes differently. Text is handled as UTF-8 bytes, as Go does. Nothing here opens a URL.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final

from webhook.cel.libraries import ip_parser
from webhook.cel.libraries.quoting import quote

_UNRESERVED: Final = frozenset((string.ascii_letters + string.digits + "-_.~").encode())
_HEX: Final = frozenset(string.hexdigits.encode())
# The bytes each part of a URL may contain unescaped.
_PATH: Final = _UNRESERVED | frozenset(b"$&+,/:;=@")
_USER: Final = _UNRESERVED | frozenset(b"$&+,;=")
_FRAGMENT: Final = _UNRESERVED | frozenset(b"$&+,/:;=?@!()*")
_QUERY: Final = _UNRESERVED
_HOST: Final = _UNRESERVED | frozenset(b"!$&'()*+,;=:[]<>\"")
_TOLERATED: Final = frozenset(b"!$&'()*+,;=:@[]%")
_USERINFO: Final = _UNRESERVED | frozenset(b":!$&'()*+,;=%@")
_SCHEME: Final = frozenset(string.ascii_letters.encode())
_SCHEME_REST: Final = _SCHEME | frozenset(b"0123456789+-.")
_MOST_PARAMETERS: Final = 10_000
# Longer texts are not usable URLs, and would block the thread that evaluates.
_LONGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed URL. ``raw_path`` and ``raw_fragment`` are set where escaping again would give another text."""

    scheme: str = ""
    opaque: bytes = b""
    user: tuple[bytes, bytes | None] | None = None
    host: bytes = b""
    path: bytes = b""
    raw_path: bytes = b""
    query: bytes = b""
    force_query: bool = False
    omit_host: bool = False
    fragment: bytes = b""
    raw_fragment: bytes = b""

    def escaped_path(self) -> bytes:
        """Return the path as it goes into a request."""
        if self.raw_path and _is_escaped(self.raw_path, _PATH):
            return self.raw_path
        return self.path if self.path == b"*" else _escape(self.path, _PATH)

    def __bytes__(self) -> bytes:
        out = [f"{self.scheme}:".encode() if self.scheme else b""]
        if self.opaque:
            out.append(self.opaque)
        else:
            out += self._authority()
            path = self.escaped_path()
            if path and not path.startswith(b"/") and self.host:
                out.append(b"/")
            if not any(out) and b":" in path.partition(b"/")[0]:
                out.append(b"./")
            out.append(path)
        if self.force_query or self.query:
            out += (b"?", self.query)
        if self.fragment:
            unchanged = self.raw_fragment and _is_escaped(self.raw_fragment, _FRAGMENT)
            out += (b"#", self.raw_fragment if unchanged else _escape(self.fragment, _FRAGMENT))
        return b"".join(out)

    def _authority(self) -> list[bytes]:
        if not (self.scheme or self.host or self.user) or (
            self.omit_host and not self.host and self.user is None
        ):
            return []
        out = [b"//"] if self.host or self.path or self.user is not None else []
        if self.user is not None:
            name, password = self.user
            out.append(_escape(name, _USER))
            if password is not None:
                out += (b":", _escape(password, _USER))
            out.append(b"@")
        return [*out, _escape(self.host, _HOST)]

    def host_and_port(self) -> tuple[bytes, bytes]:
        """Return the host without brackets, and the port, empty unless numeric."""
        host, port = self.host, b""
        colon = host.rfind(b":")
        if colon >= 0 and _is_port(host[colon:]):
            host, port = host[:colon], host[colon + 1 :]
        if host.startswith(b"[") and host.endswith(b"]"):
            host = host[1:-1]
        return host, port

    def parameters(self) -> dict[bytes, list[bytes]]:
        """Return the query parameters that can be read; the others are left out, as Go's ``URL.Query`` does."""
        values: dict[bytes, list[bytes]] = {}
        if self.query.count(b"&") >= _MOST_PARAMETERS:
            return values
        for item in self.query.split(b"&"):
            if not item or b";" in item:
                continue
            key, _, value = item.partition(b"=")
            try:
                key, value = (_unescape(part.replace(b"+", b" "), _QUERY) for part in (key, value))
            except ValueError:
                continue
            values.setdefault(key, []).append(value)
        return values


def check_request_uri(text: str) -> None:
    """Raise ValueError, in Go's words, unless ``url.ParseRequestURI`` would accept ``text``."""
    if len(text) > _LONGEST:
        raise ValueError(f"URL is longer than {_LONGEST} characters")
    try:
        _parse(text.encode(), via_request=True)
    except ValueError as error:
        raise ValueError(f"parse {quote(text)}: {error}") from None


def parse(text: str) -> Location:
    """Return what ``url.Parse`` makes of ``text``; raises ValueError in its words."""
    before, _, fragment = text.partition("#")
    host_text = before
    try:
        location = _parse(before.encode(), via_request=False)
        if not fragment:
            return location
        host_text = text
        return _with_fragment(location, fragment.encode())
    except ValueError as error:
        raise ValueError(f"parse {quote(host_text)}: {error}") from None


def _with_fragment(location: Location, raw: bytes) -> Location:
    fragment = _unescape(raw, _FRAGMENT)
    return Location(
        **{name: getattr(location, name) for name in Location.__slots__[:-2]},
        fragment=fragment,
        raw_fragment=b"" if _escape(fragment, _FRAGMENT) == raw else raw,
    )


def _parse(text: bytes, *, via_request: bool) -> Location:
    if any(byte < 0x20 or byte == 0x7F for byte in text):
        raise ValueError("net/url: invalid control character in URL")
    if not text and via_request:
        raise ValueError("empty url")
    if text == b"*":
        return Location(path=b"*")
    scheme, rest = _split_scheme(text)
    force_query = rest.endswith(b"?") and rest.count(b"?") == 1
    rest, _, query = rest.partition(b"?")
    if not rest.startswith(b"/"):
        if scheme:
            return Location(scheme=scheme, opaque=rest, query=query, force_query=force_query)
        if via_request:
            raise ValueError("invalid URI for request")
        if b":" in rest.partition(b"/")[0]:
            raise ValueError("first path segment in URL cannot contain colon")
    user, host, omit_host = None, b"", False
    if rest.startswith(b"//") and (scheme or not (via_request or rest.startswith(b"///"))):
        authority, slash, path = rest[2:].partition(b"/")
        rest = slash + path
        user, host = _parse_authority(scheme, authority)
    elif scheme and rest.startswith(b"/"):
        omit_host = True
    path = _unescape(rest, _PATH)
    raw_path = b"" if _escape(path, _PATH) == rest else rest
    return Location(scheme, b"", user, host, path, raw_path, query, force_query, omit_host)


def _split_scheme(text: bytes) -> tuple[str, bytes]:
    if text.startswith(b":"):
        raise ValueError("missing protocol scheme")
    scheme, colon, rest = text.partition(b":")
    if not colon or scheme[0] not in _SCHEME or not _SCHEME_REST.issuperset(scheme):
        return "", text
    return scheme.decode().lower(), rest


def _parse_authority(scheme: str, authority: bytes) -> tuple[tuple[bytes, bytes | None] | None, bytes]:
    info, at, where = authority.rpartition(b"@")
    host = _parse_host(scheme, where)
    if not at:
        return None, host
    if not _USERINFO.issuperset(info):
        raise ValueError("net/url: invalid userinfo")
    name, colon, password = info.partition(b":")
    return (_unescape(name, _USER), _unescape(password, _USER) if colon else None), host


def _parse_host(scheme: str, host: bytes) -> bytes:
    bracket = host.rfind(b"[")
    if bracket > 0:
        raise ValueError("invalid IP-literal")
    if bracket == 0:
        return _parse_literal(host)
    colon = host.find(b":")
    if colon >= 0:
        # Several hosts with ports in one authority are a custom of databases; the web has one.
        port = host[colon if scheme in {"http", "https"} else host.rfind(b":") :]
        if not _is_port(port):
            raise ValueError(f"invalid port {_quoted(port)} after host")
    return _unescape(host, _HOST)


def _parse_literal(host: bytes) -> bytes:
    close = host.rfind(b"]")
    if close < 0:
        raise ValueError("missing ']' in host")
    name, port = host[1:close], host[close + 1 :]
    if not _is_port(port):
        raise ValueError(f"invalid port {_quoted(port)} after host")
    zone = name.find(b"%25")
    if zone >= 0:
        name = _unescape(name[:zone], _HOST) + _unescape(name[zone:], _HOST, zone=True)
    else:
        name = _unescape(name, _HOST)
    try:
        address, _ = ip_parser.parse_address(name.decode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise ValueError(f"invalid host: {error}") from None
    if len(address) == 4:
        raise ValueError("invalid IP-literal")
    return b"[" + name + b"]" + port


def _is_port(text: bytes) -> bool:
    return not text or (text.startswith(b":") and (len(text) == 1 or text[1:].isdigit()))


def _unescape(text: bytes, allowed: frozenset[int], *, zone: bool = False) -> bytes:
    in_host = allowed is _HOST
    if b"%" not in text and not in_host:
        return text
    out = bytearray()
    position = 0
    while position < len(text):
        byte = text[position]
        if byte == ord("%"):
            byte = _escaped_byte(text, position, in_host=in_host and not zone, in_zone=zone)
            position += 2
        elif in_host and byte < 0x80 and byte not in allowed:
            raise ValueError(f"invalid character {_quoted(text[position : position + 1])} in host name")
        out.append(byte)
        position += 1
    return bytes(out)


def _escaped_byte(text: bytes, position: int, *, in_host: bool, in_zone: bool) -> int:
    escape = text[position : position + 3]
    problem = f"invalid URL escape {_quoted(escape)}"
    if len(escape) < 3 or not _HEX.issuperset(escape[1:]):
        raise ValueError(problem)
    byte = int(escape[1:], 16)
    if escape != b"%25":
        # A host may escape bytes beyond ASCII only; a zone the same as a host, and a space.
        if in_host and byte < 0x80:
            raise ValueError(problem)
        if in_zone and byte != ord(" ") and byte not in _HOST:
            raise ValueError(problem)
    return byte


def _escape(text: bytes, allowed: frozenset[int]) -> bytes:
    if allowed.issuperset(text):
        return text
    return b"".join(bytes((byte,)) if byte in allowed else b"%%%02X" % byte for byte in text)


def _is_escaped(text: bytes, allowed: frozenset[int]) -> bool:
    return (allowed | _TOLERATED).issuperset(text)


def _quoted(text: bytes) -> str:
    return quote(text.decode("utf-8", "surrogateescape"))
