"""What a person does with weights, each as one call: seal, unseal, verify, rotate.

Here key service, journal, manifest and transfer come together. The service is always the caller's choice: what a
manifest says about its own key is shown in errors and never followed, else whoever writes the storage could point
us at a key of theirs and have their files taken for genuine.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from webhook.keys.errors import BadInputError, KmsRefusedError, SealedDataError
from webhook.keys.kms import KeyContext, open_kms
from webhook.keys.rawio import directory_mode, make_directory, replace_file
from webhook.keys.sealed.cleanup import REENCRYPT, finish_cut_run
from webhook.keys.sealed.directory import read_manifest, require_manifest
from webhook.keys.sealed.journal import open_journal
from webhook.keys.sealed.manifest import KeyRef, shown
from webhook.keys.sealed.paths import JOURNAL_NAME, MANIFEST_NAME, check_key_id, check_model
from webhook.keys.sealed.sealing import Sealing, plain_items, sealed_items
from webhook.keys.sealed.streaming import KEY_SIZE
from webhook.keys.sealed.unsealing import Sealed, Unsealing
from webhook.keys.sealed.updating import unchanged
from webhook.keys.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from webhook.keys.kms import GuardedKms
    from webhook.keys.sealed.journal import Journal
    from webhook.keys.sealed.manifest import Manifest, Unverified
    from webhook.keys.sealed.sealing import Item
    from webhook.keys.sealed.transfer import Progress

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeyService:
    """A key management service for code that is not asynchronous; each call opens and closes it."""

    url: str
    production: bool = False

    def wrap(self, key: Secret, model: str, key_id: str) -> KeyRef:
        """Wrap a data key for ``model`` under ``key_id``.

        Raises:
            KmsError: as `Kms.wrap`.
        """
        context = KeyContext(model, key_id)
        return KeyRef(key_id, self.url, self._ask(lambda kms: kms.wrap(key, context)))

    def unwrap(self, ref: KeyRef, model: str) -> Secret:
        """The data key that ``ref`` holds, when this service wrapped it for ``model``.

        Raises:
            KmsError: as `Kms.unwrap`; a refusal names the service that the manifest speaks of, if it is another.
            SealedDataError: what came out is no data key.
        """
        try:
            opened = self._ask(lambda kms: kms.unwrap(ref.wrapped, KeyContext(model, ref.id)))
        except KmsRefusedError as error:
            hint = "" if ref.kms == self.url else f" (the manifest says that {ref.kms} wrapped it)"
            raise KmsRefusedError(f"{error}{hint}") from None
        secret = Secret(opened)
        if len(secret) != KEY_SIZE:
            secret.wipe()
            raise SealedDataError(f"{self.url} unwrapped something that is not a data key")
        return secret

    def _ask(self, call: Callable[[GuardedKms], Awaitable[T]]) -> T:
        async def asked() -> T:
            kms = open_kms(self.url, production=self.production)
            try:
                return await call(kms)
            finally:
                await kms.close()

        return asyncio.run(asked())


@dataclass(frozen=True, slots=True)
class Work:
    """How to do it: number of threads, whom to tell, and the time, ISO 8601 in UTC, that a manifest will carry."""

    jobs: int
    progress: Progress
    now: str


def seal(
    source: Path,
    directory: Path,
    service: KeyService,
    model: str,
    key_id: str,
    work: Work,
    *,
    update: bool = False,
) -> Manifest:
    """Seal ``source`` into ``directory``; with ``update``, as the next generation of what is sealed there.

    ``key_id`` names the data key, today's date where it is empty; an update goes on under the key that is there, and
    refuses another name for it: the directory may have been put back to an older generation, under an older key.

    Gives the manifest that is in force afterwards; an update that finds nothing changed gives the one before, and so
    does the command of a first seal that was cut short when all but clearing up was done.

    Raises:
        KeysError: what went wrong in one sentence; the directory still holds what it held.
    """
    check_model(model)
    _refuse_overlap(source, directory)
    items = plain_items(source)
    make_directory(directory)
    with open_journal(directory) as journal:
        found = read_manifest(directory)
        if found is None:
            key, ref = _data_key(journal, service, model, check_key_id(key_id or work.now[:10]), 1)
            with key:
                return Sealing(directory, model, key, ref, None, journal).run(
                    items, {}, work.now, work.jobs, work.progress
                )
        _check_update(found, directory, model, key_id, update=update or _ended(journal, found.claims))
        with service.unwrap(found.claims.key, model) as key:
            before = found.verify(key)
            ended = finish_cut_run(directory, before, key, journal)
            if not update and ended and _sealed_by(journal, before, items):
                return before
            _check_update(found, directory, model, key_id, update=update)
            _refuse_other_run(journal, before)
            keep = unchanged(directory, before, key, items, work.jobs, work.progress)
            if len(keep) == len(items) == len(before.files):
                return before
            return Sealing(directory, model, key, before.key, before, journal).run(
                items, keep, work.now, work.jobs, work.progress
            )


@contextmanager
def open_sealed(
    directory: Path, key: KeyService | Secret, *, model: str = "", generation: int = 0
) -> Iterator[Sealed]:
    """A sealed directory whose manifest was checked with its data key, got from a service or given.

    ``model``, if given, must be the one sealed; ``generation`` is the oldest that is good enough.

    Raises:
        KeysError: it is not sealed, not that model, too old, or the key does not fit.
    """
    found = require_manifest(directory)
    claims = found.claims
    if model and model != claims.model:
        raise BadInputError(f'{directory} holds model "{claims.model}", not "{model}"')
    with key if isinstance(key, Secret) else key.unwrap(claims.key, claims.model) as secret:
        manifest = found.verify(secret)
        if manifest.generation < generation:
            raise SealedDataError(
                f"{directory} was rolled back: it holds generation {manifest.generation}, "
                f"and {generation} or newer is asked for"
            )
        yield Sealed(directory, manifest, secret)


def unseal(
    sealed: Sealed, destination: Path, patterns: list[str], work: Work, *, mode: int, replace: bool
) -> int:
    """Write the files that match ``patterns``, all without any, below ``destination``; gives their number.

    Raises:
        KeysError: what went wrong in one sentence; files finished before stay, none is there in part.
    """
    entries = sealed.select(patterns)
    _refuse_overlap(sealed.directory, destination)
    make_directory(destination, directory_mode(mode))
    with open_journal(destination) as journal:
        Unsealing(sealed, destination, journal, mode, replace).run(entries, work.jobs, work.progress)
    return len(entries)


def rewrap(directory: Path, old: KeyService, new: KeyService, key_id: str) -> Manifest:
    """Wrap the same data key anew, by another service, key or id; no file is touched. Empty ``key_id`` keeps the id.

    Raises:
        KeysError: what went wrong in one sentence; the directory is as it was.
    """
    require_manifest(directory)
    with open_journal(directory) as journal, open_sealed(directory, old) as sealed:
        before = sealed.manifest
        finish_cut_run(directory, before, sealed.key, journal)
        begun = journal.peek()
        if begun is not None and begun.get("generation") == before.generation + 1:
            raise BadInputError(f"an unfinished run is in {directory}: finish it first, then rotate the key")
        ref = new.wrap(sealed.key, before.model, check_key_id(key_id or before.key.id))
        manifest = before.rewrapped(ref)
        replace_file(directory / MANIFEST_NAME, manifest.encode(sealed.key), 0o644)
        return manifest


def reencrypt(directory: Path, old: KeyService, new: KeyService, key_id: str, work: Work) -> Manifest:
    """Encrypt every file under a fresh data key; plaintext stays in memory, a segment at a time.

    Gives the manifest that is in force afterwards; that is the one before where the same command was cut short when all
    but clearing up was done.

    Raises:
        KeysError: what went wrong in one sentence; the directory is as it was.
    """
    claims = require_manifest(directory).claims
    with open_journal(directory) as journal:
        ended = _ended(journal, claims) and claims.key.id == check_key_id(key_id)
        with open_sealed(directory, new if ended else old) as sealed:
            return _reencrypt(sealed, journal, new, key_id, work)


def _reencrypt(sealed: Sealed, journal: Journal, new: KeyService, key_id: str, work: Work) -> Manifest:
    directory, before = sealed.directory, sealed.manifest
    ended = finish_cut_run(directory, before, sealed.key, journal)
    if check_key_id(key_id) == before.key.id:
        if ended == REENCRYPT:
            return before
        raise BadInputError(f"a fresh data key needs a fresh id: {key_id!r} is the one in use (--key-id)")
    key, ref = _data_key(journal, new, before.model, key_id, before.generation + 1)
    with key:
        _refuse_same_key(key, sealed.key, journal)
        items = sealed_items(directory, before, sealed.key)
        return Sealing(directory, before.model, key, ref, before, journal).run(
            items, {}, work.now, work.jobs, work.progress
        )


def read_key_file(path: Path) -> Secret:
    """A data key from a file of exactly 32 bytes, as the key sidecar leaves it.

    Raises:
        BadInputError: it cannot be read or has another size.
    """
    buffer = bytearray(KEY_SIZE + 1)
    try:
        with path.open("rb", buffering=0) as stream:
            size = stream.readinto(buffer)
    except OSError as error:
        raise BadInputError(f"the key file {path} cannot be read: {error.strerror}") from None
    secret = Secret(buffer[:size])
    Secret(buffer).wipe()
    if size != KEY_SIZE:
        secret.wipe()
        raise BadInputError(f"the key file {path} does not hold a data key of {KEY_SIZE} bytes")
    return secret


def finish(sealed: Sealed) -> None:
    """Clear up after a run that was cut short when its manifest was in force already, where we may write.

    Raises:
        KeysError: the journal there cannot be read.
    """
    directory = sealed.directory
    if not (directory / JOURNAL_NAME).exists():
        return
    try:
        with open_journal(directory) as journal:
            finish_cut_run(directory, sealed.manifest, sealed.key, journal)
    except (BadInputError, OSError):
        return  # a run is at work there, or we may only read: what is left over shows as such


def _ended(journal: Journal, claims: Manifest) -> bool:
    """Whether the journal says, not yet trusted, that the run which made this manifest was cut short after that."""
    begun = journal.peek()
    return begun is not None and begun.get("generation") == claims.generation


def _sealed_by(journal: Journal, manifest: Manifest, items: list[Item]) -> bool:
    """Whether the run in the journal sealed just these files as they are now."""
    planned = (journal.planned.get(item.path, {}).items() >= item.identity.items() for item in items)
    return {entry.path for entry in manifest.files} == {item.path for item in items} and all(planned)


def _refuse_same_key(key: Secret, before: Secret, journal: Journal) -> None:
    with key.view() as one, before.view() as other:
        same = hmac.compare_digest(one, other)
    if same:
        raise SealedDataError(
            f"{journal.path} names the data key in use under another id; somebody else wrote it: "
            "remove it to start afresh"
        )


def _refuse_other_run(journal: Journal, before: Manifest) -> None:
    begun = journal.peek()
    if begun is not None and begun.get("generation") == before.generation + 1:
        _begun_ref(begun, journal, before.model, before.key.id)


def _data_key(
    journal: Journal, service: KeyService, model: str, key_id: str, generation: int
) -> tuple[Secret, KeyRef]:
    begun = journal.peek()
    if begun is not None and begun.get("generation") == generation:
        ref = _begun_ref(begun, journal, model, key_id)
        key = service.unwrap(ref, model)
        if ref.kms != service.url:
            key.wipe()
            raise BadInputError(
                f"an unfinished run in {journal.path.parent} was begun with {ref.kms}, not {service.url}: "
                f"name that service if you trust it, or remove {journal.path} to start afresh"
            )
        return key, ref
    key = Secret(bytearray(os.urandom(KEY_SIZE)))
    try:
        return key, service.wrap(key, model, key_id)
    except BaseException:
        key.wipe()
        raise


def _begun_ref(begun: dict[str, Any], journal: Journal, model: str, key_id: str) -> KeyRef:
    """The key of a run to be gone on with; whoever can write the storage may have put it there.

    It must be for the id that is asked for: an old key under its own id would be taken for a fresh one.
    """
    try:
        said, key = check_model(begun["model"]), begun["key"]
        ref = KeyRef(check_key_id(key["id"]), shown(key["kms"]), bytes.fromhex(key["wrapped"]))
    except (KeyError, TypeError, ValueError, BadInputError):
        raise SealedDataError(f"{journal.path} is damaged; remove it to start afresh") from None
    directory = journal.path.parent
    if said != model:
        raise BadInputError(f"{directory} holds an unfinished run for model {said!r}")
    if ref.id != key_id:
        raise BadInputError(
            f"an unfinished run in {directory} uses the key id {ref.id!r}, not {key_id!r}: finish it under its own id "
            f"(--key-id) if it is yours, or remove {journal.path} to start afresh"
        )
    return ref


def _check_update(found: Unverified, directory: Path, model: str, key_id: str, *, update: bool) -> None:
    claims = found.claims
    if claims.model != model:
        raise BadInputError(f'{directory} holds model "{claims.model}", not "{model}"')
    if not update:
        raise BadInputError(
            f"{directory} is sealed already (generation {claims.generation}); "
            "to seal what changed since as the next generation, add --update"
        )
    if key_id and claims.key.id != key_id:
        raise BadInputError(
            f'{directory} is sealed under key "{claims.key.id}", not "{key_id}", and an update goes on under the key '
            "that is there; weights rotate --reencrypt gives it another"
        )


def _refuse_overlap(one: Path, other: Path) -> None:
    first, second = one.resolve(), other.resolve()
    if first == second or first in second.parents or second in first.parents:
        raise BadInputError(f"{one} and {other} lie inside one another; use separate directories")
