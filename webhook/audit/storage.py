"""A log's files in a directory: atomic writes, one writer at a time, and reads that never follow a link out of it."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import stat
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.audit.errors import AuditError, LockedError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = ".lock"
MAX_FILE_BYTES = 32 * 1024 * 1024
# The path is a link, a directory or a socket, or leads through a link or a file.
_IRREGULAR = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO})


class Directory:
    """The files of one log. Paths are relative, with slashes."""

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self.root = root
        self._fsync = fsync
        self._lock_fd = -1
        self._dirty: set[Path] = set()

    def read(self, path: str) -> bytes | None:
        """Return a file, or None if it does not exist. A sealed bundle may be compressed (``.gz``).

        A link, a FIFO or a directory counts as an empty file, so it is a fault of the log: only regular files are read.

        Raises:
            AuditError: the file cannot be read.
        """
        try:
            data, packed = self._read(path)
            return gunzip(data) if packed and data is not None else data
        except (EOFError, zlib.error):
            return b""
        except OSError as error:
            if error.errno in _IRREGULAR:
                return b""
            raise AuditError(f"cannot read {self.root / path}: {error.strerror or error}") from None

    def _read(self, path: str) -> tuple[bytes | None, bool]:
        """Return a regular file, or its compressed form and True. No link below the root is followed."""
        *folders, name = path.split("/")
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            for folder in folders:
                descriptor = _below(descriptor, folder, flags | os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return None, False
        try:
            for packed in (False, True):
                with suppress(FileNotFoundError):
                    return _content(f"{name}.gz" if packed else name, descriptor), packed
        finally:
            os.close(descriptor)
        return None, False

    def paths(self) -> Iterator[str]:
        """Yield the paths of all files except the lock."""
        for directory, folders, files in os.walk(self.root):
            folders.sort()
            links = [name for name in folders if Path(directory, name).is_symlink()]
            for name in sorted([*files, *links]):
                path = Path(directory, name).relative_to(self.root).as_posix()
                if not name.startswith("."):
                    yield path.removesuffix(".gz")

    def write(self, path: str, data: bytes) -> None:
        """Write a file atomically. It is durable after `sync`. Raises `OSError`."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = place.with_name(f".{place.name}.new")
        with unfinished.open("wb") as stream:
            stream.write(data)
            stream.flush()
            if self._fsync:
                os.fsync(stream.fileno())
        unfinished.replace(place)
        self._dirty.add(place.parent)

    def sync(self) -> None:
        """Make all writes durable. Raises `OSError`."""
        dirty, self._dirty = self._dirty, set()
        if not self._fsync:
            return
        for directory in {
            parent for place in dirty for parent in (place, *place.parents) if self._inside(parent)
        }:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def compress(self, path: str) -> None:
        """Replace a file by its compressed form. Raises `OSError`."""
        place = self.root / path
        self.write(f"{path}.gz", gzip.compress(place.read_bytes(), 6, mtime=0))
        self.sync()
        place.unlink(missing_ok=True)

    def delete(self, path: str) -> None:
        """Delete a file or its compressed form."""
        place = self.root / path
        for name in (place, place.with_name(f"{place.name}.gz")):
            name.unlink(missing_ok=True)

    def delete_partials(self, path: str) -> None:
        """Delete the partial tiles of a full tile."""
        folder = self.root / f"{path}.p"
        with suppress(OSError):
            for place in folder.iterdir():
                place.unlink(missing_ok=True)
            folder.rmdir()

    def discard(self, path: str) -> bool:
        """Delete a full tile and its partial tiles. Return whether there were any."""
        place = self.root / path
        there = any(each.exists() for each in (place, Path(f"{place}.p"), Path(f"{place}.gz")))
        self.delete(path)
        self.delete_partials(path)
        return there

    def lock(self) -> None:
        """Become the only writer. The kernel releases the lock when the process ends.

        Raises:
            LockedError: another process writes this log.
            AuditError: the directory cannot be used.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(
                self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise AuditError(f"cannot open the log {self.root}: {error.strerror or error}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise LockedError(f"cannot open the log {self.root}: another process writes it") from None
        self._lock_fd = descriptor

    def unlock(self) -> None:
        """Let another process write."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _inside(self, place: Path) -> bool:
        return place == self.root or self.root in place.parents


def _below(directory: int, name: str, flags: int) -> int:
    """Open a name in a directory, and close the directory."""
    try:
        return os.open(name, flags, dir_fd=directory)
    finally:
        os.close(directory)


def _content(name: str, directory: int) -> bytes:
    """Return a regular file of a directory, empty for another kind of file. Raises `OSError`."""
    # O_NONBLOCK: the opening of a FIFO would wait for a writer.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=directory), "rb", buffering=0) as stream:
        about = os.fstat(stream.fileno())
        if not stat.S_ISREG(about.st_mode):
            return b""
        # A read allocates all that it may return.
        return stream.read(min(about.st_size + 1, MAX_FILE_BYTES)) or b""


def gunzip(packed: bytes) -> bytes:
    """Decompress a sealed bundle with a bound. Raises `zlib.error`."""
    engine = zlib.decompressobj(wbits=31)
    data = engine.decompress(packed, MAX_FILE_BYTES)
    if not engine.eof or engine.unused_data:
        raise zlib.error("truncated or trailing data")
    return data


def logs_below(root: Path) -> list[Path]:
    """Return the directories of all logs in a directory: itself, or COMPONENT/INSTANCE below it.

    Raises:
        AuditError: there is no log.
    """
    if not root.is_dir():
        raise AuditError(f"{root} is not a directory")
    if _is_log(root):
        return [root]
    logs = sorted(place for pattern in ("*", "*/*") for place in root.glob(pattern) if _is_log(place))
    if not logs:
        raise AuditError(f"{root} contains no log: it has no checkpoint and no tiles")
    return logs


def _is_log(place: Path) -> bool:
    return any(os.path.lexists(place / name) for name in ("checkpoint", "tile"))
