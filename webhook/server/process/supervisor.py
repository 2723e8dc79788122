"""Runs the work in a child process, and another one in its place when it hangs, dies or has grown too large.

The CEL engine is native code that judges what strangers write: an expression that never ends holds the whole process,
and a fault in it takes the process along. Both then cost a moment, not the container. The parent judges nothing and
imports next to nothing: all that is large is loaded in the child, so its memory is needed once. What the first child
listens on it hands to the parent, so connections wait for the next child instead of being refused.
"""

from __future__ import annotations

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
from typing import TYPE_CHECKING

from webhook.server.process.shared_memory import SLOTS, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BEAT_SECONDS = 0.5
START_SECONDS = 120.0
_LAST_SECONDS = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE, _LONG_LIFE = 0.05, 5.0, 60.0
_BEAT, _READY, _REPLACE = b".", b"+", b"r"
# Comes with descriptors, and last of what is read with them: how long a child may hang.
_KEEP = struct.Struct("<d")
_MOST_SOCKETS = 8
_BAD_INPUT = 2
_ENDS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1

log = logging.getLogger(__name__)


class SupervisorPipe:
    """What a child holds of its parent. ``restarts`` is how many children before it ended as they should not.

    ``slot`` is its own part of the memory that outlives it, ``other_slots`` are those of its like, ``sockets`` what the
    children before it listened on.
    """

    def __init__(
        self,
        parent: socket.socket,
        restarts: int,
        ledger: Ledger,
        slot: int,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self._parent = parent
        self.restarts = restarts
        self.slot = ledger.slots[slot]
        self.other_slots = tuple(other for other in ledger.slots if other is not self.slot)
        self.sockets = tuple(sockets)

    def keep(self, sockets: Sequence[socket.socket], hang_seconds: float) -> None:
        """Have the parent hold what is listened on, for children to come, and end this one should it hang so long."""
        try:
            socket.send_fds(self._parent, [_KEEP.pack(hang_seconds)], [each.fileno() for each in sockets])
        except OSError:
            os._exit(1)

    def beat(self) -> None:
        """Say that the event loop turns. Call it every `BEAT_SECONDS`."""
        self._say(_BEAT)

    def ready(self) -> None:
        """Say that requests are answered now, so that a child which was to be replaced may go."""
        self._say(_READY)

    def ask_to_be_replaced(self) -> None:
        """Ask for another child; this one is told to stop (SIGUSR1) once that is ready."""
        self._say(_REPLACE)

    def _say(self, what: bytes) -> None:
        try:
            self._parent.send(what)
        except BlockingIOError:
            # The parent has not listened for a while; there is enough for it to hear.
            return
        except OSError:
            # Nobody is left to answer to. Linux ends the child by a signal; elsewhere it must see for itself.
            os._exit(1)


@dataclass(slots=True)
class _Child:
    pid: int
    line: socket.socket
    slot: int
    born: float
    last: float
    ready: bool = False
    leaving: bool = False
    leave_by: float = 0.0


class Supervisor:
    """One parent. ``work`` runs in each child and returns its exit code; it loads by itself whatever it needs.

    A child that was ready once and then does not beat for as long as it said is ended.
    """

    def __init__(self, work: Callable[[SupervisorPipe], int]) -> None:
        self._work = work
        self._sockets: list[socket.socket] = []
        self._hang_seconds = START_SECONDS
        self._children: dict[int, _Child] = {}
        self._ledger = Ledger()
        self._told: signal.Signals | None = None
        self._restarts = 0
        self._pause = _FIRST_PAUSE
        self._start_at = 0.0

    def run(self) -> int:
        """Keep a child until SIGTERM or SIGINT, or until one ends because its input is bad; the exit code."""
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in _ENDS:
            signal.signal(number, self._tell)
        while self._children or self._told is None:
            if not self._children and time.monotonic() >= self._start_at:
                self._start()
            readable, _, _ = select.select([wake, *self._children], [], [], BEAT_SECONDS)
            for pipe in readable:
                if pipe == wake:
                    os.read(wake, 4096)
                elif (code := self._listen(self._children[pipe])) is not None:
                    return code
            self._end_the_hung()
        return 0

    def _tell(self, number: int, frame: object) -> None:
        del frame
        if self._told is not None:
            return
        self._told = signal.Signals(number)
        # The child still accepts while it drains; after that there must be nobody left to connect to.
        self._let_go()
        for child in self._children.values():
            self._dismiss(child, self._told, float("inf"))

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        slot = min(set(range(SLOTS)) - {child.slot for child in self._children.values()})
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal between here and there would be handled by the wrong process, or told to no child.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        if self._told is None:
            pid = os.fork()
            if pid == 0:
                ours.close()
                self._be_a_child(theirs, slot)
            ours.setblocking(False)
            now = time.monotonic()
            self._children[ours.fileno()] = _Child(pid, ours, slot, now, now)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
        theirs.close()

    def _be_a_child(self, parent: socket.socket, slot: int) -> None:
        """Does not return."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _ENDS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
            for other in self._children.values():
                other.line.close()
            _die_with_the_parent()
            parent.setblocking(False)
            code = self._work(SupervisorPipe(parent, self._restarts, self._ledger, slot, self._sockets))
        except BaseException:  # what is not caught here would go on as a second parent
            log.exception("internal error")
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _listen(self, child: _Child) -> int | None:
        """Hear what a child says; the exit code of everything where its end is the end of all."""
        try:
            said, descriptors, _, _ = socket.recv_fds(child.line, 65536, _MOST_SOCKETS)
        except BlockingIOError:
            return None
        except ConnectionError:
            said, descriptors = b"", []
        if not said:
            return self._ended(child)
        child.last = time.monotonic()
        if descriptors:
            self._keep(descriptors, said[-_KEEP.size :])
            said = said[: -_KEEP.size]
        if _READY in said and not child.ready:
            child.ready = True
            for other in self._children.values():
                if other.pid != child.pid and not other.leaving:
                    self._dismiss(other, signal.SIGUSR1, time.monotonic() + _LAST_SECONDS)
        if _REPLACE in said and len(self._children) == 1 and self._told is None:
            log.info("replacing the worker", extra={"fields": {"pid": child.pid}})
            self._start()
        return None

    def _keep(self, descriptors: Sequence[int], seconds: bytes) -> None:
        self._let_go()
        self._sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for listening in self._sockets:
            listening.setblocking(False)
        (self._hang_seconds,) = _KEEP.unpack(seconds)
        if self._told is not None:
            self._let_go()

    def _let_go(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets = []

    def _ended(self, child: _Child) -> int | None:
        del self._children[child.line.fileno()]
        child.line.close()
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if child.leaving:
            return None
        if code == _BAD_INPUT:
            return code
        self._restarts += 1
        now = time.monotonic()
        self._pause = _FIRST_PAUSE if now - child.born > _LONG_LIFE else min(self._pause * 2, _LONGEST_PAUSE)
        self._start_at = now + self._pause
        fields = {"pid": child.pid, "exitCode": code, "restarts": self._restarts}
        log.error("the worker ended; starting another", extra={"fields": fields})
        return None

    def _end_the_hung(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            since = now - child.last
            limit = self._hang_seconds if child.ready else START_SECONDS
            if since > limit or (child.leaving and now > child.leave_by):
                log.error(
                    "ending a worker that hangs",
                    extra={"fields": {"pid": child.pid, "seconds": round(since)}},
                )
                child.last = now
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    def _dismiss(self, child: _Child, number: signal.Signals, leave_by: float) -> None:
        child.leaving, child.leave_by = True, leave_by
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)


def _die_with_the_parent() -> None:
    """A child whose parent was killed must not serve on: nobody would watch it, or know that it is there."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - the parent has no use for it

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
