"""So many steps a second, and none of them made up for."""

import pytest

from webhook.cluster.reports.pace import Pace


class Clock:
    """Time that passes when a user sleeps."""

    def __init__(self):
        self.now = 1000.0
        self.waits = []

    async def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    matches = Clock()
    monkeypatch.setattr("webhook.cluster.reports.pace.asyncio.sleep", matches.sleep)
    monkeypatch.setattr("webhook.cluster.reports.pace.time.monotonic", lambda: matches.now)
    return matches


async def test_steps_take_their_time(clock):
    pace = Pace(200)
    for _ in range(21):
        await pace.step()
    # A step may come as early as the shortest sleep, at the beginning and at the end.
    assert clock.now - 1000 >= 20 / 200 - 0.02


async def test_a_pause_is_not_made_up_for(clock):
    pace = Pace(100)
    for _ in range(5):
        await pace.step()
    clock.now += 60
    clock.waits.clear()
    before = clock.now
    for _ in range(5):
        await pace.step()
    assert clock.now - before >= 0.03
