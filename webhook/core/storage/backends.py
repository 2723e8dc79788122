"""What stands behind a volume, so that two volumes onto the same storage are known to be the same.

A backend is described by exact keys (a disk, a volume handle), by paths in a space where directories contain each other
(a node, an NFS server), and by the attributes of a driver. Nothing is resolved: two names of one NFS server are two
servers here, so an asset should be declared under every name its server answers to.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from webhook.core.kube.names import normal_path, paths_touch

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE = "node"

_NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Backend:
    """The storage behind a volume. ``via`` is the field of the volume that names it.

    ``keys`` each identify it alone; ``paths`` are (space, path). ``driver``, ``handle`` and ``attributes`` (keys in
    lower case) are those of CSI, or what an in-tree type is translated to; ``by_attributes`` says whether they
    identify the storage where its paths do not. ``nodes`` are the only nodes where a node's path is meant, or None
    for any.
    """

    via: str
    keys: tuple[str, ...] = ()
    paths: tuple[tuple[str, str], ...] = ()
    driver: str = ""
    handle: str = ""
    attributes: Mapping[str, str] = field(default_factory=lambda: _NO_ATTRIBUTES)
    nodes: frozenset[str] | None = None
    by_attributes: bool = True

    def identity(self) -> tuple[tuple[str, str, str], ...]:
        """The attributes that may identify the storage, as (driver, key, value), to look up others by."""
        if not self.by_attributes:
            return ()
        return tuple(
            (self.driver, key, value)
            for key, value in self.attributes.items()
            if value and _IDENTIFYING.fullmatch(key)
        )

    def shares_attributes(self, other: Backend) -> bool:
        """Whether nothing both backends name tells them apart: names are equal, directories touch."""
        for key, value in self.attributes.items():
            known = other.attributes.get(key)
            if not value or not known:
                continue
            if _DIRECTORY.fullmatch(key):
                if not paths_touch(normal_path(value), normal_path(known)):
                    return False
            elif value != known and (_IDENTIFYING.fullmatch(key) or _NARROWING.fullmatch(key)):
                return False
        return True

    def apart(self, other: Backend) -> bool:
        """Whether two node paths are surely on different nodes."""
        return self.nodes is not None and other.nodes is not None and self.nodes.isdisjoint(other.nodes)


# Where a driver knows its storage by a Secret, the name of that Secret stands under this attribute.
REFERENCE = "@reference"

# Attributes of drivers nobody described: names of the storage, what only narrows it down, and directories in it.
_IDENTIFYING = re.compile(
    r"@reference|(?:bucket|container|dataset|disk|image|model|share|subvolume|volume)(?:name)?|device(?:path)?|diskuri|"
    r"dnsname|export(?:path)?|filesystemid|fluid_path|iqn|journaluuid|lun|repo(?:sitory)?|source|ur[il]|volume(?:id|path)"
)
_NARROWING = re.compile(
    r"(?:storage)?account(?:name)?|address|clusterid|endpoint|filesystem(?:name)?|fsname|host(?:name)?|id|ip|(?:mount)?name|"
    r"pool|project|region|revision|server|target(?:portal)?"
)
_DIRECTORY = re.compile(r"(?:base|root|sub|subvolume)?path|(?:sub)?dir(?:ectory)?|folder|prefix|root")


def nfs_space(server: str) -> str:
    """The space of an NFS server's paths, with the address or name in one spelling."""
    return f"nfs:{normal_host(server)}"


def normal_host(host: str) -> str:
    """A host name or address in one spelling: case, trailing dot, IPv6 brackets and zero runs."""
    host = host.strip().strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return str(getattr(address, "ipv4_mapped", None) or address)
