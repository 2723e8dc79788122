"""The storage behind a volume: its locations, and what is needed to decide whether it is provably other storage.

`sources` makes backends. A backend of a driver without an entry in `drivers` has no locations but its handle, and is
compared by the names of its attributes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from webhook.core.kube.names import normal_path, path_within, paths_touch
from webhook.core.storage.locations import FOLDED_NFS, NODE, Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NO_ATTRIBUTES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Backend:
    """The storage behind a volume. ``via`` is the field of the volume that names it.

    ``driver``, ``handle`` and ``attributes`` (keys in lower case) are those of CSI, or the CSI
    translation of an in-tree type. ``listed`` is false for a driver without an entry, ``certain`` is false where there
    may be more locations. ``images`` are OCI references that the driver mounts. ``nodes`` are the only nodes of a
    node's path, or None for any. ``own_directory`` is a directory of the node that only the driver's volumes are in.
    """

    via: str
    locations: tuple[Location, ...] = ()
    driver: str = ""
    handle: str = ""
    attributes: Mapping[str, str] = field(default_factory=lambda: _NO_ATTRIBUTES)
    spaces: frozenset[str] = frozenset()
    nodes: frozenset[str] | None = None
    images: tuple[str, ...] = ()
    inline: bool = False
    listed: bool = True
    certain: bool = True
    own_directory: str = ""

    @property
    def node_paths(self) -> Iterator[str]:
        """The paths of the node that the volume mounts."""
        return (location.path for location in self.locations if location.space == NODE)

    @property
    def exposed_paths(self) -> Iterator[str]:
        """The paths of the node that the volume mounts, except those that belong to volumes of its driver."""
        own = self.own_directory
        return (path for path in self.node_paths if not own or path == own or not path_within(path, own))

    @property
    def identity(self) -> str:
        """The identity as `weightlock explain` prints it; empty where nothing is known."""
        locations = self.locations
        for location in locations:
            if not location.space.startswith("csi:") and location.space != FOLDED_NFS:
                return str(location)
        return str(locations[0]) if locations else ""

    def named_attributes(self) -> tuple[tuple[str, str, str], ...]:
        """The attributes that may identify the storage of an unlisted driver, as (driver, key, value)."""
        if self.listed:
            return ()
        return tuple(
            (self.driver, key, value)
            for key, value in self.attributes.items()
            if value and _IDENTIFYING.fullmatch(key)
        )

    def shares_attributes(self, other: Backend) -> bool:
        """Whether no attribute that both backends have tells them apart: names are equal, directories touch."""
        for key, value in self.attributes.items():
            existing = other.attributes.get(key)
            if not value or not existing:
                continue
            if _DIRECTORY.fullmatch(key):
                if not paths_touch(normal_path(value), normal_path(existing)):
                    return False
            elif value != existing and (_IDENTIFYING.fullmatch(key) or _NARROWING.fullmatch(key)):
                return False
        return True

    def apart(self, other: Backend) -> bool:
        """Whether two node paths are surely on different nodes."""
        return self.nodes is not None and other.nodes is not None and self.nodes.isdisjoint(other.nodes)


# Attributes of drivers without an entry: names of the storage, what only narrows it down, and directories in it.
_IDENTIFYING = re.compile(
    r"(?:bucket|container|dataset|disk|image|model|share|subvolume|volume)(?:name)?|device(?:path)?|diskuri|"
    r"dnsname|export(?:path)?|filesystemid|iqn|journaluuid|lun|repo(?:sitory)?|source|ur[il]|volume(?:id|path)"
)
_NARROWING = re.compile(
    r"(?:storage)?account(?:name)?|address|clusterid|endpoint|filesystem(?:name)?|fsname|host(?:name)?|id|ip|(?:mount)?name|"
    r"pool|project|region|revision|server|target(?:portal)?"
)
_DIRECTORY = re.compile(r"(?:base|root|sub|subvolume)?path|(?:sub)?dir(?:ectory)?|folder|prefix|root")
