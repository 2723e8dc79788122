from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from webhook.keys.http_body import TooLargeError, read_body


@pytest.fixture
async def answer():
    """An HTTP answer whose body comes in two pieces of five bytes."""

    async def handle(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"01234")
        await asyncio.sleep(0.02)
        await response.write(b"56789")
        return response

    app = web.Application()
    app.router.add_get("/", handle)
    async with (
        TestServer(app) as server,
        ClientSession() as session,
        session.get(server.make_url("/")) as got,
    ):
        yield got


async def test_all_pieces_are_read(answer):
    assert await read_body(answer.content, 10) == b"0123456789"


@pytest.mark.parametrize("limit", [4, 9])
async def test_more_than_the_limit_is_refused(answer, limit):
    with pytest.raises(TooLargeError, match=f"more than {limit} bytes"):
        await read_body(answer.content, limit)
