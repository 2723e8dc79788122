"""Runs the frontend and the workers in child processes, and replaces those that hang, crash or grow too large.

The CEL engine is native code that evaluates requesters' objects: an expression that never ends holds the whole process,
and a fault in it ends the process. The frontend holds the connections and evaluates nothing, so both cost time and no
request. The parent loads everything once and then only waits: its children share its memory, and a new one is there
within milliseconds. The parent holds the listening sockets, so connections wait for the next frontend.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from webhook.server.process.shared_memory import SLOTS, SharedCounters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from webhook.server.process.shared_memory import Slot

    Role = Literal["frontend", "worker"]

BEAT_SECONDS = 0.5
START_SECONDS = 120.0
# A worker that reports nothing for so long gets a successor, which takes over its reviews.
SUSPECT_SECONDS = 1.5
_LAST_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE, _LONG_LIFE = 0.05, 5.0, 60.0
_BEAT, _READY, _REPLACE = b".", b"+", b"r"
# To a child: a channel to another child, its slot and the number of restarts so far; or: finish.
_CHANNEL: Final = struct.Struct("<cBI")
_FINISH: Final = _CHANNEL.pack(b"f", 0, 0)
_BAD_INPUT = 2
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """A channel to another child. ``slot`` is that child's, ``restarts`` the number of restarts so far."""

    end: socket.socket
    slot: int
    restarts: int


class SupervisorPipe:
    """A child's connection to its parent. ``slots`` is memory that outlives children, ``slot`` is this child's part."""

    def __init__(self, parent: socket.socket, counters: SharedCounters, slot: int) -> None:
        self._parent = parent
        self.slots: Sequence[Slot] = counters.slots
        self.slot = counters.slots[slot]

    def fileno(self) -> int:
        """Return the descriptor to wait on before `peers`."""
        return self._parent.fileno()

    def peers(self) -> Iterator[Peer | None]:
        """Yield the channels that the parent has sent, and None if this child is to finish.

        Raises `EOFError` when the parent is gone.
        """
        while True:
            try:
                message, descriptors, _, _ = socket.recv_fds(self._parent, _CHANNEL.size, 1)
            except BlockingIOError:
                return
            except OSError:
                raise EOFError from None
            if not message:
                raise EOFError
            if not descriptors:
                yield None
                continue
            _, slot, restarts = _CHANNEL.unpack(message)
            yield Peer(socket.socket(fileno=descriptors[0]), slot, restarts)

    def beat(self) -> None:
        """Report that the event loop runs. Call it every `BEAT_SECONDS`."""
        self._send(_BEAT)

    def ready(self) -> None:
        """Report that this child is ready, so that the one before it can finish."""
        self._send(_READY)

    def request_replacement(self) -> None:
        """Request a successor; this child finishes once the successor is ready."""
        self._send(_REPLACE)

    def _send(self, message: bytes) -> None:
        # A parent that does not read has enough to read; one that is gone is noticed by `peers`.
        with suppress(OSError):
            self._parent.send(message)


@dataclass(slots=True, eq=False)
class _Child:
    role: Role
    pid: int
    pipe: socket.socket
    slot: int
    born: float
    last: float
    ready: bool = False
    leaving: bool = False
    leave_by: float = float("inf")


@dataclass(slots=True)
class _Schedule:
    """When the next child of a role may start: later after each crash."""

    pause: float = _FIRST_PAUSE
    start_at: float = 0.0


class Supervisor:
    """One parent. ``frontend`` and ``worker`` run in the children and return the exit code.

    ``sockets`` are those that the frontend listens on. A child that was ready and then does not report for
    ``hang_seconds`` is killed.
    """

    def __init__(
        self,
        frontend: Callable[[SupervisorPipe], int],
        worker: Callable[[SupervisorPipe], int],
        sockets: Sequence[socket.socket],
        hang_seconds: float,
    ) -> None:
        self._work: dict[Role, Callable[[SupervisorPipe], int]] = {"frontend": frontend, "worker": worker}
        self._sockets = list(sockets)
        self._hang_seconds = hang_seconds
        self._children: dict[int, _Child] = {}
        self._counters = SharedCounters()
        self._schedules: dict[Role, _Schedule] = {"worker": _Schedule(), "frontend": _Schedule()}
        self._signal: signal.Signals | None = None
        self._restarts = 0

    def run(self) -> int:
        """Run until SIGTERM or SIGINT, or until a child ends because its input is bad; return the exit code."""
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._stop)
        # What is loaded stays, and pages that the collector does not write to stay shared.
        gc.collect()
        gc.freeze()
        while self._children or self._signal is None:
            self._start_missing()
            readable, _, _ = select.select([wake, *self._children], [], [], BEAT_SECONDS)
            for pipe in readable:
                if pipe == wake:
                    os.read(wake, 4096)
                elif pipe in self._children and (code := self._read(self._children[pipe])) is not None:
                    self._kill_all()
                    return code
            self._replace_hung()
            if self._signal is not None and not self._of("frontend"):
                self._finish_workers()
        return 0

    def _of(self, role: Role) -> list[_Child]:
        return [child for child in self._children.values() if child.role == role]

    def _stop(self, number: int, frame: object) -> None:
        del frame
        if self._signal is not None:
            return
        self._signal = signal.Signals(number)
        # The frontend still accepts connections while it drains; afterwards no process must hold the sockets.
        self._close_sockets()
        for child in self._of("frontend"):
            child.leaving = True
            self._send_signal(child, signal.SIGTERM)

    def _finish_workers(self) -> None:
        for child in self._of("worker"):
            if not child.leaving or child.leave_by == float("inf"):
                child.leaving, child.leave_by = True, time.monotonic() + _LAST_SECONDS
                with suppress(OSError):
                    child.pipe.send(_FINISH)

    def _start_missing(self) -> None:
        if self._signal is not None:
            return
        for role, schedule in self._schedules.items():
            staying = [child for child in self._of(role) if not child.leaving]
            if not staying and time.monotonic() >= schedule.start_at:
                self._start(role)

    def _start(self, role: Role) -> None:
        ours, theirs = socket.socketpair()
        slot = min(set(range(SLOTS)) - {child.slot for child in self._children.values()})
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal between here and there would be handled by the wrong process, or reach no child.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if self._signal is None:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._run_child(role, theirs, slot)
            ours.setblocking(False)
            now = time.monotonic()
            child = _Child(role, pid, ours, slot, now, now)
            for other in self._of("worker" if role == "frontend" else "frontend"):
                self._connect(child, other)
            self._children[ours.fileno()] = child
        else:
            ours.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()

    def _connect(self, one: _Child, other: _Child) -> None:
        """Give a frontend and a worker a channel to each other."""
        ends = socket.socketpair()
        for child, peer, end in ((one, other, ends[0]), (other, one, ends[1])):
            message = _CHANNEL.pack(b"c", peer.slot, self._restarts)
            with suppress(OSError):
                socket.send_fds(child.pipe, [message], [end.fileno()])
            end.close()

    def _run_child(self, role: Role, parent: socket.socket, slot: int) -> None:
        """Does not return."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                # The frontend sets its own; workers finish when the frontend is done with them.
                signal.signal(number, signal.SIG_DFL if role == "frontend" else signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for other in self._children.values():
                other.pipe.close()
            if role == "worker":
                self._close_sockets()
            parent.setblocking(False)
            _set_name(f"wl-{role}")
            code = self._work[role](SupervisorPipe(parent, self._counters, slot))
        except BaseException:  # an exception that is not caught here would run on as a second parent
            log.exception("internal error")
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _read(self, child: _Child) -> int | None:
        """Read what a child reports; return an exit code if everything is to end with it."""
        try:
            messages = child.pipe.recv(65536)
        except BlockingIOError:
            return None
        except ConnectionError:
            messages = b""
        if not messages:
            return self._reap(child)
        child.last = time.monotonic()
        if _READY in messages and not child.ready:
            child.ready = True
            for other in self._of(child.role):
                if other is not child and not other.leaving:
                    other.leaving, other.leave_by = True, time.monotonic() + _LAST_SECONDS
        if _REPLACE in messages and self._may_replace(child):
            log.info("replacing the worker", extra={"fields": {"pid": child.pid}})
            self._start(child.role)
        return None

    def _may_replace(self, child: _Child) -> bool:
        """Whether a child may get a successor: if none is on its way."""
        return self._signal is None and not child.leaving and len(self._of(child.role)) == 1

    def _reap(self, child: _Child) -> int | None:
        del self._children[child.pipe.fileno()]
        child.pipe.close()
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if child.leaving or (self._signal is not None and code == 0):
            return None
        if code == _BAD_INPUT:
            return code
        if self._signal is None:
            self._restarts += 1
        schedule, now = self._schedules[child.role], time.monotonic()
        # The first crash after a long life costs no pause.
        lived = child.ready and now - child.born > _LONG_LIFE
        schedule.start_at = now + (0.0 if lived else schedule.pause)
        schedule.pause = _FIRST_PAUSE if lived else min(schedule.pause * 2, _LONGEST_PAUSE)
        fields = {"role": child.role, "pid": child.pid, "exitCode": code, "restarts": self._restarts}
        log.error("a process ended; starting another", extra={"fields": fields})
        return None

    def _replace_hung(self) -> None:
        now = time.monotonic()
        for child in tuple(self._children.values()):
            silence = now - child.last
            limit = self._hang_seconds if child.ready else START_SECONDS
            if silence > limit or now > child.leave_by:
                fields = {"role": child.role, "pid": child.pid, "seconds": round(silence)}
                log.error("killing a process that hangs", extra={"fields": fields})
                child.last, child.leave_by = now, float("inf")
                self._send_signal(child, signal.SIGKILL)
            elif (
                child.ready
                and silence > SUSPECT_SECONDS
                and child.role == "worker"
                and self._may_replace(child)
            ):
                about = {"pid": child.pid, "seconds": round(silence)}
                log.warning("a worker does not respond; starting another", extra={"fields": about})
                self._start("worker")

    def _close_sockets(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets = []

    def _kill_all(self) -> None:
        for child in self._children.values():
            self._send_signal(child, signal.SIGKILL)
            os.waitpid(child.pid, 0)

    @staticmethod
    def _send_signal(child: _Child, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)


def _set_name(name: str) -> None:
    """Name the process in ``ps`` and ``top``; Linux only."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")
