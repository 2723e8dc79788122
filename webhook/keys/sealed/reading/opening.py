"""A sealed directory with its verified manifest and its data key: the starting point of every reader."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.rawio import open_regular, read_at
from webhook.keys.sealed.format.paths import PINS_NAME
from webhook.keys.sealed.format.pins import Pins
from webhook.keys.sealed.format.streaming import associated_data
from webhook.keys.sealed.reading.source import SealedSource
from webhook.keys.sealed.storage.store import LocalStore, Store
from webhook.keys.secret import KEY_SIZE, Secret

if TYPE_CHECKING:
    from pathlib import Path

    from webhook.keys.sealed.format.manifest import Entry, Manifest, Unverified

_MAX_PINS = 16 << 10


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed directory. The owner wipes ``key``."""

    store: Store
    manifest: Manifest
    key: Secret

    @property
    def directory(self) -> Path:
        """The local directory. Raises `BadInputError` if the store is not local."""
        if not isinstance(self.store, LocalStore):
            raise BadInputError(f"{self.store.where('')} is not a local directory")
        return self.store.directory

    def source(self, entry: Entry, *, pinned: bool = True) -> SealedSource:
        """One file, for reading. See `SealedSource` for ``pinned``."""
        bound_to = associated_data(self.manifest.model, entry.path)
        return SealedSource(self.store, entry, self.key, bound_to, pinned=pinned)


def verified(unverified: Unverified, store: Store, key: Secret, pins: Pins) -> Sealed:
    """Verify a manifest with its data key and the pins.

    Raises:
        KeysError: the key does not match, the manifest is damaged, or it does not meet the pins.
    """
    manifest = unverified.verify(key)
    pins.check(manifest, store.where(""))
    return Sealed(store, manifest, key)


def read_key_file(path: Path) -> Secret:
    """A data key from a file of exactly 32 bytes, as the key sidecar delivers it.

    Raises:
        BadInputError: it cannot be read, or has another size.
    """
    buffer = bytearray(KEY_SIZE + 1)
    try:
        with path.open("rb", buffering=0) as stream:
            size = stream.readinto(buffer)
    except OSError as error:
        raise BadInputError(f"cannot read the key file {path}: {error.strerror}") from None
    secret = Secret(buffer[:size])
    Secret(buffer).wipe()
    if size != KEY_SIZE:
        secret.wipe()
        raise BadInputError(f"the key file {path} does not contain a data key of {KEY_SIZE} bytes")
    return secret


def read_pins(directory: Path) -> Pins:
    """The pins that the key sidecar delivered beside a model's keys; none if it delivered none.

    Raises:
        SealedDataError: they cannot be read. Pins that cannot be read must not be ignored.
    """
    path = directory / PINS_NAME
    try:
        fd = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return Pins()
    except OSError as error:
        raise SealedDataError(f"cannot read {path}: {error.strerror}") from None
    try:
        buffer = memoryview(bytearray(_MAX_PINS))
        return Pins.parse(json.loads(bytes(buffer[: read_at(fd, buffer, 0)])))
    except (ValueError, RecursionError) as error:
        raise SealedDataError(f"{path} is damaged: {error}") from None
    finally:
        os.close(fd)
