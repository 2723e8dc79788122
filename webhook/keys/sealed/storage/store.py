"""Where sealed files are read from: a local directory, or a server that supports ranges.

A store is untrusted: it may return any bytes at any time. Readers authenticate every byte, so a store needs no checks
of its own, except that it must not block for ever and must not return more than requested.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from webhook.keys.errors import SealedDataError
from webhook.keys.rawio import open_regular, read_at, read_regular

if TYPE_CHECKING:
    from pathlib import Path


class Blob(Protocol):
    """One file of a store, on one descriptor or connection. Safe for several threads."""

    size: int

    def read_at(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` from ``offset``. Returns the number of bytes read, fewer only at the end."""

    def close(self) -> None:
        """Close it."""


class Store(Protocol):
    """A directory of sealed files."""

    def where(self, name: str) -> str:
        """The name of a file for messages."""

    def open(self, name: str) -> Blob:
        """Open a file. Raises `SealedDataError` if it is missing."""

    def read(self, name: str, limit: int) -> bytes | None:
        """A whole small file; None if it is missing. Longer files are truncated one byte beyond ``limit``."""

    def close(self) -> None:
        """Close connections."""


class LocalBlob:
    """An open file."""

    __slots__ = ("_fd", "size")

    def __init__(self, fd: int) -> None:
        self._fd, self.size = fd, os.fstat(fd).st_size

    def read_at(self, buffer: memoryview, offset: int) -> int:
        """See `Blob.read_at`."""
        return read_at(self._fd, buffer, offset)

    def close(self) -> None:
        """See `Blob.close`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LocalStore:
    """A directory of a file system."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def where(self, name: str) -> str:
        """See `Store.where`."""
        return f"{self.directory}/{name}" if name else str(self.directory)

    def open(self, name: str) -> LocalBlob:
        """See `Store.open`."""
        path = self.where(name)
        try:
            return LocalBlob(open_regular(path))
        except (FileNotFoundError, NotADirectoryError):
            raise SealedDataError(f"{path} is missing") from None

    def read(self, name: str, limit: int) -> bytes | None:
        """See `Store.read`."""
        try:
            return read_regular(self.directory / name, limit)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def close(self) -> None:
        """See `Store.close`."""
