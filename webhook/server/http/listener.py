"""A listening socket and its connections: TLS with a certificate that can change while connections stay, or none.

Connections are accepted here and not by the loop's own server (docs/decisions/0017-own-accept-loop.md). Each gets the
TLS context of its moment: a new certificate is a new context, no connection is rejected or broken for it, and a CA
that is no longer trusted is gone at once. A connection that has no room is closed before its handshake.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from webhook.server.http.connections import HEADER_SECONDS

if TYPE_CHECKING:
    import ssl

    from webhook.api.config import Listen
    from webhook.server.http.connections import Connection
    from webhook.server.http.server import Server

_BACKLOG = 1024
_HANDSHAKE_SECONDS = HEADER_SECONDS
_RETRY_SECONDS = 0.1
_LAST_REQUEST_SECONDS = 2.0
_QUIET_SECONDS = 0.25
_POLL_SECONDS = 0.01
_SILENT_POLL_SECONDS = 0.25

log = logging.getLogger(__name__)


class ListenError(OSError):
    """The address cannot be listened on; the message is one line."""


class Listener:
    """One address: ``listening`` comes from `bind` and is closed with the listener."""

    def __init__(self, listening: socket.socket, server: Server) -> None:
        self._server = server
        self._socket = listening
        self._context: ssl.SSLContext | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """``host:port`` as bound, with the actual port if 0 was requested."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def serve(self, context: ssl.SSLContext | None) -> None:
        """Accept connections, with TLS if a context is given; called again, new connections get the new context."""
        self._context = context
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._accept(), name="accept"),
                asyncio.create_task(self._close_silent(), name="close silent connections"),
            ]

    def share_port(self) -> None:
        """Let another process of the same user listen on the address, too: this one is about to stop."""
        if hasattr(socket, "SO_REUSEPORT"):
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)

    async def close(self, seconds: float) -> None:
        """Stop accepting, let requests finish within so many seconds, and close every connection.

        A new connection has a request on its way, so it gets a moment to send it. A kept connection may have one: while
        requests arrive, each ends its connection with its response. The idle ones are closed once no request came for a
        moment. Closing a connection under a request would be a failed admission.
        """
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._accept_pending()
        self._socket.close()
        self._server.router.closing = True
        end = time.monotonic() + min(seconds, _LAST_REQUEST_SECONDS)
        while self._may_get_requests() and time.monotonic() < end:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(_POLL_SECONDS)
        for task in tuple(self._handshakes):
            task.cancel()
        self._server.pre_shutdown()
        await self._server.shutdown(seconds)

    def _may_get_requests(self) -> bool:
        """Whether a request is likely to be on its way."""
        router = self._server.router
        if self._handshakes or router.connections.silent:
            return True
        return bool(self._server.connections) and time.monotonic() - router.last_request < _QUIET_SECONDS

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._socket)
            except OSError as error:
                # Too many open files, or a client that left before it was accepted.
                log.warning("accept", extra={"fields": {"reason": error.strerror or str(error)}})
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self._admit(connection, peer[0] if isinstance(peer, tuple) else "")

    def _accept_pending(self) -> None:
        """Accept the connections that the kernel has accepted for this process."""
        with suppress(OSError):
            while True:
                connection, peer = self._socket.accept()
                connection.setblocking(False)
                self._admit(connection, peer[0] if isinstance(peer, tuple) else "")

    async def _close_silent(self) -> None:
        while True:
            await asyncio.sleep(_SILENT_POLL_SECONDS)
            self._server.router.connections.close_silent()

    def _admit(self, accepted: socket.socket, address: str) -> None:
        connections = self._server.router.connections
        connection = connections.take(address, accepted.close)
        if connection is None:
            # Without lingering: the client gets a reset at once, and the kernel keeps nothing of it.
            with suppress(OSError):
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            accepted.close()
            return
        handshake = asyncio.create_task(self._handshake(accepted, connection))
        connection.close = handshake.cancel
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)

    async def _handshake(self, accepted: socket.socket, connection: Connection) -> None:
        """Shake hands; a failure concerns the client only."""
        context = self._context
        connected = False

        def protocol() -> asyncio.Protocol:
            nonlocal connected
            connected = True
            return self._server.protocol(connection)

        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                protocol,
                accepted,
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if context is not None else None,
            )
        except (OSError, ValueError) as error:
            log.debug("handshake", extra={"fields": {"reason": str(error)[:200]}})
            self._server.router.connections.release(connection)
        except asyncio.CancelledError:
            self._server.router.connections.release(connection)
            accepted.close()
            raise
        else:
            if not connection.counted:
                transport.close()


def bind(listen: Listen) -> socket.socket:
    """Return a listening socket for an address. Raises `ListenError`.

    Another process may listen on it that is about to stop and shares the port (`Listener.share_port`).
    """
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
        _bind(bound, address)
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise ListenError(
            f"cannot listen on {listen.host}:{listen.port}: {error.strerror or error}"
        ) from None
    bound.setblocking(False)
    return bound


def _bind(bound: socket.socket, address: object) -> None:
    try:
        bound.bind(address)  # type: ignore[arg-type] # from getaddrinfo
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not hasattr(socket, "SO_REUSEPORT"):
            raise
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)  # type: ignore[arg-type] # from getaddrinfo
