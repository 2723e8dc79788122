"""The key exchange of one release, in a process of its own that ends with it.

The sidecar runs for as long as its pod. The cryptographic library would take a third of its memory, and the copies of
keys inside that library cannot be wiped. Both end with the process. The sidecar must never import the library here.

The process writes its public key: 32 bytes. The sidecar then sends one line of JSON, and the process answers with a
status byte, a length, and the packed keys or the text of the error. It also ends when the sidecar does: its standard
input closes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from webhook.keys.errors import KeysError, SealedDataError
from webhook.keys.secret import unpack_keys, wipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.keys.secret import Secret

PUBLIC_KEY_SIZE = 32
_OPENED, _REJECTED = 0, 1
_HEAD_SIZE = 5
_MAX_PACKED = 1 << 20
_SECONDS = 60.0
_STOP_SECONDS = 0.5
# Each process takes some 25 MB, and the sidecar's memory limit covers them.
_MOST = 2
_PROGRAM = "from webhook.keys.agent.exchange import main; main()"


class ExchangeError(KeysError):
    """The process of the key exchange did not start, ended early or did not answer."""


class ExchangeProcess:
    """A key pair for one exchange, in a child process. It has the interface of `AgentKey`."""

    def __init__(self, closed: Callable[[], object] = lambda: None) -> None:
        """Start the process. It loads its library while the sidecar continues. ``closed`` is called once it ended.

        Raises:
            ExchangeError: the process cannot be started.
        """
        self._public, self._closed = b"", closed
        pipes = contextlib.ExitStack()
        try:
            with contextlib.ExitStack() as ends:
                stdin, self._to = _pipe(ends, pipes)
                self._from, stdout = _pipe(pipes, ends)
                actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
                words = [sys.executable, "-P", "-c", _PROGRAM]
                self._pid = os.posix_spawn(sys.executable, words, os.environ, file_actions=actions)
        except OSError as error:
            pipes.close()
            raise ExchangeError(f"cannot start the key exchange: {error.strerror}") from None
        self._pipes = pipes

    @property
    def public(self) -> bytes:
        """The 32 bytes that are sent to the broker."""
        if not self._public:
            self._public = bytes(self._read(PUBLIC_KEY_SIZE))
        return self._public

    def open(self, encrypted: bytes, nonce: str, model: str, lease: bytes | None) -> dict[str, Secret]:
        """Decrypt the keys of a response to `public`, by key id. ``lease`` are the canonical bytes of its lease.

        Raises:
            SealedDataError: the response was not made for this key, nonce, model and lease.
            ExchangeError: the process ended early or did not answer.
        """
        fields = [base64.b64encode(encrypted).decode(), nonce, model, None if lease is None else lease.hex()]
        try:
            _write(self._to, json.dumps(fields).encode() + b"\n")
        except OSError as error:
            raise ExchangeError(f"the key exchange ended early: {error.strerror}") from None
        head = self._read(_HEAD_SIZE)
        size = int.from_bytes(head[1:], "big")
        if size > _MAX_PACKED:
            raise ExchangeError("the key exchange sent too much")
        content = self._read(size)
        try:
            if head[0] != _OPENED:
                raise SealedDataError(content.decode(errors="replace"))
            return unpack_keys(content)
        finally:
            wipe(content)

    def close(self) -> None:
        """End the process."""
        if self._pid:
            pid, self._pid = self._pid, 0
            self._pipes.close()
            # The library has nothing to finish: its memory leaves with the process.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            self._closed()

    def _read(self, size: int) -> bytearray:
        """Read exactly ``size`` bytes, without a copy that cannot be wiped."""
        content, position, deadline = bytearray(size), 0, time.monotonic() + _SECONDS
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        while position < size:
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise ExchangeError(f"the key exchange did not answer for {_SECONDS:g} seconds")
            with memoryview(content) as view:
                count = os.readv(self._from, [view[position:]])
            if not count:
                raise ExchangeError("the key exchange ended early")
            position += count
        return content


class Exchanges:
    """Exchanges for all models of a sidecar, two at a time. With ``ahead``, the first one is started now.

    Call it for an exchange, from any thread, and close that.
    """

    def __init__(self, stop: threading.Event, *, ahead: bool = False) -> None:
        """Start the first process with ``ahead``. If that fails, it is tried again when it is needed."""
        self._stop = stop
        self._free = threading.BoundedSemaphore(_MOST)
        self._first: list[ExchangeProcess] = []
        if ahead:
            with contextlib.suppress(ExchangeError):
                self._first.append(self._start())

    def __call__(self) -> ExchangeProcess:
        """Return an exchange that was not used before.

        Raises:
            ExchangeError: the process cannot be started, or the sidecar stops.
        """
        with contextlib.suppress(IndexError):
            return self._first.pop()
        return self._start()

    def close(self) -> None:
        """End the process that no thread used."""
        while self._first:
            self._first.pop().close()

    def _start(self) -> ExchangeProcess:
        while not self._free.acquire(timeout=_STOP_SECONDS):
            if self._stop.is_set():
                raise ExchangeError("the sidecar is shutting down")
        try:
            return ExchangeProcess(self._free.release)
        except BaseException:
            self._free.release()
            raise


def main() -> None:
    """Run the process of one exchange."""
    # Ctrl-C in a terminal reaches both processes, and the sidecar ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from webhook.keys.envelope import AgentKey  # noqa: PLC0415 - this is what the sidecar must not load

    key = AgentKey.generate()
    _write(1, key.public)
    line = sys.stdin.buffer.readline()
    if not line:
        return
    encrypted, nonce, model, lease = json.loads(line)
    status = _OPENED
    try:
        content = key.open_packed(
            base64.b64decode(encrypted), nonce, model, None if lease is None else bytes.fromhex(lease)
        )
    except SealedDataError as error:
        status, content = _REJECTED, bytearray(str(error).encode())
    _write(1, bytes([status]) + len(content).to_bytes(_HEAD_SIZE - 1, "big"))
    _write(1, content)
    wipe(content)


def _pipe(reads: contextlib.ExitStack, writes: contextlib.ExitStack) -> tuple[int, int]:
    """Return a new pipe: the end to read and the end to write, each closed by its stack."""
    reader, writer = os.pipe()
    reads.callback(os.close, reader)
    writes.callback(os.close, writer)
    return reader, writer


def _write(fd: int, content: bytes | bytearray) -> None:
    with memoryview(content) as view:
        position = 0
        while position < len(view):
            position += os.write(fd, view[position:])
