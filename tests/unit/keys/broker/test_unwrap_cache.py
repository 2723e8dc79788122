"""The cache of unwrapped keys: one call for many requests, wiped when it expires, never a cached failure."""

from __future__ import annotations

import asyncio

import pytest
from harness.waiting import slowness

from webhook.keys.broker.unwrap_cache import UnwrapCache
from webhook.keys.errors import KmsUnavailableError
from webhook.keys.secret import Secret


class Kms:
    def __init__(self, fault=None):
        self.calls, self.fault, self.gate = 0, fault, asyncio.Event()
        self.gate.set()

    async def __call__(self):
        self.calls += 1
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return Secret(b"k" * 32)


async def test_it_is_off_by_default():
    kms, cache = Kms(), UnwrapCache()
    for _ in range(3):
        (await cache.get("a", kms)).wipe()
    assert kms.calls == 3
    assert cache._keys == {}


async def test_a_thousand_pods_at_once_are_one_call():
    kms, cache = Kms(), UnwrapCache(30)
    kms.gate.clear()
    pods = [asyncio.create_task(cache.get("a", kms)) for _ in range(1000)]
    await asyncio.sleep(0)
    kms.gate.set()
    keys = await asyncio.gather(*pods)
    assert kms.calls == 1
    assert {bytes(key.view()) for key in keys} == {b"k" * 32}
    keys[0].wipe()
    assert bytes((await cache.get("a", kms)).view()) == b"k" * 32, "each request gets a copy"
    assert kms.calls == 1
    await cache.get("b", kms)
    assert kms.calls == 2, "another name is another key"
    cache.close()


async def test_it_expires_and_is_wiped():
    kms, cache = Kms(), UnwrapCache(0.05)
    await cache.get("a", kms)
    (cached,) = cache._keys.values()
    async with asyncio.timeout(10 * slowness()):
        while cache._keys:  # noqa: ASYNC110 - the cache has no event
            await asyncio.sleep(0.01)
    with pytest.raises(ValueError, match=r".*"):
        cached.view()
    await cache.get("a", kms)
    assert kms.calls == 2
    (cached,) = cache._keys.values()
    cache.close()
    with pytest.raises(ValueError, match=r".*"):
        cached.view()


async def test_a_failure_is_not_cached_and_a_cancelled_request_stops_no_other():
    kms, cache = Kms(KmsUnavailableError("away")), UnwrapCache(30)
    for _ in range(2):
        with pytest.raises(KmsUnavailableError):
            await cache.get("a", kms)
    assert kms.calls == 2
    kms.fault = None
    kms.gate.clear()
    first, second = (asyncio.create_task(cache.get("a", kms)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    kms.gate.set()
    assert len(await second) == 32
    assert kms.calls == 3
    cache.close()


async def test_it_is_bounded():
    kms, cache = Kms(), UnwrapCache(30)
    for number in range(300):
        (await cache.get(number, kms)).wipe()
    assert len(cache._keys) == len(cache._timers) == 256
    cache.close()
    assert not cache._keys
    assert not cache._timers
