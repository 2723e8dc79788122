"""Comparison of plain files with sealed ones, by decrypting and comparing every byte.

A sealed file that is damaged differs, so an update also repairs it.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.sealed.files import Identity, PlainSource
from webhook.keys.sealed.signed_content import CheckedSource
from webhook.keys.sealed.transfer import Task, transfer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.keys.sealed.format.manifest import Entry
    from webhook.keys.sealed.format.streaming import Span
    from webhook.keys.sealed.reading.opening import Sealed
    from webhook.keys.sealed.reading.source import Scratch, SealedSource
    from webhook.keys.sealed.sealing import Item
    from webhook.keys.sealed.signed_content import SignedContent
    from webhook.keys.sealed.storage.tree import Tree
    from webhook.keys.sealed.transfer import Progress


@dataclass(slots=True)
class MatchSink:
    """Accepts segments and compares them with a sealed file's. A damaged sealed file differs, and does not fail."""

    sealed: SealedSource
    same: bool = True

    def open(self) -> None:
        """Open the sealed file."""
        try:
            self.sealed.open()
        except SealedDataError:
            self.same = False

    def write(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Compare one segment; after the first difference, no further segment is read."""
        if not self.same:
            return
        mine, scratch.plain, scratch.spare = scratch.plain, scratch.spare, scratch.plain
        try:
            self.same = self.sealed.read(span, scratch) == plain
        except SealedDataError:
            self.same = False
        finally:
            scratch.plain, scratch.spare = mine, scratch.plain

    def commit(self) -> dict[str, Any]:
        """Compare the whole file with its digest."""
        if self.same:
            try:
                self.sealed.check()
            except SealedDataError:
                self.same = False
        return {"same": self.same}

    def close(self, *, discard: bool) -> None:  # noqa: ARG002 - nothing is written
        """Close the sealed file."""
        self.sealed.close()


def unchanged(
    sealed: Sealed, items: list[Item], jobs: int, progress: Progress, content: SignedContent | None = None
) -> dict[str, Entry]:
    """The entries whose sealed files contain exactly the content of ``items``, by path.

    With ``content``, each of these files must also have its signed digest, which the same pass computes.

    Raises:
        KeysError: a plain file changed while it was read, or is not the signed one.
        StorageError: the system cannot read.
    """
    entries = {entry.path: entry for entry in sealed.manifest.files}
    pairs = [
        (entries[item.path], str(item.origin), Identity(*item.identity))
        for item in items
        if item.path in entries and entries[item.path].size == item.size
    ]
    same = _matches(sealed, pairs, jobs, progress, content)
    return {path: entries[path] for path in same}


def same_files(
    sealed: Sealed, destination: Path, entries: Iterable[Entry], tree: Tree, jobs: int, progress: Progress
) -> frozenset[str]:
    """The paths of ``entries`` whose plain file below ``destination`` has exactly the sealed content.

    Raises:
        StorageError: the system cannot read.
    """
    pairs = []
    for entry in entries:
        status = tree.stat(entry.path)
        if status is not None and stat.S_ISREG(status.st_mode) and status.st_size == entry.size:
            pairs.append((entry, f"{destination}/{entry.path}", Identity.of(status)))
    try:
        return frozenset(_matches(sealed, pairs, jobs, progress))
    except BadInputError:  # a file changed while it was read
        return frozenset()


def _matches(
    sealed: Sealed,
    pairs: list[tuple[Entry, str, Identity]],
    jobs: int,
    progress: Progress,
    content: SignedContent | None = None,
) -> set[str]:
    same: set[str] = set()

    def task(entry: Entry, path: str, identity: Identity) -> Task:
        def done(record: dict[str, Any]) -> None:
            if record["same"]:
                same.add(entry.path)

        sink = MatchSink(sealed.source(entry, pinned=False))
        if content is None:
            return Task(entry.path, PlainSource(Path(path), identity), sink, done)
        source = CheckedSource(Path(path), identity, entry.path, content.of(entry.path))
        return Task(entry.path, source, sink, done, ordered=source)

    progress.start("comparing", sum(entry.size for entry, _, _ in pairs), len(pairs))
    transfer((task(*pair) for pair in pairs), jobs, progress)
    return same
