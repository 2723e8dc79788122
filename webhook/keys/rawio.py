"""Whole reads and writes at an offset, and the durable replacement of a small file.

Short reads and writes are normal on some file systems; here they are finished or reported, never overlooked.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from webhook.keys.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path


def read_at(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill ``buffer`` from ``offset``; gives the number of bytes read, less than asked for only at the end."""
    done = 0
    while done < len(buffer):
        count = os.preadv(fd, [buffer[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``.

    Raises:
        OSError: the system took less, for one because the disk is full.
    """
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def sync_directory(directory: Path) -> None:
    """Make renames in ``directory`` durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, content: bytes | memoryview, mode: int) -> None:
    """Write ``content`` beside ``path``, make it durable and give it the name: readers see the old or the new file.

    Raises:
        OSError: the system refused; ``path`` is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    beside.unlink(missing_ok=True)
    fd = os.open(beside, flags, 0o600)
    try:
        write_at(fd, content, 0)
        os.fchmod(fd, mode)
        os.fsync(fd)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    sync_directory(path.parent)


def no_space(where: str, detail: str) -> StorageError:
    """The sentence for a full disk."""
    return StorageError(
        f"no space left for {where}: {detail}; make room and run the same command again, it goes on where it stopped"
    )


def storage_error(error: OSError, name: str) -> StorageError:
    """One sentence for what the system refused, ``name`` being what was worked on."""
    where, why = str(error.filename or name), error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return no_space(where, why)
    return StorageError(f"{where}: {why}" if where else why)
