"""Kubernetes manifests from files: YAML or JSON, many documents a file, ``List`` objects opened. Bounded and strict.

A file that cannot be read is the reader's error to fix, so every failure names the file, the document and the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from webhook.core.kube.strict_json import DocumentError, check

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from webhook.core.kube.fields import Document

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_ENTRIES = 1_000_000
SUFFIXES = frozenset({".yaml", ".yml", ".json"})
# Policy tests lie beside the policies, and so does the state they share; neither is part of what a directory holds.
TEST_SUFFIX = ".test.yaml"
TEST_STATE_SUFFIX = ".state.yaml"


class ManifestError(ValueError):
    """A file that is no set of manifests; the message names file, document and reason."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object and where it was read."""

    source: str
    document: Document


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Safe YAML as Kubernetes reads it: timestamps stay text, a key given twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Build a mapping, refusing repeated keys as sigs.k8s.io/yaml's strict mode does."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if (
                key_node.value in seen
                and isinstance(key_node.value, str)
                and key_node.tag != "tag:yaml.org,2002:merge"
            ):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            if isinstance(key_node.value, str):
                seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def read_path(path: Path) -> Iterator[Manifest]:
    """Every object in a file, or in the manifest files below a directory but its policy tests, in the order of names.

    Raises `ManifestError`.
    """
    if not path.is_dir():
        yield from read_file(path)
        return
    for file in sorted(item for item in path.rglob("*") if item.suffix in SUFFIXES and item.is_file()):
        if not file.name.endswith((TEST_SUFFIX, TEST_STATE_SUFFIX)):
            yield from read_file(file)


def read_file(path: Path) -> Iterator[Manifest]:
    """Every object in one file. Raises `ManifestError`."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror or error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ManifestError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    yield from read_bytes(content, str(path))


def read_bytes(content: bytes, source: str) -> Iterator[Manifest]:
    """Every object in a YAML or JSON text. Raises `ManifestError`."""
    try:
        documents = list(yaml.load_all(content, Loader=_Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ManifestError(f"{source}: {' '.join(str(error).split())}") from None
    for number, document in enumerate(documents, start=1):
        if document is None:
            continue
        place = source if len(documents) == 1 else f"{source} (document {number})"
        if not isinstance(document, dict):
            raise ManifestError(f"{place}: not an object")
        if _entries(document) > MAX_ENTRIES:
            raise ManifestError(f"{place}: more than {MAX_ENTRIES} values, with its aliases written out")
        try:
            check(document)
        except DocumentError as error:
            raise ManifestError(f"{place}: {error}") from None
        yield from _opened(document, place)


def _entries(document: Document) -> int:
    """How many values a document has, counted no further than is allowed: an alias is cheap to write, not to follow."""
    pending: list[Any] = [document]
    count = 0
    while pending and count <= MAX_ENTRIES:
        value = pending.pop()
        count += 1
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return count


def _opened(document: Document, place: str) -> Iterator[Manifest]:
    items = document.get("items")
    if str(document.get("kind", "")).endswith("List") and isinstance(items, list):
        for index, item in enumerate(items):
            if not isinstance(item, dict):
                raise ManifestError(f"{place}: items[{index}] is not an object")
            yield Manifest(f"{place} items[{index}]", item)
        return
    yield Manifest(place, document)
