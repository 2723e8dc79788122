"""A listening socket and what is served on it: TLS with a certificate that can change while connections go on, or none.

A new certificate takes a new context on the same socket, so no connection is refused or broken when it changes, and an
authority that is no longer believed is gone from the new context.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

    from webhook.api.config import Listen
    from webhook.server.http import Server

_BACKLOG = 1024
_HANDSHAKE_SECONDS = 10.0


class ListenError(OSError):
    """The address cannot be listened on; the message is one line."""


class Listener:
    """One address. `serve` may be called again with another context; then new connections use that."""

    def __init__(self, listen: Listen, server: Server) -> None:
        self._server = server
        self._socket = _bind(listen)
        self._accepting: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """``host:port`` as bound, with the port that was given where 0 was asked for."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def serve(self, context: ssl.SSLContext | None) -> None:
        """Accept connections, with TLS where a context is given."""
        before = self._accepting
        loop = asyncio.get_running_loop()
        self._accepting = await loop.create_server(
            self._server,
            sock=self._socket.dup(),
            backlog=_BACKLOG,
            ssl=context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if context else None,
        )
        if before is not None:
            before.close()

    def stop_accepting(self) -> None:
        """Refuse new connections; those that stand go on."""
        if self._accepting is not None:
            self._accepting.close()
            self._accepting = None
        self._socket.close()

    async def close(self, seconds: float) -> None:
        """Stop accepting, let requests under way finish within so many seconds, and close every connection."""
        self.stop_accepting()
        self._server.pre_shutdown()
        await self._server.shutdown(seconds)


def _bind(listen: Listen) -> socket.socket:
    """A bound and listening socket. Raises `ListenError`."""
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
