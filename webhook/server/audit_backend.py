"""The receiving end of the API server's audit webhook backend: an ``EventList`` by POST, over mutual TLS."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from webhook.audit.errors import NotLoggedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

# The API server sends at most 400 events at once by default.
_MAX_BODY_BYTES = 16 * 1024 * 1024


@asynccontextmanager
async def audit_backend(
    address: tuple[str, int], context: ssl.SSLContext, add: Callable[[list[Any]], Awaitable[None]]
) -> AsyncIterator[int]:
    """Serve while the context lasts; yield the port. Raises `OSError` if the address cannot be used.

    The response is 200 once ``add`` returns, and 503 if it raises `NotLoggedError`: then the API server sends the
    events again.
    """

    async def post(request: web.Request) -> web.Response:
        try:
            document = orjson.loads(await request.read())
            items = document["items"] if document.get("kind") == "EventList" else None
        except (orjson.JSONDecodeError, KeyError, AttributeError):
            items = None
        if not isinstance(items, list):
            return web.Response(status=400, text="expected an EventList of audit.k8s.io\n")
        try:
            await add(items)
        except NotLoggedError as error:
            return web.Response(status=503, text=f"{error}\n")
        return web.Response(text="ok\n")

    application = web.Application(client_max_size=_MAX_BODY_BYTES)
    application.router.add_post("/{path:.*}", post)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, *address, ssl_context=context).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
