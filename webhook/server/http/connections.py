"""Decides which connections a listener takes, so that one client cannot use up what the others need.

Connections are counted by address and in total. A part of the total is reserved for known callers: those whose address
is listed, and those that have authenticated. A connection is *silent* until it brings a whole request, and again while
the header of the next one is incomplete. Silent connections are closed after a time, and sooner if their address has
many of them or needs the room. Every limit therefore recovers by itself.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# A header, the TLS handshake included, arrives within this time; within the short one if an address has many of them.
HEADER_SECONDS: Final = 5.0
_SHORT_SECONDS: Final = 1.0
_MANY_SILENT: Final = 64
# A connection that was silent for less may still be in its handshake.
_HANDSHAKE_SECONDS: Final = 0.5
_MAX_ADDRESSES: Final = 65536
# Descriptors for files, the API server and the other processes, and for the connections of `WATCH_LIMITS`.
_OTHER_DESCRIPTORS: Final = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections there may be. ``networks`` are the addresses of known callers."""

    total: int = 4096
    per_address: int = 512
    reserved: int = 1024
    networks: tuple[Network, ...] = ()


# For a listener of health and metrics: few clients, and no descriptor of the other listener.
WATCH_LIMITS: Final = Limits(total=128, per_address=64, reserved=0)


@dataclass(slots=True, eq=False)
class Connection:
    """One connection that was taken. ``silent_since`` is None while no header is awaited."""

    address: str
    known: bool
    close: Callable[[], object]
    silent_since: float | None
    counted: bool = True


@dataclass(slots=True)
class Connections:
    """All connections of one listener. Use it from the event loop's thread."""

    limits: Limits = field(default_factory=Limits)
    rejected: int = 0
    timed_out: int = 0
    _open: int = 0
    _unknown: int = 0
    _by_address: Counter[str] = field(default_factory=Counter)
    _silent: dict[str, dict[Connection, None]] = field(default_factory=dict)
    _listed: dict[str, bool] = field(default_factory=dict)

    @property
    def open(self) -> int:
        """Number of connections."""
        return self._open

    @property
    def silent(self) -> int:
        """Number of connections whose header is awaited."""
        return sum(map(len, self._silent.values()))

    def take(self, address: str, close: Callable[[], object]) -> Connection | None:
        """Count a new connection, or return None if the limits are reached. ``close`` closes it."""
        group = address_group(address)
        is_known = bool(self.limits.networks) and self.is_listed(address)
        if self._is_full(group, known=is_known):
            self._make_room(group, known=is_known)
            if self._is_full(group, known=is_known):
                self.rejected += 1
                return None
        connection = Connection(group, is_known, close, monotonic())
        self._open += 1
        if not is_known:
            self._unknown += 1
            self._by_address[group] += 1
        self._silent.setdefault(group, {})[connection] = None
        return connection

    def awaits(self, connection: Connection) -> None:
        """Note that the header of a request is incomplete."""
        if connection.silent_since is None:
            connection.silent_since = monotonic()
            self._silent.setdefault(connection.address, {})[connection] = None

    def has_request(self, connection: Connection) -> None:
        """Note that a connection has brought a whole header."""
        if connection.silent_since is not None:
            connection.silent_since = None
            self._not_silent(connection)

    def authenticated(self, connection: Connection) -> None:
        """Note that a caller has authenticated: the limit of its address no longer covers this connection."""
        if connection.counted and not connection.known:
            self._leave_address(connection)
            connection.known = True

    def release(self, connection: Connection) -> None:
        """Forget a connection that was closed; again is harmless."""
        if not connection.counted:
            return
        connection.counted = False
        self._open -= 1
        self._not_silent(connection)
        if not connection.known:
            self._leave_address(connection)

    def close_silent(self) -> None:
        """Close the connections whose header did not arrive in time. Call it several times a second."""
        now = monotonic()
        for connections in tuple(self._silent.values()):
            limit = HEADER_SECONDS if len(connections) <= _MANY_SILENT else _SHORT_SECONDS
            for connection in tuple(connections):
                if connection.silent_since is None or now - connection.silent_since < limit:
                    break
                self._time_out(connection)

    def is_listed(self, address: str) -> bool:
        """Whether an address is in the networks of known callers."""
        result = self._listed.get(address)
        if result is None:
            if len(self._listed) >= _MAX_ADDRESSES:
                self._listed.clear()
            result = self._listed[address] = is_in(address, self.limits.networks)
        return result

    def _is_full(self, group: str, *, known: bool) -> bool:
        limits = self.limits
        if known:
            return self._open >= limits.total
        return (
            self._unknown >= limits.total - limits.reserved or self._by_address[group] >= limits.per_address
        )

    def _make_room(self, group: str, *, known: bool) -> None:
        """Close the connection that is silent for the longest: of the same address, or if the total is full, of any."""
        crowded = not known and self._by_address[group] >= self.limits.per_address
        groups = [group] if crowded else list(self._silent)
        oldest = min(
            (next(iter(self._silent[each])) for each in groups if self._silent.get(each)),
            key=lambda connection: connection.silent_since or 0.0,
            default=None,
        )
        if oldest is not None and monotonic() - (oldest.silent_since or 0.0) >= _HANDSHAKE_SECONDS:
            self._time_out(oldest)

    def _time_out(self, connection: Connection) -> None:
        self.timed_out += 1
        self.release(connection)
        connection.close()

    def _not_silent(self, connection: Connection) -> None:
        connections = self._silent.get(connection.address)
        if connections is not None:
            connections.pop(connection, None)
            if not connections:
                del self._silent[connection.address]

    def _leave_address(self, connection: Connection) -> None:
        self._unknown -= 1
        self._by_address[connection.address] -= 1
        if self._by_address[connection.address] <= 0:
            del self._by_address[connection.address]


def address_group(address: str) -> str:
    """Return what the limits count by: an IPv4 address, or the /64 of an IPv6 address."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


def is_in(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks; an IPv4 address may be written as IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    plain = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(plain.version == network.version and plain in network for network in networks)


def fit_descriptors(limits: Limits) -> Limits:
    """Raise the process's limit of descriptors, or lower the limits to what the system permits."""
    try:
        import resource  # noqa: PLC0415 - absent on Windows
    except ImportError:
        return limits
    required = limits.total + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < required:
        with suppress(OSError, ValueError):
            limit = required if hard == resource.RLIM_INFINITY else min(required, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY or soft >= required:
        return limits
    total = max(32, soft - _OTHER_DESCRIPTORS)
    return Limits(
        total=total,
        per_address=min(limits.per_address, max(16, total // 4)),
        reserved=min(limits.reserved, total // 4),
        networks=limits.networks,
    )
