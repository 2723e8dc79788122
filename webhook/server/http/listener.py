"""A listening socket and what is served on it: TLS with a certificate that can change while connections go on, or none.

Connections are accepted here, not by the loop's own server, so that each gets the TLS context of its moment: a new
certificate is a new context, no connection is refused or broken for it, and an authority that is no longer believed is
gone at once. How many connections there may be is bounded here, too.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from webhook.api.config import Listen
    from webhook.server.http.server import Server

MAX_CONNECTIONS = 4096
_BACKLOG = 1024
_HANDSHAKE_SECONDS = 10.0
_TROUBLE_SECONDS = 0.1
_LAST_REQUEST_SECONDS = 2.0
_QUIET_SECONDS = 0.25
_LOOK_SECONDS = 0.01

log = logging.getLogger(__name__)


class ListenError(OSError):
    """The address cannot be listened on; the message is one line."""


class Listener:
    """One address: ``listening`` comes from `bind` and is closed with the listener."""

    def __init__(self, listening: socket.socket, server: Server) -> None:
        self._server = server
        self._socket = listening
        self._context: ssl.SSLContext | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._greeting: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """``host:port`` as bound, with the port that was given where 0 was asked for."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def serve(self, context: ssl.SSLContext | None) -> None:
        """Accept connections, with TLS where a context is given; again: new connections get the new context."""
        self._context = context
        if self._accepting is None:
            self._accepting = asyncio.create_task(self._accept(), name="accept")

    async def close(self, seconds: float) -> None:
        """Stop accepting, let what was begun finish within so many seconds, and close every connection.

        A connection that was just made has a request on its way, so it is given a moment to bring it. One that is kept
        may have: while requests come, each of them ends its connection with its answer, and the idle rest is closed
        once nothing was asked for a moment. Closed under a request, a connection is a failed admission.
        """
        if self._accepting is not None:
            self._accepting.cancel()
            with suppress(asyncio.CancelledError):
                await self._accepting
            self._accept_those_in_line()
        self._socket.close()
        self._server.router.closing = True
        end = time.monotonic() + min(seconds, _LAST_REQUEST_SECONDS)
        while self._may_be_asked() and time.monotonic() < end:  # noqa: ASYNC110 - no event says so
            await asyncio.sleep(_LOOK_SECONDS)
        for task in tuple(self._greeting):
            task.cancel()
        self._server.pre_shutdown()
        await self._server.shutdown(seconds)

    def _may_be_asked(self) -> bool:
        """Whether a request is likely to be on its way."""
        router = self._server.router
        if self._greeting or router.fresh:
            return True
        return bool(self._server.connections) and time.monotonic() - router.asked < _QUIET_SECONDS

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._socket)
            except OSError as error:
                # Too many open files, or a caller that left before it was let in.
                log.warning("accept", extra={"fields": {"why": error.strerror or str(error)}})
                await asyncio.sleep(_TROUBLE_SECONDS)
                continue
            self._admit(connection)

    def _accept_those_in_line(self) -> None:
        """Let in whoever connected while the kernel still took connections for us."""
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                connection.setblocking(False)
                self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        if len(self._greeting) + len(self._server.connections) >= MAX_CONNECTIONS:
            connection.close()
            return
        greeting = asyncio.create_task(self._greet(connection))
        self._greeting.add(greeting)
        greeting.add_done_callback(self._greeting.discard)

    async def _greet(self, connection: socket.socket) -> None:
        """The handshake; what fails in it is the caller's concern."""
        context = self._context
        seconds = _HANDSHAKE_SECONDS if context is not None else None
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                self._server, connection, ssl=context, ssl_handshake_timeout=seconds
            )
        except (OSError, ValueError) as error:
            log.debug("handshake", extra={"fields": {"why": str(error)[:200]}})


def bind(listen: Listen) -> socket.socket:
    """A listening socket for an address. Raises `ListenError`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ListenError(f"cannot listen on {listen.host}: {error.strerror or error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise ListenError(
            f"cannot listen on {listen.host}:{listen.port}: {error.strerror or error}"
        ) from None
    bound.setblocking(False)
    return bound
