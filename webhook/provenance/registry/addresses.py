"""Addresses that an image reference must not lead to: those of the node, of its links and of cluster services.

A user chooses image references, and a registry chooses redirects and its token service. Only the hosts of configured
registries and mirrors are exempt. The check is in the resolver, so a name cannot change its address after the check.
"""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

if TYPE_CHECKING:
    from collections.abc import Collection

# Metadata services at addresses that are neither loopback nor link-local: Amazon EC2 and Alibaba Cloud.
_METADATA: Final = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200")))
_CLUSTER: Final = (".svc", ".cluster.local")


def address_fault(text: str) -> str:
    """Return why an address is not allowed; empty for an allowed one, and for a name."""
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
    if (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.version == 4 and address.is_reserved)
        or address in _METADATA
    ):
        return f"the address {text} is local: add the registry to images.registries to allow it"
    return ""


def host_fault(host: str) -> str:
    """Return why a host is not allowed: a local address, or a name of a cluster service."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith((".localhost", *_CLUSTER)):
        return f"the host {name[:100]} is local: add the registry to images.registries to allow it"
    return address_fault(name)


class Resolver(AbstractResolver):
    """Resolves names, and rejects those that lead to a local address. ``exempt`` are configured hosts."""

    def __init__(self, exempt: Collection[str]) -> None:
        self._exempt, self._inner = frozenset(exempt), ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises `OSError`."""
        try:
            results = await self._inner.resolve(host, port, family)
        except UnicodeError:
            raise OSError(f"{host[:100]!r} is not a host name") from None
        if host not in self._exempt:
            for result in results:
                fault = address_fault(result["host"])
                if fault:
                    raise OSError(fault)
        return results

    async def close(self) -> None:
        """Do nothing: the resolver has no resources."""
