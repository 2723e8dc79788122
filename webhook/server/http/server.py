"""HTTP as every Weightlock server speaks it: a table of paths, bounded bodies, and one clear line for each error.

It is built on aiohttp's low-level server: the table needs no router, no middleware and no application, which are a good
part of the cost of a small answer. No handler's fault reaches a client as anything but a line of text.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Handler = Callable[["Call"], Awaitable[web.Response]]

KEEPALIVE_SECONDS = 75.0
_BODY_SECONDS = 5.0
_MAX_BUFFERED = 64 * 1024 * 1024
_MAX_TARGETS = 1024
_JSON = "application/json"
# Not aiohttp's own, which tells versions to whoever asks.
_NAME = "weightlock"
_JSON_HEADERS = {"Content-Type": _JSON, "Server": _NAME}

log = logging.getLogger(__name__)


class HttpError(Exception):
    """An answer other than 200: a status and one line for whoever asked."""

    def __init__(self, status: int, line: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(line)
        self.status = status
        self.line = line
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a path. ``max_body`` bounds what is read of a request, in bytes."""

    methods: frozenset[str]
    handle: Handler
    max_body: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """A request target seen before: its route (None: no such path), and its query as the first value of each name."""

    path: str
    route: Route | None
    query: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Call:
    """One request as a handler sees it."""

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
        # Connections that have brought no request yet.
        self.fresh: set[object] = set()
        # When the last request came, by the monotonic clock.
        self.asked = 0.0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        self.fresh.discard(request.protocol)
        self.asked = monotonic()
        try:
            response = await self._answer(request)
        except HttpError as error:
            response = text(error.status, error.line, error.headers)
        except Exception:  # a handler's fault is ours to log and not the caller's to read
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
            raise HttpError(404, f"there is nothing at this path; there is {', '.join(self._routes)}")
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
            # The caller chooses the target; a memo that only grows would be theirs to fill.
            self._targets.clear()
        self._targets[raw] = target
        return target

    async def _read(self, request: web.BaseRequest, limit: int) -> bytes:
        """The body. Raises `HttpError` 413 where it is too large, 408 too slow, 503 where too many are coming in."""
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
            # What counts as sent would make aiohttp believe that the answer has begun.
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
    """aiohttp's connection, with one line of text for bytes that are no HTTP request.

    ``fresh`` holds it until its first request comes.
    """

    __slots__ = ("_fresh",)

    def __init__(self, server: Server, fresh: set[object]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # None is how aiohttp is told to keep none
            keepalive_timeout=KEEPALIVE_SECONDS,
            lingering_time=1.0,
            auto_decompress=False,
        )
        self._fresh = fresh

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note it."""
        self._fresh.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        self._fresh.discard(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer and close. What was sent is not repeated: it may be anything."""
        del request, exc, message
        response = text(status, "this is no valid HTTP request" if status < 500 else "internal error")
        response.force_close()
        return response


class Server(web.Server):
    """A low-level server whose connections are `Protocol`."""

    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self.router = router

    def __call__(self) -> web.RequestHandler:
        """A new connection."""
        return Protocol(self, self.router.fresh)


def text(status: int, line: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A response of one line."""
    return web.Response(status=status, text=f"{line}\n", headers={**(headers or {}), "Server": _NAME})


def json_body(body: bytes) -> web.Response:
    """A response of JSON that is already bytes."""
    return web.Response(body=body, headers=_JSON_HEADERS)


def require_json(request: web.BaseRequest) -> None:
    """Raises `HttpError` 415 unless the request says that its body is plain JSON."""
    headers = request.headers
    content_type = headers.get("Content-Type", "")
    if content_type != _JSON and content_type.partition(";")[0].strip().lower() != _JSON:
        raise HttpError(415, f"Content-Type must be {_JSON}")
    if "Content-Encoding" in headers:
        raise HttpError(415, "send the body without Content-Encoding")


def _too_large(limit: int) -> HttpError:
    return HttpError(413, f"the body is larger than {limit} bytes")
