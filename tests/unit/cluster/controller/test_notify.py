"""Notices on their way: signed, tried again, and never in the way of anything else."""

import asyncio
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest
from aiohttp import web

from webhook.api.config import Receiver
from webhook.cluster.controller import notify
from webhook.cluster.controller.notify import Notifier, packed
from webhook.core.access.notices import Notice

NEWS = Notice("granted", "alice <may> now", "r1", "model atlas", "alice", "2/2", "2026-11-02T17:00:00Z")


@pytest.fixture
async def receiver():
    """A receiver that answers with the statuses it is given, 200 once they are used up."""
    got, statuses = [], []

    async def take(request):
        got.append((dict(request.headers), await request.read()))
        return web.Response(status=statuses.pop(0) if statuses else 200, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/hook", got, statuses
    await runner.cleanup()


async def sent(receivers, got, count):
    notifier = Notifier(receivers, pause=0.01)
    task = asyncio.create_task(notifier.run())
    notifier.send(NEWS)
    async with asyncio.timeout(5):
        while len(got) < count:  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_json_is_signed_with_the_time_and_slack_gets_its_form(receiver, tmp_path):
    url, got, _ = receiver
    (tmp_path / "secret").write_bytes(b"key\n")
    signed = Receiver(name="siem", url=url, secret_file=str(tmp_path / "secret"))
    await sent([signed, Receiver(name="chat", url=url, format="slack")], got, 2)
    by_form = {"text" in json.loads(body): (headers, body) for headers, body in got}
    headers, body = by_form[False]
    message = headers["X-Weightlock-Timestamp"].encode() + b"." + body
    assert (
        headers["X-Weightlock-Signature"] == "sha256=" + hmac.new(b"key", message, hashlib.sha256).hexdigest()
    )
    assert json.loads(body)["event"] == "granted"
    assert json.loads(by_form[True][1]) == {"text": "alice &lt;may&gt; now"}


async def test_a_receiver_that_fails_is_tried_again_and_then_given_up(receiver):
    url, got, statuses = receiver
    statuses += [500, 302]
    await sent([Receiver(name="a", url=url)], got, 3)
    assert len(got) == 3
    got.clear()
    statuses += [500] * 9
    await sent([Receiver(name="a", url=url), Receiver(name="nobody", url="http://127.0.0.1:1/")], got, 3)
    assert len(got) == 3


def test_a_missing_secret_is_an_error_and_not_an_unsigned_notice(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        packed(
            Receiver(name="a", url="http://x", secret_file=str(tmp_path / "nowhere")), NEWS, datetime.now(UTC)
        )


async def test_nothing_waits_for_ever(monkeypatch):
    monkeypatch.setattr(notify, "_WAITING", 2)
    notifier = Notifier([Receiver(name="a", url="http://127.0.0.1:1/")])
    for _ in range(9):
        notifier.send(NEWS)
    assert notifier._queue.qsize() == 2
    silent = Notifier([])
    silent.send(NEWS)
    assert silent._queue.empty()
