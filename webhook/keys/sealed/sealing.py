"""Sealing a directory: plan, encrypt every file, commit the manifest last.

Until the new manifest is in place, the directory is unchanged: files of a new generation never use a name of the
previous one. The same command resumes an interrupted run.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError
from webhook.keys.rawio import replace_file
from webhook.keys.sealed.cleanup import REENCRYPT, SEAL, clean_up
from webhook.keys.sealed.files import Identity, PlainSource, SealedSink
from webhook.keys.sealed.format.manifest import Entry, KeyRef, Manifest, manifest_key, signer_id
from webhook.keys.sealed.format.paths import (
    MANIFEST_NAME,
    check_length,
    check_relative,
    check_unreserved,
    partial_name,
    sealed_names,
)
from webhook.keys.sealed.format.streaming import Fingerprinter, Layout, associated_data
from webhook.keys.sealed.reading.source import SealedSource
from webhook.keys.sealed.resume import compare, record
from webhook.keys.sealed.signed_content import CheckedSource
from webhook.keys.sealed.storage.directory import require_space
from webhook.keys.sealed.storage.tree import Tree
from webhook.keys.sealed.transfer import Task, transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from webhook.core.provenance.models import ModelProvenance
    from webhook.keys.sealed.journal import Journal
    from webhook.keys.sealed.resume import Planned
    from webhook.keys.sealed.signed_content import SignedContent
    from webhook.keys.sealed.storage.store import Store
    from webhook.keys.sealed.transfer import Progress
    from webhook.keys.secret import Secret

_SEED_SIZE = 16
_NONCE_SIZE = 32


@dataclass(frozen=True, slots=True)
class Item:
    """One file to seal: its path in the model, its size, the identity of its source, and where it comes from.

    ``origin`` is the path of a plain file, or the entry of a sealed one.
    """

    path: str
    size: int
    identity: tuple[Any, ...]
    origin: str | Entry


def plain_items(source: Path) -> list[Item]:
    """Every file under ``source``, by path; or ``source`` itself if it is a file.

    Symbolic links to files are followed, because caches of downloaded models consist of them. A symbolic link to a
    directory is rejected: it could leave the tree, or never end.

    Raises:
        BadInputError: no file exists, a file is neither regular nor a directory, or a name is not valid.
    """
    if source.is_file():
        return [_plain_item(str(source), source.name)]
    if not source.is_dir():
        raise BadInputError(f"{source} does not exist, or is neither a file nor a directory")
    items = [_plain_item(path, name) for path, name in _walk(str(source))]
    if not items:
        raise BadInputError(f"{source} contains no files")
    items.sort(key=lambda item: item.path.split("/"))
    return items


def sealed_items(manifest: Manifest) -> list[Item]:
    """Every file of a sealed directory, to be decrypted while it is encrypted under another key."""
    return [Item(entry.path, entry.size, (entry.digest,), entry) for entry in manifest.files]


def _walk(root: str) -> Iterator[tuple[str, str]]:
    pending = [""]
    while pending:
        prefix = pending.pop()
        with os.scandir(f"{root}/{prefix}") as entries:
            for entry in entries:
                name = check_length(check_unreserved(check_relative(prefix + entry.name)))
                path = f"{root}/{name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{name}/")
                elif entry.is_file():
                    yield path, name
                elif entry.is_symlink() and entry.is_dir():
                    raise BadInputError(
                        f"{path} is a symbolic link to a directory: replace it with the files"
                    )
                else:
                    raise BadInputError(f"{path} is neither a file nor a directory: remove it")


def _plain_item(source: str, path: str) -> Item:
    status = os.stat(source)  # noqa: PTH116 - one of many thousand, and no Path is needed
    if not stat.S_ISREG(status.st_mode):
        raise BadInputError(f"{source} is not a regular file")
    identity = Identity.of(status)
    check_length(check_unreserved(check_relative(path)))
    parts = (identity.size, identity.modified_ns, identity.changed_ns, identity.inode)
    return Item(path, identity.size, parts, source)


@dataclass(frozen=True, slots=True)
class Sealing:
    """One run that creates the next generation of ``directory``.

    ``before`` is the verified present manifest, or None for a first seal. ``journal`` is open and locked. ``key`` is a
    new data key, or that of the interrupted run; ``ref`` is that key, wrapped. ``origin`` is the key of sealed items.
    ``content``: the signed digests that every plain item must have. ``provenance`` becomes a part of the manifest.
    """

    directory: Path
    model: str
    key: Secret
    ref: KeyRef
    before: Manifest | None
    journal: Journal
    signer: Ed25519PrivateKey | None = None
    origin: tuple[Store, Secret] | None = None
    content: SignedContent | None = None
    provenance: ModelProvenance | None = None

    @property
    def generation(self) -> int:
        """The generation that the run creates."""
        return 1 if self.before is None else self.before.generation + 1

    def run(
        self, items: list[Item], keep: dict[str, Entry], created: str, jobs: int, progress: Progress
    ) -> Manifest:
        """Seal ``items``, keep the entries in ``keep`` unchanged, and commit the manifest.

        Raises:
            KeysError: as `transfer`; the directory still contains the previous generation.
        """
        finals = self._finals(items)
        with Tree(self.directory) as tree:
            tree.refuse_ambiguous([*finals.values(), *(entry.file for entry in keep.values())])
            self._resume_or_begin()
            progressed = compare(self.journal, tree, _planned(items, finals))
            if progressed.existing:
                name = min(progressed.existing)
                raise BadInputError(
                    f"{self.directory}/{finals[name]} exists, but this run did not write it: remove it"
                )
            record(self.journal, _planned(items, finals))
            entries = dict(keep)
            for item in items:
                result = progressed.finished.get(item.path)
                if result is not None and item.path not in entries and self._is_checked(item, result):
                    entries[item.path] = _entry(item, finals[item.path], result)
            todo = [item for item in items if item.path not in entries]
            partial = (partial_name(finals[item.path]) for item in todo)
            require_space(self.directory, sum(Layout(item.size).sealed_size for item in todo), partial)
            progress.start("sealing", sum(item.size for item in todo), len(todo))
            fingerprinter = Fingerprinter(self.key)
            transfer(
                (
                    self._task(
                        item,
                        finals[item.path],
                        tree,
                        fingerprinter,
                        entries,
                        item.path in progressed.resumable,
                    )
                    for item in todo
                ),
                jobs,
                progress,
            )
            self.journal.flush()
            files = tuple(entries[path] for path in sorted(entries))
            manifest = Manifest(
                self.model, self.generation, created, self.ref, files, provenance=self.provenance
            )
            return self._commit(manifest, tree, finals)

    def _is_checked(self, item: Item, done: dict[str, Any]) -> bool:
        """Whether the file of an interrupted run was compared with the present signature, if there is one."""
        if self.content is None:
            return True
        return bool(done.get("signed") == self.content.of(item.path).fingerprint())

    def _resume_or_begin(self) -> None:
        ref = {"id": self.ref.id, "kms": self.ref.kms, "wrapped": self.ref.wrapped.hex()}
        new_key = self.before is not None and self.before.key.id != self.ref.id
        operation = REENCRYPT if new_key else SEAL
        head = {"operation": operation, "model": self.model, "generation": self.generation, "key": ref}
        mac_key = manifest_key(self.key, self.model)
        if not self.journal.resume(mac_key) or {**self.journal.head, "seed": ""} != {**head, "seed": ""}:
            self.journal.begin(mac_key, {**head, "seed": os.urandom(_SEED_SIZE).hex()})

    def _finals(self, items: list[Item]) -> dict[str, str]:
        """The name of the sealed file of each item, by its path."""
        names: set[str] = set() if self.before is None else {entry.file for entry in self.before.files}
        return sealed_names([item.path for item in items], self.generation, names)

    def _task(
        self,
        item: Item,
        final: str,
        tree: Tree,
        fingerprinter: Fingerprinter,
        entries: dict[str, Entry],
        resume: bool,
    ) -> Task:
        expected = None if self.content is None else self.content.of(item.path)

        def done(record: dict[str, Any]) -> None:
            signed = {} if expected is None else {"signed": expected.fingerprint()}
            self.journal.finish(item.path, record | signed)
            entries[item.path] = _entry(item, final, record)

        bound_to = associated_data(self.model, item.path)
        seed = bytes.fromhex(self.journal.head["seed"])
        content: Callable[[], bytes]
        if expected is not None and not isinstance(item.origin, Entry):
            # One pass: the content is known only at its end, so the header is derived from random bytes instead, and
            # a partial file is never reused: no nonce encrypts two contents.
            checked = CheckedSource(Path(item.origin), Identity(*item.identity), item.path, expected)
            nonce = os.urandom(_NONCE_SIZE)
            sink = SealedSink(
                tree, final, Layout(item.size), self.key, bound_to, seed, lambda: nonce, resume=False
            )
            return Task(item.path, checked, sink, done, ordered=checked)
        if isinstance(item.origin, Entry):
            source: PlainSource | SealedSource = self._sealed_source(item.origin)
            content, scan = item.origin.digest.encode, None
        else:
            plain = PlainSource(Path(item.origin), Identity(*item.identity), fingerprinter)
            source, content, scan = plain, plain.content, plain.scan
        sink = SealedSink(tree, final, Layout(item.size), self.key, bound_to, seed, content, resume)
        return Task(item.path, source, sink, done, scan)

    def _sealed_source(self, entry: Entry) -> SealedSource:
        if self.origin is None:
            raise RuntimeError("sealed items need their key")
        store, key = self.origin
        # Pinned: the new header is derived from the entry's digest, so no other content may be encrypted under it.
        return SealedSource(store, entry, key, associated_data(self.model, entry.path), pinned=True)

    def _commit(self, manifest: Manifest, tree: Tree, finals: dict[str, str]) -> Manifest:
        tree.sync({entry.file.rpartition("/")[0] for entry in manifest.files})
        files = {plan[-1] for plan in self.journal.planned.values() if plan} | set(finals.values())
        before = set() if self.before is None else {entry.file for entry in self.before.files}
        current = {entry.file for entry in manifest.files}
        self.journal.drop(sorted((files | before) - current))
        raw = manifest.encode(self.key, self.signer)
        replace_file(self.directory / MANIFEST_NAME, raw, 0o644)
        clean_up(self.directory, manifest, self.journal)
        return stored(manifest, raw, self.signer)


def stored(manifest: Manifest, raw: bytes, signer: Ed25519PrivateKey | None) -> Manifest:
    """The manifest with the digest and the signer of its stored form ``raw``."""
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    return replace(manifest, digest=digest, signer="" if signer is None else signer_id(signer))


def _planned(items: list[Item], finals: dict[str, str]) -> Iterator[Planned]:
    return ((item.path, finals[item.path], [*item.identity, finals[item.path]]) for item in items)


def _entry(item: Item, final: str, record: dict[str, Any]) -> Entry:
    return Entry(item.path, item.size, final, record["digest"], bool(record.get("tags")))
