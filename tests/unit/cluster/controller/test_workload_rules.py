"""The webhook rules of detected kinds, against an API server of one object."""

import sys
from copy import deepcopy
from pathlib import Path

import jsonpatch
import pytest

from webhook.api.config import Settings
from webhook.cluster.client.api import ApiError
from webhook.cluster.controller.workload_rules import WorkloadRules
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.integrity.history import WebhookHistory
from webhook.core.kube.objects import ObjectKey, key_of
from webhook.core.workloads.schema import CRD

sys.path.insert(0, str(Path(__file__).parents[2] / "core" / "workloads"))
from crds import crd

BASE = [
    {
        "apiGroups": ["apps"],
        "apiVersions": ["*"],
        "resources": ["deployments"],
        "operations": ["CREATE", "UPDATE"],
        "scope": "*",
    }
]
CONFIGURATION = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {
        "name": "weightlock",
        "resourceVersion": "5",
        "creationTimestamp": "2026-11-02T10:00:00Z",
        "managedFields": [{"manager": "helm", "operation": "Apply", "time": "2026-11-02T10:00:00Z"}],
    },
    "webhooks": [{"name": "validate.weightlock.dev", "rules": BASE}, {"name": "other", "rules": BASE}],
}
KEY = key_of(CONFIGURATION)
SANDBOX = {"spec.podTemplate": "podTemplate"}


class OneObject:
    """An API server that stores the configuration."""

    def __init__(self):
        self.document, self.patches, self.refusal = deepcopy(CONFIGURATION), 0, 0

    async def get(self, path):
        assert path == "/configuration"
        return deepcopy(self.document)

    async def request(self, method, path, *, body, content_type):
        assert (method, content_type) == ("PATCH", "application/json-patch+json")
        if self.refusal:
            raise ApiError(self.refusal, "No", "no")
        self.patches += 1
        self.document = jsonpatch.apply_patch(self.document, body)
        metadata = self.document["metadata"]
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        metadata["managedFields"].append({"manager": "weightlock", "time": "2026-11-02T12:00:00Z"})
        return deepcopy(self.document)

    @property
    def appended(self):
        return [
            (rule["apiGroups"][0], rule["resources"]) for rule in self.document["webhooks"][0]["rules"][1:]
        ]


class Bench:
    def __init__(self, *, enabled=True):
        self.api = OneObject()
        self.expected = {KEY: {**CONFIGURATION, "metadata": {"name": "weightlock"}}}
        self.rules = WorkloadRules(self.api, self.expected, {KEY: "/configuration"}, enabled=enabled)
        self.builder = SnapshotBuilder(Settings(), complete=False)

    async def reconcile(self):
        await self.rules.reconcile(self.builder.snapshot(), {KEY: deepcopy(self.api.document)})


async def test_rules_follow_the_crds():
    bench = Bench()
    await bench.reconcile()
    assert bench.api.patches == 0
    bench.builder.put(crd("Sandbox.agents.example.com", SANDBOX))
    bench.builder.put(crd("Widget.example.com", {"spec.size": "text"}))
    await bench.reconcile()
    assert bench.api.appended == [("agents.example.com", ["sandboxs"])]
    assert bench.api.document["webhooks"][1] == CONFIGURATION["webhooks"][1]
    await bench.reconcile()
    assert bench.api.patches == 1
    # A changed schema, and a deleted CRD.
    bench.builder.put(crd("Widget.example.com", SANDBOX))
    await bench.reconcile()
    assert bench.api.appended == [("agents.example.com", ["sandboxs"]), ("example.com", ["widgets"])]
    bench.builder.remove(ObjectKey(CRD, "", "sandboxs.agents.example.com"))
    await bench.reconcile()
    assert bench.api.appended == [("example.com", ["widgets"])]


async def test_own_changes_do_not_interrupt_the_history():
    bench = Bench()
    history = WebhookHistory(bench.expected, 30.0, separate_bundles=False)
    history.listed(KEY.kind, {KEY: deepcopy(bench.api.document)}, 200, 1.0)
    before = history.integrity(None)
    bench.builder.put(crd("Sandbox.agents.example.com", SANDBOX))
    await bench.reconcile()
    assert bench.api.patches == 1
    history.put(KEY, deepcopy(bench.api.document), 50.0)
    assert history.integrity(None) == before
    assert before.faults == ()


async def test_a_changed_base_is_left_to_the_drift_controller():
    bench = Bench()
    bench.api.document["webhooks"][0]["rules"] = []
    bench.builder.put(crd("Sandbox.agents.example.com", SANDBOX))
    await bench.reconcile()
    assert bench.api.patches == 0
    # The drift controller restores base and extension in one write.
    restored = bench.rules.extend(bench.expected[KEY])
    assert [rule["apiGroups"][0] for rule in restored["webhooks"][0]["rules"]] == [
        "apps",
        "agents.example.com",
    ]


@pytest.mark.parametrize("status", [404, 409, 422])
async def test_a_faster_writer_is_not_an_error(status):
    bench = Bench()
    bench.builder.put(crd("Sandbox.agents.example.com", SANDBOX))
    bench.api.refusal = status
    await bench.reconcile()
    bench.api.refusal = 0
    await bench.reconcile()
    assert bench.api.appended


async def test_another_error_is_raised():
    bench = Bench()
    bench.builder.put(crd("Sandbox.agents.example.com", SANDBOX))
    bench.api.refusal = 403
    with pytest.raises(ApiError):
        await bench.reconcile()


async def test_nothing_is_written_where_restoring_is_off():
    bench = Bench(enabled=False)
    bench.builder.put(crd("Sandbox.agents.example.com", SANDBOX))
    await bench.reconcile()
    assert bench.api.patches == 0
    assert bench.rules.extend(CONFIGURATION) is CONFIGURATION
