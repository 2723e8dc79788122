"""What a child tells its parent."""

import asyncio
import contextlib

import pytest

from webhook.server.process import heartbeat


class SupervisorPipe:
    def __init__(self):
        self.said = []

    def beat(self):
        self.said.append("beat")

    def ask_to_be_replaced(self):
        self.said.append("replace")


@pytest.fixture
async def said(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(heartbeat, "_WEIGH_EVERY", 5)

    async def listen(most, memory=100.0):
        monkeypatch.setattr(heartbeat, "memory_mib", lambda: memory)
        lifeline = SupervisorPipe()
        task = asyncio.create_task(heartbeat.keep_beating(lifeline, most))
        await asyncio.sleep(0.1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return lifeline.said

    return listen


@pytest.mark.parametrize(("most", "asks"), [(0, False), (200, False), (50, True)])
async def test_it_asks_to_be_replaced_when_it_is_too_large(said, most, asks):
    words = await said(most)
    assert words.count("beat") > 10
    assert ("replace" in words) is asks
    if asks:
        assert words.count("beat") > 3 * words.count("replace")


def test_memory_is_what_the_kernel_says():
    assert 10 < heartbeat.memory_mib() < 10_000


async def test_counts_are_saved_again_and_again(monkeypatch):
    monkeypatch.setattr(heartbeat, "SAVE_SECONDS", 0.001)
    enough = asyncio.Event()
    saved = []

    def save():
        saved.append(1)
        if len(saved) == 3:
            enough.set()

    task = asyncio.create_task(heartbeat.keep_saving(save))
    await asyncio.wait_for(enough.wait(), 10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
