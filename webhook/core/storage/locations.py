"""Where storage lies, in a form that every driver and volume type shares, and the comparison of two such places.

A `Location` is a directory in a space: an NFS export, a bucket, an RBD image. Drivers that reach the same storage give
the same space, so that an alias through another driver is recognised. Nothing here resolves names: an address that
differs proves nothing, and the answer is then "possibly the same".

Example: ``nfs 0x0a000009:/export//atlas/../atlas`` and ``nfs.csi.k8s.io`` with ``server: 10.0.0.9, share: /export``
are the same storage, because one address is shared and one directory contains the other.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar
from urllib.parse import unquote

from webhook.core.kube.names import (
    GlobIndex,
    PathIndex,
    ancestors,
    compile_glob,
    is_glob,
    normal_path,
    path_within,
    paths_touch,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

T = TypeVar("T")

NODE = "node"
# NFS exports by folded paths, which are possibly the same at best.
FOLDED_NFS = "nfs~"
# Spaces in which one path on two hosts is two directories: without a shared address nothing is proven.
_ADDRESSED = frozenset({"nfs", "smb"})

_NO_ADDRESSES: frozenset[str] = frozenset()
_SNAPSHOT = re.compile(r"/(?:\.snapshots?|~snapshot|\.zfs/+snapshot)(?:/+[^/]+)?(?=/|$)")
_TEMPLATE = re.compile(r"\$\{|\$\(|\{\{|%\{|\{[A-Za-z_.]+\}")


class Relation(Enum):
    """What is known about two locations."""

    SAME = "same"
    POSSIBLE = "possible"
    OTHER = "other"


class Location(NamedTuple):
    """A directory of a storage system.

    ``name`` identifies the system exactly (bucket, file system, pool, target); empty stands for any. ``addresses`` are
    hosts that reach it; two systems with different addresses may be one. ``vague`` means: somewhere below ``path``.
    """

    space: str
    name: str = ""
    path: str = "/"
    addresses: frozenset[str] = _NO_ADDRESSES
    vague: bool = False

    def __str__(self) -> str:
        """Return the identity as `weightlock explain` prints it."""
        return _describe(self)


@lru_cache(maxsize=4096)
def _describe(location: Location) -> str:
    hosts = ",".join(sorted(location.addresses))
    system = "/".join(part for part in (hosts, location.name) if part)
    path = "" if location.path == "/" and system else location.path
    return f"{location.space.rstrip('~')}://{system}{path}{'/…' if location.vague else ''}"


def relation(one: Location, other: Location) -> Relation:
    """Compare two locations without wildcards."""
    if one.space != other.space or (one.name and other.name and one.name != other.name):
        return Relation.OTHER
    return _relation(one, other) if paths_touch(one.path, other.path) else Relation.OTHER


def _relation(one: Location, other: Location) -> Relation:
    """Compare two locations whose space and name agree and whose paths touch."""
    if (one.vague and not one.name and other.name) or (other.vague and not other.name and one.name):
        return Relation.POSSIBLE
    if one.space == FOLDED_NFS:
        return Relation.POSSIBLE
    if one.vague and (other.vague or not path_within(one.path, other.path)):
        return Relation.POSSIBLE
    if other.vague and not path_within(other.path, one.path):
        return Relation.POSSIBLE
    return Relation.SAME if _share_address(one, other) else Relation.POSSIBLE


def _share_address(one: Location, other: Location) -> bool:
    if one.addresses and other.addresses:
        return not one.addresses.isdisjoint(other.addresses) or any(
            compile_glob(pattern).fullmatch(address) is not None
            for pattern in other.addresses
            if is_glob(pattern)
            for address in one.addresses
        )
    return one.space not in _ADDRESSED


class _Paths(Generic[T]):
    """Values at literal paths; each can be removed again."""

    __slots__ = ("_above", "_at")

    def __init__(self) -> None:
        self._at: dict[str, dict[int, tuple[Location, T]]] = {}
        self._above: dict[str, dict[int, tuple[Location, T]]] = {}

    def add(self, entry: tuple[Location, T]) -> None:
        """Put a value at the path of its location."""
        path, key = entry[0].path, id(entry[1])
        self._at.setdefault(path, {})[key] = entry
        for above in ancestors(path):
            self._above.setdefault(above, {})[key] = entry

    def discard(self, path: str, value: T) -> None:
        """Remove a value from a path."""
        _discard(self._at, path, id(value))
        for above in ancestors(path):
            # Another location of this value may lie below the same directory.
            below = self._above.get(above, {}).get(id(value))
            if below is not None and below[0].path == path:
                _discard(self._above, above, id(value))

    def find(self, path: str) -> Iterator[tuple[Location, T]]:
        """Every entry whose path contains this one or lies below it."""
        below = self._above.get(path)
        if below:
            yield from below.values()
        for above in ancestors(path):
            at = self._at.get(above)
            if at:
                yield from at.values()


def _discard(index: dict[str, dict[int, tuple[Location, T]]], path: str, key: int) -> None:
    values = index.get(path)
    if values is not None:
        values.pop(key, None)
        if not values:
            del index[path]


class LocationIndex(Generic[T]):
    """Values at literal locations, found by any location that is or may be the same storage.

    One value may have several locations, at most one in each space and name.
    """

    __slots__ = ("_named", "_spaces")

    def __init__(self) -> None:
        self._named: dict[tuple[str, str], _Paths[T]] = {}
        self._spaces: dict[str, dict[str, int]] = {}

    @property
    def spaces(self) -> Collection[str]:
        """The spaces with at least one value."""
        return self._spaces.keys()

    def add(self, location: Location, value: T) -> None:
        """Put a value at a location."""
        names = self._spaces.setdefault(location.space, {})
        names[location.name] = names.get(location.name, 0) + 1
        self._named.setdefault((location.space, location.name), _Paths()).add((location, value))

    def discard(self, location: Location, value: T) -> None:
        """Remove a value that was put at a location."""
        names = self._spaces[location.space]
        names[location.name] -= 1
        self._named[location.space, location.name].discard(location.path, value)
        if not names[location.name]:
            del names[location.name], self._named[location.space, location.name]
            if not names:
                del self._spaces[location.space]

    def find(self, location: Location) -> Iterator[tuple[Location, T, Relation]]:
        """Every value whose location is or may be the same storage; one may come twice."""
        names = self._spaces.get(location.space)
        if names is None:
            return
        for name in dict.fromkeys((location.name, "")) if location.name else names:
            paths = self._named.get((location.space, name))
            if paths is not None:
                for entry, value in paths.find(location.path):
                    yield entry, value, _relation(location, entry)


class PatternIndex(Generic[T]):
    """Values at locations whose name, path and addresses may hold wildcards."""

    __slots__ = ("_spaces",)

    def __init__(self) -> None:
        self._spaces: dict[
            str, tuple[PathIndex[tuple[Location, T]], GlobIndex[PathIndex[tuple[Location, T]]]]
        ] = {}

    @property
    def spaces(self) -> Iterable[str]:
        """The spaces with at least one value."""
        return self._spaces.keys()

    def add(self, location: Location, value: T) -> None:
        """Put a value at every location that a pattern stands for."""
        every, globs = self._spaces.setdefault(location.space, (PathIndex(), GlobIndex()))
        paths: PathIndex[tuple[Location, T]] = PathIndex()
        globs.add(location.name or "*", paths)
        for index in (every, paths):
            index.add(location.path, (location, value))

    def find(self, location: Location) -> Iterator[tuple[Location, T, Relation]]:
        """Every value whose location is or may be the same storage; one may come twice."""
        space = self._spaces.get(location.space)
        if space is not None:
            for index in space[1].find(location.name) if location.name else (space[0],):
                for entry, value in index.find(location.path):
                    yield entry, value, _relation(location, entry)


def directory(
    space: str, path: str, *, name: str = "", addresses: frozenset[str] = _NO_ADDRESSES, fold: bool = False
) -> tuple[Location, ...]:
    """Return the location of a directory as the node would resolve its path.

    A snapshot directory of a file server shows the directory above it. Where a driver expands a template, the rest of
    the path is unknown. A percent sign may be a character or an escape, so the decoded path is possible, too.
    """
    if fold:
        name, path = name.lower(), path.lower()
    path = _SNAPSHOT.sub("/", f"/{path}")
    template = _TEMPLATE.search(path)
    if template is not None:
        return (
            Location(
                space, name, normal_path(path[: template.start()].rpartition("/")[0]), addresses, vague=True
            ),
        )
    location = Location(space, name, _shortened(normal_path(path)), addresses)
    decoded = _shortened(normal_path(unquote(path))) if "%" in path else location.path
    if decoded == location.path:
        return (location,)
    return (location, Location(space, name, decoded.rpartition("/")[0] or "/", addresses, vague=True))


# Components of a path that are compared. An index holds every directory above a path.
_MAX_COMPONENTS = 64


def _shortened(path: str) -> str:
    """Return the directory at the bound for a path beyond it."""
    return path if path.count("/") <= _MAX_COMPONENTS else "/".join(path.split("/")[: _MAX_COMPONENTS + 1])


# Spaces in which a nameless location says only that the volume may also have a name there.
_DOUBTED = frozenset({"cephfs", "efs", "fc", "fc-wwid", "nfs", "vsphere", "vsphere-path"})


def is_evidence(location: Location) -> bool:
    """Whether a protected volume's location says that another volume may be the same.

    An NFS server by address may be a mount target of EFS. That makes the NFS volume a possible alias of a protected
    file system. A protected NFS volume does not make every EFS volume one.
    """
    return bool(location.name or location.addresses) or not location.vague or location.space not in _DOUBTED


def related(one: Iterable[Location], others: Iterable[Location]) -> Relation:
    """Return the closest relation of a protected volume's locations to those of another volume."""
    relations = {relation(first, second) for first in filter(is_evidence, one) for second in others}
    return next((kind for kind in (Relation.SAME, Relation.POSSIBLE) if kind in relations), Relation.OTHER)
