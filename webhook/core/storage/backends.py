"""What stands behind a volume, so that two volumes onto the same storage are known to be the same.

A backend is described by exact keys (a disk, a volume handle), by paths in a space where directories contain each other
(a node, an NFS server), and by the attributes of a driver. Nothing is resolved: two names of one NFS server are two
servers here, so an asset should be declared under every name its server answers to.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from webhook.core.patterns import normal_path, paths_touch

if TYPE_CHECKING:
    from collections.abc import Mapping

NODE = "node"

_NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Backend:
    """The storage behind a volume. ``via`` is the field of the volume that names it.

    ``keys`` each identify it alone; ``paths`` are (space, path). ``driver``, ``handle`` and ``attributes`` (keys in
    lower case) are those of CSI, or what an in-tree type is translated to. ``nodes`` are the only nodes where a
    node's path is meant, or None for any.
    """

    via: str
    keys: tuple[str, ...] = ()
    paths: tuple[tuple[str, str], ...] = ()
    driver: str = ""
    handle: str = ""
    attributes: Mapping[str, str] = field(default_factory=lambda: _NO_ATTRIBUTES)
    nodes: frozenset[str] | None = None

    def identity(self) -> tuple[tuple[str, str, str], ...]:
        """The attributes that may identify the storage, as (driver, key, value), to look up others by."""
        if self.paths:
            return ()
        return tuple(
            (self.driver, key, value)
            for key, value in self.attributes.items()
            if value and key in _IDENTIFYING
        )

    def shares_attributes(self, other: Backend) -> bool:
        """Whether nothing both backends name tells them apart: names are equal, directories touch."""
        for key, value in self.attributes.items():
            known = other.attributes.get(key)
            if not value or not known:
                continue
            if key in _DIRECTORIES:
                if not paths_touch(normal_path(value), normal_path(known)):
                    return False
            elif key in _TELLING and value != known:
                return False
        return True

    def apart(self, other: Backend) -> bool:
        """Whether two node paths are surely on different nodes."""
        return self.nodes is not None and other.nodes is not None and self.nodes.isdisjoint(other.nodes)


# Attributes of drivers nobody described: names of the storage, what only narrows it down, and directories in it.
_IDENTIFYING = frozenset(
    {
        "bucket",
        "bucketname",
        "container",
        "containername",
        "share",
        "sharename",
        "source",
        "volume",
        "volumename",
    }
    | {
        "volumeid",
        "volumepath",
        "image",
        "imagename",
        "filesystemid",
        "dataset",
        "datasetname",
        "device",
        "devicepath",
    }
    | {
        "iqn",
        "uri",
        "url",
        "repo",
        "repository",
        "model",
        "modelname",
        "dnsname",
        "disk",
        "diskname",
        "diskuri",
        "export",
    }
    | {"exportpath", "lun", "subvolumename", "journaluuid"}
)
_NARROWING = frozenset(
    {
        "account",
        "accountname",
        "storageaccount",
        "server",
        "endpoint",
        "host",
        "clusterid",
        "fsname",
        "filesystem",
    }
    | {
        "filesystemname",
        "pool",
        "project",
        "region",
        "mountname",
        "targetportal",
        "target",
        "name",
        "id",
        "revision",
    }
)
_TELLING = _IDENTIFYING | _NARROWING
_DIRECTORIES = frozenset(
    {
        "prefix",
        "subdir",
        "subpath",
        "path",
        "dir",
        "directory",
        "folder",
        "rootpath",
        "subvolumepath",
        "basepath",
        "root",
    }
)


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
