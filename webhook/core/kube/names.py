"""Names, paths and image references, compared as the node resolves them, and indexes of many of them.

Patterns know ``*`` (any run of characters) and ``?`` (one). Matching is linear in the text for each literal piece of a
pattern, since the text may come from a requester; nothing here compiles a pattern while a request waits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from webhook.core.kube.hosts import normal_host

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")

_WILD = re.compile(r"[*?]")


def compile_glob(pattern: str) -> re.Pattern[str]:
    """A regular expression for ``fullmatch``; atomic groups keep many ``*`` from backtracking into each other."""
    pieces = [
        "".join("." if char == "?" else re.escape(char) for char in piece) for piece in pattern.split("*")
    ]
    if len(pieces) == 1:
        return re.compile(pieces[0], re.DOTALL)
    middle = "".join(f"(?>.*?{piece})" for piece in pieces[1:-1] if piece)
    return re.compile(f"{pieces[0]}{middle}.*{pieces[-1]}", re.DOTALL)


def is_glob(pattern: str) -> bool:
    """Whether a pattern holds a wildcard."""
    return _WILD.search(pattern) is not None


class PatternSet:
    """Several patterns for one value; an empty set matches everything, as an unset field of a matcher does."""

    __slots__ = ("_exact", "_globs", "_patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = tuple(patterns)
        self._exact = frozenset(pattern for pattern in self._patterns if not is_glob(pattern))
        self._globs = tuple(compile_glob(pattern) for pattern in self._patterns if is_glob(pattern))

    def matches(self, text: str) -> bool:
        """Whether any pattern matches the whole text."""
        return (
            not self._patterns
            or text in self._exact
            or any(glob.fullmatch(text) is not None for glob in self._globs)
        )


class GlobIndex(Generic[T]):
    """Values by pattern. A lookup does not try every pattern: they are bucketed by literal prefix."""

    __slots__ = ("_exact", "_lengths", "_prefixes")

    def __init__(self) -> None:
        self._exact: dict[str, list[T]] = {}
        self._prefixes: dict[str, list[tuple[re.Pattern[str], T]]] = {}
        self._lengths: tuple[int, ...] = ()

    def add(self, pattern: str, value: T) -> None:
        """Put a value under a pattern."""
        wild = _WILD.search(pattern)
        if wild is None:
            self._exact.setdefault(pattern, []).append(value)
            return
        prefix = pattern[: wild.start()]
        self._prefixes.setdefault(prefix, []).append((compile_glob(pattern), value))
        if len(prefix) not in self._lengths:
            self._lengths = tuple(sorted((*self._lengths, len(prefix))))

    def find(self, text: str) -> Iterator[T]:
        """Every value whose pattern matches the whole text; one under two such patterns comes twice."""
        yield from self._exact.get(text, ())
        for length in self._lengths:
            if length > len(text):
                return
            for pattern, value in self._prefixes.get(text[:length], ()):
                if pattern.fullmatch(text) is not None:
                    yield value


def normal_path(path: str) -> str:
    """An absolute path without ``.``, ``..``, ``//`` or a trailing slash, and with ``/var/run`` as ``/run``.

    ``..`` above the root stays at the root, as the kernel resolves it. ``/var/run`` is a link to ``/run`` on every
    current distribution (Filesystem Hierarchy Standard 3.0, section 5.13). A Windows path loses its drive and gets
    slashes.
    """
    if path[1:3] == ":\\" or path[:2] == "\\\\":
        path = path.replace("\\", "/").removeprefix(path[:2] if path[1] == ":" else "")
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if parts[:2] == ["var", "run"]:
        del parts[0]
    return "/" + "/".join(parts)


def path_within(path: str, directory: str) -> bool:
    """Whether a normalised path is a normalised directory or lies under it."""
    return directory in ("/", path) or path.startswith(directory + "/")


def paths_touch(path: str, other: str) -> bool:
    """Whether one of two normalised paths is or contains the other."""
    return path_within(path, other) or path_within(other, path)


def ancestors(path: str) -> Iterator[str]:
    """A normalised path and each directory above it, the root last."""
    while path != "/":
        yield path
        path = path.rpartition("/")[0] or "/"
    yield "/"


class PathIndex(Generic[T]):
    """Values at protected paths. A lookup matches a path that is one of them, is below one or contains one.

    A wildcard in a path stays within one component, as in a shell.
    """

    __slots__ = ("_above", "_at", "_globs")

    def __init__(self) -> None:
        self._at: dict[str, list[T]] = {}
        self._above: dict[str, list[T]] = {}
        self._globs: list[tuple[tuple[re.Pattern[str], ...], T]] = []

    def add(self, path: str, value: T) -> None:
        """Protect a path, or every path a pattern stands for."""
        path = normal_path(path)
        if is_glob(path):
            self._globs.append((tuple(compile_glob(part) for part in path.split("/")[1:]), value))
            return
        self.add_literal(path, value)

    def add_literal(self, path: str, value: T) -> None:
        """Protect a normalised path as it stands, wildcards being characters like others."""
        self._at.setdefault(path, []).append(value)
        for above in ancestors(path):
            self._above.setdefault(above, []).append(value)

    def find(self, path: str) -> Iterator[T]:
        """Every value whose path touches this normalised path; one may come twice."""
        yield from self._above.get(path, ())
        for above in ancestors(path):
            yield from self._at.get(above, ())
        if self._globs:
            parts = [] if path == "/" else path.split("/")[1:]
            for globs, value in self._globs:
                if all(glob.fullmatch(part) for glob, part in zip(globs, parts, strict=False)):
                    yield value


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image reference in the form a container runtime resolves it to."""

    repository: str
    tag: str
    digest: str


_DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


def is_qualified(text: str) -> bool:
    """Whether an image reference names a registry."""
    head, slash, _ = text.strip().partition("@")[0].partition("/")
    return bool(slash) and (
        head == "localhost" or any(char in head for char in ".:*?") or head != head.lower()
    )


def _registry(head: str) -> str:
    """Return a registry's host and port in one spelling; 443 is the port of every registry that names none."""
    host, _, port = head.lower().rpartition(":")
    if not host or not port.isascii() or not port.isdecimal():
        host, port = head.lower(), ""
    number = port.lstrip("0") or ("" if not port else "0")
    name = normal_host(host)
    return name if number in ("", "443") else f"{name}:{number}"


def image_reference(text: str) -> ImageReference:
    """Split and normalise a reference or a reference pattern.

    A first component with a dot, a colon, a wildcard or ``localhost`` is a registry; without one it is Docker Hub,
    whose official images live under ``library/`` (github.com/distribution/reference, normalize.go).
    """
    rest, _, digest = text.strip().partition("@")
    head, slash, tail = rest.partition("/")
    if slash and (head == "localhost" or any(char in head for char in ".:*?") or head != head.lower()):
        registry, path = _registry(head), tail
    else:
        registry, path = "docker.io", rest
    if rest.startswith("*") and not slash:
        # A pattern for any repository of any registry.
        return ImageReference(rest.lower(), "", digest.lower())
    if registry in _DOCKER_HUB:
        registry = "docker.io"
        path = path if "/" in path else f"library/{path}"
    path, colon, tag = path.rpartition(":") if ":" in path.rpartition("/")[2] else (path, "", "")
    return ImageReference(f"{registry}/{path.lower()}", tag if colon else "", digest.lower())
