"""Whole reads and writes at an offset, and the durable replacement of a small file.

Short reads and writes are normal on some file systems; here they are finished or reported, never overlooked.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from webhook.keys.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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


def sync_tree(root: Path, directories: Iterable[Path]) -> None:
    """Make durable every one of ``directories``, all those between them and ``root``, and ``root`` and its own name."""
    found = {root}
    for directory in directories:
        found.update(part for part in (directory, *directory.parents) if part.is_relative_to(root))
    for directory in sorted(found, reverse=True):
        sync_directory(directory)
    _sync_name(root)


def directory_mode(mode: int) -> int:
    """Permission bits of a directory whose files have ``mode``: who may read them may enter."""
    return mode | (mode & 0o444) >> 2 | 0o700


def make_directory(path: Path, mode: int | None = None) -> None:
    """Make ``path`` and what is missing above it, durably; with ``mode`` each new one gets exactly these bits.

    A set-group-ID bit that the system passed on stays: a volume's group reaches what lies below by it.

    Raises:
        OSError: the system refused, or something that is no directory is in the way.
    """
    try:
        path.mkdir(mode=0o777 if mode is None else mode)
    except FileNotFoundError:
        make_directory(path.parent, mode)
        make_directory(path, mode)
        return
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    if mode is not None:
        path.chmod(mode | path.stat().st_mode & stat.S_ISGID)
    _sync_name(path)


def _sync_name(directory: Path) -> None:
    """Make the name of ``directory`` durable where we may: a parent that we cannot read is its owner's."""
    with suppress(PermissionError):
        sync_directory(directory.resolve().parent)


def replace_file(path: Path, content: bytes | memoryview, mode: int) -> None:
    """Write ``content`` beside ``path``, make it durable and give it the name: readers see the old or the new file.

    Raises:
        OSError: the system refused; ``path`` is as it was.
    """
    _write_beside(path, content, mode, lambda beside: beside.replace(path))


def create_file(path: Path, content: bytes | memoryview, mode: int) -> bool:
    """As `replace_file`, unless ``path`` is there already: then that stays, and the answer is False.

    Raises:
        OSError: the system refused; ``path`` is as it was.
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
