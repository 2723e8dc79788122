"""A keyset in a local file: for evaluation and tests, without a service.

A process that can read the file can unwrap every key. So the file must be private to its owner, and production mode
rejects this provider.
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
    """Wraps with AES-256-GCM under the keyset's newest key. The first wrap creates the file."""

    def __init__(self, path: str, *, production: bool = False) -> None:
        if production:
            raise KmsConfigError(
                "a local keyset is not allowed in production: wrap the key with vault, aws, gcp, azure or pkcs11 "
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
            raise KmsRefusedError(
                f"the keyset {self._path} does not contain the key that wrapped this data key"
            )
        try:
            return bytearray(AESGCM(key).decrypt(nonce, wrapped[_ID_SIZE + _NONCE_SIZE :], context.encode()))
        except (InvalidTag, ValueError):
            raise KmsRefusedError(
                f"the keyset {self._path} rejects this data key: it was wrapped for another model or key id, or changed"
            ) from None

    async def close(self) -> None:
        """Nothing to close."""

    def _load(self) -> list[tuple[bytes, bytes]]:
        return load_keyset(self._path)


def load_keyset(path: Path) -> list[tuple[bytes, bytes]]:
    """The keys of a keyset file as (id, key), oldest first.

    Raises:
        KmsConfigError: it is missing, readable by other users, or not a keyset.
    """
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            raw = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise KmsConfigError(f"cannot read the keyset {path}: {error.strerror}") from None
    if not _is_private(status):
        mode = stat.filemode(status.st_mode)
        raise KmsConfigError(f"the keyset {path} is accessible to other users ({mode}): run chmod 600 {path}")
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


def _is_private(status: os.stat_result) -> bool:
    """Whether only this process's user reads the file, or its group in a mounted Secret.

    The kubelet makes the files of a Secret volume root's, and gives the pod's `fsGroup` the right to read them. No pod
    that runs as another user can have such a file otherwise.
    """
    others = status.st_mode & 0o077
    mounted = status.st_uid == 0 != os.geteuid() and status.st_gid in {os.getegid(), *os.getgroups()}
    return others == 0 or (others == 0o040 and mounted)


def add_key(path: Path) -> list[tuple[bytes, bytes]]:
    """Add a new key, which wraps from now on; older keys still unwrap. Creates the file with mode 0600 if necessary.

    Raises:
        KmsConfigError: the file exists and is not a private keyset, or cannot be written.
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
    """The keyset, created if necessary. If two processes create it at once, both use the file of the first."""
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
        raise KmsConfigError(f"cannot write the keyset {path}: {error.strerror}") from None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of the file that has this name now: a concurrent `add_key` must not lose a key."""
    while True:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KmsConfigError(f"cannot read the keyset {path}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(fd), path.stat()):
                yield
                return
        finally:
            os.close(fd)
