"""Frames between the frontend, which holds the connections, and a worker, which evaluates.

A frame is a head (payload length, kind, request number) and a payload. Both ends belong to one installation and no
other process can reach the socket pair, so a malformed frame is an internal fault and closes the channel.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    Receive = Callable[[int, int, bytes], None]

# From the frontend: a review, a request for metrics, and the end of this worker's service.
REVIEW, METRICS, RETIRE = 1, 2, 3
# From the worker: a response, the reason why the bytes are not a review, that the caller's token is not accepted, its
# state, and its gauges.
RESPONSE, NOT_A_REVIEW, UNAUTHENTICATED, STATE, GAUGES = 11, 12, 13, 14, 15

_HEAD: Final = struct.Struct("<IBQ")
_MAX_PAYLOAD: Final = 16 * 1024 * 1024
_BUFFER_BYTES: Final = 1024 * 1024

log = logging.getLogger(__name__)


class Channel(asyncio.Protocol):
    """One end. ``receive`` gets each frame as (kind, number, payload), ``lost`` reports the end of the other side."""

    def __init__(self, receive: Receive, lost: Callable[[], None]) -> None:
        self._receive = receive
        self._lost = lost
        self._parts: list[bytes] = []
        self._size = 0
        self._needed = _HEAD.size
        self._transport: asyncio.WriteTransport | None = None

    @classmethod
    async def open(cls, end: socket.socket, receive: Receive, lost: Callable[[], None]) -> Channel:
        """Take over a connected socket."""
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        end.setblocking(False)
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_unix_connection(lambda: cls(receive, lost), sock=end)
        return channel

    def send(self, kind: int, number: int, *payload: bytes) -> None:
        """Send one frame; one that cannot be sent any more is dropped, and `lost` follows."""
        if self._transport is not None and not self._transport.is_closing():
            size = sum(map(len, payload))
            self._transport.write(b"".join((_HEAD.pack(size, kind, number), *payload)))

    def close(self) -> None:
        """Close after the frames that were sent."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end of the other side."""
        del exc
        self._transport = None
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Split the stream into frames; a large one is joined once, when it is complete."""
        if self._parts:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        begin, end = 0, len(data)
        while end - begin >= _HEAD.size:
            size, kind, number = _HEAD.unpack_from(data, begin)
            if size > _MAX_PAYLOAD:
                log.error("internal error", extra={"fields": {"reason": "a frame is too large"}})
                self.close()
                return
            stop = begin + _HEAD.size + size
            if stop > end:
                self._needed = stop - begin
                break
            self._receive(kind, number, data[begin + _HEAD.size : stop])
            begin = stop
        else:
            self._needed = _HEAD.size
        if begin < end:
            self._parts.append(data[begin:])
            self._size = end - begin
