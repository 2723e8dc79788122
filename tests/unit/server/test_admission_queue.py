"""The gate: an ordered, bounded queue, and no request waits for a response that would be too late."""

import asyncio

import pytest
from harness.waiting import slowness

from webhook.server import admission_queue as module
from webhook.server.admission_queue import AdmissionQueue, OverloadedError


@pytest.fixture
async def gate(monkeypatch):
    monkeypatch.setattr(module, "SLICE_SECONDS", 0.0)
    return AdmissionQueue(max_queued=3, max_lookups=2)


def later(seconds=5.0):
    return asyncio.get_running_loop().time() + seconds


async def test_an_idle_gate_is_open():
    gate = AdmissionQueue(max_queued=3, max_lookups=2)
    assert gate.is_open()
    await asyncio.sleep(0)
    assert gate.is_open()


async def test_many_may_pass_in_one_turn_while_the_slice_lasts():
    gate = AdmissionQueue(max_queued=0, max_lookups=2)
    assert all(gate.is_open() for _ in range(100))


async def test_after_the_slice_they_wait_in_order(gate):
    passed = []

    async def pass_through(number):
        if not gate.is_open():
            await gate.wait(later())
        passed.append(number)

    await asyncio.gather(*(pass_through(number) for number in range(4)))
    assert passed == [0, 1, 2, 3]
    assert gate.waiting == 0


async def test_a_line_that_is_full_turns_away_at_once(gate):
    assert gate.is_open()
    waiting = [asyncio.ensure_future(gate.wait(later())) for _ in range(3)]
    await asyncio.sleep(0)
    assert not gate.is_open()
    blocked = AdmissionQueue(max_queued=0, max_lookups=1)
    assert blocked.is_open()
    with pytest.raises(OverloadedError, match="queued already"):
        await blocked.wait(later())
    await asyncio.gather(*waiting)


async def test_a_turn_after_the_timeout_is_an_error(gate):
    assert gate.is_open()
    with pytest.raises(OverloadedError, match="exceeds the admission timeout"):
        await gate.wait(later(-1))


async def test_a_cancelled_request_does_not_block_the_queue(gate):
    assert gate.is_open()
    first = asyncio.ensure_future(gate.wait(later()))
    second = asyncio.ensure_future(gate.wait(later()))
    first.cancel()
    await asyncio.wait_for(second, 1 * slowness())
    assert gate.waiting == 0


async def test_the_gate_opens_again_when_the_line_is_gone(gate):
    assert gate.is_open()
    await asyncio.gather(*(gate.wait(later()) for _ in range(3)))
    for _ in range(3):
        await asyncio.sleep(0)
    assert gate.is_open()


async def test_only_so_many_may_ask_at_once(gate):
    async with gate.lookup(), gate.lookup():
        with pytest.raises(OverloadedError, match="waiting for the API server"):
            async with gate.lookup():
                pytest.fail("one too many")
    async with gate.lookup():
        pass
