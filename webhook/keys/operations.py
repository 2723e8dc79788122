"""What a person does with weights, each as one call: seal, unseal, verify, rotate.

Here key service, journal, manifest and transfer come together. The service is always the caller's choice: what a
manifest says about its own key is shown in errors and never followed, else whoever writes the storage could point
us at a key of theirs and have their files taken for genuine.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from webhook.keys.directory import read_manifest, require_manifest
from webhook.keys.errors import BadInputError, KmsRefusedError, SealedDataError
from webhook.keys.journal import open_journal
from webhook.keys.kms import KeyContext, open_kms
from webhook.keys.manifest import KeyRef
from webhook.keys.paths import MANIFEST_NAME, check_key_id, check_model
from webhook.keys.rawio import replace_file
from webhook.keys.sealing import Sealing, plain_items, sealed_items
from webhook.keys.secret import Secret
from webhook.keys.streaming import KEY_SIZE
from webhook.keys.unsealing import Sealed, Unsealing
from webhook.keys.updating import unchanged

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from webhook.keys.journal import Journal
    from webhook.keys.kms import GuardedKms
    from webhook.keys.manifest import Manifest, Unverified
    from webhook.keys.transfer import Progress

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

    Gives the manifest that is in force afterwards; an update that finds nothing changed gives the one before.

    Raises:
        KeysError: what went wrong in one sentence; the directory still holds what it held.
    """
    check_model(model)
    _refuse_overlap(source, directory)
    items = plain_items(source)
    directory.mkdir(parents=True, exist_ok=True)
    with open_journal(directory) as journal:
        found = read_manifest(directory)
        if found is None:
            key, ref = _data_key(journal, service, model, check_key_id(key_id), generation=1)
            with key:
                return Sealing(directory, model, key, ref, None, journal).run(
                    items, {}, work.now, work.jobs, work.progress
                )
        _check_update(found, directory, model, update=update)
        with service.unwrap(found.claims.key, model) as key:
            before = found.verify(key)
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
    destination.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open_journal(destination) as journal:
        Unsealing(sealed, destination, journal, mode, replace).run(entries, work.jobs, work.progress)
    return len(entries)


def rewrap(directory: Path, old: KeyService, new: KeyService, key_id: str) -> Manifest:
    """Wrap the same data key anew, by another service, key or id; no file is touched. Empty ``key_id`` keeps the id.

    Raises:
        KeysError: what went wrong in one sentence; the directory is as it was.
    """
    with open_journal(directory) as journal, open_sealed(directory, old) as sealed:
        before = sealed.manifest
        begun = journal.peek()
        if begun is not None and begun.get("generation") == before.generation + 1:
            raise BadInputError(f"an unfinished run is in {directory}: finish it first, then rotate the key")
        ref = new.wrap(sealed.key, before.model, check_key_id(key_id or before.key.id))
        manifest = before.rewrapped(ref)
        replace_file(directory / MANIFEST_NAME, manifest.encode(sealed.key), 0o644)
        return manifest


def reencrypt(directory: Path, old: KeyService, new: KeyService, key_id: str, work: Work) -> Manifest:
    """Encrypt every file under a fresh data key; plaintext stays in memory, a segment at a time.

    Raises:
        KeysError: what went wrong in one sentence; the directory is as it was.
    """
    with open_journal(directory) as journal, open_sealed(directory, old) as sealed:
        before = sealed.manifest
        if check_key_id(key_id) == before.key.id:
            raise BadInputError(f"a fresh data key needs a fresh id: {key_id!r} is the one in use (--key-id)")
        key, ref = _data_key(journal, new, before.model, key_id, generation=before.generation + 1)
        with key:
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


def _data_key(
    journal: Journal, service: KeyService, model: str, key_id: str, *, generation: int
) -> tuple[Secret, KeyRef]:
    begun = journal.peek()
    if begun is not None and begun.get("generation") == generation:
        ref = _begun_ref(begun, journal, model)
        return service.unwrap(ref, model), ref
    key = Secret(bytearray(os.urandom(KEY_SIZE)))
    try:
        return key, service.wrap(key, model, key_id)
    except BaseException:
        key.wipe()
        raise


def _begun_ref(begun: dict[str, Any], journal: Journal, model: str) -> KeyRef:
    try:
        ref = KeyRef(
            str(begun["key"]["id"]), str(begun["key"]["kms"]), bytes.fromhex(begun["key"]["wrapped"])
        )
    except (KeyError, TypeError, ValueError):
        raise SealedDataError(f"{journal.path} is damaged; remove it to start afresh") from None
    if begun.get("model") != model:
        raise BadInputError(f"{journal.path.parent} holds an unfinished run for model {begun.get('model')!r}")
    return ref


def _check_update(found: Unverified, directory: Path, model: str, *, update: bool) -> None:
    claims = found.claims
    if claims.model != model:
        raise BadInputError(f'{directory} holds model "{claims.model}", not "{model}"')
    if not update:
        raise BadInputError(
            f"{directory} is sealed already (generation {claims.generation}); "
            "to seal what changed since as the next generation, add --update"
        )


def _refuse_overlap(one: Path, other: Path) -> None:
    first, second = one.resolve(), other.resolve()
    if first == second or first in second.parents or second in first.parents:
        raise BadInputError(f"{one} and {other} lie inside one another; use separate directories")
