"""The worker's end of the channel: reviews in, responses out, and its state for the frontend's readiness."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from webhook.core.kube.review import BadReviewError
from webhook.server.process.channel import (
    GAUGES,
    METRICS,
    NOT_A_REVIEW,
    RESPONSE,
    RETIRE,
    REVIEW,
    STATE,
    Channel,
)
from webhook.server.process.dispatcher import REVIEW_HEAD

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Mapping

STATE_SECONDS: Final = 0.25
_STARTING_SECONDS: Final = 0.01

log = logging.getLogger(__name__)


class Service(Protocol):
    """What a worker needs of `AdmissionService`."""

    def mutate(
        self, body: bytes, seconds: float, *, trusted_caller: bool, parent: str, number: int
    ) -> Awaitable[bytes]:
        """Return the response of the mutating webhook."""

    def validate(
        self, body: bytes, seconds: float, *, trusted_caller: bool, parent: str, number: int
    ) -> Awaitable[bytes]:
        """Return the response of the validating webhook."""


class WorkerEnd:
    """Serves the frontend until it retires this worker. ``measure`` saves the counters and returns the gauges."""

    def __init__(
        self,
        service: Service,
        trouble: Callable[[], str | None],
        measure: Callable[[], Mapping[str, float | None]],
    ) -> None:
        self._service = service
        self._trouble = trouble
        self._measure = measure
        self._channel: Channel | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.retired = asyncio.Event()

    async def connect(self, end: socket.socket) -> None:
        """Serve over this socket; the frontend at the other end may be a new one."""
        self._channel = await Channel.open(end, self._receive, self._lost)
        self._report()

    async def report(self) -> None:
        """Report the state until cancelled, so that the frontend knows that this worker responds."""
        while True:
            self._report()
            await asyncio.sleep(_STARTING_SECONDS if self._trouble() else STATE_SECONDS)

    def _report(self) -> None:
        if self._channel is not None:
            self._channel.send(STATE, 0, (self._trouble() or "").encode())

    def _lost(self) -> None:
        self._channel = None

    def _receive(self, kind: int, number: int, payload: bytes) -> None:
        if kind == REVIEW:
            task = asyncio.create_task(self._answer(number, payload))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        elif kind == METRICS and self._channel is not None:
            self._channel.send(GAUGES, number, orjson.dumps(dict(self._measure())))
        elif kind == RETIRE:
            self.retired.set()

    async def _answer(self, number: int, payload: bytes) -> None:
        channel = self._channel
        seconds, mutating, trusted, length = REVIEW_HEAD.unpack_from(payload)
        begin = REVIEW_HEAD.size + length
        parent = payload[REVIEW_HEAD.size : begin].decode()
        answer = self._service.mutate if mutating else self._service.validate
        try:
            kind, response = RESPONSE, await answer(
                payload[begin:], seconds, trusted_caller=trusted, parent=parent, number=number
            )
        except BadReviewError as error:
            kind, response = NOT_A_REVIEW, " ".join(str(error).split()).encode()
        if channel is not None:
            channel.send(kind, number, response)
