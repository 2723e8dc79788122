"""The journal of an unfinished run, kept beside its output, so that the same command can go on after a crash.

Each line carries a MAC chained to the line before: whoever can write to the storage can lose us progress, but cannot
make a run take a file for finished that it did not finish. A torn last line is ignored.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import orjson

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.rawio import write_at
from webhook.keys.sealed.paths import JOURNAL_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES = 1 << 30
_MAX_HEAD = 1 << 20


class Journal:
    """One run in one output directory, from `open_journal`.

    ``head`` says what the run does, ``planned`` which files it writes and by what their sources are recognised,
    ``headers`` under which header each is encrypted, ``done`` which of them are in place, and ``dropped`` what is to be
    deleted once the run's manifest is in force. All hold only lines whose MAC was right.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._lock = threading.Lock()
        self._reset(b"")

    def _reset(self, key: bytes) -> None:
        self._key, self._chain = key, b""
        self.head: dict[str, Any] = {}
        self.planned: dict[str, Any] = {}
        self.done: dict[str, dict[str, Any]] = {}
        self.headers: dict[str, bytes] = {}
        self.dropped: list[str] = []

    def peek(self) -> dict[str, Any] | None:
        """The head of a run that was cut short, not yet trusted; None where nothing was begun."""
        first, _, _ = os.pread(self._fd, _MAX_HEAD, 0).partition(b"\n")
        try:
            document = orjson.loads(first.rpartition(b"\t")[0])
        except orjson.JSONDecodeError:
            return None
        head = document.get("head") if isinstance(document, dict) else None
        return head if isinstance(head, dict) else None

    def resume(self, key: bytes) -> bool:
        """Read back all lines under ``key``. False when not even the head's MAC fits; then nothing is believed.

        Raises:
            SealedDataError: the file is far too large to be a journal.
        """
        size = os.fstat(self._fd).st_size
        if size > MAX_BYTES:
            raise SealedDataError(f"{self.path} is too large to be a journal; remove it to start afresh")
        self._reset(key)
        good = 0
        for line in os.pread(self._fd, size, 0).splitlines(keepends=True):
            body, _, mac = line.rstrip(b"\n").rpartition(b"\t")
            chain = self._mac(body)
            if not line.endswith(b"\n") or not hmac.compare_digest(chain.hex().encode(), mac):
                break
            self._chain = chain
            good += len(line)
            self._take(orjson.loads(body))
        if not self.head:
            return False
        os.ftruncate(self._fd, good)
        return True

    def begin(self, key: bytes, head: dict[str, Any]) -> None:
        """Start afresh; durable on return."""
        os.ftruncate(self._fd, 0)
        self._reset(key)
        self._append([{"head": head}])

    def plan(self, identities: dict[str, Any]) -> None:
        """Note, before the first byte is written, which files will be; durable on return.

        ``identities`` maps each file's name to whatever tells that its source is still the same.
        """
        self._append([{"plan": name, "identity": identity} for name, identity in identities.items()])

    def use(self, headers: dict[str, bytes]) -> None:
        """Note, before the first byte is encrypted, each file's header; durable on return."""
        self._append([{"use": name, "header": header.hex()} for name, header in headers.items()])

    def drop(self, names: list[str]) -> None:
        """Note, before the run's manifest is put in force, what has to go after that; durable on return."""
        self._append([{"drop": names}])

    def finish(self, name: str, record: dict[str, Any]) -> None:
        """Note that file ``name`` is in place; durable on return. A resumed run gets ``record`` back."""
        self._append([{"done": name, "record": record}])

    def remove(self) -> None:
        """The run is complete: forget it."""
        os.ftruncate(self._fd, 0)

    def _take(self, document: dict[str, Any]) -> None:
        if "plan" in document:
            self.planned[document["plan"]] = document["identity"]
            self.done.pop(document["plan"], None)
            self.headers.pop(document["plan"], None)
        elif "use" in document:
            self.headers[document["use"]] = bytes.fromhex(document["header"])
        elif "drop" in document:
            self.dropped = document["drop"]
        elif "done" in document:
            self.done[document["done"]] = document["record"]
        else:
            self.head = document["head"]

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, b"weightlock journal v1\n" + self._chain + body, "sha256")

    def _append(self, documents: list[dict[str, Any]]) -> None:
        with self._lock:
            before, lines = self._chain, []
            for document in documents:
                body = orjson.dumps(document)
                self._chain = self._mac(body)
                lines.append(body + b"\t" + self._chain.hex().encode() + b"\n")
            end = os.fstat(self._fd).st_size
            try:
                write_at(self._fd, b"".join(lines), end)
                os.fsync(self._fd)
            except OSError:
                os.ftruncate(self._fd, end)
                self._chain = before
                raise
            for document in documents:
                self._take(document)


@contextmanager
def open_journal(directory: Path) -> Iterator[Journal]:
    """Open and lock the journal of ``directory``, creating it; an empty one is removed when the block ends.

    Raises:
        BadInputError: another run is at work there.
    """
    path = directory / JOURNAL_NAME
    fd = _locked(path)
    try:
        yield Journal(path, fd)
    finally:
        if os.fstat(fd).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(fd)


def _locked(path: Path) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise BadInputError(f"another run is at work in {path.parent}; wait for it to end") from None
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # the run that held the lock has just finished and removed this file
