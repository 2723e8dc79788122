"""Evaluates one review in a process of its own: for objects that are large, or whose evaluation takes long.

The child is a fork of the worker, so it has the worker's snapshot. It cannot delay other requests, it can be killed
if it takes too long, and its memory is released when it ends. It does no I/O except to the worker: if the evaluation
requires data, the worker fetches it. The Python objects between both are pickled; the child is the same program and
reads nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import signal
import socket
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import process_time
from typing import TYPE_CHECKING, Any, Final

from webhook.core.admission.provider import FetchedData, RequiredData
from webhook.core.admission.validate import too_large
from webhook.core.kube.budget import MAX_SECONDS, MAX_STEPS, Budget
from webhook.core.kube.review import BadReviewError, UnsafeReviewError, parse_review
from webhook.core.kube.strict_json import longest
from webhook.server.admission_queue import OverloadedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.review import AdmissionRequest

    Step = Callable[[AdmissionRequest, Snapshot, FetchedData, datetime, Budget], Verdict | RequiredData]

# Larger bodies are not even parsed beside other requests.
LARGE_BYTES: Final = 256 * 1024
# A child is killed after so much CPU time; before that its own budget ends the evaluation, unless one expression hangs.
_CPU_SECONDS: Final = int(MAX_SECONDS) + 2
_NICE: Final = 5
_LENGTH: Final = struct.Struct("<I")

log = logging.getLogger(__name__)

available = hasattr(os, "fork")


class CrashedError(Exception):
    """The child ended without a verdict: it took too long or crashed. ``part`` is the largest list of the object."""

    def __init__(self, part: str) -> None:
        super().__init__(part)
        self.part = part


@dataclass(frozen=True, slots=True)
class Isolation:
    """Bounds how many reviews are evaluated in processes of their own, and how many wait for that."""

    running: asyncio.Semaphore
    waiting: list[int]
    max_waiting: int

    @classmethod
    def of(cls, *, processes: int = 0, max_waiting: int = 32) -> Isolation:
        """Return one for the running event loop; by default for half of the cores, so that the others stay free."""
        return cls(asyncio.Semaphore(processes or max(1, (os.cpu_count() or 1) // 2)), [0], max_waiting)

    async def evaluate(
        self,
        body: bytes,
        step: Step,
        snapshot: Callable[[], Snapshot],
        fetch: Callable[[RequiredData], Awaitable[FetchedData]],
        deadline: float,
    ) -> tuple[AdmissionRequest, Verdict]:
        """Return the request, without its objects, and the verdict; ``deadline`` is in the loop's time.

        Raises `OverloadedError`, `BadReviewError`, `UnsafeReviewError`, `CrashedError`, and what ``fetch`` raises.
        """
        async with self._place(deadline):
            ours, theirs = socket.socketpair()
            pid = _fork(ours, theirs, body, step, snapshot())
            theirs.close()
            ours.setblocking(False)
            try:
                async with asyncio.timeout_at(deadline):
                    return await _converse(ours, fetch)
            except TimeoutError:
                raise OverloadedError("the evaluation of a large object did not end in time") from None
            finally:
                ours.close()
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)  # noqa: ASYNC222 - it was killed

    @asynccontextmanager
    async def _place(self, deadline: float) -> AsyncIterator[None]:
        if self.waiting[0] >= self.max_waiting:
            raise OverloadedError(f"{self.waiting[0]} large requests are queued already")
        self.waiting[0] += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self.running.acquire()
        except TimeoutError:
            raise OverloadedError("queue time of large requests exceeds the admission timeout") from None
        finally:
            self.waiting[0] -= 1
        try:
            yield
        finally:
            self.running.release()


async def _converse(
    ours: socket.socket, fetch: Callable[[RequiredData], Awaitable[FetchedData]]
) -> tuple[AdmissionRequest, Verdict]:
    """Read what the child sends until it has a verdict, and send what it requires."""
    part = "content"
    loop = asyncio.get_running_loop()
    while True:
        message = await _receive(ours)
        if message is None:
            raise CrashedError(part)
        kind, content = message
        if kind == "part":
            part = content
        elif kind == "required":
            await loop.sock_sendall(ours, _framed(await fetch(content)))
        elif kind == "verdict":
            return content  # type: ignore[no-any-return] # what `_evaluate` sends
        elif kind == "refused":
            raise UnsafeReviewError(*content)
        elif kind == "bad":
            raise BadReviewError(content)
        else:
            raise RuntimeError(content)


async def _receive(ours: socket.socket) -> tuple[str, Any] | None:
    """Return the next message, or None if the child has ended."""
    head = await _exactly(ours, _LENGTH.size)
    body = await _exactly(ours, _LENGTH.unpack(head)[0]) if head else b""
    return pickle.loads(body) if body else None  # noqa: S301 - from a fork of this process


async def _exactly(ours: socket.socket, size: int) -> bytes:
    """Return so many bytes, or none if the other end is closed."""
    loop, parts = asyncio.get_running_loop(), bytearray()
    while len(parts) < size:
        try:
            chunk = await loop.sock_recv(ours, min(size - len(parts), 1024 * 1024))
        except ConnectionError:
            return b""
        if not chunk:
            return b""
        parts += chunk
    return bytes(parts)


def _framed(content: Any) -> bytes:
    body = pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def _fork(ours: socket.socket, theirs: socket.socket, body: bytes, step: Step, snapshot: Snapshot) -> int:
    """Start the child; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        # The parent's other descriptors are connections of others; a child that is alive would keep them open.
        keep = theirs.fileno()
        os.closerange(3, keep)
        os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX") if keep > 65536 else 65536)
        ours.detach()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        # Collecting would copy the pages that parent and child share.
        gc.disable()
        with suppress(OSError):
            os.nice(_NICE)
        _limit_cpu(int(process_time()) + _CPU_SECONDS)
        theirs.setblocking(True)
        _evaluate(theirs, body, step, snapshot)
    except BaseException as error:  # noqa: BLE001 - nothing may run on as a second worker
        with suppress(BaseException):
            theirs.sendall(_framed(("fault", type(error).__name__)))
    finally:
        os._exit(0)


def _evaluate(theirs: socket.socket, body: bytes, step: Step, snapshot: Snapshot) -> None:
    """The child's work: evaluate, with whatever the worker fetches, and send the verdict."""
    try:
        request = parse_review(body)
    except BadReviewError as error:
        theirs.sendall(_framed(("bad", str(error))))
        return
    except UnsafeReviewError as error:
        theirs.sendall(_framed(("refused", (error.uid, error.reason))))
        return
    place, length = longest(request.raw)
    theirs.sendall(_framed(("part", f"{place} ({length:,} entries)")))
    fetched = FetchedData()
    while True:
        budget = Budget(MAX_STEPS, clock=process_time)
        outcome = step(request, snapshot, fetched, datetime.now(UTC), budget)
        if not isinstance(outcome, RequiredData):
            slim = request._replace(object=None, old_object=None, raw={})
            theirs.sendall(_framed(("verdict", (slim, outcome))))
            return
        theirs.sendall(_framed(("required", outcome)))
        size = _LENGTH.unpack(_blocking(theirs, _LENGTH.size))[0]
        fetched = fetched.merge(pickle.loads(_blocking(theirs, size)))  # noqa: S301 - from the parent process


def _limit_cpu(seconds: int) -> None:
    import resource  # noqa: PLC0415 - absent on Windows

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def _blocking(theirs: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        chunk = theirs.recv(size - len(parts))
        if not chunk:
            raise EOFError
        parts += chunk
    return bytes(parts)


def crashed(uid: str, part: str) -> Verdict:
    """Return the denial for a review whose child ended without a verdict."""
    return too_large(uid, part, f"evaluating the policies on it takes more than {MAX_SECONDS:g} s")
