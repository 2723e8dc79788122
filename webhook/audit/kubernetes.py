"""Follow the audit log of an API server across its rotations, and remember the position in it.

The API server renames its file when it is full (``audit.log`` to ``audit-<time>.log``) and opens a new one.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from contextlib import suppress
from glob import escape
from typing import TYPE_CHECKING, NamedTuple

import orjson

from webhook.audit.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_LINE_BYTES = 2 * 1024 * 1024
_BLOCK = 256 * 1024
_ATTEMPTS = 3


class Position(NamedTuple):
    """A place in a file: the next byte to read."""

    inode: int
    offset: int


class Follower:
    """Yields lines. ``position`` is after the last one; ``missed`` counts rotated files that were not found again."""

    def __init__(self, path: Path, position: Position | None = None) -> None:
        self._path = path
        self.missed = 0
        self.too_long = 0
        self._descriptor = -1
        self._rest = b""
        # Complete lines that were read and not yielded yet.
        self._lines: deque[bytes] = deque()
        self._skipping = False
        self._offset = 0
        self._inode = 0
        self._open(position)

    @classmethod
    def at_end(cls, path: Path) -> Follower:
        """Follow a file from its last complete line on. Raises `OSError` and `AuditError`."""
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            start = max(0, status.st_size - MAX_LINE_BYTES)
            stream.seek(start)
            end = stream.read(status.st_size - start)
        return cls(path, Position(status.st_ino, start + end.rfind(b"\n") + 1))

    @property
    def position(self) -> Position:
        """The position after the last line that was yielded."""
        return Position(self._inode, self._offset)

    def _open(self, position: Position | None) -> None:
        """Open the file of a position, or the newest file. Raises `AuditError`."""
        offset = self._reopen(position) if position is not None else 0
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                # The API server has not written yet.
                return
            except OSError as error:
                raise AuditError(f"cannot read {self._path}: {error.strerror or error}") from None
        status = os.fstat(self._descriptor)
        self._inode = status.st_ino
        # A shorter file was truncated in place. Without the end of a line, it is another file with the same inode.
        ends = 0 < offset <= status.st_size and os.pread(self._descriptor, 1, offset - 1) == b"\n"
        self._offset = offset if ends else 0
        self._rest, self._skipping = b"", False
        os.lseek(self._descriptor, self._offset, os.SEEK_SET)

    def _reopen(self, position: Position) -> int:
        """Open the file of a position and return the offset; 0 without the file. Raises `AuditError`."""
        for _ in range(_ATTEMPTS):
            path = self._named(position.inode)
            if path is None:
                break
            flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW if path != self._path else 0)
            try:
                descriptor = os.open(path, flags)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise AuditError(f"cannot read {path}: {error.strerror or error}") from None
            # The API server may rename the file between the search and the opening.
            if os.fstat(descriptor).st_ino == position.inode:
                self._descriptor = descriptor
                return position.offset
            os.close(descriptor)
        self.missed += 1
        return 0

    def _named(self, inode: int) -> Path | None:
        """Return the file with an inode: the current one, or one that was renamed beside it."""
        with suppress(OSError):
            if self._path.stat().st_ino == inode:
                return self._path
        pattern = f"{escape(self._path.stem)}*{escape(self._path.suffix)}"
        for path in sorted(self._path.parent.glob(pattern)):
            with suppress(OSError):
                # Rotated files are regular files: a link could lead to any file of the node.
                status = path.lstat()
                if status.st_ino == inode and stat.S_ISREG(status.st_mode):
                    return path
        return None

    def lines(self) -> Iterator[bytes]:
        """Yield the complete lines that there are now. The next call continues where this one stops.

        Raises:
            AuditError: a file cannot be read.
        """
        while True:
            yield from self._pending()
            if self._descriptor < 0:
                self._open(None)
                if self._descriptor < 0:
                    return
            block = self._read()
            if not block and self._is_rotated():
                # Lines that were written after the last read and before the rotation. Nothing follows them.
                block = self._read()
            if block:
                *complete, self._rest = (self._rest + block).split(b"\n")
                self._lines.extend(complete)
            elif not self._next():
                return

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, _BLOCK)
        except OSError as error:
            raise AuditError(f"cannot read {self._path}: {error.strerror or error}") from None

    def _is_rotated(self) -> bool:
        with suppress(OSError):
            return self._path.stat().st_ino != self._inode
        return False

    def _pending(self) -> Iterator[bytes]:
        """Yield the lines that were read, and skip a line that is too long."""
        while self._lines:
            line = self._lines.popleft()
            self._offset += len(line) + 1
            if self._skipping:
                self._skipping = False
            elif line:
                yield line
        if len(self._rest) > MAX_LINE_BYTES:
            self._offset += len(self._rest)
            self._rest = b""
            self.too_long += not self._skipping
            self._skipping = True

    def _next(self) -> bool:
        """At the end of the file: move on if the API server rotated or truncated it. False if there is no more."""
        try:
            status = self._path.stat()
        except OSError:
            return False
        if status.st_ino == self._inode and status.st_size >= self._offset:
            return False
        os.close(self._descriptor)
        self._descriptor = -1
        successor = self._successor() if status.st_ino != self._inode else None
        self._open(Position(successor, 0) if successor is not None else None)
        return self._descriptor >= 0

    def _successor(self) -> int | None:
        """Return the inode of the file after this one: rotation may have happened more than once."""
        rotated = []
        for path in self._path.parent.glob(f"{escape(self._path.stem)}-*{escape(self._path.suffix)}"):
            with suppress(OSError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    rotated.append((path.name, status.st_ino))
        inodes = [inode for _, inode in sorted(rotated)]
        if self._inode in inodes and inodes[-1] != self._inode:
            return inodes[inodes.index(self._inode) + 1]
        return None

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def load_position(path: Path) -> Position | None:
    """Return the stored position, or None."""
    try:
        document = orjson.loads(path.read_bytes())
        return Position(int(document["inode"]), int(document["offset"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def store_position(path: Path, position: Position) -> None:
    """Store the position atomically. Raises `AuditError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.new")
        unfinished.write_bytes(orjson.dumps(position._asdict()))
        unfinished.replace(path)
    except OSError as error:
        raise AuditError(f"cannot write {path}: {error.strerror or error}") from None
