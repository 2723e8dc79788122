"""The bounded body of an HTTP response: aiohttp's ``content.read(n)`` returns only the bytes received so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import StreamReader


class TooLargeError(Exception):
    """The body is larger than its reader accepts."""


async def read_body(content: StreamReader, limit: int) -> bytes:
    """All of ``content``, to its end.

    Raises:
        TooLargeError: it is longer than ``limit`` bytes; the rest was not read.
    """
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > limit:
            raise TooLargeError(f"more than {limit} bytes")
    return bytes(body)
