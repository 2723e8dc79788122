from __future__ import annotations

import pytest

from webhook.api.codes import RATE_LIMIT, REPLAYED
from webhook.keys.broker import rate_limits as limits_module
from webhook.keys.broker.rate_limits import Limits, Rate
from webhook.keys.broker.refusal import RefusedError


def test_a_burst_and_then_one_at_a_time():
    rate = Rate(per_minute=60, burst=3)
    assert [rate.take("a", 0) for _ in range(3)] == [0, 0, 0]
    assert rate.take("a", 0) == pytest.approx(1)
    assert rate.take("b", 0) == 0, "each name has a bucket of its own"
    assert rate.take("a", 0.5) == pytest.approx(0.5)
    assert rate.take("a", 1.0) == 0


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(limits_module, "_REMEMBERED", 10)
    rate, limits = Rate(1, 1, remembered=10), Limits()
    for number in range(50):
        rate.take(str(number), 0)
        limits.release(str(number), "m", 1, 0, 900)
    assert len(rate._buckets) == len(limits._released) == 10


def test_returned_tokens_do_not_count_and_never_exceed_the_burst():
    rate = Rate(per_minute=60, burst=2, remembered=2)
    rate.give_back("nobody")
    assert rate._buckets == {}
    assert [rate.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    rate.give_back("a")
    assert (rate.take("a", 0.0), rate.take("a", 0.0)) == (0.0, 1.0)
    for _ in range(5):
        rate.give_back("a")
    assert [rate.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    for name in ("b", "c"):
        rate.take(name, 0.0)
    assert list(rate._buckets) == ["b", "c"], "so many names are remembered and no more"


def test_a_refusal_says_when_to_come_again():
    limits = Limits(pods=Rate(6, 1), models=Rate(600, 2))
    limits.pod("pod-1", 0)
    with pytest.raises(RefusedError, match="too many requests for this pod: try again in 10 s") as rejection:
        limits.pod("pod-1", 0)
    assert rejection.value.code == RATE_LIMIT
    limits.pod("pod-2", 0)
    for _ in range(2):
        limits.model("m", 0)
    with pytest.raises(RefusedError, match="too many requests for this model"):
        limits.model("m", 0)
    limits.model("other", 0)


def test_a_large_request_costs_more():
    rate = Rate(60, 10)
    assert rate.take("a", 0.0, 8) == 0.0
    assert rate.take("a", 0.0, 4) == 2.0
    rate.give_back("a", 8)
    assert rate.take("a", 0.0, 4) == 0.0
    assert rate.take("b", 0.0, 1000) == 0.0, "no request costs more than the burst"


def test_a_nonce_is_spent_once_while_it_lives():
    limits = Limits()
    limits.spend("n", 0, 120)
    with pytest.raises(RefusedError, match="was used before") as rejection:
        limits.spend("n", 100, 120)
    assert rejection.value.code == REPLAYED
    limits.spend("other", 130, 120)
    assert set(limits._nonces) == {"other"}, "what has expired is refused by its time, and forgotten here"


def test_one_release_a_start_one_a_lease_and_a_spare_one():
    limits = Limits()
    limits.release("pod", "m", 1, 0, 900)
    limits.release("pod", "m", 1, 0, 900)
    with pytest.raises(RefusedError, match="2 times, but its sidecar started 1 times"):
        limits.release("pod", "m", 1, 899, 900)
    limits.release("pod", "m", 2, 899, 900)
    with pytest.raises(RefusedError, match="3 times"):
        limits.release("pod", "m", 2, 899, 900)
    limits.release("pod", "m", 2, 900, 900)
    limits.release("pod", "other", 1, 0, 900)
    limits.release("other", "m", 1, 0, 900)


def test_keys_that_were_not_released_are_not_counted():
    limits = Limits(spare_releases=0)
    for _ in range(5):
        limits.release("pod", "m", 1, 0, 900)
        limits.not_released("pod", "m")
    limits.not_released("pod", "m")
    limits.release("pod", "m", 1, 0, 900)
    with pytest.raises(RefusedError):
        limits.release("pod", "m", 1, 0, 900)
