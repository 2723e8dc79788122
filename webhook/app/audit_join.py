"""Join the API server's audit log: follow its file, or receive its webhook backend, and write a log of its own."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import orjson

from webhook.app.audit import audit_log
from webhook.app.errors import UsageError
from webhook.audit.errors import NotLoggedError
from webhook.audit.kubernetes import Follower, load_position, store_position
from webhook.core.audit.kubernetes import KIND, EventError, event_data, subject_of
from webhook.server.audit_backend import audit_backend

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from pathlib import Path

    from webhook.api.audit import AuditSettings
    from webhook.audit.writer import LogWriter

COMPONENT = "apiserver"
_BATCH = 500
_POLL_SECONDS = 0.5
_LOG_SECONDS = 30.0

log = logging.getLogger(__name__)


class Joiner:
    """Writes events of the API server to a log."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self.rejected = 0

    async def add(self, events: Iterable[Any]) -> None:
        """Write events and wait until they are in a signed checkpoint. What is not an event is counted.

        Raises:
            NotLoggedError: the log could not be written; the events must be sent again.
        """
        entries = []
        for document in events:
            try:
                data = event_data(document)
            except EventError as error:
                self.rejected += 1
                log.warning("not an audit event", extra={"fields": {"reason": str(error)}})
                continue
            if data is not None:
                identifier = f"{data['auditID']}/{data['stage']}"
                entries.append(
                    self._writer.entry(KIND, data, identifier=identifier, subject=subject_of(data))
                )
        if not all(map(self._writer.submit, entries[:-1])):
            raise NotLoggedError("the queue of the audit log is full")
        if entries:
            await self._writer.append(entries[-1], _LOG_SECONDS)

    def gap(self, detail: str) -> None:
        """Write that events are missing."""
        self._writer.submit(self._writer.entry("log", {"event": "gap", "detail": detail}))


async def follow(settings: AuditSettings, path: Path, stop: asyncio.Event, *, once: bool = False) -> int:
    """Follow a file until stopped; with ``once``, until its end. Return the number of lines that were no events.

    Events are written at least once: after a kill, those since the last checkpoint are written again.
    Raises `UsageError` and `AuditError`.
    """
    with audit_log(settings, COMPONENT) as writer:
        if writer is None:
            raise UsageError("audit.directory is required")
        if isinstance(writer.place, str):
            raise UsageError(
                "audit join --kubernetes-audit needs a directory: it stores its position beside the log"
            )
        joiner, state = Joiner(writer), writer.place / "index" / "kubernetes.json"
        follower, losses = Follower(path, load_position(state)), 0
        try:
            while True:
                lines = await asyncio.to_thread(_take, follower)
                if follower.missed + follower.too_long > losses:
                    losses = follower.missed + follower.too_long
                    joiner.gap("a rotated file is gone, or a line is too long")
                if lines:
                    await _retry(joiner, lines, stop)
                    store_position(state, follower.position)
                elif once or stop.is_set():
                    return joiner.rejected
                else:
                    await _wait(stop)
                if stop.is_set():
                    return joiner.rejected
        finally:
            follower.close()


def _take(follower: Follower) -> list[bytes]:
    lines = []
    for line in follower.lines():
        lines.append(line)
        if len(lines) == _BATCH:
            break
    return lines


async def _retry(joiner: Joiner, lines: list[bytes], stop: asyncio.Event) -> None:
    """Write the lines, and try again while the log cannot be written."""
    documents = [_parsed(line) for line in lines]
    while True:
        try:
            await joiner.add(documents)
        except NotLoggedError as error:
            log.warning("cannot write audit events: %s", error)
            if stop.is_set():
                raise
            await _wait(stop)
        else:
            return


def _parsed(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


async def _wait(stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_POLL_SECONDS):
            await stop.wait()
    except TimeoutError:
        pass


async def receive(
    settings: AuditSettings, address: tuple[str, int], context: ssl.SSLContext, stop: asyncio.Event
) -> None:
    """Receive the API server's webhook backend over mutual TLS until stopped. Raises `UsageError`."""
    with audit_log(settings, COMPONENT) as writer:
        if writer is None:
            raise UsageError("audit.directory is required")
        try:
            async with audit_backend(address, context, Joiner(writer).add):
                log.info(
                    "receiving audit events", extra={"fields": {"address": f"{address[0]}:{address[1]}"}}
                )
                await stop.wait()
        except OSError as error:
            raise UsageError(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}"
            ) from None
