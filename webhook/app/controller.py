"""Assembles the controller: its election, its steps, its audit log and detection, and its metrics."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from webhook.api.config import Config
from webhook.app import controller_metrics
from webhook.app.audit import ControllerLog, LogsDirectory, audit_log, log_keys
from webhook.app.configuration import read_config
from webhook.app.errors import UsageError
from webhook.app.expected import expected_webhooks
from webhook.app.signing import load_signing
from webhook.server import logs
from webhook.server.http.listener import ListenError, bind
from webhook.server.metrics.endpoint import metrics_endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from webhook.app.detection import DetectionStats
    from webhook.audit.writer import LogWriter
    from webhook.cluster.controller.run import Controller
    from webhook.core.access import Signer, Verifier
    from webhook.core.detection.alert import Alert
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

log = logging.getLogger(__name__)


def run(path: Path) -> int:
    """Run the controller of a configuration file until stopped. Return the exit code. Raises `UsageError`."""
    config = read_config(path, Config)
    expected = expected_webhooks(config.controller.webhooks) if config.controller.webhooks else {}
    if not config.controller.identity:
        identified = config.controller.model_copy(update={"identity": socket.gethostname()})
        config = config.model_copy(update={"controller": identified})
    logs.configure(config.log_level)
    try:
        listening = bind(config.metrics_listen) if config.metrics_listen is not None else None
    except ListenError as error:
        raise UsageError(str(error)) from None
    asyncio.run(_control(config, expected, listening))
    return 0


async def _control(
    config: Config,
    expected: dict[ObjectKey, Document],
    listening: socket.socket | None,
) -> None:
    from webhook.cluster.client.api import ClusterError  # noqa: PLC0415 - the client takes long to import
    from webhook.cluster.controller.run import Controller  # noqa: PLC0415

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with AsyncExitStack() as stack:
            keys = await stack.enter_async_context(_shared_keys(config, stop))
            if stop.is_set():
                return
            signer, verifier = load_signing(config.signing, *keys)
            controller = await stack.enter_async_context(
                Controller.running(config, signer, verifier, expected)
            )
            if (writer := stack.enter_context(audit_log(config.audit, "controller"))) is not None:
                audit = ControllerLog(writer, config.audit)
                controller.stats.record = audit.record
                issued = controller.certificates.kept.made if controller.certificates is not None else {}
                running = audit.run(controller.source, lambda: controller.leader.leading, issued)
                stack.callback(asyncio.create_task(running).cancel)
            detection = await _detection(stack, config, controller, signer, verifier, writer)
            if listening is not None:
                address = await stack.enter_async_context(
                    metrics_endpoint(
                        listening,
                        controller_metrics.health(controller),
                        controller_metrics.metrics(controller, detection),
                        controller.internal_error,
                    )
                )
                log.info("serving metrics", extra={"fields": {"address": address}})
            await stop.wait()
    except ClusterError as error:
        raise UsageError(str(error)) from None


async def _detection(
    stack: AsyncExitStack,
    config: Config,
    controller: Controller,
    signer: Signer | None,
    verifier: Verifier,
    writer: LogWriter | None,
) -> DetectionStats | None:
    """Start detection if it is enabled, until the stack closes. Return its figures. Raises `UsageError`."""
    if not config.detection.enabled:
        return None
    if writer is None:
        raise UsageError("detection.enabled needs audit.directory: the rules read the audit log")
    from webhook.app import detection as parts  # noqa: PLC0415 - only if it is enabled
    from webhook.cluster.controller import detection as cluster  # noqa: PLC0415

    settings, api, namespace = config.detection, controller.source.api, config.controller.namespace
    events, log_writer = controller.events, writer

    async def event(alert: Alert, entry: dict[str, Any]) -> None:
        reference = cluster.reference_of(alert, entry, namespace)
        once = f"{alert.key}/{alert.time:.0f}"
        await events.record(reference, "Detection", alert.message, once=once, warning=True)

    async def silences() -> Mapping[str, str]:
        return await cluster.read_silences(api, namespace, settings.silences) if settings.silences else {}

    def record(kind: str, data: Mapping[str, Any], subject: str) -> None:
        log_writer.submit(log_writer.entry(kind, data, subject=subject))

    logs = LogsDirectory(config.audit.directory)
    detection = parts.Detection(
        settings,
        parts.shipped_or(settings.rules),
        logs.path,
        log_keys(config.audit),
        cluster.StateStore(api, namespace, settings.state, signer, verifier),
        parts.Outputs(record, event, controller.notifier.send, silences),
        refresh=logs.refresh,
    )
    stack.push_async_callback(detection.close)
    stack.callback(asyncio.create_task(detection.run(lambda: controller.leader.leading)).cancel)
    return detection.stats


@asynccontextmanager
async def _shared_keys(config: Config, stop: asyncio.Event) -> AsyncIterator[tuple[bytes, bytes]]:
    """Wait for the shared keys and maintain them while the context is open; yield the signing and the stamp key.

    A key is empty if it comes from a file, or if the process stops first.
    """
    from webhook.cluster.client.api import KubeApi  # noqa: PLC0415 - the client takes long to import
    from webhook.cluster.controller.keys import Keys  # noqa: PLC0415
    from webhook.cluster.controller.secrets import Secrets  # noqa: PLC0415

    settings = config.controller.keys
    if not settings.signing and not settings.challenge and not settings.stamp:
        yield b"", b""
        return
    api = await KubeApi.connect(config.cluster)
    keys = Keys(Secrets(api, config.controller.namespace), settings)
    stopping = asyncio.create_task(stop.wait())
    keeping = asyncio.create_task(keys.filled())
    try:
        await asyncio.wait({stopping, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            keeping.result()
            keeping = asyncio.create_task(keys.watch())
        yield keys.signing, keys.stamp
    finally:
        for task in (stopping, keeping):
            task.cancel()
        await asyncio.gather(stopping, keeping, return_exceptions=True)
        await api.close()
