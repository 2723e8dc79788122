"""Send notifications to the configured URLs: signed JSON, or Slack's form. The queue is bounded, and a receiver that
is down delays nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.api.config import Receiver
    from webhook.core.access.notices import Notice

_SECONDS = 5.0
_TRIES = 3
_WAITING = 256

log = logging.getLogger(__name__)


class Notifier:
    """Sends in the background; run `run` as a task."""

    def __init__(self, receivers: Iterable[Receiver], *, pause: float = 2.0) -> None:
        self._receivers = list(receivers)
        self._pause = pause
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(_WAITING)

    def send(self, notice: Notice) -> None:
        """Queue a notification. If the queue is full, drop it and log."""
        if not self._receivers:
            return
        try:
            self._queue.put_nowait(notice)
        except asyncio.QueueFull:
            log.warning(
                "notification dropped", extra={"fields": {"request": notice.request, "event": notice.event}}
            )

    async def run(self) -> None:
        """Send until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                notice = await self._queue.get()
                await asyncio.gather(*(self._send(session, receiver, notice) for receiver in self._receivers))

    async def _send(self, session: aiohttp.ClientSession, receiver: Receiver, notice: Notice) -> None:
        why = ""
        for attempt in range(_TRIES):
            try:
                body, headers = packed(receiver, notice, datetime.now(UTC))
                async with session.post(
                    receiver.url, data=body, headers=headers, allow_redirects=False
                ) as answer:
                    if answer.status < 300:
                        return
                    why = f"status {answer.status}"
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                why = type(error).__name__
            await asyncio.sleep(self._pause * (attempt + 1))
        # The URL of a Slack receiver is a secret.
        fields = {"receiver": receiver.name, "event": notice.event, "request": notice.request, "why": why}
        log.warning("cannot send a notification", extra={"fields": fields})


def packed(receiver: Receiver, notice: Notice, now: datetime) -> tuple[bytes, dict[str, str]]:
    """Return body and headers. The signature is HMAC-SHA256 in hexadecimal over ``<timestamp>.<body>``; the timestamp
    is in Unix seconds, so that a receiver can reject old messages.

    Raises:
        OSError: the secret cannot be read.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "weightlock"}
    if receiver.format == "slack":
        return orjson.dumps(notice.as_slack()), headers
    body = orjson.dumps(notice.as_json(now))
    if receiver.secret_file:
        secret = Path(receiver.secret_file).read_bytes().strip()
        moment = str(int(now.timestamp()))
        digest = hmac.new(secret, f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
        headers |= {"X-Weightlock-Timestamp": moment, "X-Weightlock-Signature": f"sha256={digest}"}
    return body, headers
