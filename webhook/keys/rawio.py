"""Complete reads and writes at an offset, and the durable replacement of a small file.

Short reads and writes are normal on some file systems. They are completed or reported, never ignored.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from webhook.keys.errors import BadInputError, SealedDataError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def read_at(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill ``buffer`` from ``offset``. Returns the number of bytes read, fewer than requested only at the end."""
    total = os.preadv(fd, [buffer], offset)
    if total == len(buffer) or total == 0:
        return total
    while total < len(buffer):
        count = os.preadv(fd, [buffer[total:]], offset + total)
        if count == 0:
            break
        total += count
    return total


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``.

    Raises:
        OSError: the system cannot write all of it, for example because the disk is full.
    """
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def open_regular(path: Path | str, dir_fd: int | None = None) -> int:
    """Open a regular file for reading, without waiting for the writer of a FIFO.

    Raises:
        SealedDataError: it is a FIFO, a device, a socket or a directory.
        OSError: it cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SealedDataError(f"{path} is not a regular file")
    return fd


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file, at most ``limit`` bytes and one more.

    Raises:
        SealedDataError: it is not a regular file.
        OSError: it cannot be read.
    """
    fd = open_regular(path)
    try:
        size = min(os.fstat(fd).st_size, limit) + 1
        content = os.pread(fd, size, 0)
        while len(content) < size and (rest := os.pread(fd, size - len(content), len(content))):
            content += rest
        return content
    finally:
        os.close(fd)


def sync_directory(directory: Path) -> None:
    """Make renames in ``directory`` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def directory_mode(mode: int) -> int:
    """Permission bits of a directory whose files have ``mode``: a user who may read the files may enter it."""
    return mode | (mode & 0o444) >> 2 | 0o700


def make_directory(path: Path, mode: int | None = None) -> None:
    """Create ``path`` and its missing parents, durably; with ``mode``, each new directory gets exactly these bits.

    A set-group-ID bit that the system passed on is preserved: a volume's group reaches the files below by it.

    Raises:
        BadInputError: the path is too deep, or a file is in the way.
        OSError: the system cannot create it.
    """
    missing = []
    while not path.is_dir():
        if os.path.lexists(path):
            raise BadInputError(f"{path} is not a directory")
        missing.append(path)
        if len(missing) > 256:
            raise BadInputError("the directory's path is too deep")
        path = path.parent
    for directory in reversed(missing):
        try:
            directory.mkdir(mode=0o777 if mode is None else mode)
        except FileExistsError:
            if not directory.is_dir():
                raise
            continue
        if mode is not None:
            directory.chmod(mode | directory.stat().st_mode & stat.S_ISGID)
        sync_name(directory)


def sync_name(directory: Path) -> None:
    """Make the name of ``directory`` durable if its parent can be opened."""
    with suppress(PermissionError):
        sync_directory(directory.resolve().parent)


def replace_file(path: Path, content: bytes | memoryview, mode: int) -> None:
    """Write ``content`` to a temporary file, make it durable and rename it: readers see the old or the new file.

    Raises:
        OSError: the system cannot write; ``path`` is unchanged.
    """
    _write_beside(path, content, mode, lambda beside: beside.replace(path))


def create_file(path: Path, content: bytes | memoryview, mode: int) -> bool:
    """As `replace_file`, unless ``path`` exists: then it is unchanged, and the result is False.

    Raises:
        OSError: the system cannot write; ``path`` is unchanged.
    """
    try:
        _write_beside(path, content, mode, path.hardlink_to)
    except FileExistsError:
        return False
    return True


def _write_beside(
    path: Path, content: bytes | memoryview, mode: int, give_name: Callable[[Path], object]
) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    beside.unlink(missing_ok=True)
    fd = os.open(beside, flags, 0o600)
    try:
        write_at(fd, content, 0)
        os.fchmod(fd, mode)
        os.fsync(fd)
        give_name(beside)
    finally:
        os.close(fd)
        beside.unlink(missing_ok=True)
    sync_directory(path.parent)


def no_space(where: str, detail: str) -> StorageError:
    """The error for a full disk."""
    return StorageError(
        f"no space left for {where}: {detail}; free some space and run the same command again to resume"
    )


def storage_error(error: OSError, name: str) -> StorageError:
    """One sentence for an error of the operating system; ``name`` is the file in question."""
    where, why = str(error.filename or name), error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return no_space(where, why)
    return StorageError(f"{where}: {why}" if where else why)
