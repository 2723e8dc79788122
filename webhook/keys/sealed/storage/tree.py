"""Files below a directory that an attacker may also write: no symbolic link is followed, no hard link is written to.

Every access opens the parent directory component by component from the root's descriptor. A directory that is replaced
by a symbolic link meanwhile therefore causes an error, never a write outside.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from webhook.keys.errors import BadInputError
from webhook.keys.rawio import sync_name
from webhook.keys.sealed.format.paths import ambiguous_names

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_MAX_PROBES = 64


class Tree:
    """The files below ``root``. New directories get ``mode``. Use as a context manager; safe for several threads."""

    def __init__(self, root: Path, mode: int | None = None) -> None:
        self.root, self._mode = root, mode
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._local = threading.local()
        self._open: set[int] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in (*self._open, self._fd):
            os.close(fd)
        self._open.clear()
        self._fd = -1

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """Open a file. Raises `OSError`, or `BadInputError` if a directory in its path is a symbolic link."""
        directory, _, name = path.rpartition("/")
        return os.open(name, flags | _FILE, mode, dir_fd=self._directory(directory))

    def create(self, path: str) -> int:
        """Create a new file for reading and writing, with its directories. An existing file is unlinked, not reused."""
        directory, _, name = path.rpartition("/")
        self._local.missing = None
        fd = self._directory(directory, create=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE
        try:
            return os.open(name, flags, 0o600, dir_fd=fd)
        except FileExistsError:
            os.unlink(name, dir_fd=fd)
            return os.open(name, flags, 0o600, dir_fd=fd)

    def resume(self, path: str) -> int | None:
        """Open an existing file for writing; None if there is none that this user alone can have written."""
        try:
            fd = self.open(path, os.O_RDWR)
        except OSError:
            return None
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid():
            return fd
        os.close(fd)
        return None

    def stat(self, path: str) -> os.stat_result | None:
        """The status of a file or of a link itself; None if it does not exist."""
        directory, _, name = path.rpartition("/")
        local = self._local
        if directory and getattr(local, "missing", None) == directory:
            return None  # the previous path was in the same directory, which does not exist
        try:
            return os.stat(name, dir_fd=self._directory(directory), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            if directory and getattr(local, "name", None) != directory:
                local.missing = directory
            return None

    def unlink(self, path: str) -> None:
        """Remove a file if it exists."""
        directory, _, name = path.rpartition("/")
        try:
            os.unlink(name, dir_fd=self._directory(directory))
        except (FileNotFoundError, NotADirectoryError):
            return

    def rename(self, old: str, new: str) -> None:
        """Rename a file inside its directory."""
        directory, _, name = new.rpartition("/")
        fd = self._directory(directory)
        os.rename(old.rpartition("/")[2], name, src_dir_fd=fd, dst_dir_fd=fd)

    def sync(self, directories: Iterable[str]) -> None:
        """Make durable the names in ``directories``, in all directories above them, and the name of the root."""
        names = {""}
        for directory in directories:
            parent = directory
            while parent not in names:
                names.add(parent)
                parent = parent.rpartition("/")[0]
        for name in sorted(names, reverse=True):
            os.fsync(self._directory(name))
        sync_name(self.root)

    def refuse_ambiguous(self, paths: Iterable[str]) -> None:
        """Reject paths that the file system would store under one name, before any of them is written.

        Raises:
            BadInputError: two names differ only in case or normalisation, and the file system ignores the difference.
        """
        for number, (one, other) in enumerate(ambiguous_names(paths)):
            if number == _MAX_PROBES or self._same_name(one, other):
                raise BadInputError(
                    f"{one!r} and {other!r} differ only in case or Unicode normalisation, and the file system of "
                    f"{self.root} stores both under one name: use another file system"
                )

    def _same_name(self, one: str, other: str) -> bool:
        """Whether the file system stores the last parts of two paths under one name: create both, and remove them."""
        fd = self._existing(one.rpartition("/")[0])
        probe = f".weightlock-probe-{os.getpid()}"
        with suppress(FileExistsError):
            os.mkdir(probe, 0o700, dir_fd=fd)
        inside = os.open(probe, _DIRECTORY, dir_fd=fd)
        names = [one.rpartition("/")[2], other.rpartition("/")[2]]
        created = []
        try:
            for name in names:
                try:
                    os.close(
                        os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=inside)
                    )
                except FileExistsError:
                    return True
                created.append(name)
            return False
        finally:
            for name in created:
                os.unlink(name, dir_fd=inside)
            os.close(inside)
            os.rmdir(probe, dir_fd=fd)
            os.close(fd)

    def _existing(self, directory: str) -> int:
        """A descriptor of ``directory``, or of its nearest parent that exists. The caller closes it."""
        fd = os.dup(self._fd)
        for part in directory.split("/") if directory else ():
            try:
                deeper = os.open(part, _DIRECTORY, dir_fd=fd)
            except OSError:
                return fd
            os.close(fd)
            fd = deeper
        return fd

    def _directory(self, directory: str, *, create: bool = False) -> int:
        """A descriptor of a directory, which belongs to the thread and stays open until it asks for another one."""
        if not directory:
            return self._fd
        local = self._local
        if getattr(local, "name", None) == directory:
            return int(local.fd)
        fd = self._walk(directory, create=create)
        with self._lock:
            previous = getattr(local, "fd", None)
            if previous is not None:
                self._open.discard(previous)
            self._open.add(fd)
        if previous is not None:
            os.close(previous)
        local.name, local.fd = directory, fd
        return fd

    def _walk(self, directory: str, *, create: bool) -> int:
        fd, path = self._fd, ""
        for part in directory.split("/"):
            path = f"{path}/{part}" if path else part
            try:
                deeper = self._enter(fd, part, create=create)
            except NotADirectoryError:
                raise self._blocked(path) from None
            except OSError as error:
                if os.path.islink(self.root / path):  # noqa: PTH114 - reports the link itself
                    raise self._blocked(path) from None
                raise type(error)(error.errno, error.strerror, str(self.root / path)) from None
            finally:
                if fd != self._fd:
                    os.close(fd)
            fd = deeper
        return fd

    def _enter(self, fd: int, name: str, *, create: bool) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=fd)
        except FileNotFoundError:
            if not create:
                raise
        try:
            os.mkdir(name, 0o777 if self._mode is None else self._mode, dir_fd=fd)
        except FileExistsError:
            return os.open(name, _DIRECTORY, dir_fd=fd)
        deeper = os.open(name, _DIRECTORY, dir_fd=fd)
        if self._mode is not None:
            os.fchmod(deeper, self._mode | os.fstat(deeper).st_mode & stat.S_ISGID)
        return deeper

    def _blocked(self, directory: str) -> BadInputError:
        return BadInputError(
            f"{self.root / directory} is a file or a symbolic link, but must be a directory: remove it"
        )
