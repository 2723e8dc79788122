"""The ``ip`` and ``cidr`` libraries.

Follow k8s.io/apiserver ``pkg/cel/library/ip.go`` and ``cidr.go``: no zones, no IPv4-mapped IPv6 addresses, and host
bits are allowed in a CIDR. Nothing here resolves a name or opens a socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Final, Self

from webhook.cel.libraries import ip_parser, opaque
from webhook.cel.libraries.declarations import BOOL, INT, STRING, CelType, Overload, method
from webhook.cel.libraries.quoting import quote

if TYPE_CHECKING:
    from collections.abc import Callable

# The longest text of an address is 45 characters; anything much longer is rejected before it is parsed or cached.
_LONGEST: Final = 256


@dataclass(frozen=True, slots=True)
class IP:
    """An address of 4 or 16 bytes, in network order."""

    TYPE: ClassVar[str] = opaque.IP

    address: bytes

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`."""
        return (self.address.hex(),)

    @classmethod
    def of(cls, address: str) -> Self:
        """See `opaque.Opaque`."""
        return cls(_bytes(address))

    def __str__(self) -> str:
        return ip_parser.write(self.address)

    @property
    def number(self) -> int:
        """The address as one number, whose upper bits are the network."""
        return int.from_bytes(self.address, "big")

    def within(self, network: CIDR) -> bool:
        """Return whether the address starts with the bits of ``network``; never across families."""
        return CIDR(self.address, len(self.address) * 8).within(network)


@dataclass(frozen=True, slots=True)
class CIDR:
    """A prefix as it was written: its host bits remain, and two prefixes that differ there are not equal."""

    TYPE: ClassVar[str] = opaque.CIDR

    address: bytes
    length: int

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`."""
        return self.address.hex(), str(self.length)

    @classmethod
    def of(cls, address: str, length: str) -> Self:
        """See `opaque.Opaque`."""
        prefix = cls(_bytes(address), int(length))
        if not 0 <= prefix.length <= len(prefix.address) * 8:
            raise ValueError("prefix length out of range")
        return prefix

    def __str__(self) -> str:
        return f"{ip_parser.write(self.address)}/{self.length}"

    def masked(self) -> CIDR:
        """Return the prefix with its host bits cleared."""
        width = len(self.address) * 8
        host = width - self.length
        number = int.from_bytes(self.address, "big") >> host << host
        return CIDR(number.to_bytes(len(self.address), "big"), self.length)

    def within(self, network: CIDR) -> bool:
        """Return whether every address of this prefix is in ``network``."""
        if len(self.address) != len(network.address) or self.length < network.length:
            return False
        host = len(self.address) * 8 - network.length
        return int.from_bytes(self.address, "big") >> host == int.from_bytes(network.address, "big") >> host


def parse_ip(text: str) -> IP:
    """Return the address ``text`` denotes; raises ValueError with the API server's words."""
    return _parse_ip(text) if len(text) <= _LONGEST else _parse_ip(text[:_LONGEST] + "%")


@lru_cache(maxsize=1024)
def _parse_ip(text: str) -> IP:
    try:
        address, zone = ip_parser.parse_address(text)
    except ValueError as error:
        raise ValueError(
            f"IP Address {quote(text)} parse error during conversion from string: {error}"
        ) from None
    if zone:
        raise ValueError(f"IP address {quote(text)} with zone value is not allowed")
    if ip_parser.is_mapped(address):
        raise ValueError(f"IPv4-mapped IPv6 address {quote(text)} is not allowed")
    return IP(address)


def parse_cidr(text: str) -> CIDR:
    """Return the prefix ``text`` denotes; raises ValueError with the API server's words."""
    return _parse_cidr(text) if len(text) <= _LONGEST else _parse_cidr(text[:_LONGEST])


@lru_cache(maxsize=1024)
def _parse_cidr(text: str) -> CIDR:
    problem = "network address parse error during conversion from string: "
    try:
        address, length = ip_parser.parse_prefix(text)
    except ValueError as error:
        # The API server reports it twice.
        raise ValueError(f"{problem}{problem}{error}") from None
    if ip_parser.is_mapped(address):
        raise ValueError(f"{problem}IPv4-mapped IPv6 address {quote(text)} is not allowed")
    return CIDR(address, length)


def _bytes(text: str) -> bytes:
    address = bytes.fromhex(text)
    if len(address) not in (4, 16):
        raise ValueError("not an address")
    return address


def _is_ip(text: str) -> bool:
    try:
        parse_ip(text)
    except ValueError:
        return False
    return True


def _is_cidr(text: str) -> bool:
    try:
        parse_cidr(text)
    except ValueError:
        return False
    return True


def _contains_text(network: CIDR, text: str) -> bool:
    try:
        return parse_ip(text).within(network)
    except ValueError:
        # The API server hands the failed conversion on as if it were an address.
        raise ValueError("no such overload") from None


def _networks(*texts: str) -> tuple[CIDR, ...]:
    return tuple(parse_cidr(text) for text in texts)


_LOOPBACK: Final = _networks("127.0.0.0/8", "::1/128")
_LINK_LOCAL: Final = _networks("169.254.0.0/16", "fe80::/10")
_MULTICAST: Final = _networks("224.0.0.0/4", "ff00::/8")
_BROADCAST: Final = IP(b"\xff" * 4)


def _in_any(networks: tuple[CIDR, ...]) -> Callable[[IP], bool]:
    return lambda ip: any(ip.within(network) for network in networks)


def _is_link_local_multicast(ip: IP) -> bool:
    if len(ip.address) == 4:
        return ip.address[:3] == b"\xe0\0\0"
    return ip.address[0] == 0xFF and ip.address[1] & 0x0F == 2


def _is_unspecified(ip: IP) -> bool:
    return ip.number == 0


def _is_global_unicast(ip: IP) -> bool:
    excluded = _LOOPBACK + _MULTICAST + _LINK_LOCAL
    return ip.number != 0 and ip != _BROADCAST and not any(ip.within(network) for network in excluded)


_IP: Final = CelType(opaque.IP)
_CIDR: Final = CelType(opaque.CIDR)

OVERLOADS: Final = (
    Overload("ip", "string_to_ip", (STRING,), _IP, parse_ip),
    Overload("isIP", "is_ip", (STRING,), BOOL, _is_ip),
    Overload("ip.isCanonical", "ip_is_canonical", (STRING,), BOOL, lambda text: str(parse_ip(text)) == text),
    method("family", "ip_family", (_IP,), INT, lambda ip: 4 if len(ip.address) == 4 else 6),
    method("isUnspecified", "ip_is_unspecified", (_IP,), BOOL, _is_unspecified),
    method("isLoopback", "ip_is_loopback", (_IP,), BOOL, _in_any(_LOOPBACK)),
    method("isLinkLocalMulticast", "ip_is_link_local_multicast", (_IP,), BOOL, _is_link_local_multicast),
    method("isLinkLocalUnicast", "ip_is_link_local_unicast", (_IP,), BOOL, _in_any(_LINK_LOCAL)),
    method("isGlobalUnicast", "ip_is_global_unicast", (_IP,), BOOL, _is_global_unicast),
    Overload("string", "ip_to_string", (_IP,), STRING, str),
    Overload("cidr", "string_to_cidr", (STRING,), _CIDR, parse_cidr),
    Overload("isCIDR", "is_cidr", (STRING,), BOOL, _is_cidr),
    method("containsIP", "cidr_contains_ip_ip", (_CIDR, _IP), BOOL, lambda net, ip: ip.within(net)),
    method("containsIP", "cidr_contains_ip_string", (_CIDR, STRING), BOOL, _contains_text),
    method("containsCIDR", "cidr_contains_cidr", (_CIDR, _CIDR), BOOL, lambda net, other: other.within(net)),
    method(
        "containsCIDR",
        "cidr_contains_cidr_string",
        (_CIDR, STRING),
        BOOL,
        lambda net, other: parse_cidr(other).within(net),
    ),
    method("ip", "cidr_ip", (_CIDR,), _IP, lambda net: IP(net.address)),
    method("masked", "cidr_masked", (_CIDR,), _CIDR, CIDR.masked),
    method("prefixLength", "cidr_prefix_length", (_CIDR,), INT, lambda net: net.length),
    Overload("string", "cidr_to_string", (_CIDR,), STRING, str),
)
