"""The checker while a registry is down: an hour of simulated time, changed rules, and keys that expire."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from tests.support.signed_images import SIGN, Store
from tests.support.sigstore_world import World, new_key, pem
from webhook.api.images import ImageTrust
from webhook.core.images.describe import UNAVAILABLE, ImageQuery
from webhook.core.images.statements import trust_hash
from webhook.provenance import checker as module
from webhook.provenance.checker import ImageChecker
from webhook.provenance.errors import RegistryUnavailableError
from webhook.provenance.registry.layout import Layout

REPOSITORY = "registry.example.com/acme/trainer"
KEY, WORLD = new_key(), World(logged=False)


class Clock:
    """The wall clock and the monotonic clock of the checker."""

    def __init__(self, monkeypatch) -> None:
        self.seconds, self.base = 0.0, datetime.now(UTC)
        # Not the module `time` itself: the event loop reads it too.
        clock = SimpleNamespace(
            monotonic=lambda: 1000.0 + self.seconds, time=lambda: self.now(UTC).timestamp()
        )
        monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(module, "datetime", self)

    def now(self, zone):
        return self.base + timedelta(seconds=self.seconds)


class Registry:
    """A registry that is down for a while: it fails, or does not respond."""

    def __init__(self, layout) -> None:
        self.layout, self.fault, self.calls = layout, "", 0

    async def source(self, query):
        self.calls += 1
        if self.fault == "hang":
            await asyncio.Event().wait()
        if self.fault:
            raise RegistryUnavailableError("the registry responded with status 503")
        return Layout(self.layout)


def rules_of(key=KEY, **fields):
    trust = {
        "apiVersion": "weightlock.dev/v1alpha1", "kind": "ImageTrust", "metadata": {"name": "acme"},
        "spec": {"images": [REPOSITORY], "signers": [{"key": pem(key).decode(), **fields}]},
    }  # fmt: skip
    spec = ImageTrust.model_validate(trust).spec
    return {trust_hash(spec): spec}


def reason(answer) -> str:
    return answer.reason or next(iter(answer.statements.values())).reason


@pytest.fixture
def store():
    store = Store()
    store.sign(WORLD, store.image("v1", "one"), "bundle", SIGN, key=KEY)
    store.image("v2", "two")
    return store


@pytest.fixture
async def made(store, tmp_path, monkeypatch):
    registry = Registry(store.layout(tmp_path / "layout", REPOSITORY))
    checker = ImageChecker(registry.source)
    yield checker, registry, Clock(monkeypatch)
    await checker.close()


def query(reference):
    return ImageQuery(f"{REPOSITORY}{reference}", "research", "default")


@pytest.mark.parametrize("fault", ["503", "hang"])
async def test_an_hour_without_a_registry(made, store, fault):
    """The verdict of a known digest is the same in each minute of two hours, and each review is answered."""
    checker, registry, clock = made
    signed, unsigned = (query(f"@{store.tags[tag]}") for tag in ("v1", "v2"))
    rules = rules_of()
    assert [reason(await checker.answer(item, rules, 5)) for item in (signed, unsigned)] == ["", "Unsigned"]
    registry.fault = fault
    for _ in range(120):
        clock.seconds += 60
        reasons = [reason(await checker.answer(item, rules, 0.01)) for item in (signed, unsigned)]
        assert reasons == ["", "Unsigned"]
    assert registry.calls > 2
    # The controller sees that the registry is down: its statements remain, and its metrics count the failures.
    for item in (signed, unsigned):
        assert (await checker.answer(item, rules, 0.01, fresh=True)).reason == UNAVAILABLE
    # A digest that was never verified is denied with the cause.
    assert reason(await checker.answer(query(f"@sha256:{'1' * 64}"), rules, 0.01)) == UNAVAILABLE


async def test_a_tag_is_not_a_known_digest(made, store):
    """A tag can move, so its last digest does not outlast the registry."""
    checker, registry, clock = made
    assert (await checker.answer(query(":v1"), rules_of(), 5)).digest == store.tags["v1"]
    registry.fault, clock.seconds = "503", 60.0
    assert reason(await checker.answer(query(":v1"), rules_of(), 5)) == UNAVAILABLE


async def test_a_changed_rule_has_no_earlier_result(made, store):
    checker, registry, _ = made
    signed = query(f"@{store.tags['v1']}")
    assert reason(await checker.answer(signed, rules_of(), 5)) == ""
    registry.fault = "503"
    assert reason(await checker.answer(signed, rules_of(new_key()), 5)) == UNAVAILABLE
    assert reason(await checker.answer(signed, rules_of(), 5)) == ""


async def test_a_key_that_expires_ends_earlier_results(made, store):
    checker, registry, clock = made
    signed = query(f"@{store.tags['v1']}")
    rules = rules_of(notAfter=(clock.base + timedelta(minutes=90)).isoformat())
    assert reason(await checker.answer(signed, rules, 5)) == ""
    registry.fault, clock.seconds = "503", 80 * 60.0
    assert reason(await checker.answer(signed, rules, 5)) == ""
    clock.seconds = 91 * 60.0
    assert reason(await checker.answer(signed, rules, 5)) == UNAVAILABLE
    registry.fault, clock.seconds = "", 120 * 60.0
    assert reason(await checker.answer(signed, rules, 5)) == "Expired"


async def test_an_image_is_verified_again_when_its_registry_returns(made, store):
    """A rejected image is verified again when its registry responds: it may have been signed since."""
    checker, registry, clock = made
    unsigned = query(f"@{store.tags['v2']}")
    assert reason(await checker.answer(unsigned, rules_of(), 5)) == "Unsigned"
    registry.fault, clock.seconds = "503", 120.0
    assert reason(await checker.answer(unsigned, rules_of(), 5)) == "Unsigned"
    store.sign(WORLD, store.tags["v2"], "bundle", SIGN, key=KEY)
    registry.layout = store.layout(registry.layout.parent / "later", REPOSITORY)
    registry.fault, clock.seconds = "", 3600.0
    assert reason(await checker.answer(unsigned, rules_of(), 5)) == ""
