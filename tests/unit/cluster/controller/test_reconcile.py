"""The controller's steps, against an API server that only notes what it is told."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from webhook.api.config import Settings
from webhook.cluster.client.api import ApiError
from webhook.cluster.controller import reconcile as module
from webhook.cluster.controller.reconcile import Reconciler
from webhook.cluster.controller.watches import CONFIGURATIONS
from webhook.cluster.events import Events
from webhook.core.access import Signer, Verifier
from webhook.core.access.expiry import PodWithWeights
from webhook.core.admission.snapshot import REQUESTS, SnapshotBuilder
from webhook.core.integrity.protection import Protection
from webhook.core.kube.time import format_time

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
SIGNER = Signer(Ed25519PrivateKey.generate())
VERIFIER = Verifier.of([SIGNER.key.public_key()])
GUARDED = Protection(version=10, since=NOW - timedelta(hours=5))
API = "weightlock.dev/v1alpha1"


class Noting:
    """Notes every request; ``refusals`` maps a method to the status it is refused with."""

    def __init__(self):
        self.requests, self.refusals = [], {}

    async def request(self, method, path, query=None, body=None, *, content_type=""):
        self.requests.append((method, path, body))
        if method in self.refusals:
            raise ApiError(self.refusals[method], "Refused", "no")
        return {}

    def to(self, part):
        return [(method, body) for method, path, body in self.requests if part in path]


def model(**access):
    spec = {"sensitivity": "frontier", "volumes": [{"persistentVolumeClaim": {"names": ["w"]}}]}
    return {
        "apiVersion": API,
        "kind": "ModelWeights",
        "metadata": {"name": "atlas"},
        "spec": {**spec, "access": {"approvals": 0, **access}},
    }


def request(name="r", version="20", minutes=60, stamped=True, **fields):
    created = format_time(NOW - timedelta(minutes=minutes))
    spec = {
        "model": "atlas",
        "subject": {"kind": "ServiceAccount", "namespace": "research", "name": "trainer"},
        "namespaces": ["research"],
        "duration": "4h",
        "reason": "evals",
        "requester": {"username": "alice"},
        "stampedAt": created if stamped else "",
    }
    metadata = {"name": name, "uid": f"uid-{name}", "creationTimestamp": created, "resourceVersion": version}
    return {"apiVersion": API, "kind": "AccessRequest", "metadata": metadata, "spec": spec, **fields}


def snapshot(*documents, verifier=VERIFIER):
    builder = SnapshotBuilder(Settings(), complete=False, verifier=verifier)
    for document in documents:
        builder.put(document)
    return builder.snapshot()


@pytest.fixture
def api():
    return Noting()


def steps(api, signer=SIGNER):
    return Reconciler(api, Events(api), signer)


async def test_what_admission_stamped_is_signed_and_the_signature_holds(api):
    document = request()
    assert await steps(api).sign(snapshot(document), GUARDED) == {"uid-r"}
    ((method, path, patch),) = api.requests
    assert (method, path) == ("PATCH", f"/apis/{API}/accessrequests/r")
    assert patch[0] == {"op": "test", "path": "/metadata/resourceVersion", "value": "20"}
    signed = {**document, "spec": {**document["spec"], "signature": patch[1]["value"]}}
    assert snapshot(model(), signed).access.problems == ()


NEVER = {
    "written before the webhooks were put back": request(version="10"),
    "written while they settled": request(minutes=60 * 6),
    "refused before": request(status={"state": "Invalid"}),
    "never stamped": request(stamped=False),
    "stamped at another time": {
        **request(),
        "metadata": {**request()["metadata"], "creationTimestamp": "2026-11-02T11:30:00Z"},
    },
}


@pytest.mark.parametrize("document", NEVER.values(), ids=NEVER.keys())
async def test_what_may_not_have_come_through_admission_is_never_signed(api, document):
    assert await steps(api).sign(snapshot(document), GUARDED) == set()
    assert api.requests == []


async def test_without_a_key_or_without_intact_webhooks_nothing_is_signed(api):
    assert await steps(api, None).sign(snapshot(request()), GUARDED) == set()
    assert await steps(api).sign(snapshot(request()), Protection(faults=("changed",))) == set()
    assert await steps(api).sign(snapshot(request(), verifier=None), GUARDED) == set()


async def test_what_counts_for_nothing_is_said_once_and_marked(api):
    world = snapshot(model(), request())
    doing = steps(api)
    await doing.refuse(world, set())
    await doing.refuse(world, set())
    (event,) = [body for method, body in api.to("/events")]
    assert (event["reason"], event["type"], event["involvedObject"]["name"]) == ("Ignored", "Warning", "r")
    assert api.to("/status")[0][1]["status"]["state"] == "Invalid"
    before = len(api.requests)
    await doing.refuse(world, {"uid-r"})
    await doing.refuse(snapshot(model(), request(status={"state": "Invalid"})), set())
    assert len(api.requests) == before


async def test_a_status_is_written_when_it_is_another(api):
    world = snapshot(model(), request(status={"state": "Pending", "missing": {"a": 1}}), verifier=None)
    await steps(api).tell(world, NOW)
    ((_, body),) = api.to("/status")
    assert body["status"]["state"] == "Active"
    assert body["status"]["missing"] is None
    settled = {key: value for key, value in body["status"].items() if value is not None}
    api.requests.clear()
    await steps(api).tell(snapshot(model(), request(status=settled), verifier=None), NOW)
    assert api.requests == []


async def test_what_cannot_change_by_time_is_worked_out_once(api, monkeypatch):
    status = {"state": "Expired"}
    looked = []

    def request_status(index, name, before, now):
        looked.append(name)
        return dict(status)

    monkeypatch.setattr(module, "request_status", request_status)
    world = snapshot(model(), request(status=dict(status)), verifier=None)
    doing = steps(api)
    for _ in range(3):
        await doing.tell(world, NOW)
    assert (looked, api.requests) == (["r"], [])
    # Whoever writes another status finds it put right, and another index is read anew.
    document = next(iter(world.objects.each(REQUESTS)))
    world.objects.put({**document, "status": {"state": "Active"}})
    await doing.tell(world, NOW)
    assert [body["status"]["state"] for _, body in api.to("/status")] == ["Expired"]
    looked.clear()
    await doing.tell(snapshot(model(), request(status=dict(status)), verifier=None), NOW)
    assert looked == ["r"]


async def test_what_time_can_change_is_looked_at_each_round(api, monkeypatch):
    looked = []

    def request_status(index, name, before, now):
        looked.append(name)
        return {"state": "Active"}

    monkeypatch.setattr(module, "request_status", request_status)
    world = snapshot(model(), request(status={"state": "Active"}), verifier=None)
    doing = steps(api)
    for _ in range(3):
        await doing.tell(world, NOW)
    assert looked == ["r"] * 3


async def test_an_unsigned_object_gets_no_status_before_it_is_decided_on(api):
    await steps(api).tell(snapshot(model(), request()), NOW)
    assert api.requests == []


POD = PodWithWeights("research", "train", "pod-uid", "trainer", ("atlas",))


def over(**access):
    return snapshot(model(**access), request(minutes=60 * 4 + 10), verifier=None)


async def test_a_wiped_pod_is_marked_once(api):
    doing = steps(api)
    await doing.end(over(), [POD], NOW)
    ((_, patch),) = api.to("/pods/train")
    end = patch["metadata"]["annotations"]["weightlock.dev/access-ended"]
    assert (patch["metadata"]["uid"], end) == ("pod-uid", "2026-11-02T11:50:00Z")
    assert {body["involvedObject"]["kind"] for _, body in api.to("/events")} == {"Pod", "AccessRequest"}
    api.requests.clear()
    await doing.end(
        over(), [PodWithWeights("research", "train", "pod-uid", "trainer", ("atlas",), None, end)], NOW
    )
    assert api.requests == []


async def test_an_eviction_that_a_budget_refuses_becomes_a_deletion_after_a_while(api):
    api.refusals["POST"] = 429
    doing = Reconciler(api, Events(Noting()), None)
    await doing.end(over(onExpiry="evict"), [POD], NOW)
    await doing.end(over(onExpiry="evict"), [POD], NOW - timedelta(minutes=9))
    evictions = api.to("/pods/train/eviction")
    assert [body["deleteOptions"]["preconditions"]["uid"] for _, body in evictions] == ["pod-uid", "pod-uid"]
    deletions = [body for method, path, body in api.requests if method == "DELETE"]
    assert [body["preconditions"] for body in deletions] == [{"uid": "pod-uid"}]


async def test_an_eviction_refused_for_another_reason_is_an_error(api):
    api.refusals["POST"] = 403
    with pytest.raises(ApiError):
        await Reconciler(api, Events(Noting()), None).end(over(onExpiry="evict"), [POD], NOW)


@pytest.mark.parametrize("status", [404, 409, 422])
async def test_what_changed_meanwhile_is_left_to_the_next_round(api, status):
    api.refusals["PATCH"] = status
    await steps(api).sign(snapshot(request()), GUARDED)
    api.refusals["PATCH"] = 500
    with pytest.raises(ApiError):
        await steps(api).sign(snapshot(request()), GUARDED)


async def test_people_are_warned_once_for_each_threshold(api):
    doing = steps(api)
    world = snapshot(model(), request(minutes=60 * 4 - 20), verifier=None)
    for minutes in (0, 1, 16, 17):
        await doing.end(world, [POD], NOW + timedelta(minutes=minutes))
    told = [body["message"] for _, body in api.to("/namespaces/research/events")]
    assert ["less than 30 minutes" in told[0], "less than 5 minutes" in told[1], len(told)] == [True, True, 2]


async def test_a_webhook_configuration_comes_back_with_the_bundle_that_others_keep_in_it(api):
    wanted = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "weightlock", "labels": {"a": "b"}},
        "webhooks": [{"name": "v", "failurePolicy": "Fail", "clientConfig": {"service": {"name": "s"}}}],
    }
    path = f"{CONFIGURATIONS[0].path()}/weightlock"
    found = {"webhooks": [{"name": "v", "failurePolicy": "Ignore", "clientConfig": {"caBundle": "Zm9v"}}]}
    await steps(api).restore(path, wanted, found)
    await steps(api).restore(path, wanted, None)
    await steps(api).restore(path, wanted, wanted)
    (patched, created) = api.requests
    assert patched[2]["webhooks"][0]["clientConfig"] == {"service": {"name": "s"}, "caBundle": "Zm9v"}
    assert (created[0], created[1]) == ("POST", CONFIGURATIONS[0].path())
