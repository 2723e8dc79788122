"""The operations on weights, one call each: seal, unseal, rotate, sign.

This module joins KMS, journal, manifest and transfer. The caller always chooses the KMS: the one that a manifest names
is shown in errors and never used. Otherwise an attacker with write access to the storage could name a KMS of their
own, and their files would pass as authentic.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from webhook.keys.errors import BadInputError, KmsRefusedError, SealedDataError
from webhook.keys.kms import KeyContext, open_kms
from webhook.keys.rawio import directory_mode, make_directory, replace_file
from webhook.keys.sealed.cleanup import REENCRYPT, finish_interrupted_run
from webhook.keys.sealed.format.manifest import KeyRef, printable_text
from webhook.keys.sealed.format.paths import JOURNAL_NAME, MANIFEST_NAME, check_key_id, check_model
from webhook.keys.sealed.format.pins import NO_PINS, Pins
from webhook.keys.sealed.journal import open_journal
from webhook.keys.sealed.reading.opening import Sealed, read_key_file, verified
from webhook.keys.sealed.sealing import Sealing, plain_items, sealed_items, stored
from webhook.keys.sealed.storage.directory import read_manifest, require_manifest
from webhook.keys.sealed.storage.store import LocalStore
from webhook.keys.sealed.storage.tree import Tree
from webhook.keys.sealed.unsealing import Unsealing, select
from webhook.keys.sealed.updating import unchanged
from webhook.keys.secret import KEY_SIZE, Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from webhook.keys.kms import ResilientKms
    from webhook.keys.sealed.format.manifest import Manifest, Unverified
    from webhook.keys.sealed.journal import Journal
    from webhook.keys.sealed.sealing import Item
    from webhook.keys.sealed.signed_content import SignedContent
    from webhook.keys.sealed.storage.store import Store
    from webhook.keys.sealed.transfer import Progress

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeyService:
    """A KMS for code that is not asynchronous; each call opens and closes it."""

    url: str
    production: bool = False

    def wrap(self, key: Secret, model: str, key_id: str) -> KeyRef:
        """Wrap a data key for ``model`` under ``key_id``.

        Raises:
            KmsError: as `Kms.wrap`.
        """
        context = KeyContext(model, key_id)
        return KeyRef(key_id, self.url, self._call(lambda kms: kms.wrap(key, context)))

    def unwrap(self, ref: KeyRef, model: str) -> Secret:
        """The data key in ``ref``, if this KMS wrapped it for ``model``.

        Raises:
            KmsError: as `Kms.unwrap`; a rejection names the KMS in the manifest if it is another one.
            SealedDataError: the result is not a data key.
        """
        try:
            content = self._call(lambda kms: kms.unwrap(ref.wrapped, KeyContext(model, ref.id)))
        except KmsRefusedError as error:
            hint = "" if ref.kms == self.url else f" (the manifest names {ref.kms})"
            raise KmsRefusedError(f"{error}{hint}") from None
        secret = Secret(content)
        if len(secret) != KEY_SIZE:
            secret.wipe()
            raise SealedDataError(f"{self.url} returned something that is not a data key")
        return secret

    def _call(self, call: Callable[[ResilientKms], Awaitable[T]]) -> T:
        async def run() -> T:
            kms = open_kms(self.url, production=self.production)
            try:
                return await call(kms)
            finally:
                await kms.close()

        # An interrupt in the middle of these two steps would leave a loop that is neither open nor closed.
        runner = asyncio.Runner()
        try:
            with _uninterrupted():
                runner.get_loop()
            return runner.run(run())
        finally:
            with _uninterrupted():
                runner.close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Deliver signals to this thread only at the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True, slots=True)
class Work:
    """How to run: the number of threads, the progress, and the time for a manifest, ISO 8601 in UTC.

    ``signer`` signs each manifest that is written. ``notes`` collects what the user should know about the result.
    """

    jobs: int
    progress: Progress
    now: str
    signer: Ed25519PrivateKey | None = None
    notes: list[str] = field(default_factory=list)


def seal(
    source: Path,
    directory: Path,
    service: KeyService,
    model: str,
    key_id: str,
    work: Work,
    *,
    update: bool = False,
    content: SignedContent | None = None,
) -> Manifest:
    """Seal ``source`` into ``directory``; with ``update``, as its next generation.

    ``key_id`` names the data key; the default is today's date. An update keeps the present key, and rejects another
    ``key_id``: the directory may have been rolled back to a generation with an older key.

    With ``content``, only signed files are sealed. Each is compared with its signed digest in the pass that encrypts
    it, and the manifest states the verified signature.

    Returns the manifest that is then in force. If nothing changed, that is the present one. The same holds for a
    repeated first seal of the same files.

    Raises:
        KeysError: one sentence; the directory is unchanged.
    """
    check_model(model)
    _refuse_overlap(source, directory)
    items = plain_items(source)
    provenance = None
    if content is not None:
        items, excluded = content.admit(items)
        provenance = content.provenance
        if excluded:
            work.notes.append(f"files not sealed, because the signature excludes them: {len(excluded)}")
    make_directory(directory)
    with open_journal(directory) as journal:
        manifest = read_manifest(directory)
        if manifest is None:
            key, ref = _data_key(journal, service, model, check_key_id(key_id or work.now[:10]), 1)
            with key:
                sealing = Sealing(
                    directory, model, key, ref, None, journal, work.signer, None, content, provenance
                )
                return sealing.run(items, {}, work.now, work.jobs, work.progress)
        _check_model_and_key(manifest, directory, model, key_id)
        with service.unwrap(manifest.claims.key, model) as key:
            sealed = verified(manifest, LocalStore(directory), key, NO_PINS)
            before = sealed.manifest
            operation = finish_interrupted_run(directory, before, key, journal)
            if operation and not update and content is None and _sealed_by(journal, before, items):
                return before
            _refuse_other_run(journal, before)
            keep = unchanged(sealed, items, work.jobs, work.progress, content)
            same = len(keep) == len(items) == len(before.files)
            if same and (provenance is None or provenance == before.provenance):
                work.notes.append("nothing changed: the directory already contains these files")
                return before
            if not update:
                what = "without this signature" if same else "with other files"
                raise BadInputError(
                    f"{directory} is already sealed (generation {before.generation}) {what}: "
                    "add --update to seal the changes as the next generation"
                )
            _note_signature(before, work)
            if before.provenance is not None and content is None:
                work.notes.append(
                    "the previous generation had a verified signature, and this one does not: --verify-signature"
                )
            sealing = Sealing(
                directory, model, key, before.key, before, journal, work.signer, None, content, provenance
            )
            return sealing.run(items, keep, work.now, work.jobs, work.progress)


@contextmanager
def open_sealed(
    directory: Path | Store,
    key: KeyService | Secret,
    *,
    model: str = "",
    generation: int = 0,
    pins: Pins = NO_PINS,
) -> Iterator[Sealed]:
    """A sealed directory whose manifest was verified with its data key, from a KMS or given.

    ``model``, if given, must be the sealed one. ``generation`` is the oldest accepted one. ``pins`` come from the
    ModelWeights object.

    Raises:
        KeysError: it is not sealed, another model, too old, does not meet the pins, or the key does not match.
    """
    store: Store = LocalStore(directory) if isinstance(directory, Path) else directory
    manifest = require_manifest(directory)
    claims = manifest.claims
    if model and model != claims.model:
        raise BadInputError(f'{store.where("")} contains model "{claims.model}", not "{model}"')
    with key if isinstance(key, Secret) else key.unwrap(claims.key, claims.model) as secret:
        sealed = verified(manifest, store, secret, pins)
        del manifest  # the stored form, as large as all entries together
        Pins(generation).check(sealed.manifest, store.where(""))
        yield sealed


def unseal(
    sealed: Sealed, destination: Path, patterns: list[str], work: Work, *, mode: int, replace: bool
) -> int:
    """Write the files that match ``patterns``, all without any, below ``destination``. Returns their number.

    Files that are already there with the sealed content are kept: a repeated run succeeds.

    Raises:
        KeysError: one sentence; files that were complete before stay, and no file is there in part.
    """
    entries = select(sealed.manifest, patterns)
    if isinstance(sealed.store, LocalStore):
        _refuse_overlap(sealed.store.directory, destination)
    directories = directory_mode(mode)
    make_directory(destination, directories)
    with open_journal(destination) as journal, Tree(destination, directories) as tree:
        count = Unsealing(sealed, destination, journal, mode, replace).run(
            entries, work.jobs, work.progress, tree
        )
    if count < len(entries):
        work.notes.append(
            f"{len(entries) - count} of {len(entries)} files were already there, with the same content"
        )
    return len(entries)


def rewrap(directory: Path, old: KeyService, new: KeyService, key_id: str, work: Work) -> Manifest:
    """Wrap the same data key by another KMS, key or id; no file is read. An empty ``key_id`` keeps the id.

    Raises:
        KeysError: one sentence; the directory is unchanged.
    """
    require_manifest(directory)
    with open_journal(directory) as journal, open_sealed(directory, old) as sealed:
        before = sealed.manifest
        finish_interrupted_run(directory, before, sealed.key, journal)
        previous_run = journal.peek()
        if previous_run is not None and previous_run.get("generation") == before.generation + 1:
            raise BadInputError(
                f"{directory} contains an unfinished run: finish it first, then rotate the key"
            )
        ref = new.wrap(sealed.key, before.model, check_key_id(key_id or before.key.id))
        manifest = before.rewrapped(ref)
        _note_signature(before, work)
        raw = manifest.encode(sealed.key, work.signer)
        replace_file(directory / MANIFEST_NAME, raw, 0o644)
        return stored(manifest, raw, work.signer)


def reencrypt(directory: Path, old: KeyService, new: KeyService, key_id: str, work: Work) -> Manifest:
    """Encrypt every file under a new data key; plaintext stays in memory, one segment at a time.

    Returns the manifest that is then in force. That is the present one if the same command was interrupted only before
    its cleanup.

    Raises:
        KeysError: one sentence; the directory is unchanged.
    """
    claims = require_manifest(directory).claims
    with open_journal(directory) as journal:
        ended = _ended(journal, claims) and claims.key.id == check_key_id(key_id)
        with open_sealed(directory, new if ended else old) as sealed:
            return _reencrypt(sealed, journal, new, key_id, work)


def _reencrypt(sealed: Sealed, journal: Journal, new: KeyService, key_id: str, work: Work) -> Manifest:
    directory, before = sealed.directory, sealed.manifest
    operation = finish_interrupted_run(directory, before, sealed.key, journal)
    if check_key_id(key_id) == before.key.id:
        if operation == REENCRYPT:
            return before
        raise BadInputError(f"a new data key needs a new id: {key_id!r} is in use (--key-id)")
    key, ref = _data_key(journal, new, before.model, key_id, before.generation + 1)
    with key:
        _refuse_same_key(key, sealed.key, journal)
        _note_signature(before, work)
        origin = (sealed.store, sealed.key)
        sealing = Sealing(
            directory, before.model, key, ref, before, journal, work.signer, origin, None, before.provenance
        )
        return sealing.run(sealed_items(before), {}, work.now, work.jobs, work.progress)


def sign(directory: Path, key: KeyService | Secret, signer: Ed25519PrivateKey) -> Manifest:
    """Sign the present manifest after its MAC is verified. No file is read, and the generation stays.

    Raises:
        KeysError: one sentence; the directory is unchanged.
    """
    with open_journal(directory), open_sealed(directory, key) as sealed:
        raw = require_manifest(directory).signed(sealed.key, signer)
        replace_file(directory / MANIFEST_NAME, raw, 0o644)
        return stored(sealed.manifest, raw, signer)


def finish(sealed: Sealed) -> None:
    """Clean up after a run that was interrupted when its manifest was already in force, if this user may write.

    Raises:
        KeysError: the journal cannot be read.
    """
    if not isinstance(sealed.store, LocalStore):
        return
    directory = sealed.directory
    if not (directory / JOURNAL_NAME).exists():
        return
    try:
        with open_journal(directory) as journal:
            finish_interrupted_run(directory, sealed.manifest, sealed.key, journal)
    except (BadInputError, OSError):
        return  # another run uses the directory, or it is read-only: leftover files are reported as such


def _note_signature(before: Manifest, work: Work) -> None:
    if before.signer and work.signer is None:
        work.notes.append(
            "the previous generation was signed, and this one is not: sign it with `weightlock weights sign`"
        )


def _ended(journal: Journal, claims: Manifest) -> bool:
    """Whether the unverified journal states that the run which made this manifest was interrupted after that."""
    previous_run = journal.peek()
    return previous_run is not None and previous_run.get("generation") == claims.generation


def _sealed_by(journal: Journal, manifest: Manifest, items: list[Item]) -> bool:
    """Whether the run in the journal sealed exactly these files in their present state."""
    same = all(journal.planned.get(item.path, [])[:-1] == list(item.identity) for item in items)
    return same and {entry.path for entry in manifest.files} == {item.path for item in items}


def _refuse_same_key(key: Secret, before: Secret, journal: Journal) -> None:
    with key.view() as one, before.view() as other:
        same = hmac.compare_digest(one, other)
    if same:
        raise SealedDataError(
            f"{journal.path} names the present data key under another id, so this user's run did not write it: "
            "remove it to start over"
        )


def _refuse_other_run(journal: Journal, before: Manifest) -> None:
    previous_run = journal.peek()
    if previous_run is not None and previous_run.get("generation") == before.generation + 1:
        _key_of_run(previous_run, journal, before.model, before.key.id)


def _data_key(
    journal: Journal, service: KeyService, model: str, key_id: str, generation: int
) -> tuple[Secret, KeyRef]:
    previous_run = journal.peek()
    if previous_run is not None and previous_run.get("generation") == generation:
        ref = _key_of_run(previous_run, journal, model, key_id)
        key = service.unwrap(ref, model)
        if ref.kms != service.url:
            key.wipe()
            raise BadInputError(
                f"{journal.path.parent} contains an unfinished run that used KMS {ref.kms}, not {service.url}: "
                f"pass --kms {ref.kms} if you trust it, or delete {journal.path} to start over"
            )
        return key, ref
    key = Secret(bytearray(os.urandom(KEY_SIZE)))
    try:
        return key, service.wrap(key, model, key_id)
    except BaseException:
        key.wipe()
        raise


def _key_of_run(previous_run: dict[str, Any], journal: Journal, model: str, key_id: str) -> KeyRef:
    """The key of an interrupted run, which an attacker with write access may have planted.

    It must have the requested id: an old key under its own id would be taken for a new one.
    """
    try:
        run_model, key = check_model(previous_run["model"]), previous_run["key"]
        ref = KeyRef(check_key_id(key["id"]), printable_text(key["kms"]), bytes.fromhex(key["wrapped"]))
    except (KeyError, TypeError, ValueError, BadInputError):
        raise SealedDataError(f"{journal.path} is damaged: remove it to start over") from None
    directory = journal.path.parent
    if run_model != model:
        raise BadInputError(f"{directory} contains an unfinished run for model {run_model!r}")
    if ref.id != key_id:
        raise BadInputError(
            f"{directory} contains an unfinished run with key id {ref.id!r}, not {key_id!r}: finish it with its own id "
            f"(--key-id) if it is yours, or delete {journal.path} to start over"
        )
    return ref


def _check_model_and_key(manifest: Unverified, directory: Path, model: str, key_id: str) -> None:
    claims = manifest.claims
    if claims.model != model:
        raise BadInputError(f'{directory} contains model "{claims.model}", not "{model}"')
    if key_id and claims.key.id != key_id:
        raise BadInputError(
            f'{directory} is sealed with key "{claims.key.id}", not "{key_id}"; --update keeps the key, use '
            "`weights rotate --reencrypt` to replace it"
        )


def _refuse_overlap(one: Path, other: Path) -> None:
    first, second = one.resolve(), other.resolve()
    if first == second or first in second.parents or second in first.parents:
        raise BadInputError(f"{one} and {other} overlap: use separate directories")


__all__ = [
    "KeyService",
    "Work",
    "finish",
    "open_sealed",
    "read_key_file",
    "reencrypt",
    "rewrap",
    "seal",
    "sign",
    "unseal",
]
