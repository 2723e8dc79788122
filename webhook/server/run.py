"""Runs the admission webhook: in one process, or as a frontend with workers under a supervisor.

The frontend holds the connections: TLS, HTTP, limits, health and metrics. A worker holds a snapshot and evaluates. The
order of a stop: report not ready, serve on while the endpoint is withdrawn, accept no new connections, finish requests,
end. Where snapshots come from is the caller's choice; this module knows only their interface.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import signal
import sys
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple

from webhook.server import logs
from webhook.server.admission import AdmissionService
from webhook.server.admission_queue import AdmissionQueue
from webhook.server.audit import VerdictLog, observe
from webhook.server.http import routes
from webhook.server.http.callers import Callers
from webhook.server.http.connections import WATCH_LIMITS, Limits, fit_descriptors
from webhook.server.http.health import Health, snapshot_check
from webhook.server.http.listener import Listener, bind
from webhook.server.http.routes import UnauthenticatedError
from webhook.server.http.server import Router, Server
from webhook.server.metrics import gauges
from webhook.server.metrics.metrics import AdmissionMetrics
from webhook.server.process import heartbeat
from webhook.server.process.dispatcher import Dispatcher
from webhook.server.process.worker import WorkerEnd
from webhook.server.tls import reload
from webhook.server.tls.certificates import CertificateManager
from webhook.server.tracing import Tracer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from socket import socket

    from webhook.api.config import Config
    from webhook.audit.writer import LogWriter
    from webhook.core.access import Signer
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.server.http.callers import Caller
    from webhook.server.process.supervisor import SupervisorPipe

    # Opens the audit log of this process; None where it is off.
    OpenLog = Callable[[], AbstractContextManager[LogWriter | None]]
    # Connects to where snapshots come from; the number is that of the worker among those of its parent.
    OpenProvider = Callable[[Config, int], AbstractAsyncContextManager[SnapshotProvider]]
    # Whether a token, sent to a path for reviews of an API group, is the API server's.
    VerifyToken = Callable[[str, str, str], Awaitable[bool]]
    Verifier = Callable[[SnapshotProvider], VerifyToken]

READY_POLL_SECONDS = 0.02
# Objects between two runs of the garbage collector while a worker loads its snapshot.
_LOADING_THRESHOLD = 200_000
# All reviews without a response, in bytes.
_MAX_PENDING_BYTES = 128 * 1024 * 1024

log = logging.getLogger(__name__)


class Sockets(NamedTuple):
    """What a webhook listens on; ``watch`` is plain HTTP and may be absent."""

    review: socket
    watch: socket | None

    @classmethod
    def bind(cls, config: Config) -> Sockets:
        """Return the sockets that a configuration requires. Raises `ListenError`."""
        watch = bind(config.metrics_listen) if config.metrics_listen is not None else None
        return cls(bind(config.listen), watch)

    def each(self) -> list[socket]:
        """Return those that there are."""
        return [each for each in self if each is not None]


class Evaluation:
    """What evaluates reviews in this process: the service, its queue, counters and readiness."""

    def __init__(
        self,
        config: Config,
        provider: SnapshotProvider,
        signer: Signer | None,
        metrics: AdmissionMetrics,
        *,
        verify: VerifyToken | None = None,
        mark: Callable[[int], None] = lambda _: None,
        writer: LogWriter | None = None,
    ) -> None:
        queue = AdmissionQueue(
            max_queued=config.max_waiting_reviews, max_lookups=config.max_concurrent_reviews
        )
        gauges.add_admission(metrics, config, provider, queue)
        audit: VerdictLog | None = None
        self._observing: asyncio.Task[None] | None = None
        if writer is not None:
            metrics.group(writer.gauges)
            audit = VerdictLog(writer, config.audit)
            # On a cluster, the controller logs access: one entry for each change, not one for each replica.
            observing = observe(writer, provider, access=bool(config.embedded))
            self._observing = asyncio.create_task(observing)
        self.metrics = metrics
        self.tracer = Tracer.of(config.tracing, "webhook")
        self.trouble = snapshot_check(provider)
        self._verify = verify
        self._service = AdmissionService(
            provider,
            queue,
            metrics,
            signer=signer,
            tracer=self.tracer,
            mark=mark,
            help_url=config.settings.help_url,
            audit=audit,
        )

    async def answer(
        self, phase: str, body: bytes, seconds: float, *, caller: Caller, parent: str, number: int = 0
    ) -> bytes:
        """Return the response. Raises `BadReviewError`, and `UnauthenticatedError` for a token that is not accepted."""
        trusted = caller.authenticated
        if caller.token:
            trusted = await self._authenticate(caller.token, phase, seconds)
        evaluate = self._service.mutate if phase == "mutate" else self._service.validate
        return await evaluate(body, seconds, trusted_caller=trusted, parent=parent, number=number)

    async def close(self) -> None:
        """Send the spans that wait."""
        if self._observing is not None:
            await _cancel(self._observing)
        if self.tracer is not None:
            await asyncio.to_thread(self.tracer.close)

    async def _authenticate(self, token: str, phase: str, seconds: float) -> bool:
        if self._verify is None:
            raise UnauthenticatedError
        try:
            async with asyncio.timeout(seconds):
                verified = await self._verify(token, f"/{phase}", "*")
        except TimeoutError:
            verified = False
        if not verified:
            raise UnauthenticatedError
        return True


def serve(
    config: Config,
    open_provider: OpenProvider,
    signer: Signer | None = None,
    verifier: Verifier | None = None,
    open_log: OpenLog = nullcontext,
) -> None:
    """Run the webhook in this process until SIGTERM or SIGINT.

    Raises `ListenError` if an address is taken, `TracingUnavailableError`, and what ``open_provider`` raises.
    """
    logs.configure(config.log_level)
    sockets = Sockets.bind(config)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config, sockets, open_provider, signer, verifier, open_log))


def run_frontend(config: Config, sockets: Sockets, pipe: SupervisorPipe) -> int:
    """Run the frontend of a supervised webhook; return the exit code."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_frontend(config, sockets, pipe))
    return 0


def run_worker(
    config: Config,
    open_provider: OpenProvider,
    pipe: SupervisorPipe,
    signer: Signer | None = None,
    verifier: Verifier | None = None,
    open_log: OpenLog = nullcontext,
) -> int:
    """Run one worker of a supervised webhook; return the exit code. Raises what ``open_provider`` raises."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_worker(config, open_provider, pipe, signer, verifier, open_log))
    return 0


async def _serve(
    config: Config,
    sockets: Sockets,
    open_provider: OpenProvider,
    signer: Signer | None,
    verifier: Verifier | None,
    open_log: OpenLog,
) -> None:
    stop = _stop_event()
    async with AsyncExitStack() as stack:
        writer = stack.enter_context(open_log())
        provider = await stack.enter_async_context(open_provider(config, 0))
        webhook = Webhook(config)
        verify = verifier(provider) if verifier is not None else None
        evaluation = Evaluation(config, provider, signer, webhook.metrics, verify=verify, writer=writer)
        async with webhook.running(
            sockets, evaluation.answer, evaluation.trouble, traced=bool(evaluation.tracer)
        ):
            announcing = asyncio.create_task(webhook.announce())
            await stop.wait()
            await _cancel(announcing)
            await webhook.drain()
        await evaluation.close()
    log.info("stopped")


async def _frontend(config: Config, sockets: Sockets, pipe: SupervisorPipe) -> None:
    stop = _stop_event()
    webhook = Webhook(config)
    webhook.metrics.share(pipe.slot, [slot for slot in pipe.slots if slot is not pipe.slot])
    dispatcher = Dispatcher(
        pipe.slots, max_bytes=_MAX_PENDING_BYTES, internal_error=webhook.metrics.internal_error
    )

    async def connect() -> None:
        for peer in pipe.peers():
            if peer is not None:
                webhook.metrics.restarts = peer.restarts
                await dispatcher.connect(peer.end, peer.slot)

    webhook.worker_gauges = dispatcher.gauges
    ready_mib = heartbeat.memory_mib()
    async with AsyncExitStack() as stack:
        stack.callback(webhook.metrics.save)
        for task in (
            _follow(pipe, connect, stop, webhook),
            # Bodies arrive here. A frontend is not replaced for its size: it has the connections.
            heartbeat.beat(pipe, lambda: 0.0, lambda: ready_mib),
            heartbeat.save_counters(webhook.metrics.save),
        ):
            stack.push_async_callback(_cancel, asyncio.create_task(task))
        # Last of all: the workers finish when no review can come any more.
        stack.callback(dispatcher.close)
        running = webhook.running(
            sockets, dispatcher.review, dispatcher.trouble, traced=bool(config.tracing.endpoint)
        )
        async with running:
            announcing = asyncio.create_task(webhook.announce(pipe))
            await stop.wait()
            await _cancel(announcing)
            await webhook.drain()
    log.info("stopped")


async def _worker(
    config: Config,
    open_provider: OpenProvider,
    pipe: SupervisorPipe,
    signer: Signer | None,
    verifier: Verifier | None,
    open_log: OpenLog,
) -> None:
    metrics = AdmissionMetrics()
    metrics.share(pipe.slot, ())
    metrics.gauge("weightlock_worker_memory_bytes", lambda: heartbeat.memory_mib() * 2**20)
    ready_mib = 0.0

    def limit_mib() -> float:
        own = config.worker_memory_limit_mib
        return own or (heartbeat.default_limit(ready_mib) if ready_mib else 0)

    async with AsyncExitStack() as stack:
        collector = stack.enter_context(rare_collections())
        # A saved count is exposed by the frontend, also after this process.
        stack.callback(metrics.save)
        beat = heartbeat.beat(pipe, limit_mib, lambda: ready_mib)
        for task in (beat, heartbeat.save_counters(metrics.save)):
            stack.push_async_callback(_cancel, asyncio.create_task(task))
        writer = stack.enter_context(open_log())
        provider = await stack.enter_async_context(open_provider(config, pipe.slot.index))
        verify = verifier(provider) if verifier is not None else None
        evaluation = Evaluation(
            config, provider, signer, metrics, verify=verify, mark=pipe.slot.mark, writer=writer
        )
        stack.push_async_callback(evaluation.close)

        def measure() -> Mapping[str, float | None]:
            metrics.save()
            return metrics.values()

        end = WorkerEnd(evaluation.answer, evaluation.trouble, measure)

        async def connect() -> None:
            for peer in pipe.peers():
                if peer is None:
                    end.retired.set()
                else:
                    await end.connect(peer.end)

        stack.push_async_callback(_cancel, asyncio.create_task(end.report()))
        stack.push_async_callback(_cancel, asyncio.create_task(_follow_as_worker(pipe, connect, end)))
        while evaluation.trouble() is not None and not end.retired.is_set():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(READY_POLL_SECONDS)
        # What is loaded stays: the collector need not walk over it during a request.
        gc.collect()
        gc.freeze()
        collector.close()
        ready_mib = heartbeat.memory_mib()
        pipe.ready()
        await end.retired.wait()


async def _follow(
    pipe: SupervisorPipe, connect: Callable[[], Awaitable[None]], stop: asyncio.Event, webhook: Webhook
) -> None:
    """Take what the parent sends; without a parent, stop in order: nothing would watch this process."""
    try:
        while True:
            await _readable(pipe)
            await connect()
    except EOFError:
        log.error(  # noqa: TRY400 - there is nothing to trace
            "the supervisor ended; stopping", extra={"fields": {"drainSeconds": webhook.drain_seconds}}
        )
        webhook.share_ports()
        stop.set()


@contextmanager
def rare_collections() -> Iterator[ExitStack]:
    """Let the collector run rarely until the yielded stack is closed.

    Nothing that is loaded at the start is garbage, and walking over it took half of the CPU time. The collector still
    runs, because a worker may wait long for the API server.
    """
    before = gc.get_threshold()
    gc.set_threshold(_LOADING_THRESHOLD, *before[1:])
    with ExitStack() as stack:
        stack.callback(gc.set_threshold, *before)
        yield stack


async def _follow_as_worker(
    pipe: SupervisorPipe, connect: Callable[[], Awaitable[None]], end: WorkerEnd
) -> None:
    """Take what the parent sends; without a parent, serve until the frontend is done."""
    try:
        while True:
            await _readable(pipe)
            await connect()
    except EOFError:
        while end.connected:  # noqa: ASYNC110 - the channel has no event, and this is the end
            await asyncio.sleep(READY_POLL_SECONDS)
        end.retired.set()


async def _readable(pipe: SupervisorPipe) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(pipe.fileno(), readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(pipe.fileno())


class Webhook:
    """The serving half: listeners, limits, callers, health, metrics and certificate."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._certificate = CertificateManager(config.tls)
        self._routers: list[Router] = []
        self._callers = Callers(config)
        self.drain_seconds = config.drain_seconds
        self.listeners: list[Listener] = []
        self.metrics = AdmissionMetrics()
        self.worker_gauges: Callable[[], Awaitable[Mapping[str, float | None]]] | None = None
        self.health = Health()
        self.address = ""
        self.watch_address = ""

    @asynccontextmanager
    async def running(
        self,
        sockets: Sockets,
        answer: routes.Answer,
        trouble: Callable[[], str | None],
        *,
        traced: bool = False,
    ) -> AsyncIterator[Webhook]:
        """Serve; on leaving, finish requests, close the sockets and end."""
        config, metrics = self._config, self.metrics
        gauges.add_certificate(metrics, self._certificate)
        self.health.add(trouble)
        self.health.add(self._certificate.fault)
        watch = routes.watch_routes(self.health, self._render)
        router = Router({}, metrics.internal_error)
        networks = tuple(ipaddress.ip_network(each, strict=False) for each in config.callers.addresses)
        router.connections.limits = fit_descriptors(Limits(networks=networks))
        self._observe(router)
        review = routes.review_routes(
            answer, self._callers, router.connections, config.review_timeout_seconds, traced=traced
        )
        router.add({**review, **watch})
        async with AsyncExitStack() as stack:
            listener = self._listen(stack, sockets.review, router)
            self.address = f"https://{listener.address}"
            if sockets.watch is not None:
                watch_router = Router(watch, metrics.internal_error)
                watch_router.connections.limits = WATCH_LIMITS
                plain = self._listen(stack, sockets.watch, watch_router)
                self.watch_address = f"http://{plain.address}"
                plain.serve(None)
            reload.check(self._certificate, listener, metrics.internal_error)
            checking = reload.keep_checking(self._certificate, listener, metrics.internal_error)
            stack.push_async_callback(_cancel, asyncio.create_task(checking))
            yield self

    async def announce(self, pipe: SupervisorPipe | None = None) -> None:
        """Log why the process is not ready, each reason once, and then, once, that it is."""
        if pipe is not None:
            pipe.ready()
        last_reason = None
        while (reason := self.health.trouble()) is not None:
            if reason != last_reason:
                log.info("not ready", extra={"fields": {"reason": reason}})
                last_reason = reason
            await asyncio.sleep(READY_POLL_SECONDS)
        gc.collect()
        gc.freeze()
        log.info("ready", extra={"fields": {"address": self.address}})

    def begin_stop(self) -> None:
        """Report not ready, and with every response ask the client to use another connection."""
        self.health.stopping = True
        for router in self._routers:
            router.closing = True

    async def drain(self) -> None:
        """Serve on while the endpoint is withdrawn."""
        log.info("stopping", extra={"fields": {"drainSeconds": self.drain_seconds}})
        self.begin_stop()
        await asyncio.sleep(self.drain_seconds)

    def share_ports(self) -> None:
        """Let a successor listen on the same addresses."""
        for listener in self.listeners:
            listener.share_port()

    async def _render(self, accept: str) -> tuple[bytes, str]:
        values = await self.worker_gauges() if self.worker_gauges is not None else {}
        with self.metrics.with_values(values):
            return self.metrics.render(accept)

    def _observe(self, router: Router) -> None:
        """Add the gauges of the connections of the review port."""
        connections, callers = router.connections, self._callers
        self.metrics.gauge("weightlock_connections_open", lambda: connections.open)
        self.metrics.gauge("weightlock_connections_silent", lambda: connections.silent)
        self.metrics.read_rejected = lambda: {
            "no_room": connections.rejected,
            "header_timeout": connections.timed_out,
            "unauthenticated": callers.rejected,
            "rate": callers.limited,
        }

    def _listen(self, stack: AsyncExitStack, listening: socket, router: Router) -> Listener:
        self._routers.append(router)
        listener = Listener(listening, Server(router))
        self.listeners.append(listener)
        stack.push_async_callback(listener.close, self._config.review_timeout_seconds)
        return listener


def _stop_event() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop if it is available; it halves the cost of TLS and sockets."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - absent on Windows

    return uvloop.new_event_loop
