"""A log's files in a directory: atomic writes, one writer at a time, and reads that never follow a link out of it."""

from __future__ import annotations

import fcntl
import gzip
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from webhook.audit.errors import AuditError, LockedError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = ".lock"
MAX_FILE_BYTES = 32 * 1024 * 1024


class Directory:
    """The files of one log. Paths are relative, with slashes."""

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self.root = root
        self._fsync = fsync
        self._lock_fd = -1
        self._dirty: set[Path] = set()

    def read(self, path: str) -> bytes | None:
        """Return a file, or None if it does not exist. A sealed bundle may be compressed (``.gz``).

        Raises:
            AuditError: the file cannot be read.
        """
        place = self.root / path
        try:
            return _read(place)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise AuditError(f"cannot read {place}: {error.strerror or error}") from None
        try:
            packed = _read(place.with_name(f"{place.name}.gz"))
            return gunzip(packed)
        except FileNotFoundError:
            return None
        except (OSError, EOFError, zlib.error):
            return b""

    def paths(self) -> Iterator[str]:
        """Yield the paths of all files except the lock."""
        for directory, folders, files in os.walk(self.root):
            folders.sort()
            for name in sorted(files):
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


def _read(place: Path) -> bytes:
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(MAX_FILE_BYTES)


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
    return (place / "checkpoint").is_file() or (place / "tile").is_dir()
