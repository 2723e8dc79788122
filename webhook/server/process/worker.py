"""The worker's end of the channel: reviews in, responses out, and its state for the frontend's readiness."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from webhook.core.kube.review import BadReviewError
from webhook.server.http.callers import Caller
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
from webhook.server.process.dispatcher import REVIEW_HEAD

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping

STATE_SECONDS: Final = 0.25
_STARTING_SECONDS: Final = 0.01

log = logging.getLogger(__name__)


class Answer(Protocol):
    """Evaluates a review in this process."""

    def __call__(
        self, phase: str, body: bytes, seconds: float, *, caller: Caller, parent: str, number: int
    ) -> Awaitable[bytes]:
        """Return the response within ``seconds``."""


class WorkerEnd:
    """Serves the frontend until it retires this worker. ``measure`` saves the counters and returns the gauges."""

    def __init__(
        self,
        answer: Answer,
        trouble: Callable[[], str | None],
        measure: Callable[[], Mapping[str, float | None]],
    ) -> None:
        self._answer = answer
        self._trouble = trouble
        self._measure = measure
        self._channel: Channel | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.retired = asyncio.Event()
        self.connected = False

    async def connect(self, end: socket.socket) -> None:
        """Serve over this socket; the frontend at the other end may be a new one."""
        self._channel = await Channel.open(end, self._receive, self._lose)
        self.connected = True
        self._report()

    async def report(self) -> None:
        """Report the state until cancelled, so that the frontend knows that this worker responds."""
        while True:
            self._report()
            await asyncio.sleep(_STARTING_SECONDS if self._trouble() else STATE_SECONDS)

    def _report(self) -> None:
        if self._channel is not None:
            self._channel.send(STATE, 0, (self._trouble() or "").encode())

    def _lose(self) -> None:
        self._channel, self.connected = None, False

    def _receive(self, kind: int, number: int, payload: bytes) -> None:
        if kind == REVIEW:
            task = asyncio.create_task(self._review(number, payload))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif kind == METRICS and self._channel is not None:
            self._channel.send(GAUGES, number, orjson.dumps(dict(self._measure())))
        elif kind == RETIRE:
            self.retired.set()

    async def _review(self, number: int, payload: bytes) -> None:
        channel = self._channel
        seconds, mutating, trusted, parent_length, token_length = REVIEW_HEAD.unpack_from(payload)
        middle = REVIEW_HEAD.size + parent_length
        begin = middle + token_length
        caller = Caller(trusted, payload[middle:begin].decode())
        try:
            kind, response = (
                RESPONSE,
                await self._answer(
                    "mutate" if mutating else "validate",
                    payload[begin:],
                    seconds,
                    caller=caller,
                    parent=payload[REVIEW_HEAD.size : middle].decode(),
                    number=number,
                ),
            )
        except BadReviewError as error:
            kind, response = NOT_A_REVIEW, " ".join(str(error).split()).encode()
        except UnauthenticatedError:
            kind, response = UNAUTHENTICATED, b""
        if channel is not None:
            channel.send(kind, number, response)
