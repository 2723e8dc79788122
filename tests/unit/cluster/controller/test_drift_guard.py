"""The guard of webhook configurations, types and labels, against an API server that notes what it is notified."""

from copy import deepcopy

import pytest

from webhook.api.crds import definitions
from webhook.cluster.client.api import ApiError
from webhook.cluster.controller import drift_guard as module
from webhook.cluster.controller.drift_guard import DEFINITIONS, DriftController
from webhook.cluster.controller.reconcile import Reconciler
from webhook.cluster.controller.stats import ControllerStats
from webhook.cluster.events import Events
from webhook.core.kube.objects import key_of

WANTED = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "weightlock"},
    "webhooks": [
        {"name": "validate.weightlock.dev", "failurePolicy": "Fail", "clientConfig": {"url": "https://w"}}
    ],
}
WRITER = {"manager": "kubectl-edit", "operation": "Update", "time": "2026-11-02T10:00:00Z"}


class Noting:
    """Notes what is written; every GET answers with the object's last writer."""

    def __init__(self):
        self.requests, self.refusal = [], None

    async def get(self, path):
        if self.refusal == "get":
            raise ApiError(500, "Broken", "no")
        return {"metadata": {"uid": "u", "managedFields": [WRITER]}}

    async def request(self, method, path, query=None, body=None, *, content_type=""):
        self.requests.append((method, path, body))
        if self.refusal == method:
            raise ApiError(422, "Invalid", "that cannot be")
        return {}

    def written(self):
        return [
            (method, path.rpartition("/")[2]) for method, path, _ in self.requests if "/events" not in path
        ]

    def event_messages(self):
        return [body["message"] for _, path, body in self.requests if path.endswith("/events")]


class Bench:
    """A guard whose watches are filled by hand."""

    def __init__(self, **settings):
        self.api, self.stats = Noting(), ControllerStats()
        events = Events(self.api)
        steps = Reconciler(self.api, events, None)
        settings = {"version": "1.0.0", "restore": True, "restore_definitions": True, **settings}
        self.guard = DriftController(
            self.api, steps, events, {key_of(WANTED): WANTED}, self.stats, **settings
        )
        self.configuration = deepcopy(WANTED)
        self.types = {document["metadata"]["name"]: document for document in deepcopy(definitions())}
        self.show()

    def show(self, version="7"):
        for document in (self.configuration, *self.types.values()):
            document["metadata"]["resourceVersion"] = version
        self.guard._configurations.objects.clear()
        if self.configuration["webhooks"]:
            self.guard._configurations.put(self.configuration)
        self.guard._definitions.objects.clear()
        for document in self.types.values():
            self.guard._definitions.put(DEFINITIONS.stripped(document))


async def test_expected_objects_are_not_changed():
    bench = Bench()
    await bench.guard.check()
    assert bench.api.requests == []
    assert (bench.stats.drifted, bench.stats.drifted_definitions) == (0, 0)


async def test_a_changed_configuration_is_restored_and_reported_once():
    bench = Bench()
    bench.configuration["webhooks"][0]["failurePolicy"] = "Ignore"
    for _ in range(3):
        await bench.guard.check()
    assert bench.api.written() == [("PATCH", "weightlock")]
    (output,) = bench.api.event_messages()
    assert output == (
        "ValidatingWebhookConfiguration weightlock was modified: webhooks[0].failurePolicy is Ignore, expected Fail; "
        "last writer: kubectl-edit (Update) at 2026-11-02T10:00:00Z; restored"
    )
    assert (bench.stats.drifted, bench.stats.restored) == (1, 1)


async def test_the_same_drift_is_reported_again_later():
    bench = Bench()
    for version in ("7", "9"):
        bench.configuration["webhooks"][0]["failurePolicy"] = "Ignore"
        bench.show(version)
        await bench.guard.check()
        bench.configuration["webhooks"][0]["failurePolicy"] = "Fail"
        bench.show("8")
        await bench.guard.check()
    assert len(bench.api.event_messages()) == 2


async def test_a_removed_configuration_is_created_again():
    bench = Bench()
    bench.configuration["webhooks"] = []
    bench.show()
    await bench.guard.check()
    assert bench.api.written() == [("POST", "validatingwebhookconfigurations")]
    assert "weightlock is missing; " in bench.api.event_messages()[0]


async def test_a_changed_crd_is_restored_completely():
    bench = Bench()
    changed = bench.types["modelweights.weightlock.dev"]
    changed["spec"]["versions"][0]["served"] = False
    await bench.guard.check()
    (method, path, patch), *_ = bench.api.requests
    assert (method, path.rpartition("/")[2]) == ("PATCH", "modelweights.weightlock.dev")
    assert [(step["op"], step["path"]) for step in patch] == [
        ("test", "/metadata/resourceVersion"),
        ("replace", "/spec"),
    ]
    assert patch[1]["value"]["versions"][0]["served"] is True
    assert bench.stats.restored_definitions == 1


@pytest.mark.parametrize("deleted", [True, False], ids=["gone", "going"])
async def test_a_deleted_type_is_reported_and_never_made(deleted):
    bench = Bench()
    if deleted:
        del bench.types["modelweights.weightlock.dev"]
    else:
        bench.types["modelweights.weightlock.dev"]["metadata"]["deletionTimestamp"] = "2026-11-02T10:00:00Z"
    bench.show()
    await bench.guard.check()
    assert bench.api.written() == []
    assert "its objects were deleted with it" in bench.api.event_messages()[0]
    assert bench.stats.drifted_definitions == 1


async def test_a_type_of_another_version_is_left_to_the_upgrade():
    bench = Bench()
    changed = bench.types["modelweights.weightlock.dev"]
    changed["spec"]["names"]["categories"] = []
    changed["metadata"]["labels"] = {"app.kubernetes.io/version": "1.1.0"}
    await bench.guard.check()
    assert bench.api.written() == []
    assert "it belongs to version 1.1.0, and this controller is 1.0.0" in bench.api.event_messages()[0]


async def test_without_restore_drift_is_only_reported():
    bench = Bench(restore=False, restore_definitions=False)
    bench.configuration["webhooks"][0]["failurePolicy"] = "Ignore"
    bench.types["modelweights.weightlock.dev"]["spec"]["names"]["categories"] = []
    await bench.guard.check()
    assert bench.api.written() == []
    assert [output.rpartition("; ")[2] for output in bench.api.event_messages()] == [
        "not restored: controller.restore is off",
        "not restored: controller.restoreDefinitions is off",
    ]


async def test_a_rejected_restore_is_reported_and_retried_later(monkeypatch):
    bench = Bench()
    bench.types["modelweights.weightlock.dev"]["spec"]["names"]["categories"] = []
    bench.api.refusal = "PATCH"
    await bench.guard.check()
    await bench.guard.check()
    assert bench.api.written() == [("PATCH", "modelweights.weightlock.dev")]
    assert bench.api.event_messages()[0].endswith("not restored: the API server denied it: that cannot be")
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.0)
    bench.api.refusal = None
    await bench.guard.check()
    assert len(bench.api.written()) == 2
    assert bench.stats.restored_definitions == 1


async def test_an_unknown_writer_prevents_no_restore():
    bench = Bench()
    bench.configuration["webhooks"][0]["failurePolicy"] = "Ignore"
    bench.api.refusal = "get"
    await bench.guard.check()
    assert bench.api.written() == [("PATCH", "weightlock")]
    assert "see the API server audit log for the user" in bench.api.event_messages()[0]


def namespace(name, **labels):
    return {"metadata": {"name": name, "labels": labels}}


async def test_labels_that_protect_are_missed_and_others_are_not():
    bench, ours = Bench(), {"weightlock.dev/holds-weights": "true", "pool.weightlock.dev/x": "1"}
    await bench.guard.check_labels([namespace("a", **ours, team="x"), namespace("b", **ours)])
    await bench.guard.check_labels([namespace("a", **{"weightlock.dev/holds-weights": "true"})])
    assert [output.partition(";")[0] for output in bench.api.event_messages()] == [
        "Namespace a protection label pool.weightlock.dev/x removed or changed"
    ]
    assert bench.stats.labels_changed == 1
    assert bench.api.written() == []


async def test_the_time_of_a_change_is_a_gap():
    bench = Bench()
    await bench.guard.check()
    assert bench.guard.gaps == []
    bench.configuration["webhooks"][0]["failurePolicy"] = "Ignore"
    await bench.guard.check()
    (gap,) = bench.guard.gaps
    assert (gap.name, gap.end) == ("weightlock", None)
    bench.configuration["webhooks"][0]["failurePolicy"] = "Fail"
    bench.show("8")
    await bench.guard.check()
    (closed,) = bench.guard.gaps
    assert closed.begin == gap.begin
    assert closed.end is not None
    await bench.guard.check()
    assert bench.guard.gaps == [closed]


async def test_the_metadata_of_helm_is_given_back_to_a_type():
    bench = Bench()
    name = "modelweights.weightlock.dev"
    metadata = bench.types[name]["metadata"]
    metadata["labels"] = {"app.kubernetes.io/managed-by": "Helm", "team": "a"}
    metadata["annotations"] = {"meta.helm.sh/release-name": "weightlock"}
    bench.show()
    await bench.guard.check()
    metadata["labels"], metadata["annotations"] = {"team": "b"}, {}
    bench.show("8")
    await bench.guard.check()
    ((method, path, patch),) = [request for request in bench.api.requests if "/events" not in request[1]]
    assert (method, path.rpartition("/")[2]) == ("PATCH", name)
    added = {step["path"]: step["value"] for step in patch if step["op"] == "add"}
    assert added == {
        "/metadata/labels": {"team": "b", "app.kubernetes.io/managed-by": "Helm"},
        "/metadata/annotations": {"meta.helm.sh/release-name": "weightlock"},
    }
    assert "lacks app.kubernetes.io/managed-by, meta.helm.sh/release-name" in bench.api.event_messages()[0]
