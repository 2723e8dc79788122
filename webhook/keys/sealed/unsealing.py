"""Unsealing a directory, and verifying one, from a manifest whose MAC was verified.

Each file gets its name only after every segment was authenticated and the whole is the version in the manifest. With
``quick``, verification reads only sizes, headers and tags: it detects swaps, truncation and rollback, but not damage.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.sealed.files import NullSink, PlainSink
from webhook.keys.sealed.format.manifest import manifest_key
from webhook.keys.sealed.format.paths import partial_name, tags_name
from webhook.keys.sealed.format.streaming import HEADER_SIZE, TAG_SIZE, Layout, associated_data, stream_digest
from webhook.keys.sealed.reading.source import SealedSource
from webhook.keys.sealed.resume import compare, record
from webhook.keys.sealed.storage.directory import require_space, unlisted
from webhook.keys.sealed.storage.store import LocalStore
from webhook.keys.sealed.transfer import Task, transfer
from webhook.keys.sealed.updating import same_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from webhook.keys.sealed.format.manifest import Entry, Manifest
    from webhook.keys.sealed.journal import Journal
    from webhook.keys.sealed.reading.opening import Sealed
    from webhook.keys.sealed.resume import Planned
    from webhook.keys.sealed.storage.store import Store
    from webhook.keys.sealed.storage.tree import Tree
    from webhook.keys.sealed.transfer import Progress


def select(manifest: Manifest, patterns: list[str]) -> list[Entry]:
    """The entries whose path matches one of ``patterns`` (``*`` also matches slashes); all of them without patterns.

    Raises:
        BadInputError: a pattern matches no file.
    """
    if not patterns:
        return list(manifest.files)
    for pattern in patterns:
        if not any(fnmatchcase(entry.path, pattern) for entry in manifest.files):
            raise BadInputError(f"no file of model {manifest.model!r} matches {pattern!r}")
    return [
        entry for entry in manifest.files if any(fnmatchcase(entry.path, pattern) for pattern in patterns)
    ]


@dataclass(frozen=True, slots=True)
class Unsealing:
    """One run that writes plain files below ``destination``, with ``mode`` as their permission bits."""

    sealed: Sealed
    destination: Path
    journal: Journal
    mode: int
    replace: bool

    def run(self, entries: list[Entry], jobs: int, progress: Progress, tree: Tree) -> int:
        """Unseal ``entries``. Returns the number of files written; existing files with the same content are kept.

        Raises:
            BadInputError: other files are in the way; nothing was changed.
            SealedDataError: a file is damaged or another version; files that were complete before stay.
            StorageError: no space, or the system cannot write; the same run resumes later.
        """
        tree.refuse_ambiguous(entry.path for entry in entries)
        self._resume_or_begin()
        progressed = compare(self.journal, tree, _planned(entries))
        present = self._present(entries, progressed.existing, tree, jobs, progress)
        record(self.journal, _planned(entries))
        todo = [
            entry for entry in entries if entry.path not in progressed.finished and entry.path not in present
        ]
        require_space(
            self.destination,
            sum(entry.size for entry in todo),
            (partial_name(entry.path) for entry in todo if entry.path in progressed.resumable),
        )
        progress.start("unsealing", sum(entry.size for entry in todo), len(todo))
        transfer(
            (self._task(entry, tree, entry.path in progressed.resumable) for entry in todo), jobs, progress
        )
        tree.sync({entry.path.rpartition("/")[0] for entry in todo})
        self.journal.remove()
        return len(todo)

    def _present(
        self, entries: list[Entry], existing: frozenset[str], tree: Tree, jobs: int, progress: Progress
    ) -> frozenset[str]:
        """The files that an earlier run completed: their content is the sealed one."""
        if not existing or self.replace:
            return frozenset()
        candidates = [entry for entry in entries if entry.path in existing]
        same = same_files(self.sealed, self.destination, candidates, tree, jobs, progress)
        if other := existing - same:
            raise BadInputError(
                f"{self.destination}/{min(other)} exists with other content, and this run did not write it: "
                "nothing was changed; --force replaces it"
            )
        return same

    def _resume_or_begin(self) -> None:
        manifest = self.sealed.manifest
        mac_key = manifest_key(self.sealed.key, manifest.model)
        if self.journal.resume(mac_key) and self.journal.head.get("operation") == "unseal":
            return
        if self.journal.peek() is not None and not self.replace:
            raise BadInputError(
                f"{self.destination} contains an unfinished run with another key: "
                f"remove {self.journal.path.name} there, or choose another destination"
            )
        self.journal.begin(mac_key, {"operation": "unseal", "model": manifest.model})

    def _task(self, entry: Entry, tree: Tree, resume: bool) -> Task:
        def done(record: dict[str, Any]) -> None:
            self.journal.finish(entry.path, record)

        sink = PlainSink(tree, entry.path, entry.size, self.mode, resume=resume)
        return Task(entry.path, self.sealed.source(entry, pinned=False), sink, done)


def _planned(entries: list[Entry]) -> Iterator[Planned]:
    return ((entry.path, entry.path, [entry.size, entry.file, entry.digest]) for entry in entries)


def verify(sealed: Sealed, jobs: int, progress: Progress, *, quick: bool = False) -> list[str]:
    """Every fault of a sealed directory, one sentence each, in the order of the manifest; empty if there is none.

    Raises:
        StorageError: the system cannot read.
    """
    faults: dict[str, str] = {}
    files = sealed.manifest.files
    progress.start("verifying", sum(entry.size for entry in files), len(files))

    def report(entry: Entry) -> Callable[[SealedDataError], None]:
        def fault(error: SealedDataError) -> None:
            faults[entry.path] = str(error)

        return fault

    if quick:
        for entry in files:
            try:
                check_tags(sealed.store, entry)
            except SealedDataError as error:
                faults[entry.path] = str(error)
            progress.advance(entry.size)
    else:
        tasks = (
            Task(entry.path, _CompleteSource(sealed, entry), NullSink(), _ignore, damaged=report(entry))
            for entry in files
        )
        transfer(tasks, jobs, progress)
    for entry in files:
        if entry.path not in faults and entry.tags:
            try:
                check_tag_list(sealed.store, entry)
            except SealedDataError as error:
                faults[entry.path] = str(error)
    extra = []
    if isinstance(sealed.store, LocalStore):
        directory = sealed.store.directory
        extra = [
            f"{directory}/{name} is not in the manifest: it was added, or an earlier generation left it"
            for name in unlisted(directory, files)
        ]
    return [*(faults[entry.path] for entry in files if entry.path in faults), *extra]


class _CompleteSource(SealedSource):
    """A sealed file of which every byte is checked, also those that a reader does not need."""

    def __init__(self, sealed: Sealed, entry: Entry) -> None:
        bound_to = associated_data(sealed.manifest.model, entry.path)
        super().__init__(sealed.store, entry, sealed.key, bound_to, pinned=False)

    def check(self) -> None:
        """Check the tags and the stored header."""
        super().check()
        self.check_header()


def check_tags(store: Store, entry: Entry) -> None:
    """Compare a sealed file's size, header and tags with its entry, without a key.

    Raises:
        SealedDataError: it is missing, truncated, too long, or another file or version.
    """
    layout = Layout(entry.size)
    tags = memoryview(bytearray(HEADER_SIZE + TAG_SIZE * layout.count))
    blob = store.open(entry.file)
    try:
        if blob.size != layout.sealed_size:
            raise SealedDataError(
                f"{store.where(entry.file)} has {blob.size} bytes, but the manifest requires {layout.sealed_size}"
            )
        blob.read_at(tags[:HEADER_SIZE], 0)
        for index in range(layout.count):
            span = layout.span(index)
            begin = HEADER_SIZE + index * TAG_SIZE
            blob.read_at(tags[begin : begin + TAG_SIZE], span.sealed_offset + span.sealed_size - TAG_SIZE)
    finally:
        blob.close()
    if stream_digest(bytes(tags[:HEADER_SIZE]), bytes(tags[HEADER_SIZE:])) != entry.digest:
        raise SealedDataError(
            f"{store.where(entry.file)} is not the file in the manifest: it was damaged, swapped or rolled back"
        )


def check_tag_list(store: Store, entry: Entry) -> None:
    """Compare a sealed file's tag list with its entry.

    Raises:
        SealedDataError: it is missing, or not the list in the manifest.
    """
    name = tags_name(entry.file)
    size = HEADER_SIZE + TAG_SIZE * Layout(entry.size).count
    content = store.read(name, size)
    if content is None:
        raise SealedDataError(f"{store.where(name)} is missing: readers of this file will be slow")
    if len(content) != size or stream_digest(content[:HEADER_SIZE], content[HEADER_SIZE:]) != entry.digest:
        raise SealedDataError(
            f"{store.where(name)} is not the tag list in the manifest: it was damaged or swapped"
        )


def _ignore(_record: dict[str, Any]) -> None:
    """A verification has no record."""
