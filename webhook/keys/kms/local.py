"""A keyset in a file of one's own: for trying things out and for tests, with no service to run.

Whoever reads the file can unwrap every key, so it must be private to its owner, and production refuses it.
"""

from __future__ import annotations

import base64
import fcntl
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from webhook.keys.errors import KmsConfigError, KmsRefusedError
from webhook.keys.rawio import create_file, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from webhook.keys.kms.base import KeyContext
    from webhook.keys.secret import Secret

_FORMAT = "weightlock.dev/keyset/v1"
_MAX_BYTES = 1 << 20
_ID_SIZE, _NONCE_SIZE = 4, 12


class LocalKms:
    """Wraps with AES-256-GCM under the keyset's newest key. The first wrap makes the file."""

    def __init__(self, path: str, *, production: bool = False) -> None:
        if production:
            raise KmsConfigError(
                "a local keyset is not for production: wrap the key with vault, aws, gcp, azure or pkcs11 "
                "(weightlock weights rotate --kms URL)"
            )
        self._path = Path(path)

    async def wrap(self, plaintext: Secret, context: KeyContext) -> bytes:
        """See `Kms.wrap`."""
        key_id, key = _first_key(self._path)[-1]
        nonce = os.urandom(_NONCE_SIZE)
        with plaintext.view() as data:
            return key_id + nonce + AESGCM(key).encrypt(nonce, data, context.encode())

    async def unwrap(self, wrapped: bytes, context: KeyContext) -> bytearray:
        """See `Kms.unwrap`."""
        key_id, nonce = wrapped[:_ID_SIZE], wrapped[_ID_SIZE : _ID_SIZE + _NONCE_SIZE]
        key = dict(self._load()).get(key_id)
        if key is None:
            raise KmsRefusedError(f"the keyset {self._path} does not hold the key that wrapped this data key")
        try:
            return bytearray(AESGCM(key).decrypt(nonce, wrapped[_ID_SIZE + _NONCE_SIZE :], context.encode()))
        except (InvalidTag, ValueError):
            raise KmsRefusedError(
                f"the keyset {self._path} refuses this data key: it was wrapped for another model or key id, or changed"
            ) from None

    async def close(self) -> None:
        """Nothing is held open."""

    def _load(self) -> list[tuple[bytes, bytes]]:
        return load_keyset(self._path)


def load_keyset(path: Path) -> list[tuple[bytes, bytes]]:
    """The keys of a keyset file as (id, key), oldest first.

    Raises:
        KmsConfigError: it is missing, readable by others, or no keyset.
    """
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            raw = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise KmsConfigError(f"the keyset {path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        shown = stat.filemode(mode)
        raise KmsConfigError(f"the keyset {path} is open to others ({shown}): chmod 600 {path}")
    try:
        document: Any = orjson.loads(raw)
        if document["format"] != _FORMAT or len(raw) > _MAX_BYTES:
            raise ValueError(document["format"])
        keys = [
            (bytes.fromhex(item["id"]), base64.b64decode(item["key"], validate=True))
            for item in document["keys"]
        ]
    except (ValueError, KeyError, TypeError):
        raise KmsConfigError(f"{path} is not a keyset of this version") from None
    if not keys or any(len(key_id) != _ID_SIZE or len(key) != 32 for key_id, key in keys):
        raise KmsConfigError(f"{path} is not a keyset of this version")
    return keys


def add_key(path: Path) -> list[tuple[bytes, bytes]]:
    """Add a fresh key, which wraps from now on; the older ones still unwrap. Makes the file, mode 0600, if need be.

    Raises:
        KmsConfigError: the file is there and is not a private keyset, or cannot be written.
    """
    if not path.exists():
        fresh = [_fresh()]
        if _write(path, fresh, create_file):
            return fresh
    with _alone(path):
        keys = [*load_keyset(path), _fresh()]
        _write(path, keys, replace_file)
    return keys


def _first_key(path: Path) -> list[tuple[bytes, bytes]]:
    """The keyset, made if need be. Of two that make it at once one wins, and the other uses what that one made."""
    if not path.exists():
        _write(path, [_fresh()], create_file)
    return load_keyset(path)


def _fresh() -> tuple[bytes, bytes]:
    return os.urandom(_ID_SIZE), os.urandom(32)


def _write(
    path: Path, keys: list[tuple[bytes, bytes]], write: Callable[[Path, bytes, int], bool | None]
) -> bool:
    items = [{"id": key_id.hex(), "key": base64.b64encode(key).decode()} for key_id, key in keys]
    content = orjson.dumps({"format": _FORMAT, "keys": items}, option=orjson.OPT_INDENT_2)
    try:
        return write(path, content, 0o600) is not False
    except OSError as error:
        raise KmsConfigError(f"the keyset {path} cannot be written: {error.strerror}") from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of the file that has this name now: a key that two add at once must not replace the other's."""
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KmsConfigError(f"the keyset {path} cannot be read: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(fd), path.stat()):
                yield
                return
        finally:
            os.close(fd)
