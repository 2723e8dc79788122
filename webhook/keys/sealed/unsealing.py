"""Unsealing a directory and verifying one, from a manifest whose MAC was checked.

Each file gets its name only when every segment authenticated and the whole is the version in the manifest. With
``quick`` verification only sizes, headers and tags are read: swaps, cuts and roll-backs show, bad bytes do not.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.rawio import read_at, sync_tree
from webhook.keys.sealed.directory import require_space, unlisted
from webhook.keys.sealed.files import NullSink, PlainSink, SealedSource
from webhook.keys.sealed.manifest import manifest_key
from webhook.keys.sealed.paths import partial_path
from webhook.keys.sealed.resume import Planned, settle
from webhook.keys.sealed.streaming import HEADER_SIZE, TAG_SIZE, Layout, associated_data, stream_digest
from webhook.keys.sealed.transfer import Task, transfer

if TYPE_CHECKING:
    from pathlib import Path

    from webhook.keys.sealed.journal import Journal
    from webhook.keys.sealed.manifest import Entry, Manifest
    from webhook.keys.sealed.transfer import Progress
    from webhook.keys.secret import Secret


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed directory with its verified manifest and its data key."""

    directory: Path
    manifest: Manifest
    key: Secret

    def source(self, entry: Entry) -> SealedSource:
        """One file of it, to be read."""
        bound_to = associated_data(self.manifest.model, entry.path)
        return SealedSource(self.directory / entry.file, entry, self.key, bound_to)

    def select(self, patterns: list[str]) -> list[Entry]:
        """The entries whose path matches one of ``patterns`` (``*`` crosses slashes); all of them without patterns.

        Raises:
            BadInputError: a pattern matches nothing.
        """
        if not patterns:
            return list(self.manifest.files)
        for pattern in patterns:
            if not any(fnmatchcase(entry.path, pattern) for entry in self.manifest.files):
                raise BadInputError(f"no file of model {self.manifest.model!r} matches {pattern!r}")
        return [
            entry
            for entry in self.manifest.files
            if any(fnmatchcase(entry.path, pattern) for pattern in patterns)
        ]


@dataclass(frozen=True, slots=True)
class Unsealing:
    """One run that writes plain files below ``destination``, with ``mode`` as their permission bits."""

    sealed: Sealed
    destination: Path
    journal: Journal
    mode: int
    replace: bool

    def run(self, entries: list[Entry], jobs: int, progress: Progress) -> None:
        """Unseal ``entries``.

        Raises:
            BadInputError: files are in the way; nothing was changed.
            SealedDataError: a file is damaged or another version; the ones finished before stay.
            StorageError: no space, or the system refused; the same run goes on later.
        """
        self._resume_or_begin()
        planned = {entry.path: Planned(self.destination / entry.path, asdict(entry)) for entry in entries}
        settled = settle(self.journal, planned, replace=self.replace)
        todo = [entry for entry in entries if entry.path not in settled.finished]
        for entry in todo:
            partial = partial_path(self.destination / entry.path)
            if entry.path not in settled.resumable:
                partial.unlink(missing_ok=True)
        require_space(
            self.destination,
            sum(entry.size for entry in todo),
            (partial_path(self.destination / entry.path) for entry in todo),
        )
        progress.start("unsealing", sum(entry.size for entry in todo), len(todo))
        transfer((self._task(entry) for entry in todo), jobs, progress)
        sync_tree(self.destination, {plan.final.parent for plan in planned.values()})
        self.journal.remove()

    def _resume_or_begin(self) -> None:
        manifest = self.sealed.manifest
        mac_key = manifest_key(self.sealed.key, manifest.model)
        if self.journal.resume(mac_key) and self.journal.head.get("operation") == "unseal":
            return
        if self.journal.peek() is not None and not self.replace:
            raise BadInputError(
                f"{self.destination} holds an unfinished run with another key; "
                f"remove {self.journal.path.name} there, or unseal elsewhere"
            )
        self.journal.begin(mac_key, {"operation": "unseal", "model": manifest.model})

    def _task(self, entry: Entry) -> Task:
        def done(record: dict[str, Any]) -> None:
            self.journal.finish(entry.path, record)

        sink = PlainSink(self.destination / entry.path, entry.size, self.mode)
        return Task(entry.path, self.sealed.source(entry), sink, done)


def verify(sealed: Sealed, jobs: int, progress: Progress, *, quick: bool = False) -> list[str]:
    """Every fault of a sealed directory, one sentence each, in the order of the manifest; empty when it is sound.

    Raises:
        StorageError: the system refused to read.
    """
    faults: dict[str, str] = {}
    files = sealed.manifest.files
    progress.start("verifying", sum(entry.size for entry in files), len(files))
    for entry in files:
        try:
            if quick:
                check_tags(sealed.directory / entry.file, entry)
                progress.advance(entry.size)
            else:
                transfer([Task(entry.path, sealed.source(entry), NullSink(), _ignore)], jobs, progress)
        except SealedDataError as error:
            faults[entry.path] = str(error)
    extra = [
        f"{sealed.directory / name} is not in the manifest: it was added, or left by an earlier generation"
        for name in unlisted(sealed.directory, sealed.manifest)
    ]
    return [*faults.values(), *extra]


def check_tags(path: Path, entry: Entry) -> None:
    """Compare a sealed file's size, header and tags with its entry, without any key.

    Raises:
        SealedDataError: it is missing, cut, too long, or another file or version.
    """
    layout = Layout(entry.size)
    tags = memoryview(bytearray(TAG_SIZE * layout.count))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise SealedDataError(f"{path} is missing") from None
    try:
        if (size := os.fstat(fd).st_size) != layout.sealed_size:
            raise SealedDataError(f"{path} has {size} bytes where the manifest asks for {layout.sealed_size}")
        for index in range(layout.count):
            span = layout.span(index)
            end = span.sealed_offset + span.sealed_size
            read_at(fd, tags[index * TAG_SIZE : (index + 1) * TAG_SIZE], end - TAG_SIZE)
        digest = stream_digest(os.pread(fd, HEADER_SIZE, 0), bytes(tags))
    finally:
        os.close(fd)
    if digest != entry.digest:
        raise SealedDataError(
            f"{path} is not the file in the manifest: it was damaged, swapped or rolled back"
        )


def _ignore(_record: dict[str, Any]) -> None:
    """A check leaves nothing to note."""
