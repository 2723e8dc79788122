"""Access decisions that an admin tampers with while admission is absent: the controller suspends the request."""

from collections.abc import Iterator
from typing import Any

import pytest
from harness import manifests
from harness.controller import Controllers, signing_controllers
from harness.controlplane import ControlPlane
from harness.lab import API, APPROVERS, Lab
from harness.waiting import eventually
from harness.weightlock import Weightlock

RECORD = "weightlock-record"


@pytest.fixture
def controllers(own_weightlock: Weightlock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controllers]:
    """A controller that signs, and records the access that it observes in a Secret, as in the chart."""
    cluster = own_weightlock.control_plane
    metadata = {"name": RECORD, "namespace": manifests.NAMESPACE}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    monkeypatch.setattr(cluster, "controller_signs", True)
    with signing_controllers(own_weightlock) as controllers:
        controllers.start(keys={"record": RECORD})
        controllers.wait_leading()
        yield controllers
    cluster.client().delete(f"/api/v1/namespaces/{manifests.NAMESPACE}/secrets/{RECORD}").ok()


@pytest.fixture
def lab(controllers: Controllers, own_control_plane: ControlPlane, namespace: str) -> Lab:
    return Lab(own_control_plane, namespace).build()


def state(lab: Lab, request: dict[str, Any]) -> str:
    path = f"{API}/accessrequests/{request['metadata']['name']}"
    return str((lab.cluster.client().get(path).ok().get("status") or {}).get("state", ""))


def decisions(lab: Lab, request: dict[str, Any]) -> set[str]:
    approvals = lab.cluster.client().get(f"{API}/accessapprovals").ok()["items"]
    uid = request["metadata"]["uid"]
    return {item["spec"]["decision"] for item in approvals if item["spec"]["request"]["uid"] == uid}


def wait_for(lab: Lab, request: dict[str, Any], expected: str) -> None:
    eventually(lambda: state(lab, request) == expected, f"the request is {expected}", seconds=60)


def vote(lab: Lab, request: dict[str, Any], user: str, decision: str = "Approve") -> dict[str, Any]:
    """Write a vote and wait until it is signed."""
    return lab.cluster.signed(lab.vote(request, user, decision).ok())


def without_admission(lab: Lab, controllers: Controllers, method: str, path: str, body: Any = None) -> None:
    """Write one object while the API server calls no webhook, then restore the configurations."""
    weightlock = controllers.weightlock
    weightlock.remove_webhooks()
    client = lab.cluster.client()
    # The API server reads the configurations from a cache. Until then, admission denies the write.
    eventually(
        lambda: (client.delete(path) if method == "DELETE" else client.patch(path, body)).status == 200,
        "the write bypasses admission",
        seconds=30,
        every=0.2,
    )
    weightlock.add_webhooks()


@pytest.mark.parametrize("decision", ["Revoke", "Deny"])
def test_a_deleted_decision_does_not_revive_a_grant(
    lab: Lab, controllers: Controllers, decision: str
) -> None:
    request = lab.ask()
    vote(lab, request, "bob")
    if decision == "Revoke":
        vote(lab, request, "carol")
        wait_for(lab, request, "Active")
    decided = vote(lab, request, "dan", decision)
    wait_for(lab, request, "Revoked" if decision == "Revoke" else "Denied")
    path = f"{API}/accessapprovals/{decided['metadata']['name']}"
    without_admission(lab, controllers, "DELETE", path)
    eventually(lambda: "Suspend" in decisions(lab, request), "the request is suspended", seconds=60)
    assert not lab.is_admitted()
    # The processes that saw the decision still count it. Others know it by the suspension only.
    controllers.stop()
    controllers.weightlock.restart()
    controllers.start(keys={"record": RECORD})
    wait_for(lab, request, "Suspended")
    assert not lab.is_admitted()
    assert "weightlock access confirm" in lab.vote(request, "erin").message


def test_weaker_rules_do_not_turn_a_pending_request_into_a_grant(lab: Lab, controllers: Controllers) -> None:
    request = lab.ask()
    vote(lab, request, "bob")
    wait_for(lab, request, "Pending")
    without_admission(
        lab, controllers, "PATCH", f"{API}/modelweights/{lab.model}", {"spec": {"access": {"approvals": 1}}}
    )
    wait_for(lab, request, "Suspended")
    assert not lab.is_admitted()
    confirmed = lab.weightlock("confirm", request["metadata"]["name"], user="carol", groups=APPROVERS)
    assert confirmed.code == 0, str(confirmed)
    wait_for(lab, request, "Active")
    eventually(lab.is_admitted, "the confirmed request grants access", seconds=30)
