"""Reviews on their way through workers that crash, hang or are replaced."""

import asyncio
import socket
from types import SimpleNamespace

import orjson
import pytest
from harness.waiting import slowness

from webhook.core.kube.review import BadReviewError
from webhook.server.http.callers import Caller
from webhook.server.http.routes import UnauthenticatedError
from webhook.server.process import dispatcher as module
from webhook.server.process.dispatcher import Dispatcher
from webhook.server.process.shared_memory import SharedCounters
from webhook.server.process.worker import WorkerEnd


class Worker:
    """A worker of the test's own process; ``behave`` decides about each review."""

    def __init__(self, slot, behave):
        self.slot, self.behave, self.trouble, self.asked = slot, behave, "starting", []
        self.end = WorkerEnd(
            self.answer, lambda: self.trouble or None, lambda: {"weightlock_grants_active": 3.0}
        )

    async def answer(self, phase, body, seconds, *, caller, parent, number):
        self.slot.mark(number)
        self.asked.append((phase, body, caller, parent))
        return await self.behave(self, body, number)

    def ready(self):
        self.trouble = ""
        self.end._report()

    def crash(self):
        self.end._channel._transport.abort()


async def respond(worker, body, number):
    return b"response to " + body


async def hang(worker, body, number):
    await asyncio.sleep(60)


async def crash(worker, body, number):
    worker.crash()
    await asyncio.sleep(60)


@pytest.fixture
async def world(review):
    slots = SharedCounters().slots
    faults = []
    dispatcher = Dispatcher(slots, max_bytes=1_000_000, internal_error=faults.append)

    async def add(behave=respond, slot=0, ready=True):
        worker = Worker(slots[slot], behave)
        ours, theirs = socket.socketpair()
        await worker.end.connect(theirs)
        await dispatcher.connect(ours, slot)
        if ready:
            worker.ready()
            await asyncio.sleep(0.01)
        return worker

    def send(body=None, seconds=5.0, caller=None):
        coroutine = dispatcher.review(
            "validate", body or review(), seconds, caller=caller or Caller(), parent="trace"
        )
        return asyncio.create_task(coroutine)

    yield SimpleNamespace(dispatcher=dispatcher, add=add, send=send, faults=faults)
    dispatcher.close()


async def test_a_review_goes_to_the_worker_and_back(world):
    worker = await world.add()
    caller = Caller(authenticated=True, token="abc")
    assert await world.send(b"x" * 100_000, caller=caller) == b"response to " + b"x" * 100_000
    assert worker.asked == [("validate", b"x" * 100_000, caller, "trace")]


async def test_a_review_waits_for_a_worker(world):
    requests = world.send()
    await asyncio.sleep(0.05)
    assert not requests.done()
    assert world.dispatcher.trouble() == "the worker is starting"
    await world.add()
    assert (await requests).startswith(b"response to ")
    assert world.dispatcher.trouble() is None


async def test_without_a_worker_a_review_is_denied_at_its_deadline(world):
    response = orjson.loads(await world.send(seconds=0.2))["response"]
    assert "[WL903]" in response["status"]["message"]
    assert world.faults == ["WL903"]


async def test_a_worker_that_hangs_is_a_denial_at_the_deadline(world):
    await world.add(hang)
    response = orjson.loads(await world.send(seconds=0.2))["response"]
    assert "[WL905]" in response["status"]["message"]


async def test_reviews_of_a_worker_that_crashed_go_to_the_next(world):
    first = await world.add(hang)
    requests = [world.send() for _ in range(5)]
    await asyncio.sleep(0.05)
    first.crash()
    await asyncio.sleep(0.05)
    await world.add(slot=1)
    assert all(response.startswith(b"response to ") for response in await asyncio.gather(*requests))


async def test_a_review_that_ends_two_workers_is_denied_and_the_others_are_not(world, review):
    poison = review(name="poison")

    async def behave(worker, body, number):
        if body == poison:
            worker.slot.mark(number)
            worker.crash()
        await asyncio.sleep(0.1)
        return b"response to " + body

    await world.add(behave)
    requests = [world.send() for _ in range(3)]
    bad = world.send(poison)
    await asyncio.sleep(0.05)
    await world.add(behave, slot=1)
    await asyncio.sleep(0.05)
    await world.add(behave, slot=2)
    response = orjson.loads(await bad)["response"]
    assert "ended two workers [WL902]" in response["status"]["message"]
    assert all(each.startswith(b"response to ") for each in await asyncio.gather(*requests))


async def test_a_successor_takes_over_from_a_worker_that_is_silent(world, monkeypatch):
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.1)
    await world.add(hang)
    requests = world.send()
    await asyncio.sleep(0.2)
    assert "has not responded" in world.dispatcher.trouble()
    await world.add(slot=1)
    assert (await requests).startswith(b"response to ")


async def test_a_replaced_worker_completes_its_reviews_and_retires(world):
    releases = asyncio.Event()

    async def slow(worker, body, number):
        await releases.wait()
        return b"old"

    first = await world.add(slow)
    requests = world.send()
    await asyncio.sleep(0.05)
    second = await world.add(slot=1)
    assert (await world.send()).startswith(b"response to ")
    assert not first.end.retired.is_set()
    releases.set()
    assert await requests == b"old"
    await asyncio.wait_for(first.end.retired.wait(), 5 * slowness())
    assert not second.end.retired.is_set()


async def test_bytes_that_are_not_a_review_and_tokens_that_are_not_accepted(world):
    async def behave(worker, body, number):
        raise BadReviewError("not JSON") if body == b"bad" else UnauthenticatedError

    await world.add(behave)
    with pytest.raises(BadReviewError, match="not JSON"):
        await world.send(b"bad")
    with pytest.raises(UnauthenticatedError):
        await world.send(b"other")


async def test_too_many_bytes_at_once_are_a_denial(world, review):
    await world.add(hang)
    world.send(review(options={"padding": "x" * 900_000}))
    await asyncio.sleep(0.05)
    response = orjson.loads(await world.send(review(options={"padding": "x" * 900_000})))["response"]
    assert "[WL904]" in response["status"]["message"]


async def test_gauges_of_the_worker(world):
    assert await world.dispatcher.gauges() == {}
    await world.add()
    assert await world.dispatcher.gauges() == {"weightlock_grants_active": 3.0}
