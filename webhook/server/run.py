"""Starts the admission webhook, keeps it going, and stops it in order when told to.

The order of a stop: say not ready, serve on while the endpoint is withdrawn, refuse new connections, finish what is
under way, leave. Where snapshots come from is the caller's choice; this module knows only their interface.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from webhook.server import logs
from webhook.server.admission import AdmissionService
from webhook.server.admission_queue import Gate
from webhook.server.http import routes as endpoints
from webhook.server.http.health import Health, snapshot_check
from webhook.server.http.listener import Listener, bind
from webhook.server.http.server import Router, Server
from webhook.server.metrics import gauges
from webhook.server.metrics.metrics import AdmissionMetrics
from webhook.server.process import heartbeat
from webhook.server.tls import reload
from webhook.server.tls.certificates import CertificateKeeper
from webhook.server.tracing import Tracer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from socket import socket

    from webhook.api.config import Config
    from webhook.core.access import Signer
    from webhook.core.admission.provider import SnapshotProvider
    from webhook.server.http.server import Route
    from webhook.server.process.supervisor import Lifeline

    OpenSource = Callable[[Config], AbstractAsyncContextManager[SnapshotProvider]]

READY_POLL_SECONDS = 0.02

log = logging.getLogger(__name__)


class Sockets(NamedTuple):
    """What a webhook listens on; ``watch`` is plain and may be absent."""

    review: socket
    watch: socket | None

    @classmethod
    def bind(cls, config: Config) -> Sockets:
        """The sockets a configuration asks for. Raises `ListenError`."""
        watch = bind(config.metrics_listen) if config.metrics_listen is not None else None
        return cls(bind(config.listen), watch)

    @classmethod
    def of(cls, config: Config, lifeline: Lifeline | None) -> Sockets:
        """The sockets of the workers before this one, or new ones that are kept for those to come."""
        if lifeline is None:
            return cls.bind(config)
        if lifeline.sockets:
            review, *others = lifeline.sockets
            return cls(review, others[0] if others else None)
        found = cls.bind(config)
        lifeline.keep([bound for bound in found if bound is not None], config.review_timeout_seconds)
        return found


def serve(
    config: Config,
    open_source: OpenSource,
    signer: Signer | None = None,
    lifeline: Lifeline | None = None,
) -> None:
    """Run the webhook until SIGTERM or SIGINT; with a ``lifeline``, as one worker of a `Supervisor`.

    Raises `ListenError` where an address is taken, `TracingUnavailableError`, and whatever ``open_source`` raises.
    """
    logs.configure(config.log_level)
    sockets = Sockets.of(config, lifeline)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config, sockets, open_source, signer, lifeline))


async def _serve(
    config: Config,
    sockets: Sockets,
    open_source: OpenSource,
    signer: Signer | None,
    lifeline: Lifeline | None,
) -> None:
    told = asyncio.Event()
    drain_seconds = config.drain_seconds
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)

    def leave() -> None:
        # Another child answers already, on the same sockets.
        nonlocal drain_seconds
        drain_seconds = 0.0
        told.set()

    async with AsyncExitStack() as stack:
        if lifeline is not None:
            loop.add_signal_handler(signal.SIGUSR1, leave)
            beating = asyncio.create_task(heartbeat.keep_beating(lifeline, config.worker_memory_limit_mib))
            stack.push_async_callback(_cancel, beating)
        source = await stack.enter_async_context(open_source(config))
        webhook = Webhook(config, source, signer)
        if lifeline is not None:
            webhook.metrics.restarts = lifeline.restarts
            webhook.metrics.share(lifeline.slot, lifeline.other_slots)
            # Once more when the last request is answered, for whoever goes on from here.
            stack.callback(webhook.metrics.save)
            saving = asyncio.create_task(heartbeat.keep_saving(webhook.metrics.save))
            stack.push_async_callback(_cancel, saving)
        await stack.enter_async_context(webhook.running(sockets))
        announcing = asyncio.create_task(webhook.announce(lifeline))
        await told.wait()
        await _cancel(announcing)
        log.info("stopping", extra={"fields": {"drainSeconds": drain_seconds}})
        webhook.begin_stop()
        await asyncio.sleep(drain_seconds)
    log.info("stopped")


class Webhook:
    """One webhook process: its listeners, health, metrics and certificate."""

    def __init__(self, config: Config, source: SnapshotProvider, signer: Signer | None = None) -> None:
        self._config = config
        self._signer = signer
        self._source = source
        self._certificate = CertificateKeeper(config.tls)
        self._routers: list[Router] = []
        self.listeners: list[Listener] = []
        self.metrics = AdmissionMetrics()
        self.health = Health()
        self.address = ""
        self.watch_address = ""

    @asynccontextmanager
    async def running(self, sockets: Sockets) -> AsyncIterator[Webhook]:
        """Serve; on leaving, finish what is under way, close the sockets and stop."""
        config, metrics = self._config, self.metrics
        gate = Gate(waiting_limit=config.max_waiting_reviews, asking_limit=config.max_concurrent_reviews)
        gauges.of_webhook(metrics, config, self._source, self._certificate, gate)
        self.health.add(snapshot_check(self._source))
        self.health.add(self._certificate.fault)
        tracer = Tracer.of(config.tracing, "webhook")
        service = AdmissionService(
            self._source,
            gate,
            metrics,
            seconds=config.review_timeout_seconds,
            signer=self._signer,
            tracer=tracer,
            help_url=config.settings.help_url,
        )
        watch = endpoints.watch_routes(self.health, metrics)
        is_trusted = endpoints.caller_check(config.tls.client_ca, config.tls.client_names)
        review = endpoints.review_routes(
            service.mutate, service.validate, is_trusted, traced=tracer is not None
        )
        async with AsyncExitStack() as stack:
            if tracer is not None:
                stack.push_async_callback(asyncio.to_thread, tracer.close)
            listener = self._listen(stack, sockets.review, {**review, **watch})
            self.address = f"https://{listener.address}"
            if sockets.watch is not None:
                plain = self._listen(stack, sockets.watch, watch)
                self.watch_address = f"http://{plain.address}"
                plain.serve(None)
            reload.look(self._certificate, listener, metrics.internal_error)
            keeping = reload.keep_looking(self._certificate, listener, metrics.internal_error)
            stack.push_async_callback(_cancel, asyncio.create_task(keeping))
            yield self

    async def announce(self, lifeline: Lifeline | None = None) -> None:
        """Say in the log why the process is not ready, each reason once, and then, once, that it is."""
        said = None
        while (trouble := self.health.trouble()) is not None:
            if trouble != said:
                log.info("not ready", extra={"fields": {"why": trouble}})
                said = trouble
            await asyncio.sleep(READY_POLL_SECONDS)
        # What was loaded stays: the collector need not walk over it in the middle of a request.
        gc.collect()
        gc.freeze()
        log.info("ready", extra={"fields": {"address": self.address}})
        if lifeline is not None:
            lifeline.ready()

    def begin_stop(self) -> None:
        """Say not ready, and with every answer ask the caller to come back on another connection."""
        self.health.stopping = True
        for router in self._routers:
            router.closing = True

    def _listen(self, stack: AsyncExitStack, listening: socket, routes: Mapping[str, Route]) -> Listener:
        router = Router(routes, self.metrics.internal_error)
        self._routers.append(router)
        listener = Listener(listening, Server(router))
        self.listeners.append(listener)
        stack.push_async_callback(listener.close, self._config.review_timeout_seconds)
        return listener


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one; it halves the cost of TLS and sockets."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not there on Windows

    return uvloop.new_event_loop
