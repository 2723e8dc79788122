from __future__ import annotations

import asyncio

import pytest

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError
from webhook.keys.kms.resilient import ResilientKms, RetryPolicy

POLICY = RetryPolicy(call=0.05, attempts=4, first_pause=1, longest_pause=3, failures_to_open=6, open_for=10)


class Inner:
    def __init__(self, *answers):
        self.answers, self.calls, self.closed = list(answers), 0, False

    async def wrap(self, plaintext, context):
        return await self.unwrap(plaintext, context)

    async def unwrap(self, wrapped, context):
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        if answer == "hang":
            await asyncio.sleep(60)
        return answer

    async def close(self):
        self.closed = True


class Time:
    def __init__(self):
        self.now, self.pauses = 0.0, []

    def clock(self):
        return self.now

    async def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


def guarded(*answers):
    inner, time = Inner(*answers), Time()
    jitter = lambda low, high: high  # noqa: E731
    return (
        ResilientKms(inner, "vault://t/k", POLICY, clock=time.clock, sleep=time.sleep, jitter=jitter),
        inner,
        time,
    )


DOWN = KmsUnavailableError("down")


async def test_a_failure_that_passes_is_retried_with_growing_pauses(context):
    kms, inner, time = guarded(DOWN, DOWN, DOWN, b"key")
    assert await kms.unwrap(b"w", context) == b"key"
    assert inner.calls == 4
    assert time.pauses == [1, 2, 3]


async def test_jitter_is_full(context):
    spans = []

    def jitter(low, high):
        spans.append((low, high))
        return 0

    kms = ResilientKms(Inner(DOWN), "u", POLICY, jitter=jitter)
    with pytest.raises(KmsUnavailableError):
        await kms.wrap(b"k", context)
    assert spans == [(0, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize("error", [KmsRefusedError("no"), KmsConfigError("no token")])
async def test_a_denied_call_is_not_retried(context, error):
    kms, inner, time = guarded(error)
    for _ in range(20):
        with pytest.raises(type(error)):
            await kms.unwrap(b"w", context)
    assert inner.calls == 20
    assert time.pauses == []


async def test_a_service_that_hangs_is_given_up(context):
    kms, inner, _ = guarded("hang")
    with pytest.raises(KmsUnavailableError, match=r"vault://t/k timed out after 0.05 s"):
        await kms.unwrap(b"w", context)
    assert inner.calls == 4


async def test_after_enough_failures_it_is_left_alone_and_then_tried_once(context):
    kms, inner, time = guarded(DOWN)
    for _ in range(2):
        with pytest.raises(KmsUnavailableError):
            await kms.unwrap(b"w", context)
    assert inner.calls == 6, "the sixth failure opens the circuit, within the second call"
    with pytest.raises(KmsUnavailableError, match="circuit breaker open, next attempt in 10 s"):
        await kms.unwrap(b"w", context)
    assert inner.calls == 6
    time.now += 10
    with pytest.raises(KmsUnavailableError, match="down"):
        await kms.unwrap(b"w", context)
    assert inner.calls == 7, "one trial, without retries"
    with pytest.raises(KmsUnavailableError, match="circuit breaker open"):
        await kms.unwrap(b"w", context)
    time.now += 10
    inner.answers = [b"key"]
    assert await kms.unwrap(b"w", context) == b"key"
    assert await kms.unwrap(b"w", context) == b"key"
    assert inner.calls == 9


async def test_only_one_trial_runs_at_a_time(context):
    kms, inner, time = guarded(DOWN)
    for _ in range(2):
        with pytest.raises(KmsUnavailableError):
            await kms.unwrap(b"w", context)
    time.now += 10
    inner.answers, inner.calls = ["hang"], 0
    trial = asyncio.create_task(kms.unwrap(b"w", context))
    await asyncio.sleep(0)
    with pytest.raises(KmsUnavailableError, match="circuit breaker open"):
        await kms.unwrap(b"w", context)
    with pytest.raises(KmsUnavailableError, match="timed out"):
        await trial
    assert inner.calls == 1


async def test_a_refusal_in_the_trial_shows_that_the_service_is_back_for_the_next(context):
    kms, inner, time = guarded(DOWN)
    for _ in range(2):
        with pytest.raises(KmsUnavailableError):
            await kms.unwrap(b"w", context)
    time.now += 10
    inner.answers = [KmsRefusedError("no")]
    with pytest.raises(KmsRefusedError):
        await kms.unwrap(b"w", context)
    inner.answers, inner.calls = [DOWN, b"key"], 0
    assert await kms.unwrap(b"w", context) == b"key", (
        "the circuit is closed: a failure is retried, not the end"
    )
    assert inner.calls == 2


async def test_a_refusal_between_failures_is_an_answer(context):
    kms, inner, _ = guarded(DOWN)
    for _ in range(3):
        inner.answers = [DOWN, DOWN, DOWN, KmsRefusedError("no")]
        with pytest.raises(KmsRefusedError):
            await kms.unwrap(b"w", context)


async def test_a_success_forgets_failures(context):
    kms, inner, _ = guarded(DOWN, DOWN, DOWN, b"key")
    for _ in range(5):
        inner.answers = [DOWN, DOWN, DOWN, b"key"]
        assert await kms.unwrap(b"w", context) == b"key"


async def test_cancelling_a_trial_lets_the_next_one_try(context):
    kms, inner, time = guarded(DOWN)
    for _ in range(2):
        with pytest.raises(KmsUnavailableError):
            await kms.unwrap(b"w", context)
    time.now += 10
    inner.answers = ["hang"]
    trial = asyncio.create_task(kms.unwrap(b"w", context))
    await asyncio.sleep(0)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    inner.answers = [b"key"]
    assert await kms.unwrap(b"w", context) == b"key"


async def test_closing_closes_the_provider():
    kms, inner, _ = guarded(b"key")
    await kms.close()
    assert inner.closed
