"""Health and metrics over plain HTTP, for a process that serves nothing else."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from webhook.server.http import routes
from webhook.server.http.connections import WATCH_LIMITS
from webhook.server.http.listener import Listener
from webhook.server.http.server import Router, Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from socket import socket

    from webhook.server.http.health import Health
    from webhook.server.metrics.registry import Registry

_CLOSE_SECONDS = 2.0


@asynccontextmanager
async def metrics_endpoint(
    listening: socket, health: Health, metrics: Registry, internal_error: Callable[[], None]
) -> AsyncIterator[str]:
    """Serve /healthz, /readyz and /metrics on a socket from `bind`; yield the address as a URL."""

    async def render(accept: str) -> tuple[bytes, str]:
        return metrics.render(accept)

    router = Router(routes.watch_routes(health, render), internal_error)
    router.connections.limits = WATCH_LIMITS
    listener = Listener(listening, Server(router))
    listener.serve(None)
    try:
        yield f"http://{listener.address}"
    finally:
        await listener.close(_CLOSE_SECONDS)
