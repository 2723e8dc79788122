"""Gives each review to a worker and returns its response, whatever happens to the worker meanwhile.

The frontend holds the connections of the API server and evaluates nothing, so a worker that crashes, hangs or is
replaced costs time and no request: reviews without a response go to the next worker. A review that ends workers must
not do so for ever. Each worker marks in shared memory which review it evaluates, and a review that was marked when two
workers ended is denied.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson

from webhook.api import codes
from webhook.core.admission.validate import internal_error
from webhook.core.admission.verdict import to_response
from webhook.core.kube.review import BadReviewError, render_review, uid_of
from webhook.server.http.routes import UnauthenticatedError
from webhook.server.process.channel import (
    GAUGES,
    METRICS,
    NOT_A_REVIEW,
    RESPONSE,
    RETIRE,
    REVIEW,
    STATE,
    UNAUTHENTICATED,
    Channel,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from webhook.server.http.callers import Caller
    from webhook.server.process.shared_memory import Slot

# Seconds left for the review, whether to mutate, whether the caller is trusted, and the lengths of what follows: the
# traceparent and the caller's token.
REVIEW_HEAD: Final = struct.Struct("<d??BH")
# A worker that reports nothing for so long is not ready, and its reviews go to another one when there is one.
SILENCE_SECONDS: Final = 1.5
# A worker denies by itself at the deadline, and the frontend so much later.
_GRACE_SECONDS: Final = 0.25
_TICK_SECONDS: Final = 0.1
_GAUGES_SECONDS: Final = 1.0
_MAX_CRASHES: Final = 2

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Review:
    """One review without a response. ``crashes`` counts the workers that ended while they evaluated it."""

    number: int
    head: tuple[bool, bool, bytes, bytes]
    body: bytes
    deadline: float
    response: asyncio.Future[tuple[int, bytes]]
    worker: _Worker | None = None
    crashes: int = 0


@dataclass(slots=True, eq=False)
class _Worker:
    """One worker as the frontend sees it. ``trouble`` is why it is not ready."""

    slot: Slot
    channel: Channel | None = None
    ready: bool = False
    retired: bool = False
    trouble: str = "the worker is starting"
    heard: float = 0.0
    reviews: dict[int, _Review] = field(default_factory=dict)


class Dispatcher:
    """Use it from the event loop's thread. ``max_bytes`` bounds all reviews that wait for a response."""

    def __init__(
        self, slots: Sequence[Slot], *, max_bytes: int, internal_error: Callable[[str], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots = slots
        self._max_bytes = max_bytes
        self._internal_error = internal_error
        self._numbers = 0
        self._bytes = 0
        self._reviews: dict[int, _Review] = {}
        self._waiting: deque[_Review] = deque()
        self._workers: list[_Worker] = []
        self._current: _Worker | None = None
        self._gauges: dict[int, asyncio.Future[bytes]] = {}
        self._ticking = asyncio.create_task(self._tick())
        self.closed = False

    @property
    def pending(self) -> int:
        """Number of reviews without a response."""
        return len(self._reviews)

    async def review(self, phase: str, body: bytes, seconds: float, *, caller: Caller, parent: str) -> bytes:
        """Return the response to one review within ``seconds``.

        Raises `BadReviewError` if the bytes are not a review, `UnauthenticatedError` if the token is not accepted.
        """
        self._numbers += 1
        review = _Review(
            self._numbers,
            (phase == "mutate", caller.authenticated, parent.encode()[:255], caller.token.encode()),
            body,
            self._loop.time() + seconds,
            self._loop.create_future(),
        )
        self._reviews[review.number] = review
        self._bytes += len(body)
        if self._bytes > self._max_bytes:
            self._deny(review, codes.OVERLOADED, "Weightlock is overloaded: too many large requests at once")
        elif self._current is None:
            self._waiting.append(review)
        else:
            self._send(self._current, review)
        try:
            kind, payload = await review.response
        finally:
            self._reviews.pop(review.number, None)
            self._bytes -= len(body)
        if kind == NOT_A_REVIEW:
            raise BadReviewError(payload.decode())
        if kind == UNAUTHENTICATED:
            raise UnauthenticatedError
        return payload

    async def gauges(self) -> dict[str, float | None]:
        """Return what the worker measures, and have it save its counters; empty if it does not respond at once."""
        worker = self._current
        if worker is None or worker.channel is None:
            return {}
        self._numbers += 1
        number = self._numbers
        self._gauges[number] = self._loop.create_future()
        worker.channel.send(METRICS, number)
        try:
            async with asyncio.timeout(_GAUGES_SECONDS):
                return dict(orjson.loads(await self._gauges[number]))
        except TimeoutError:
            return {}
        finally:
            del self._gauges[number]

    async def connect(self, end: socket.socket, slot: int) -> None:
        """Add a worker; reviews go to it once it is ready."""
        worker = _Worker(self._slots[slot], heard=self._loop.time())
        self._workers.append(worker)
        worker.channel = await Channel.open(
            end,
            lambda kind, number, payload: self._receive(worker, kind, number, payload),
            lambda: self._lose(worker),
        )

    def trouble(self) -> str | None:
        """Return why reviews cannot be evaluated now, on one line, or None."""
        worker = self._current
        if worker is None:
            return self._workers[-1].trouble if self._workers else "the worker is starting"
        silence = self._loop.time() - worker.heard
        if silence > SILENCE_SECONDS:
            return f"the worker has not responded for {silence:.0f} s"
        return worker.trouble or None

    def close(self) -> None:
        """End the service of all workers."""
        self.closed = True
        self._ticking.cancel()
        for worker in tuple(self._workers):
            self._retire(worker)

    def _send(self, worker: _Worker, review: _Review) -> None:
        if review.response.done() or worker.channel is None:
            return
        mutating, trusted, parent, token = review.head
        seconds = review.deadline - self._loop.time()
        head = REVIEW_HEAD.pack(seconds, mutating, trusted, len(parent), len(token))
        review.worker = worker
        worker.reviews[review.number] = review
        worker.channel.send(REVIEW, review.number, head, parent, token, review.body)

    def _receive(self, worker: _Worker, kind: int, number: int, payload: bytes) -> None:
        worker.heard = self._loop.time()
        if kind == STATE:
            self._note_state(worker, payload.decode())
        elif kind == GAUGES:
            waiting = self._gauges.get(number)
            if waiting is not None and not waiting.done():
                waiting.set_result(payload)
        else:
            worker.reviews.pop(number, None)
            review = self._reviews.get(number)
            if review is not None and not review.response.done():
                review.response.set_result((kind, payload))
            if worker.retired and not worker.reviews:
                self._retire(worker)

    def _note_state(self, worker: _Worker, trouble: str) -> None:
        worker.trouble = trouble
        if not worker.ready and not trouble:
            worker.ready = True
            self._switch(worker)

    def _switch(self, worker: _Worker) -> None:
        """Send reviews to this worker from now on; the one before answers those that it has."""
        before, self._current = self._current, worker
        if before is not None:
            silent = self._loop.time() - before.heard > SILENCE_SECONDS / 2
            resent = list(before.reviews.values()) if silent else []
            for review in resent:
                self._send(worker, review)
            before.retired = True
            if not before.reviews:
                self._retire(before)
        for review in self._waiting:
            self._send(worker, review)
        self._waiting.clear()

    def _lose(self, worker: _Worker) -> None:
        """Give the reviews of a worker that ended to the next one."""
        worker.channel = None
        self._workers.remove(worker)
        if self._current is worker:
            self._current = None
        reviews, worker.reviews = worker.reviews, {}
        if reviews:
            fields = {"reviews": len(reviews)}
            log.warning("the worker ended before it answered", extra={"fields": fields})
        marked = worker.slot.marked()
        for review in reviews.values():
            if review.worker is not worker:
                continue
            review.worker = None
            review.crashes += review.number == marked
            if review.crashes >= _MAX_CRASHES:
                self._deny(review, codes.INTERNAL_ERROR, "the evaluation of this object ended two workers")
            elif self._current is None:
                self._waiting.append(review)
            else:
                self._send(self._current, review)

    def _retire(self, worker: _Worker) -> None:
        worker.retired = True
        if worker.channel is not None:
            worker.channel.send(RETIRE, 0)
            worker.channel.close()

    async def _tick(self) -> None:
        """Deny reviews whose time is over although no worker answered."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = self._loop.time()
            for review in tuple(self._reviews.values()):
                if review.worker is None and now > review.deadline:
                    self._deny(review, codes.NOT_READY, self.trouble() or "no worker was ready in time")
                elif now > review.deadline + _GRACE_SECONDS:
                    self._deny(review, codes.LOOKUP_FAILED, "the worker did not respond in time")

    def _deny(self, review: _Review, code: str, reason: str) -> None:
        """Respond to a review that no worker evaluated."""
        if review.response.done():
            return
        uid = uid_of(review.body)
        if uid is None:
            review.response.set_result((NOT_A_REVIEW, b"the body is not an AdmissionReview"))
            return
        self._internal_error(code)
        log.warning("not evaluated", extra={"fields": {"uid": uid, "code": code, "reason": reason}})
        response = render_review(to_response(internal_error(uid, code, reason)))
        review.response.set_result((RESPONSE, response))
