"""The steps of the controller's reconcile, against an API server that records the requests."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from webhook.api.access import AccessRequest
from webhook.api.config import Settings
from webhook.cluster.client.api import ApiError
from webhook.cluster.controller import reconcile as module
from webhook.cluster.controller.reconcile import Reconciler, View
from webhook.cluster.controller.watches import CONFIGURATIONS
from webhook.cluster.events import Events
from webhook.core.access import Signer, Verifier
from webhook.core.access.expiry import PodWithWeights
from webhook.core.access.signing import StampKey
from webhook.core.admission.snapshot import REQUESTS, SnapshotBuilder
from webhook.core.integrity.arrivals import Arrivals
from webhook.core.integrity.history import WebhookIntegrity
from webhook.core.kube.time import format_time

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
SIGNER = Signer(Ed25519PrivateKey.generate())
VERIFIER = Verifier.of([SIGNER.key.public_key()])
INTACT = WebhookIntegrity(revision=10, since=100.0, settling=30.0)
API = "weightlock.dev/v1alpha1"


class Noting:
    """Records every request; ``refusals`` maps a method to the status of its denial."""

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


def view(*documents, verifier=VERIFIER):
    return View.of(snapshot(*documents, verifier=verifier))


def arrived(*documents, at=150.0):
    arrivals = Arrivals()
    for document in documents:
        arrivals.added(document, at)
    return arrivals


def decided(api, document, *, arrivals=None, integrity=INTACT, signer=SIGNER, verifier=VERIFIER):
    uids = {document["metadata"]["uid"]}
    arrivals = arrived(document) if arrivals is None else arrivals
    return steps(api, signer).decide(view(document, verifier=verifier), arrivals, integrity, uids)


async def test_an_object_that_arrived_through_admission_is_signed(api):
    document = request()
    await steps(api).apply(decided(api, document))
    ((method, path, patch),) = api.requests
    assert (method, path) == ("PATCH", f"/apis/{API}/accessrequests/r")
    assert patch[0] == {"op": "test", "path": "/metadata/resourceVersion", "value": "20"}
    signed = {**document, "spec": {**document["spec"], "signature": patch[1]["value"]}}
    assert snapshot(model(), signed).access.problems == ()


AT_ANOTHER_TIME = {**request()["metadata"], "creationTimestamp": "2026-11-02T11:30:00Z"}
REJECTED = {
    "before the configurations were intact": (request(version="10"), "before the webhook configurations"),
    "never stamped": (request(stamped=False), "stampedAt"),
    "stamped at another time": (
        {**request(), "metadata": AT_ANOTHER_TIME},
        "creationTimestamp does not match",
    ),
}


@pytest.mark.parametrize(("document", "reason"), REJECTED.values(), ids=REJECTED.keys())
def test_an_object_that_may_have_bypassed_admission_is_rejected_with_a_fix(api, document, reason):
    (decision,) = decided(api, document)
    assert decision.patch == ()
    assert reason in decision.reason
    assert decision.reason.endswith(": request access again")


def test_an_object_that_this_process_did_not_see_arrive_is_rejected(api):
    (decision,) = decided(api, request(), arrivals=Arrivals())
    assert "did not observe its creation" in decision.reason


def test_an_object_that_changed_since_its_arrival_is_rejected(api):
    arrivals = arrived(request(version="20"))
    (decision,) = decided(api, request(version="21"), arrivals=arrivals)
    assert "it changed since" in decision.reason


def test_an_object_that_arrived_while_the_configurations_settled_is_rejected_and_says_when_to_retry(api):
    (decision,) = decided(api, request(), arrivals=arrived(request(), at=129.9))
    assert "too soon after a change" in decision.reason
    assert INTACT.remaining(129.9) == pytest.approx(0.1)
    assert decided(api, request(), arrivals=arrived(request(), at=130.0))[0].patch


async def test_a_rejection_is_reported_once_with_the_time_to_retry(api):
    doing = steps(api)
    decisions = decided(api, request(), arrivals=Arrivals())
    await doing.apply(decisions, retry_seconds=12.2)
    await doing.apply(decisions, retry_seconds=12.2)
    (event,) = [body for method, body in api.to("/events")]
    assert (event["reason"], event["type"]) == ("Ignored", "Warning")
    status = api.to("/status")[0][1]["status"]
    assert (status["state"], status["retryAfterSeconds"]) == ("Invalid", 13)


def test_an_object_that_is_being_deleted_is_neither_signed_nor_rejected(api):
    leaving = request()
    leaving["metadata"] = {**leaving["metadata"], "deletionTimestamp": "2026-11-02T12:00:00Z"}
    assert decided(api, leaving) == []
    assert decided(api, leaving, arrivals=arrived(request())) == []


def test_a_rejected_object_is_never_signed_later(api):
    assert decided(api, request(status={"state": "Invalid"})) == []


def test_without_a_key_or_without_intact_configurations_nothing_is_signed(api):
    assert decided(api, request(), signer=None) == []
    assert decided(api, request(), verifier=None) == []
    (decision,) = decided(api, request(), integrity=WebhookIntegrity(faults=("V weightlock is missing",)))
    assert "V weightlock is missing" in decision.reason


def test_with_a_stamp_key_only_stamped_and_unmodified_objects_are_signed(api):
    stamps = StampKey(b"k" * 32)
    verifier = Verifier(VERIFIER.keys, stamps)
    (decision,) = decided(api, request(), verifier=verifier)
    assert "it has no stamp" in decision.reason
    document = request()
    typed = AccessRequest.model_validate(document)
    document["spec"]["stamp"] = stamps.stamp(typed)
    assert decided(api, document, verifier=verifier)[0].patch
    document["spec"] = {**document["spec"], "duration": "5h"}
    (decision,) = decided(api, document, verifier=verifier)
    assert "another mutating webhook modified it" in decision.reason


async def test_an_invalid_object_is_reported_once_and_gets_a_status(api):
    forged = request()
    forged["spec"]["signature"] = "0000:AAAA"
    doing = steps(api)
    await doing.report_invalid(view(model(), forged))
    await doing.report_invalid(view(model(), forged))
    (event,) = [body for method, body in api.to("/events")]
    assert (event["reason"], event["type"], event["involvedObject"]["name"]) == ("Ignored", "Warning", "r")
    assert api.to("/status")[0][1]["status"]["state"] == "Invalid"
    before = len(api.requests)
    await doing.report_invalid(view(model(), {**forged, "status": {"state": "Invalid"}}))
    await doing.report_invalid(view(model(), request()))
    assert len(api.requests) == before
    await steps(api, None).report_invalid(view(model(), request()))
    assert len(api.requests) > before


async def test_a_status_is_written_when_it_is_another(api):
    world = snapshot(model(), request(status={"state": "Pending", "missing": {"a": 1}}), verifier=None)
    await steps(api).write_statuses(View.of(world), NOW)
    ((_, body),) = api.to("/status")
    assert body["status"]["state"] == "Active"
    assert body["status"]["missing"] is None
    settled = {key: value for key, value in body["status"].items() if value is not None}
    api.requests.clear()
    await steps(api).write_statuses(view(model(), request(status=settled), verifier=None), NOW)
    assert api.requests == []


async def test_time_independent_statuses_are_computed_once(api, monkeypatch):
    status = {"state": "Expired"}
    looked = []

    def request_status(index, name, before, now):
        looked.append(name)
        return dict(status)

    monkeypatch.setattr(module, "request_status", request_status)
    world = snapshot(model(), request(status=dict(status)), verifier=None)
    doing = steps(api)
    for _ in range(3):
        await doing.write_statuses(View.of(world), NOW)
    assert (looked, api.requests) == (["r"], [])
    # A status that a user changed is fixed, and a new index is read again.
    document = next(iter(world.objects.each(REQUESTS)))
    world.objects.put({**document, "status": {"state": "Active"}})
    await doing.write_statuses(View.of(world), NOW)
    assert [body["status"]["state"] for _, body in api.to("/status")] == ["Expired"]
    looked.clear()
    await doing.write_statuses(view(model(), request(status=dict(status)), verifier=None), NOW)
    assert looked == ["r"]


async def test_time_dependent_statuses_are_computed_in_each_reconcile(api, monkeypatch):
    looked = []

    def request_status(index, name, before, now):
        looked.append(name)
        return {"state": "Active"}

    monkeypatch.setattr(module, "request_status", request_status)
    world = snapshot(model(), request(status={"state": "Active"}), verifier=None)
    doing = steps(api)
    for _ in range(3):
        await doing.write_statuses(View.of(world), NOW)
    assert looked == ["r"] * 3


async def test_an_unsigned_object_gets_no_status_before_it_is_decided_on(api):
    await steps(api).write_statuses(view(model(), request()), NOW)
    assert api.requests == []


POD = PodWithWeights("research", "train", "pod-uid", "trainer", ("atlas",))


def over(**access):
    return snapshot(model(**access), request(minutes=60 * 4 + 10), verifier=None)


async def test_a_wiped_pod_is_marked_once(api):
    doing = steps(api)
    await doing.end_access(over(), [POD], NOW)
    ((_, patch),) = api.to("/pods/train")
    end = patch["metadata"]["annotations"]["weightlock.dev/access-ended"]
    assert (patch["metadata"]["uid"], end) == ("pod-uid", "2026-11-02T11:50:00Z")
    assert {body["involvedObject"]["kind"] for _, body in api.to("/events")} == {"Pod", "AccessRequest"}
    api.requests.clear()
    await doing.end_access(
        over(), [PodWithWeights("research", "train", "pod-uid", "trainer", ("atlas",), None, end)], NOW
    )
    assert api.requests == []


async def test_an_eviction_that_a_budget_refuses_becomes_a_deletion_after_a_while(api):
    api.refusals["POST"] = 429
    doing = Reconciler(api, Events(Noting()), None)
    await doing.end_access(over(onExpiry="evict"), [POD], NOW)
    await doing.end_access(over(onExpiry="evict"), [POD], NOW - timedelta(minutes=9))
    evictions = api.to("/pods/train/eviction")
    assert [body["deleteOptions"]["preconditions"]["uid"] for _, body in evictions] == ["pod-uid", "pod-uid"]
    deletions = [body for method, path, body in api.requests if method == "DELETE"]
    assert [body["preconditions"] for body in deletions] == [{"uid": "pod-uid"}]


async def test_an_eviction_refused_for_another_reason_is_an_error(api):
    api.refusals["POST"] = 403
    with pytest.raises(ApiError):
        await Reconciler(api, Events(Noting()), None).end_access(over(onExpiry="evict"), [POD], NOW)


@pytest.mark.parametrize("status", [404, 409, 422])
async def test_a_conflict_is_left_to_the_next_reconcile(api, status):
    api.refusals["PATCH"] = status
    await steps(api).apply(decided(api, request()))
    api.refusals["PATCH"] = 500
    with pytest.raises(ApiError):
        await steps(api).apply(decided(api, request()))


async def test_people_are_warned_once_for_each_threshold(api):
    doing = steps(api)
    world = snapshot(model(), request(minutes=60 * 4 - 20), verifier=None)
    for minutes in (0, 1, 16, 17):
        await doing.end_access(world, [POD], NOW + timedelta(minutes=minutes))
    messages = [body["message"] for _, body in api.to("/namespaces/research/events")]
    assert len(messages) == 2
    assert "less than 30 minutes" in messages[0]
    assert "less than 5 minutes" in messages[1]


HELM = {"meta.helm.sh/release-name": "weightlock", "meta.helm.sh/release-namespace": "weightlock-system"}
EXPECTED = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "weightlock", "labels": {"a": "b"}, "annotations": HELM},
    "webhooks": [{"name": "v", "failurePolicy": "Fail", "clientConfig": {"service": {"name": "s"}}}],
}


async def test_a_webhook_configuration_is_restored_with_the_bundle_of_another_manager(api):
    path = f"{CONFIGURATIONS[0].path()}/weightlock"
    webhook = {"name": "v", "failurePolicy": "Ignore", "clientConfig": {"caBundle": "Zm9v"}}
    await steps(api).restore(path, EXPECTED, {"metadata": {"annotations": HELM}, "webhooks": [webhook]})
    assert not await steps(api).restore(path, EXPECTED, EXPECTED)
    ((_, _, patch),) = api.requests
    assert patch["webhooks"][0]["clientConfig"] == {"service": {"name": "s"}, "caBundle": "Zm9v"}
    assert "metadata" not in patch


async def test_a_deleted_configuration_comes_back_as_helm_installed_it(api):
    await steps(api).restore(f"{CONFIGURATIONS[0].path()}/weightlock", EXPECTED, None)
    ((method, path, body),) = api.requests
    assert (method, path) == ("POST", CONFIGURATIONS[0].path())
    assert body["metadata"] == EXPECTED["metadata"]


async def test_helms_ownership_annotations_are_restored_and_other_metadata_is_not_compared(api):
    path = f"{CONFIGURATIONS[0].path()}/weightlock"
    owned = {**EXPECTED, "metadata": {"annotations": {"x": "y"}, "labels": {"a": "another"}}}
    await steps(api).restore(path, EXPECTED, owned)
    assert api.requests[0][2] == {"metadata": {"annotations": HELM}}


def suspension(version="20"):
    created = format_time(NOW - timedelta(minutes=60))
    spec = {
        "request": {"name": "r", "uid": "uid-r"},
        "decision": "Suspend",
        "approver": {"username": "the controller"},
        "stampedAt": created,
    }
    metadata = {"name": "s", "uid": "uid-s", "creationTimestamp": created, "resourceVersion": version}
    return {"apiVersion": API, "kind": "AccessApproval", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(("version", "is_signed"), [("20", True), ("21", False)])
def test_a_suspension_of_this_process_is_signed_only_as_it_was_created(api, version, is_signed):
    document = suspension(version)
    (decision,) = steps(api).decide(
        view(document), Arrivals(), INTACT, {"uid-s"}, {document["metadata"]["uid"]: "20"}
    )
    assert bool(decision.patch) is is_signed
