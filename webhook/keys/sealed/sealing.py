"""Sealing a directory: plan, encrypt every file, commit the manifest last.

Until the new manifest is in place the directory is what it was before: the files of a new generation never take a
name that the old one uses. An interrupted run is gone on with by the same command.
"""

from __future__ import annotations

import os
import stat
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError
from webhook.keys.rawio import replace_file, sync_tree
from webhook.keys.sealed.cleanup import REENCRYPT, SEAL, clear_up
from webhook.keys.sealed.directory import require_space
from webhook.keys.sealed.files import (
    Fingerprint,
    PlainSource,
    SealedSink,
    SealedSource,
    Source,
    partial_header,
)
from webhook.keys.sealed.manifest import Entry, KeyRef, Manifest, manifest_key
from webhook.keys.sealed.paths import (
    MANIFEST_NAME,
    check_relative,
    check_unreserved,
    partial_path,
    sealed_names,
)
from webhook.keys.sealed.resume import Planned, Settled, settle
from webhook.keys.sealed.streaming import Layout, associated_data, new_header
from webhook.keys.sealed.transfer import Task, transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from webhook.keys.sealed.journal import Journal
    from webhook.keys.sealed.transfer import Progress
    from webhook.keys.secret import Secret


@dataclass(frozen=True, slots=True)
class Item:
    """One file to seal: its path in the model, size in bytes, what it is recognised by, and where it comes from."""

    path: str
    size: int
    identity: dict[str, Any]
    source: Callable[[], Source]


def plain_items(source: Path) -> list[Item]:
    """Every file under ``source`` (or ``source`` itself when it is a file), by path.

    Links to files are followed, as caches of downloaded models are made of them; a link to a directory could leave
    the tree or never end, and is refused.

    Raises:
        BadInputError: nothing to seal, something that is neither file nor directory, or a name that is ours.
    """
    if source.is_file():
        return [_plain_item(source, source.name)]
    if not source.is_dir():
        raise BadInputError(f"{source} does not exist")
    items = [_plain_item(path, name) for path, name in _walk(source, "")]
    if not items:
        raise BadInputError(f"{source} holds no files")
    return items


def sealed_items(directory: Path, manifest: Manifest, key: Secret) -> list[Item]:
    """Every file of a sealed directory, to be opened with ``key`` while it is sealed anew."""

    def item(entry: Entry) -> Item:
        bound_to = associated_data(manifest.model, entry.path)
        path = directory / entry.file
        return Item(entry.path, entry.size, asdict(entry), lambda: SealedSource(path, entry, key, bound_to))

    return [item(entry) for entry in manifest.files]


def _walk(directory: Path, prefix: str) -> Iterator[tuple[Path, str]]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            path, name = directory / entry.name, check_unreserved(check_relative(prefix + entry.name))
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path, name + "/")
            elif entry.is_file():
                yield path, name
            elif entry.is_symlink() and entry.is_dir():
                raise BadInputError(f"{path} is a link to a directory; put the files themselves there")
            else:
                raise BadInputError(f"{path} is neither a file nor a directory; remove it")


def _plain_item(source: Path, path: str) -> Item:
    status = source.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadInputError(f"{source} is not a regular file")
    seen = Fingerprint.of(status)
    return Item(
        check_unreserved(check_relative(path)), seen.size, asdict(seen), lambda: PlainSource(source, seen)
    )


@dataclass(frozen=True, slots=True)
class Sealing:
    """One run that makes the next generation of ``directory``.

    ``before`` is the verified manifest that is there now, or None for a first seal. ``journal`` is open and locked.
    ``key`` is a fresh data key, or the one with which an interrupted run began; ``ref`` is that key, wrapped.
    """

    directory: Path
    model: str
    key: Secret
    ref: KeyRef
    before: Manifest | None
    journal: Journal

    @property
    def generation(self) -> int:
        """The generation being made."""
        return 1 if self.before is None else self.before.generation + 1

    def run(
        self, items: list[Item], keep: dict[str, Entry], created: str, jobs: int, progress: Progress
    ) -> Manifest:
        """Seal ``items``, take the entries in ``keep`` over as they are, and commit the manifest.

        Raises:
            KeysError: as `transfer`; the directory is still the generation it was.
        """
        self._resume_or_begin()
        planned = self._plan(items)
        settled = settle(self.journal, planned)
        entries = dict(keep)
        for item in items:
            if item.path in settled.finished:
                entries[item.path] = self._entry(item, planned[item.path], settled.finished[item.path])
        todo = [item for item in items if item.path not in entries]
        partial = (partial_path(planned[item.path].final) for item in todo)
        require_space(self.directory, sum(Layout(item.size).sealed_size for item in todo), partial)
        progress.start("sealing", sum(item.size for item in todo), len(todo))
        begun = {item.path for item in todo if self._begun(item, planned[item.path], settled)}
        self.journal.use({item.path: new_header() for item in todo if item.path not in begun})
        tasks = (self._task(item, planned[item.path], item.path in begun, entries) for item in todo)
        transfer(tasks, jobs, progress)
        files = tuple(entries[path] for path in sorted(entries))
        return self._commit(Manifest(self.model, self.generation, created, self.ref, files))

    def _resume_or_begin(self) -> None:
        ref = {"id": self.ref.id, "kms": self.ref.kms, "wrapped": self.ref.wrapped.hex()}
        fresh_key = self.before is not None and self.before.key.id != self.ref.id
        operation = REENCRYPT if fresh_key else SEAL
        head = {"operation": operation, "model": self.model, "generation": self.generation, "key": ref}
        mac_key = manifest_key(self.key, self.model)
        if not self.journal.resume(mac_key) or self.journal.head != head:
            self.journal.begin(mac_key, head)

    def _plan(self, items: list[Item]) -> dict[str, Planned]:
        taken = set() if self.before is None else {entry.file for entry in self.before.files}
        names = sealed_names([item.path for item in items], self.generation, taken)
        return {
            item.path: Planned(self.directory / names[item.path], {**item.identity, "file": names[item.path]})
            for item in items
        }

    def _begun(self, item: Item, planned: Planned, settled: Settled) -> bool:
        """Whether the half file that lies there goes on under its header: only if we began it, by our own record.

        Another header there may be one that has encrypted something else, put there to make us repeat its nonces.
        """
        header = self.journal.headers.get(item.path)
        return (
            item.path in settled.resumable and header is not None and header == partial_header(planned.final)
        )

    def _entry(self, item: Item, planned: Planned, record: dict[str, Any]) -> Entry:
        file = planned.final.relative_to(self.directory).as_posix()
        return Entry(item.path, item.size, file, record["digest"])

    def _task(self, item: Item, planned: Planned, resume: bool, entries: dict[str, Entry]) -> Task:
        bound_to = associated_data(self.model, item.path)
        header = self.journal.headers[item.path]
        sink = SealedSink(planned.final, Layout(item.size), self.key, bound_to, header, resume=resume)

        def done(record: dict[str, Any]) -> None:
            self.journal.finish(item.path, record)
            entries[item.path] = self._entry(item, planned, record)

        return Task(item.path, item.source(), sink, done)

    def _commit(self, manifest: Manifest) -> Manifest:
        sync_tree(self.directory, {(self.directory / entry.file).parent for entry in manifest.files})
        written = {plan["file"] for plan in self.journal.planned.values() if "file" in plan}
        before = set() if self.before is None else {entry.file for entry in self.before.files}
        current = {entry.file for entry in manifest.files}
        self.journal.drop(sorted((written | before) - current))
        replace_file(self.directory / MANIFEST_NAME, manifest.encode(self.key), 0o644)
        clear_up(self.directory, manifest, self.journal)
        return manifest
