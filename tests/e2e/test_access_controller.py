"""The controller on a real API server: statuses, signatures on read-back, warnings and endings, and its election."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from harness.controller import Controllers, signing_controllers
from harness.controlplane import ControlPlane
from harness.lab import API, Lab
from harness.release import signed_request
from harness.waiting import eventually
from harness.weightlock import Weightlock


@pytest.fixture
def lab(own_weightlock: Weightlock, own_control_plane: ControlPlane, namespace: str) -> Lab:
    return Lab(own_control_plane, namespace).build()


@pytest.fixture
def controllers(own_weightlock: Weightlock) -> Iterator[Controllers]:
    """Controllers that do not sign: the webhook does, because it knows the API server by its certificate."""
    matches = Controllers(own_weightlock).prepare()
    yield matches
    matches.stop()


@pytest.fixture(name="signing_controllers")
def controllers_that_sign(own_weightlock: Weightlock) -> Iterator[Controllers]:
    """Controllers that sign on read-back, beside a webhook that has no key to sign with."""
    with signing_controllers(own_weightlock) as controllers:
        yield controllers


def stored(lab: Lab, document: dict[str, Any]) -> dict[str, Any]:
    kind = f"{document['kind'].lower()}s"
    return dict(lab.cluster.client().get(f"{API}/{kind}/{document['metadata']['name']}").ok())


def events(lab: Lab, namespace: str, name: str) -> list[dict[str, Any]]:
    path = f"/api/v1/namespaces/{namespace}/events"
    answer = lab.cluster.client().get(path, fieldSelector=f"involvedObject.name={name}")
    return list(answer.ok()["items"])


def rfc3339_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_people_read_where_a_request_stands_in_kubectl(lab: Lab, controllers: Controllers) -> None:
    controllers.start()
    request = lab.ask()
    eventually(
        lambda: stored(lab, request).get("status", {}).get("state") == "Pending", "pending", seconds=30
    )
    lab.vote(request, "bob").ok()
    eventually(lambda: stored(lab, request)["status"]["approvals"] == "1/2", "one of two", seconds=10)
    lab.vote(request, "carol").ok()
    eventually(lambda: stored(lab, request)["status"]["state"] == "Active", "active", seconds=10)
    status = stored(lab, request)["status"]
    assert status["approvers"] == ["bob", "carol"]
    assert [item["status"] for item in status["conditions"]] == ["True"]
    display = lab.cluster.kubectl("get", "areq", request["metadata"]["name"], user="alice").ok().stdout
    assert "2/2" in display
    assert "Active" in display
    lab.vote(request, "dave", "Revoke").ok()
    eventually(lambda: stored(lab, request)["status"].get("by") == "dave", "revoked", seconds=10)
    assert '"status":403' not in controllers.log()


def test_where_the_webhook_cannot_sign_the_controller_does_on_read_back(
    lab: Lab, signing_controllers: Controllers
) -> None:
    signing_controllers.start()
    signing_controllers.wait_leading()
    request = signed_request(lab, "10m")
    for who in ("bob", "carol"):
        eventually(
            lambda who=who: lab.vote(request, who).status == 201, f"{who} may approve", seconds=15, every=0.3
        )
    eventually(lab.is_admitted, "the pod is admitted", seconds=15, every=0.2)
    assert stored(lab, request)["spec"]["signature"]


def test_objects_written_without_admission_are_never_signed_and_reported(
    lab: Lab, signing_controllers: Controllers
) -> None:
    weightlock = signing_controllers.weightlock
    admin = lab.cluster.client()
    weightlock.remove_webhooks()
    eventually(lab.is_admitted, "nobody asks the webhook", seconds=10, every=0.2)
    forged = lab.request("forged", requester={"username": "alice"}, stampedAt=rfc3339_now())
    request = admin.post(f"{API}/accessrequests", forged).ok()
    approvals = []
    for who in ("bob", "carol"):
        approver = {"username": who, "groups": ["weights-approvers"]}
        document = lab.approval(request, who, approver=approver, stampedAt=rfc3339_now())
        approvals.append(admin.post(f"{API}/accessapprovals", document).ok())
    weightlock.add_webhooks()
    path = f"{API}/accessapprovals/{approvals[0]['metadata']['name']}"
    assert "WL404" in admin.patch(path, {"metadata": {"labels": {"a": "b"}}}).message
    signing_controllers.start()
    signing_controllers.wait_leading()
    for document in (request, *approvals):
        eventually(lambda document=document: stored(lab, document).get("status"), "it is refused", seconds=30)
        assert not stored(lab, document)["spec"].get("signature")
        assert events(lab, "default", document["metadata"]["name"])[0]["reason"] == "Ignored"
    assert not lab.is_admitted()
    assert weightlock.metric("weightlock_access_objects_ignored") >= 3
    # A restart forgets nothing: what was refused stays refused.
    signing_controllers.stop()
    signing_controllers.start()
    signing_controllers.wait_leading()
    signed_request(lab, "10m")
    assert not stored(lab, request)["spec"].get("signature")


def test_a_changed_or_removed_webhook_configuration_is_restored(lab: Lab, controllers: Controllers) -> None:
    controllers.start(restore=True)
    controllers.wait_leading()
    weightlock = controllers.weightlock
    weightlock.remove_webhooks()
    eventually(weightlock.webhooks_present, "they are back", seconds=20)
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weightlock"
    webhooks = lab.cluster.client().get(path).ok()["webhooks"]
    lab.cluster.client().patch(path, {"webhooks": [{**webhooks[0], "failurePolicy": "Ignore"}]}).ok()
    eventually(
        lambda: lab.cluster.client().get(path).ok()["webhooks"] == webhooks, "it is as it was", seconds=20
    )
    assert "admission is not intact" in controllers.log()


@pytest.mark.parametrize("on_expiry", ["wipe", "evict"])
def test_a_running_pod_is_handled_as_configured_when_its_grant_expires(
    lab: Lab, controllers: Controllers, on_expiry: str
) -> None:
    lab.cluster.apply(lab.weights(approvals=1, onExpiry=on_expiry))
    lab.cluster.add_node(f"node-{lab.namespace}")
    controllers.start()
    controllers.wait_leading()
    request = lab.ask(duration="400s")
    lab.vote(request, "bob").ok()
    eventually(lab.is_admitted, "the pod is admitted", seconds=5)
    lab.try_pod().ok()
    lab.vote(request, "carol", "Revoke").ok()
    path = f"/api/v1/namespaces/{lab.namespace}/pods/train"

    def handled() -> bool:
        pod = lab.cluster.client().get(path)
        if on_expiry == "evict":
            return pod.status == 404 or "deletionTimestamp" in pod.ok()["metadata"]
        return "weightlock.dev/access-ended" in pod.ok()["metadata"].get("annotations", {})

    eventually(handled, "the pod is handled", seconds=20)
    assert "AccessEnded" in [event["reason"] for event in events(lab, lab.namespace, "train")]
    assert "AccessEnded" in [event["reason"] for event in events(lab, "default", request["metadata"]["name"])]


def test_people_are_warned_before_the_end(lab: Lab, controllers: Controllers) -> None:
    lab.cluster.apply(lab.weights(approvals=1))
    controllers.start()
    controllers.wait_leading()
    request = lab.ask(duration="301s")
    lab.vote(request, "bob").ok()
    eventually(lab.is_admitted, "the pod is admitted", seconds=5)
    lab.try_pod().ok()

    def reasons() -> list[str]:
        return [
            event["reason"]
            for event in events(lab, lab.namespace, "train")
            if event["reason"][:6] == "Access"
        ]

    eventually(lambda: reasons() == ["AccessEnding"], "a warning on the pod", seconds=20)


def test_of_two_replicas_one_leads_and_the_other_takes_over(lab: Lab, controllers: Controllers) -> None:
    first = controllers.start()
    controllers.wait_leading()
    controllers.start()
    request = lab.ask()
    eventually(lambda: "status" in stored(lab, request), "the first writes it", seconds=15)
    first.stop(grace=10.0)
    eventually(lambda: controllers.log().count('"became leader"') == 2, "the second leads", seconds=20)
    lab.vote(request, "bob").ok()
    eventually(lambda: stored(lab, request)["status"]["approvals"] == "1/2", "the second writes", seconds=15)
