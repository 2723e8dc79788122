"""HTTP as every Weightlock server speaks it: a table of paths, bounded bodies, and one clear line for each error.

It uses aiohttp's low-level server: the table needs no router, no middleware and no application, which are a large part
of the cost of a small response (docs/decisions/0017-own-accept-loop.md). A handler's fault reaches a client as one
line of text only.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from aiohttp import web

from webhook.server.http.connections import Connections

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from webhook.server.http.connections import Connection

    Handler = Callable[["Call"], Awaitable[web.Response]]

KEEPALIVE_SECONDS = 75.0
_BODY_SECONDS = 5.0
_MAX_BUFFERED = 64 * 1024 * 1024
_MAX_TARGETS = 1024
_JSON = "application/json"
# aiohttp's own name would disclose versions.
_NAME = "weightlock"
_JSON_HEADERS = {"Content-Type": _JSON, "Server": _NAME}

log = logging.getLogger(__name__)


class HttpError(Exception):
    """A response other than 200: a status and one line for the client."""

    def __init__(self, status: int, line: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(line)
        self.status = status
        self.line = line
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Route:
    """The handler of a path. ``max_body`` bounds the body of a request, in bytes."""

    methods: frozenset[str]
    handle: Handler
    max_body: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed request target: its route (None: no such path), and the first value of each query parameter."""

    path: str
    route: Route | None
    query: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Call:
    """One request for a handler."""

    request: web.BaseRequest
    target: Target
    body: bytes


class Router:
    """The handler of a `web.Server`. ``internal_error`` is called for each fault of a handler."""

    def __init__(self, routes: Mapping[str, Route], internal_error: Callable[[], None]) -> None:
        self._routes = dict(routes)
        self._internal_error = internal_error
        self._targets: dict[str, Target] = {}
        self._buffered = 0
        self.closing = False
        self.connections = Connections()
        # When the last request arrived, by the monotonic clock.
        self.last_request = 0.0

    def add(self, routes: Mapping[str, Route]) -> None:
        """Add routes."""
        self._routes.update(routes)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Respond to one request."""
        protocol = request.protocol
        if isinstance(protocol, Protocol):
            protocol.has_request()
        self.last_request = monotonic()
        try:
            response = await self._answer(request)
        except HttpError as error:
            response = text(error.status, error.line, error.headers)
        except Exception:  # a handler's fault is logged and not shown to the client
            log.exception("internal error", extra={"fields": {"path": request.path[:200]}})
            self._internal_error()
            response = text(500, "internal error")
        if self.closing:
            response.force_close()
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        raw = request.raw_path
        target = self._targets.get(raw) or self._target(raw)
        route = target.route
        if route is None:
            raise HttpError(404, f"unknown path; the paths are {', '.join(self._routes)}")
        if request.method not in route.methods:
            allowed = ", ".join(sorted(route.methods))
            raise HttpError(405, f"use {allowed} at {target.path}", {"Allow": allowed})
        body = await self._read(request, route.max_body) if route.max_body else b""
        return await route.handle(Call(request, target, body))

    def _target(self, raw: str) -> Target:
        path, _, query = raw.partition("?")
        values = parse_qs(query[:1024], max_num_fields=16) if query.count("&") < 16 else {}
        target = Target(path, self._routes.get(path), {name: items[0] for name, items in values.items()})
        if len(self._targets) >= _MAX_TARGETS:
            # Clients choose the target, and could fill a cache that only grows.
            self._targets.clear()
        self._targets[raw] = target
        return target

    async def _read(self, request: web.BaseRequest, limit: int) -> bytes:
        """Return the body. Raises `HttpError` 413 if it is too large, 408 if too slow, 503 if too many arrive."""
        content = request.content
        if content.is_eof():
            whole = content.read_nowait()
            if len(whole) > limit:
                raise _too_large(limit)
            return whole
        headers = request.headers
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        if headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # Otherwise aiohttp would assume that the response has begun.
            request.writer.output_size = 0
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while chunk := await content.readany():
                    body += chunk
                    self._buffered += len(chunk)
                    if len(body) > limit:
                        raise _too_large(limit)
                    if self._buffered > _MAX_BUFFERED:
                        raise HttpError(503, "too many large requests at once: retry")
        except TimeoutError:
            raise HttpError(408, f"the body did not arrive within {_BODY_SECONDS:g} seconds") from None
        except web.RequestPayloadError:
            raise HttpError(400, "the body could not be read") from None
        finally:
            self._buffered -= len(body)
        return bytes(body)


class Protocol(web.RequestHandler):
    """aiohttp's connection, with one line of text for bytes that are not an HTTP request, and limits of its own."""

    __slots__ = ("_connection", "_connections")

    def __init__(self, server: Server, connection: Connection) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # None disables the access log of aiohttp
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=1.0,
            auto_decompress=False,
        )
        self._connections = server.router.connections
        self._connection = connection
        connection.close = self.force_close

    def has_request(self) -> None:
        """Note that a whole header has arrived."""
        if self._connection.silent_since is not None:
            self._connections.has_request(self._connection)

    def authenticated(self) -> None:
        """Note that the caller of this connection is known."""
        self._connections.authenticated(self._connection)

    def data_received(self, data: bytes) -> None:
        """Parse, and start the time for a header of which only a part has arrived."""
        super().data_received(data)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._connections.awaits(self._connection)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        self._connections.release(self._connection)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Respond and close. The bytes that were sent are not repeated."""
        del request, exc, message
        response = text(status, "not a valid HTTP request" if status < 500 else "internal error")
        response.force_close()
        return response


class Server(web.Server):
    """A low-level server whose connections are `Protocol`."""

    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self.router = router

    def protocol(self, connection: Connection) -> Protocol:
        """Return the protocol of a new connection."""
        return Protocol(self, connection)


def text(status: int, line: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a response of one line."""
    return web.Response(status=status, text=f"{line}\n", headers={**(headers or {}), "Server": _NAME})


def json_body(body: bytes) -> web.Response:
    """Return a response of JSON that is already bytes."""
    return web.Response(body=body, headers=_JSON_HEADERS)


def require_json(request: web.BaseRequest) -> None:
    """Raise `HttpError` 415 unless the request declares its body as plain JSON."""
    headers = request.headers
    content_type = headers.get("Content-Type", "")
    if content_type != _JSON and content_type.partition(";")[0].strip().lower() != _JSON:
        raise HttpError(415, f"Content-Type must be {_JSON}")
    if "Content-Encoding" in headers:
        raise HttpError(415, "send the body without Content-Encoding")


def _too_large(limit: int) -> HttpError:
    return HttpError(413, f"the body is larger than {limit} bytes")
