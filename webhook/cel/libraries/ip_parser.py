"""IP addresses and prefixes as Go's ``net/netip`` reads them, with its words for what is wrong.

Python's ``ipaddress`` only formats addresses: it accepts forms that netip rejects, and its errors differ.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from webhook.cel.libraries.quoting import quote

_HEX: Final = re.compile(r"[0-9A-Fa-f]*")
_OCTET_DIGITS: Final = frozenset("0123456789")


def parse_address(text: str) -> tuple[bytes, str]:
    """Return the 4 or 16 bytes of an address and its zone; raises ValueError as ``netip.ParseAddr`` words it."""
    for character in text:
        if character == ".":
            return _ipv4(text, text), ""
        if character == ":":
            return _ipv6(text)
        if character == "%":
            raise _error(text, "missing IPv6 address")
    raise _error(text, "unable to parse IP")


def parse_prefix(text: str) -> tuple[bytes, int]:
    """Return the address bytes and the length of a prefix; raises ValueError as ``netip.ParsePrefix`` words it."""
    where, slash, length = text.rpartition("/")
    problem = f"netip.ParsePrefix({quote(text)}): "
    if not slash:
        raise ValueError(problem + "no '/'")
    try:
        address, zone = parse_address(where)
    except ValueError as error:
        raise ValueError(f"{problem}{error}") from None
    if zone:
        raise ValueError(problem + "IPv6 zones cannot be present in a prefix")
    if (
        not length.isascii()
        or not length.isdigit()
        or (len(length) > 1 and length[0] == "0")
        or _huge(length)
    ):
        raise ValueError(f"{problem}bad bits after slash: {quote(length)}")
    if int(length) > len(address) * 8:
        raise ValueError(problem + "prefix length out of range")
    return address, int(length)


def write(address: bytes) -> str:
    """Return the canonical text of an address of 4 or 16 bytes (RFC 5952)."""
    return str(IPv4Address(address)) if len(address) == 4 else str(IPv6Address(address))


def is_mapped(address: bytes) -> bool:
    """Return whether 16 bytes contain an IPv4 address (``::ffff:0:0/96``)."""
    return len(address) == 16 and address.startswith(b"\0" * 10 + b"\xff\xff")


def _huge(number: str) -> bool:
    """Return whether a decimal number is beyond an int64, where Go's ``strconv.Atoi`` gives up."""
    return len(number) > 19 or int(number) > 2**63 - 1


def _ipv4(whole: str, text: str) -> bytes:
    octets = bytearray()
    value = digits = 0
    for position, character in enumerate(text):
        if character in _OCTET_DIGITS:
            if digits == 1 and value == 0:
                raise _error(whole, "IPv4 field has octet with leading zero")
            value = value * 10 + int(character)
            digits += 1
            if value > 255:
                raise _error(whole, "IPv4 field has value >255")
        elif character == ".":
            if not digits or position == len(text) - 1:
                raise _error(whole, "IPv4 field must have at least one digit", text[position:])
            if len(octets) == 3:
                raise _error(whole, "IPv4 address too long")
            octets.append(value)
            value = digits = 0
        else:
            raise _error(whole, "unexpected character", text[position:])
    if len(octets) < 3:
        raise _error(whole, "IPv4 address too short")
    octets.append(value)
    return bytes(octets)


def _ipv6(whole: str) -> tuple[bytes, str]:
    rest, percent, zone = whole.partition("%")
    if percent and not zone:
        raise _error(whole, "zone must be a non-empty string")
    groups = bytearray()
    gap = -1
    if rest.startswith("::"):
        gap, rest = 0, rest[2:]
    while rest or gap != len(groups):
        group = _group(whole, rest)
        if rest[len(group) : len(group) + 1] == ".":
            return _expanded(whole, groups + _embedded(whole, rest, len(groups), gap), gap), zone
        groups += int(group, 16).to_bytes(2, "big")
        rest = rest[len(group) :]
        if not rest:
            break
        rest = _after_colon(whole, rest)
        if rest[0] == ":":
            if gap >= 0:
                raise _error(whole, "multiple :: in address", rest)
            gap, rest = len(groups), rest[1:]
        if len(groups) == 16:
            break
    if rest:
        raise _error(whole, "trailing garbage after address", rest)
    return _expanded(whole, groups, gap), zone


def _after_colon(whole: str, rest: str) -> str:
    if rest[0] != ":":
        raise _error(whole, "unexpected character, want colon", rest)
    if len(rest) == 1:
        raise _error(whole, "colon must be followed by more characters", rest)
    return rest[1:]


def _group(whole: str, rest: str) -> str:
    match = _HEX.match(rest)
    group = match[0] if match else ""
    if not group:
        raise _error(whole, "each colon-separated field must have at least one digit", rest)
    if len(group) > 4:
        raise _error(whole, "each group must have 4 or less digits", rest)
    return group


def _embedded(whole: str, rest: str, filled: int, gap: int) -> bytes:
    if gap < 0 and filled != 12:
        raise _error(whole, "embedded IPv4 address must replace the final 2 fields of the address", rest)
    if filled > 12:
        raise _error(whole, "too many hex fields to fit an embedded IPv4 at the end of the address", rest)
    return _ipv4(whole, rest)


def _expanded(whole: str, groups: bytearray, gap: int) -> bytes:
    missing = 16 - len(groups)
    if missing and gap < 0:
        raise _error(whole, "address string too short")
    if not missing and gap >= 0:
        raise _error(whole, "the :: must expand to at least one field of zeros")
    return bytes(groups[:gap]) + bytes(missing) + bytes(groups[gap:]) if missing else bytes(groups)


def _error(text: str, message: str, at: str = "") -> ValueError:
    return ValueError(f"ParseAddr({quote(text)}): {message}" + (f" (at {quote(at)})" if at else ""))
