"""What a child reports to its parent."""

import asyncio
import contextlib

import pytest
from harness.waiting import slowness

from webhook.server.process import heartbeat


class Pipe:
    def __init__(self):
        self.messages = []

    def beat(self):
        self.messages.append("beat")

    def request_replacement(self):
        self.messages.append("replace")


async def beats(pipe, number):
    """Wait for so many more beats."""
    end = pipe.messages.count("beat") + number
    async with asyncio.timeout(20 * slowness()):
        while pipe.messages.count("beat") < end:  # noqa: ASYNC110 - a pipe has no event
            await asyncio.sleep(0.001)


@pytest.fixture
async def messages(monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(heartbeat, "_CHECK_EVERY", 5)

    async def listen(limit, memory=100.0):
        monkeypatch.setattr(heartbeat, "memory_mib", lambda: memory)
        pipe = Pipe()
        task = asyncio.create_task(heartbeat.beat(pipe, lambda: limit))
        await beats(pipe, 30)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return pipe.messages

    return listen


@pytest.mark.parametrize(("limit", "requests"), [(0, False), (200, False), (50, True)])
async def test_it_requests_a_successor_when_it_is_too_large(messages, limit, requests):
    words = await messages(limit)
    assert words.count("beat") > 10
    assert ("replace" in words) is requests
    if requests:
        assert words.count("beat") > 3 * words.count("replace")


@pytest.mark.parametrize(("size", "after", "releases"), [(140, 140, 0), (400, 120, 1), (400, 400, 1)])
async def test_a_process_that_has_grown_returns_its_free_memory_once(monkeypatch, size, after, releases):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(heartbeat, "_CHECK_EVERY", 1)
    sizes, released, pipe = [size], [], Pipe()

    def release():
        released.append(sizes[-1])
        sizes.append(after)

    monkeypatch.setattr(heartbeat, "memory_mib", lambda: sizes[-1])
    monkeypatch.setattr(heartbeat, "release_memory", release)
    task = asyncio.create_task(heartbeat.beat(pipe, lambda: 0.0, lambda: 100.0))
    await beats(pipe, 5)
    assert len(released) == releases
    # It grows again, from what it holds now.
    sizes.append(after + 100.0)
    await beats(pipe, 5)
    assert len(released) == releases + 1
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert "replace" not in pipe.messages


def test_the_default_limit_is_above_the_size_when_ready():
    assert heartbeat.default_limit(100) > 200


def test_memory_equals_the_kernels_figure():
    assert 10 < heartbeat.memory_mib() < 10_000
    heartbeat.release_memory()


async def test_counts_are_saved_again_and_again(monkeypatch):
    monkeypatch.setattr(heartbeat, "SAVE_SECONDS", 0.001)
    enough = asyncio.Event()
    saved = []

    def save():
        saved.append(1)
        if len(saved) == 3:
            enough.set()

    task = asyncio.create_task(heartbeat.save_counters(save))
    await asyncio.wait_for(enough.wait(), 10 * slowness())
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
