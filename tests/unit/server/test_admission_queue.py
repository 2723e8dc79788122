"""The gate: in order, a bounded line, and nobody kept waiting for an answer that comes too late."""

import asyncio

import pytest

from webhook.server import admission_queue as module
from webhook.server.admission_queue import Gate, OverloadedError


@pytest.fixture
async def gate(monkeypatch):
    monkeypatch.setattr(module, "SLICE_SECONDS", 0.0)
    return Gate(waiting_limit=3, asking_limit=2)


def later(seconds=5.0):
    return asyncio.get_running_loop().time() + seconds


async def test_an_idle_gate_is_open():
    gate = Gate(waiting_limit=3, asking_limit=2)
    assert gate.open()
    await asyncio.sleep(0)
    assert gate.open()


async def test_many_may_pass_in_one_turn_while_the_slice_lasts():
    gate = Gate(waiting_limit=0, asking_limit=2)
    assert all(gate.open() for _ in range(100))


async def test_after_the_slice_they_wait_in_order(gate):
    passed = []

    async def pass_through(number):
        if not gate.open():
            await gate.wait(later())
        passed.append(number)

    await asyncio.gather(*(pass_through(number) for number in range(4)))
    assert passed == [0, 1, 2, 3]
    assert gate.waiting == 0


async def test_a_line_that_is_full_turns_away_at_once(gate):
    assert gate.open()
    waiting = [asyncio.ensure_future(gate.wait(later())) for _ in range(3)]
    await asyncio.sleep(0)
    assert not gate.open()
    blocked = Gate(waiting_limit=0, asking_limit=1)
    assert blocked.open()
    with pytest.raises(OverloadedError, match="waiting already"):
        await blocked.wait(later())
    await asyncio.gather(*waiting)


async def test_a_turn_that_comes_too_late_is_told(gate):
    assert gate.open()
    with pytest.raises(OverloadedError, match="longer than the API server waits"):
        await gate.wait(later(-1))


async def test_who_left_the_line_does_not_hold_it_up(gate):
    assert gate.open()
    first = asyncio.ensure_future(gate.wait(later()))
    second = asyncio.ensure_future(gate.wait(later()))
    first.cancel()
    await asyncio.wait_for(second, 1)
    assert gate.waiting == 0


async def test_the_gate_opens_again_when_the_line_is_gone(gate):
    assert gate.open()
    await asyncio.gather(*(gate.wait(later()) for _ in range(3)))
    for _ in range(3):
        await asyncio.sleep(0)
    assert gate.open()


async def test_only_so_many_may_ask_at_once(gate):
    async with gate.asking(), gate.asking():
        with pytest.raises(OverloadedError, match="waiting for the API server"):
            async with gate.asking():
                pytest.fail("one too many")
    async with gate.asking():
        pass
