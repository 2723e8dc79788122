"""The key broker over HTTPS: bytes to the broker's requests, its responses and denials to bytes.

Every fault in here is a response without a key. Tokens, keys and nonces are never logged.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import signal
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, cast

import orjson
from aiohttp import web
from pydantic import ValidationError

from webhook.api import codes
from webhook.api.base import Schema
from webhook.api.codes import BAD_REQUEST, CLUSTER_UNAVAILABLE, RATE_LIMIT
from webhook.api.faults import describe
from webhook.keys.broker.protocol import (
    EGRESS_HEADER,
    MAX_RELEASE,
    MAX_SMALL,
    RECEIPT_HEADER,
    Challenge,
    ChallengeRequest,
    Refused,
    Released,
    ReleaseRequest,
    RenewRequest,
    parse_json,
    sent_bytes,
)
from webhook.keys.broker.rate_limits import Rate
from webhook.keys.broker.refusal import UNPROVEN, RefusedError, UnavailableError
from webhook.server import logs
from webhook.server.http import routes
from webhook.server.http.connections import WATCH_LIMITS, Limits, fit_descriptors
from webhook.server.http.health import Health, snapshot_check
from webhook.server.http.listener import Listener, bind
from webhook.server.http.server import HttpError, Route, Router, Server, json_body, require_json
from webhook.server.metrics import gauges
from webhook.server.metrics.metrics import BrokerMetrics
from webhook.server.tls import reload
from webhook.server.tls.certificates import CertificateManager
from webhook.server.tracing import Tracer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from webhook.api.broker import BrokerConfig
    from webhook.api.config import Listen
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.keys.broker.service import Broker
    from webhook.server.http.server import Call, Handler

    OpenBroker = Callable[[BrokerConfig], AbstractAsyncContextManager[tuple[Broker, SnapshotProvider]]]

S = TypeVar("S", bound=Schema)

_POST = frozenset({"POST"})
# Addresses that are remembered.
_SOURCES = 16_384
_BYTES_PER_REQUEST = 16 * 1024
_HEADERS = {"Content-Type": "application/json", "Server": "weightlock", "Cache-Control": "no-store"}
_RESULTS = {500: "error", 503: "unavailable"}

log = logging.getLogger(__name__)
audit_log = logging.getLogger("weightlock.audit")


def write_audit(event: Mapping[str, object]) -> None:
    """Write an audit event to the log, if no other sink is configured."""
    audit_log.info(str(event.get("event", "event")), extra={"fields": dict(event)})


def serve(config: BrokerConfig, open_broker: OpenBroker) -> int:
    """Run the broker until SIGTERM or SIGINT; return the exit code. Raises `ListenError` if an address is taken."""
    logs.configure(config.log_level)
    asyncio.run(_serve(config, open_broker))
    return 0


async def _serve(config: BrokerConfig, open_broker: OpenBroker) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_broker(config) as (broker, source):
        server = BrokerServer(config, broker, source)
        async with server.running():
            log.info("serving", extra={"fields": {"address": server.address}})
            await stop.wait()
            server.health.stopping = True
            await asyncio.sleep(config.drain_seconds)
    log.info("stopped")


class BrokerServer:
    """One broker process: its listeners, health, metrics and certificate."""

    def __init__(self, config: BrokerConfig, broker: Broker, source: SnapshotProvider) -> None:
        self._config, self._broker, self._source = config, broker, source
        self._certificate = CertificateManager(config.tls)
        self._running = 0
        self._gate = asyncio.Semaphore(config.broker.max_concurrent_requests)
        each = config.broker.source_requests_per_minute
        self._sources = Rate(each, each, _SOURCES)
        self.metrics, self.health = BrokerMetrics(), Health()
        self._tracer = Tracer.of(config.tracing, "broker")
        self.address = ""
        self.watch_address = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[BrokerServer]:
        """Listen and serve; on leaving, finish requests. Raises `ListenError`."""
        self.health.add(snapshot_check(self._source))
        self.health.add(self._certificate.fault)
        gauges.add_snapshot(self.metrics, self._config, self._source)
        gauges.add_certificate(self.metrics, self._certificate)
        if (log_gauges := self._broker.log_gauges) is not None:
            self.metrics.group(log_gauges)
        self.metrics.gauge("weightlock_key_requests_running", lambda: self._running)
        watch = routes.watch_routes(self.health, self._render)
        async with AsyncExitStack() as stack:
            if self._tracer is not None:
                stack.push_async_callback(asyncio.to_thread, self._tracer.close)
            limits = fit_descriptors(Limits())
            listener = self._listener(stack, self._config.listen, {**self._routes(), **watch}, limits)
            self.address = f"https://{listener.address}"
            if self._config.metrics_listen is not None:
                plain = self._listener(stack, self._config.metrics_listen, watch, WATCH_LIMITS)
                self.watch_address = f"http://{plain.address}"
                plain.serve(None)
            reload.check(self._certificate, listener, self.metrics.internal_error)
            keeping = reload.keep_checking(self._certificate, listener, self.metrics.internal_error)
            stack.callback(asyncio.create_task(keeping).cancel)
            yield self

    async def _render(self, accept: str) -> tuple[bytes, str]:
        return self.metrics.render(accept)

    def _listener(
        self, stack: AsyncExitStack, listen: Listen, table: Mapping[str, Route], limits: Limits
    ) -> Listener:
        router = Router(table, self.metrics.internal_error)
        router.connections.limits = limits
        listener = Listener(bind(listen), Server(router))
        stack.push_async_callback(listener.close, self._config.broker.request_timeout_seconds)
        return listener

    def _routes(self) -> dict[str, Route]:
        broker = self._broker

        async def challenge(_token: str, request: ChallengeRequest) -> Schema:
            return broker.challenge(request)

        async def release(token: str, request: ReleaseRequest) -> Schema:
            released = await broker.release(token, request)
            self.metrics.answered("released")
            return released

        async def renew(token: str, request: RenewRequest) -> Schema:
            lease = await broker.renew(token, request)
            self.metrics.answered("renewed")
            return lease

        handlers = {
            "/v1/challenge": self._answers(ChallengeRequest, challenge),
            "/v1/release": self._answers(ReleaseRequest, release),
            "/v1/renew": self._answers(RenewRequest, renew),
        }
        limits = {"/v1/release": MAX_RELEASE}
        return {
            path: Route(
                _POST,
                self._timed(path.rpartition("/")[2], self._traced(self._limited(handle))),
                limits.get(path, MAX_SMALL),
            )
            for path, handle in handlers.items()
        }

    def _traced(self, handle: Handler) -> Handler:
        """Return the handler with a trace of each call, if tracing is on."""
        tracer = self._tracer
        if tracer is None:
            return handle

        async def traced(call: Call) -> web.Response:
            trace = tracer.begin(f"broker {call.target.path}", call.request.headers.get("traceparent", ""))
            if trace is None:
                return await handle(call)
            status = 500
            try:
                response = await handle(call)
                status = response.status
            except HttpError as error:
                status = error.status
                raise
            finally:
                trace.end({"status": status}, failed=status >= 500)
            return response

        return traced

    def _timed(self, call: str, handle: Handler) -> Handler:
        """Return the handler with a measurement of each call."""

        async def timed(request: Call) -> web.Response:
            start = time.perf_counter()
            self._running += 1
            try:
                return await handle(request)
            finally:
                self._running -= 1
                self.metrics.took(call, time.perf_counter() - start)

        return timed

    def _limited(self, handle: Handler) -> Handler:
        """Return the handler for addresses that are within their limit."""

        async def limited(call: Call) -> web.Response:
            # A large body is charged before it is parsed, and returned to a caller that proves to be a pod.
            cost = _cost(call)
            wait = self._sources.take(call.request.remote or "", time.monotonic(), cost)
            if wait:
                words = f"too many requests from this address: try again in {wait:.0f} s"
                return self._no(429, RATE_LIMIT, words)
            return await handle(call)

        return limited

    async def _proven(self, call: Call, answer: Awaitable[Schema]) -> Schema:
        """Return the response; a request of a caller that proved to be a pod does not count against its address."""
        try:
            response = await answer
        except RefusedError as error:
            if error.code not in UNPROVEN:
                self._sources.give_back(call.request.remote or "", _cost(call))
            raise
        if not isinstance(response, Challenge):
            self._sources.give_back(call.request.remote or "", _cost(call))
        return response

    def _answers(self, shape: type[S], answer: Callable[[str, S], Awaitable[Schema]]) -> Handler:
        async def handle(call: Call) -> web.Response:
            require_json(call.request)
            if self._gate.locked():
                return self._no(503, codes.OVERLOADED, "the broker is overloaded: retry")
            try:
                async with self._gate, asyncio.timeout(self._config.broker.request_timeout_seconds):
                    request = shape.model_validate(parse_json(call.body))
                    if isinstance(request, (ReleaseRequest, RenewRequest)):
                        count = sent_bytes(call.request.headers.get(EGRESS_HEADER, ""))
                        request = cast("S", request.model_copy(update={"sent": count}))
                    return _yes(await self._proven(call, answer(_bearer(call.request), request)))
            except ValidationError as error:
                return self._no(400, BAD_REQUEST, f"the request is malformed: {describe(error)}")
            except ValueError as error:
                return self._no(400, BAD_REQUEST, f"the request is malformed: {error}")
            except RefusedError as error:
                return self._no(429 if error.code == RATE_LIMIT else 403, error.code, str(error))
            except UnavailableError as error:
                return self._no(503, error.code, str(error))
            except TimeoutError:
                words = "the API server did not respond to the broker in time"
                return self._no(503, CLUSTER_UNAVAILABLE, words)
            except Exception:  # an internal error releases nothing, and its details are for the log
                log.exception("internal error", extra={"fields": {"path": call.target.path}})
                return self._no(500, codes.INTERNAL_ERROR, "internal error")

        return handle

    def _no(self, status: int, code: str, message: str) -> web.Response:
        self.metrics.answered(_RESULTS.get(status, "refused"), code)
        body = orjson.dumps(Refused(code=code, message=message[:1024]).model_dump())
        headers = {**_HEADERS, "Retry-After": "5"} if status in {429, 503} else _HEADERS
        return web.Response(status=status, body=body, headers=headers)


def _cost(call: Call) -> float:
    """What a request costs its address, in requests: one, and one more for each 16 KiB of its body."""
    return 1 + len(call.body) // _BYTES_PER_REQUEST


def _bearer(request: web.BaseRequest) -> str:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _yes(answer: Schema) -> web.Response:
    response = json_body(orjson.dumps(answer.model_dump(by_alias=True)))
    response.headers["Cache-Control"] = "no-store"
    if isinstance(answer, Released) and answer.receipt:
        response.headers[RECEIPT_HEADER] = base64.b64encode(answer.receipt.encode()).decode()
    return response
