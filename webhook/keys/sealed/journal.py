"""The journal of an unfinished run, stored beside its output, so that the same command can resume after a crash.

Each line has a MAC that is chained to the line before. An attacker who can write to the storage can therefore lose
progress, but cannot make a run treat an incomplete file as complete. A torn last line is ignored.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import stat
import threading
import time
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.rawio import write_at
from webhook.keys.sealed.format.paths import JOURNAL_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

T = TypeVar("T")

MAX_BYTES = 1 << 30
_MAX_HEAD = 1 << 20
_BATCH, _BATCH_SECONDS = 256, 0.5
_LINES = 1024


class Journal:
    """One run in one output directory, from `open_journal`.

    ``head`` describes the run. ``planned`` maps each file that it writes to the identity of its source. ``done`` has
    the records of complete files, and ``dropped`` the files to delete once the manifest is in force. `resume` sets all
    of them from lines with a valid MAC. `plan` and `finish` only write, because a run may have a million files.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._lock = threading.Lock()
        self._reset(b"")

    def _reset(self, key: bytes) -> None:
        self._key, self._chain = key, b""
        self._pending = 0
        self._flushed = time.monotonic()
        self.head: dict[str, Any] = {}
        self.planned: dict[str, Any] = {}
        self.done: dict[str, dict[str, Any]] = {}
        self.dropped: list[str] = []

    def peek(self) -> dict[str, Any] | None:
        """The unverified head of an interrupted run; None if there is none."""
        first, _, _ = os.pread(self._fd, _MAX_HEAD, 0).partition(b"\n")
        try:
            document = orjson.loads(first.rpartition(b"\t")[0])
        except orjson.JSONDecodeError:
            return None
        head = document.get("head") if isinstance(document, dict) else None
        return head if isinstance(head, dict) else None

    def resume(self, key: bytes) -> bool:
        """Read all lines under ``key``. False if the MAC of the head is not valid: then no line is used.

        Raises:
            SealedDataError: the file is too large for a journal.
        """
        size = os.fstat(self._fd).st_size
        if size > MAX_BYTES:
            raise SealedDataError(f"{self.path} is too large to be a journal: remove it to start over")
        self._reset(key)
        good = 0
        for line in os.pread(self._fd, size, 0).splitlines(keepends=True):
            body, _, mac = line.rstrip(b"\n").rpartition(b"\t")
            chain = self._mac(body)
            if not line.endswith(b"\n") or not hmac.compare_digest(chain.hex().encode(), mac):
                break
            self._chain = chain
            good += len(line)
            self._apply(orjson.loads(body))
        if not self.head:
            return False
        os.ftruncate(self._fd, good)
        return True

    def begin(self, key: bytes, head: dict[str, Any]) -> None:
        """Start a new run; durable on return."""
        os.ftruncate(self._fd, 0)
        self._reset(key)
        document = {"head": head}
        self._append([document])
        self._apply(document)

    def plan(self, identities: Iterable[tuple[str, Any]]) -> None:
        """Record the files that the run will write, before the first byte is written; durable on return.

        ``identities`` are pairs of a file's name and a value that shows whether its source is unchanged.
        """
        lines = ({"plan": name, "identity": identity} for name, identity in identities)
        written = False
        for part in _batched(lines, _LINES):
            self._append(part, durable=False)
            written = True
        if written:
            os.fsync(self._fd)

    def drop(self, names: list[str]) -> None:
        """Record the files to delete once the run's manifest is in force; durable on return."""
        document = {"drop": names}
        self._append([document])
        self._apply(document)

    def finish(self, name: str, record: dict[str, Any]) -> None:
        """Record that file ``name`` is in place. A resumed run gets ``record`` back.

        Records are made durable in batches. A power cut that loses some of them only repeats the work on these files.
        """
        self._append([{"done": name, "record": record}], durable=False)
        self._pending += 1
        if self._pending >= _BATCH or time.monotonic() - self._flushed >= _BATCH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Make all records durable."""
        if self._pending:
            self._pending, self._flushed = 0, time.monotonic()
            os.fsync(self._fd)

    def remove(self) -> None:
        """The run is complete: drop its journal."""
        self._pending = 0
        os.ftruncate(self._fd, 0)

    def _apply(self, document: dict[str, Any]) -> None:
        if "plan" in document:
            self.planned[document["plan"]] = document["identity"]
            self.done.pop(document["plan"], None)
        elif "drop" in document:
            self.dropped = document["drop"]
        elif "done" in document:
            self.done[document["done"]] = document["record"]
        elif "head" in document:
            self.head = document["head"]

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, b"weightlock journal v1\n" + self._chain + body, "sha256")

    def _append(self, documents: Sequence[dict[str, Any]], *, durable: bool = True) -> None:
        with self._lock:
            before, lines = self._chain, []
            for document in documents:
                body = orjson.dumps(document)
                self._chain = self._mac(body)
                lines.append(body + b"\t" + self._chain.hex().encode() + b"\n")
            end = os.fstat(self._fd).st_size
            try:
                write_at(self._fd, b"".join(lines), end)
                if durable:
                    os.fsync(self._fd)
            except OSError:
                os.ftruncate(self._fd, end)
                self._chain = before
                raise


@contextmanager
def open_journal(directory: Path) -> Iterator[Journal]:
    """Open and lock the journal of ``directory``, and create it if necessary. It is removed at the end if it is empty.

    Raises:
        BadInputError: another run uses the directory, or the journal's name belongs to another kind of file.
    """
    path = directory / JOURNAL_NAME
    fd = _locked(path)
    journal = Journal(path, fd)
    try:
        yield journal
    finally:
        try:
            journal.flush()
        finally:
            if os.fstat(fd).st_size == 0:
                path.unlink(missing_ok=True)
            os.close(fd)


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """``items`` in lists of at most ``size``."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def _locked(path: Path) -> int:
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            fd = os.open(path, flags, 0o600)
        except OSError:
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise _not_a_journal(path) from None
            raise
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(fd)
            raise _not_a_journal(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise BadInputError(f"another run uses {path.parent}: wait until it ends") from None
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # the run that held the lock has just removed this file


def _not_a_journal(path: Path) -> BadInputError:
    return BadInputError(f"{path} is not a journal of this user's run: remove it")
