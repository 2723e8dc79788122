"""Host names and addresses in one spelling, as the node resolves them. Nothing here queries DNS."""

from __future__ import annotations

import ipaddress
import re

_MAX_HOSTS = 64


def normal_host(text: str) -> str:
    """Return one host name or address in one spelling.

    Case, trailing dots, brackets, an interface after ``%``, zero runs, IPv4 inside IPv6 and every spelling that
    inet_aton(3) accepts (``0x0a000009``, ``10.9``, ``167772169``) are the same address.
    """
    host = text.strip().strip("[]").partition("%")[0].rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _inet_aton(host) or host
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or (
            ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        )
        return str(inner or address)
    return str(address)


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NUMBER = re.compile(r"0x[0-9a-f]{1,8}|[0-9]{1,11}")
_SCHEME_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789+.-"
_PORT = re.compile(r"(.*):([0-9]+)")


def _inet_aton(host: str) -> str | None:
    """Return the address that inet_aton(3) reads: one to four parts in decimal, octal or hexadecimal."""
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    try:
        values = [
            int(part, 16) if part[:2] == "0x" else int(part, 8 if part[0] == "0" else 10) for part in parts
        ]
    except ValueError:
        return None
    *high, low = values
    if any(value > 255 for value in high) or low >= 256 ** (4 - len(high)):
        return None
    number = low
    for index, value in enumerate(high):
        number |= value << (24 - 8 * index)
    return str(ipaddress.IPv4Address(number))


def hosts(text: str) -> frozenset[str]:
    """Return the addresses in a server field: one, a comma list, or a URL, with or without ports and users."""
    names: set[str] = set()
    for item in re.split(r"[,;\s]+", text.strip())[:_MAX_HOSTS]:
        host = _without_scheme(item.lower()).partition("/")[0].rpartition("@")[2]
        if host.count(":") == 1 or host.startswith("["):
            port = _PORT.fullmatch(host)
            host = port[1] if port is not None else host.rstrip(":")
        if host:
            names.add(normal_host(host))
            decimal = ".".join(part.lstrip("0") or "0" for part in host.rstrip(".").split("."))
            # Some programs read 010.0.0.9 as decimal.
            if decimal != host.rstrip(".") and host.replace(".", "").isdigit():
                names.add(normal_host(decimal))
    return frozenset(names)


def _without_scheme(text: str) -> str:
    """Remove the first ``scheme://``; a regular expression would take time by the square of the length."""
    head, separator, rest = text.partition("://")
    return head.rstrip(_SCHEME_CHARACTERS) + rest if separator else text
