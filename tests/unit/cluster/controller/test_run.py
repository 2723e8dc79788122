"""The controller's comparison of access with its record, over watches that lag behind or were paused."""

import time

import pytest

from webhook.api.config import Config
from webhook.api.modelweights import AccessRules
from webhook.cluster.client.api import ApiError
from webhook.cluster.controller import run as module
from webhook.cluster.controller.run import Controller, Observed
from webhook.core.integrity.arrivals import Arrivals, Changes
from webhook.core.kube.objects import ObjectKey

KIND = "ValidatingWebhookConfiguration.admissionregistration.k8s.io"
KEY = ObjectKey(KIND, "", "weightlock")
HOOKS = [{"name": "a.weightlock.dev", "failurePolicy": "Fail"}]
STRICT, WEAK = {"approvals": 2}, {"approvals": 1}
SETTLE_SECONDS = 40.0


def configuration(version, **fields):
    metadata = {"name": "weightlock", "resourceVersion": str(version)}
    return {"metadata": metadata, "webhooks": [{**HOOKS[0], **fields}]}


def model(version, access, sensitivity="frontier"):
    return {
        "kind": "ModelWeights",
        "metadata": {"name": "m", "uid": "u", "resourceVersion": str(version)},
        "spec": {"access": access, "sensitivity": sensitivity},
    }


class Api:
    """Returns the latest version of the configuration."""

    latest = 10
    during = staticmethod(lambda: None)

    async def get(self, path, query=None):
        self.during()
        if self.latest is None:
            raise ApiError(404, "NotFound", "it is missing")
        return configuration(self.latest)


class Objects:
    def each(self, kind):
        return ()


class Source:
    """A snapshot without access objects."""

    images = None

    def __init__(self):
        self.api = Api()
        self.objects = Objects()
        self.access = self.parser = self
        self.verifier = None
        self.models = {}

    def snapshot(self):
        return self


class Comparisons:
    """Takes the record's place, and keeps whether the rules of the model were covered."""

    def __init__(self):
        self.covered = []

    async def reconcile(self, index, verifier, now, covered, existing, sensitivities):
        self.covered.append(covered("m", AccessRules.model_validate(STRICT), "frontier"))


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def controller(clock):
    """A controller whose configurations have been intact since revision 10, longer than the settling time."""
    observed = Observed(Arrivals(), Changes(module._protection))
    expected = {KEY: configuration(1)}
    config = Config.model_validate({"controller": {"settleSeconds": SETTLE_SECONDS}})
    controller = Controller(Source(), config, None, expected, observed)
    controller.record = Comparisons()
    controller._history.listed(KIND, {KEY: configuration(10)}, 10, clock[0])
    observed.changes.listed([model(11, STRICT)])
    clock[0] += SETTLE_SECONDS + 1
    return controller


def weaken(controller, clock, version=20):
    controller._observed.changes.changed(model(version, WEAK), clock[0])


async def test_an_edit_through_intact_admission_is_accepted(controller, clock):
    weaken(controller, clock)
    await controller._compare(None)
    assert controller.record.covered == [True]


async def test_an_edit_of_a_time_without_admission_is_not_accepted(controller, clock):
    for version, policy in ((15, "Ignore"), (25, "Fail")):
        controller._history.put(KEY, configuration(version, failurePolicy=policy), clock[0])
    controller.source.api.latest = 25
    weaken(controller, clock)
    await controller._compare(None)
    assert controller.record.covered == [False]


async def test_configurations_that_change_all_the_time_neither_delay_nor_suspend(controller, clock):
    """Their metadata, as labels by another tool: each event is later than the edit, so the history is complete."""
    weaken(controller, clock)
    controller._history.put(KEY, configuration(30), clock[0])
    controller.source.api.latest = 31
    await controller._compare(None)
    assert controller.record.covered == [True]


async def test_a_watch_that_lags_behind_is_awaited(controller, clock):
    controller.source.api.latest = 19
    weaken(controller, clock)
    await controller._compare(None)
    assert controller.record.covered == []
    controller._history.put(KEY, configuration(19), clock[0])
    await controller._compare(None)
    assert controller.record.covered == [True]


async def test_a_process_that_was_paused_reads_its_pending_events_first(controller, clock):
    """The time since the last comparison says nothing: the process did not run."""
    controller.source.api.latest = 19
    weaken(controller, clock)
    await controller._compare(None)
    clock[0] += 60
    await controller._compare(None)
    assert controller.record.covered == []
    controller._history.put(KEY, configuration(19), clock[0])
    await controller._compare(None)
    assert controller.record.covered == [True]


async def test_a_watch_that_stays_behind_delays_the_comparison_for_a_bounded_time(controller, clock):
    controller.source.api.latest = 19
    weaken(controller, clock)
    begun = clock[0]
    while not controller.record.covered:
        await controller._compare(None)
        clock[0] += 1
        assert clock[0] - begun < 30
    assert controller.record.covered == [False]
    assert clock[0] - begun > module._OUTDATED_SECONDS


async def test_an_edit_that_arrives_during_the_read_waits_for_the_next_one(controller, clock):
    weaken(controller, clock, 19)
    controller.source.api.during = lambda: weaken(controller, clock)
    await controller._compare(None)
    assert controller.record.covered == []
    controller.source.api.during = lambda: None
    await controller._compare(None)
    assert controller.record.covered == [True]


async def test_a_missing_configuration_covers_nothing(controller, clock):
    controller._history.remove(KEY, 19, clock[0])
    controller.source.api.latest = None
    weaken(controller, clock)
    await controller._compare(None)
    assert controller.record.covered == [False]


async def test_a_model_that_became_public_needs_the_same_evidence(controller, clock):
    for version, policy in ((15, "Ignore"), (25, "Fail")):
        controller._history.put(KEY, configuration(version, failurePolicy=policy), clock[0])
    controller.source.api.latest = 25
    controller._observed.changes.changed(model(20, STRICT, "public"), clock[0])
    await controller._compare(None)
    assert controller.record.covered == [False]
