"""So many steps a second, and none of them made up for."""

import time

from webhook.cluster.reports.pace import Pace


async def test_steps_take_their_time():
    pace = Pace(200)
    began = time.monotonic()
    for _ in range(21):
        await pace.step()
    assert time.monotonic() - began >= 20 / 200 * 0.9


async def test_a_pause_is_not_made_up_for(monkeypatch):
    pace = Pace(100)
    waits, clock = [], [1000.0]

    async def sleep(seconds):
        waits.append(seconds)

    monkeypatch.setattr("webhook.cluster.reports.pace.asyncio.sleep", sleep)
    monkeypatch.setattr("webhook.cluster.reports.pace.time.monotonic", lambda: clock[0])
    for _ in range(5):
        await pace.step()
    assert waits[-1] >= 0.02
    clock[0] += 60
    waits.clear()
    for _ in range(5):
        await pace.step()
    assert waits[-1] >= 0.02
