"""The broker over HTTPS: invalid requests, overload, and errors that are not disclosed."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from webhook.keys.agent.client import BrokerRefusedError, BrokerUnavailableError
from webhook.server.broker import write_audit

SUPPORT = Path(__file__).resolve().parents[2] / "support"
if str(SUPPORT) not in sys.path:
    sys.path.insert(0, str(SUPPORT))

from keyworld import World, serving  # noqa: E402 -- the path to it is set just above


@pytest.fixture
async def world(tmp_path):
    return await World(tmp_path, datetime.now(UTC)).wrap()


@pytest.fixture
async def served(world, tmp_path):
    async with serving(world, tmp_path) as served:
        yield served


async def test_the_plain_listener_serves_health_and_metrics_and_no_keys(served):
    url = served.server.watch_address
    assert url.startswith("http://127.0.0.1:")
    async with aiohttp.ClientSession() as session:
        for path in ("/healthz", "/readyz", "/metrics"):
            async with session.get(url + path) as response:
                assert response.status == 200, path
        async with session.post(f"{url}/v1/challenge", json={}) as response:
            assert response.status == 404


@pytest.mark.parametrize("path", ["/v1/challenge", "/v1/release", "/v1/renew"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"model": 3}',
        b'{"publicKey": "AAAA"}',
        b'{"surprise": 1}',
        b"\xff",
    ],
)
async def test_an_invalid_request_is_one_line(served, path, body):
    status, answer, headers = await served.raw("POST", path, body)
    document = json.loads(answer)
    assert (status, document["code"]) == (400, "WL320")
    assert document["message"].startswith("the request is malformed: ")
    assert headers["Cache-Control"] == "no-store"


async def test_methods_sizes_and_paths(served):
    assert (await served.raw("GET", "/v1/release"))[0] == 405
    assert (await served.raw("POST", "/v1/other", b"{}"))[0] == 404
    assert (await served.raw("POST", "/v1/release", b"x" * 600_000))[0] == 413
    assert (await served.raw("POST", "/v1/release", b"{}", {"Content-Type": "text/plain"}))[0] == 415
    assert (await served.raw("GET", "/readyz"))[0] == 200
    await served.release()
    metrics = (await served.raw("GET", "/metrics"))[1].decode()
    assert 'weightlock_key_releases_total{code="",result="released"} 1.0' in metrics


async def test_a_fault_of_ours_tells_nothing(served, monkeypatch, caplog):
    async def fault(*_):
        raise RuntimeError("private detail")

    monkeypatch.setattr(served.server._broker, "renew", fault)
    status, answer, _ = await served.raw(
        "POST", "/v1/renew", b'{"model": "m"}', {"Authorization": "Bearer secret-token"}
    )
    assert (status, json.loads(answer)) == (500, {"code": "WL902", "message": "internal error"})
    assert "secret-token" not in caplog.text


async def test_a_cluster_that_does_not_answer_in_time(world, tmp_path):
    async with serving(world, tmp_path, requestTimeoutSeconds=0.2) as served:

        async def hang(question):
            await asyncio.sleep(30)

        world.review_token = hang
        with pytest.raises(
            BrokerUnavailableError, match=r"the API server did not respond to the broker in time \[WL911\]"
        ):
            await served.release()


async def test_more_than_it_can_do_at_once(world, tmp_path):
    async with serving(world, tmp_path, maxConcurrentRequests=1) as served:
        stored, entered = asyncio.Event(), asyncio.Event()
        existing = world.review_token

        async def slow(question):
            entered.set()
            await stored.wait()
            return await existing(question)

        world.review_token = slow
        first = asyncio.create_task(served.release())
        await entered.wait()
        status, answer, headers = await served.raw("POST", "/v1/renew", b'{"model": "m"}')
        assert (status, json.loads(answer)["code"], headers["Retry-After"]) == (503, "WL904", "5")
        stored.set()
        assert (await first)[0]


async def test_an_address_that_proves_nothing_is_limited_and_a_pod_is_not(world, tmp_path):
    async with serving(world, tmp_path, sourceRequestsPerMinute=6) as served:
        for _ in range(6):
            await asyncio.to_thread(served.client().renew, "atlas-70b")
        with pytest.raises(BrokerRefusedError, match="WL325"):
            await asyncio.to_thread(served.client().renew, "other")
        for _ in range(3):
            with pytest.raises(BrokerRefusedError, match="WL322"):
                await asyncio.to_thread(served.client("bad").renew, "atlas-70b")
            assert (await served.raw("POST", "/v1/renew", b"{"))[0] == 400
        for path in ("/v1/challenge", "/v1/renew", "/v1/release"):
            status, answer, headers = await served.raw("POST", path, b"{")
            assert (status, json.loads(answer)["code"], headers["Retry-After"]) == (429, "WL333", "5")
        with pytest.raises(
            BrokerUnavailableError, match=r"too many requests from this address: try again in \d+ s \[WL333\]"
        ):
            await asyncio.to_thread(served.client().renew, "atlas-70b")
        assert (await served.raw("GET", "/readyz"))[0] == 200


def test_an_audit_event_is_a_line_of_the_log(caplog):
    with caplog.at_level("INFO", logger="weightlock.audit"):
        write_audit({"event": "key.release", "result": "refused"})
    assert caplog.records[0].fields == {"event": "key.release", "result": "refused"}


@pytest.mark.parametrize("path", ["/v1/challenge", "/v1/renew"])
async def test_bodies_of_short_messages_are_limited_to_4_kib(served, path):
    assert (await served.raw("POST", path, b'{"model":"' + b"x" * 4096 + b'"}'))[0] == 413


async def test_fields_are_counted_before_the_body_is_parsed(served):
    body = json.dumps({f"f{number}": 1 for number in range(40_000)}).encode()
    started = time.process_time()
    status, answer, _ = await served.raw("POST", "/v1/release", body)
    assert (status, "too many fields" in json.loads(answer)["message"]) == (400, True)
    assert time.process_time() - started < 2


async def test_a_large_body_costs_its_address_more(world, tmp_path):
    async with serving(world, tmp_path, sourceRequestsPerMinute=20) as served:
        body = b'{"model":"' + b"x" * 250_000 + b'"}'
        assert (await served.raw("POST", "/v1/release", body))[0] == 400
        assert (await served.raw("POST", "/v1/release", body))[0] == 429
