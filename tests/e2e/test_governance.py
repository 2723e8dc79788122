"""Change control, waivers and break-glass on a real API server: no user weakens a rule alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.controller import Controllers
from harness.controlplane import ControlPlane
from harness.lab import API, Lab
from harness.waiting import eventually
from harness.weightlock import Weightlock

GITOPS = "system:serviceaccount:flux-system:kustomize-controller"
SETTINGS: dict[str, Any] = {
    "access": {
        "changeControl": {"enabled": True, "exempt": [GITOPS]},
        "waivers": {"rules": {"approvals": 1, "approvers": {"groups": ["security"]}}, "codes": ["WL5*"]},
        "breakGlass": {"groups": ["on-call"], "maxDuration": "10m"},
    }
}


@pytest.fixture
def lab(own_weightlock: Weightlock, own_control_plane: ControlPlane, namespace: str) -> Iterator[Lab]:
    matches = Lab(own_control_plane, namespace).build()
    before = own_weightlock.config.get("settings")
    own_weightlock.config["settings"] = SETTINGS
    own_weightlock.restart()
    yield matches
    own_weightlock.config.pop("settings")
    if before is not None:
        own_weightlock.config["settings"] = before
    own_weightlock.restart()


def put(lab: Lab, document: dict[str, Any], user: str | None = None) -> Any:
    """Write the ModelWeights as a user with the permission."""
    client = lab.cluster.client(user, ["system:masters"]) if user else lab.cluster.client()
    return client.patch(f"{API}/modelweights/{lab.model}", {"spec": document["spec"]})


def test_no_user_weakens_a_model_alone(lab: Lab, tmp_path: Path) -> None:
    weaker = lab.weights(approvals=1)
    rejection = put(lab, weaker)
    assert rejection.status == 403
    assert "[WL431]" in rejection.message
    assert "weightlock access request --change FILE" in rejection.message

    live = lab.cluster.client().get(f"{API}/modelweights/{lab.model}").ok()
    file = tmp_path / "weaker.yaml"
    file.write_text(yaml.safe_dump({**live, "spec": {**live["spec"], "access": weaker["spec"]["access"]}}))
    name = f"change-{lab.namespace}"
    lab.weightlock(
        "request", "--change", str(file), "--for", "10m", "--reason", "fewer", "--name", name, user="alice"
    ).ok()
    for who in ("bob", "carol"):
        assert put(lab, weaker).status == 403
        lab.weightlock("approve", name, user=who, groups=["weights-approvers"]).ok()
    eventually(lambda: put(lab, weaker).status == 200, "the approved change may be made", seconds=5)
    other = lab.weights(approvals=0)
    assert put(lab, other).status == 403


def test_no_user_deletes_a_model_alone_and_gitops_may(lab: Lab) -> None:
    path = f"{API}/modelweights/{lab.model}"
    assert "[WL431]" in lab.cluster.client().delete(path).message
    assert put(lab, lab.weights(maxDuration="30m"), GITOPS).status == 200


def test_a_waiver_lets_its_pods_pass_with_a_warning_and_ends(lab: Lab) -> None:
    client = lab.cluster.client("alice")
    pods = f"/api/v1/namespaces/{lab.namespace}/pods"
    container = {
        "name": "main",
        "image": "registry.example.com/tool:1",
        "ports": [{"containerPort": 80, "hostPort": 80}],
    }
    metadata = {"name": "tool", "labels": {"app": "tool"}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
    governed = {"metadata": {"labels": {"weightlock.dev/holds-weights": "true"}}}
    lab.cluster.client().patch(f"/api/v1/namespaces/{lab.namespace}", governed).ok()
    eventually(lambda: client.post(pods, pod, dryRun="All").status == 403, "the baseline holds", seconds=5)
    denied = client.post(pods, pod, dryRun="All")
    code = denied.message.partition("[")[2].partition("]")[0]
    assert (denied.status, code[:3]) == (403, "WL5"), denied.message
    waiver = {"code": code, "namespace": lab.namespace, "podSelector": {"matchLabels": {"app": "tool"}}}
    request = lab.request("waiver", "5s", waiver=waiver)
    for field in ("model", "subject", "namespaces"):
        del request["spec"][field]
    produced = client.post(f"{API}/accessrequests", request).ok()
    lab.vote(produced, "sam", groups=["security"]).ok()
    answers: list[Any] = []

    def waived() -> bool:
        answers.append(client.post(pods, pod, dryRun="All"))
        return f"[{code}]" not in (answers[-1].message if answers[-1].status != 201 else "")

    eventually(waived, "the waiver counts", seconds=3)
    assert any("waived by waiver-" in text for text in answers[-1].warnings) or answers[-1].status != 201
    eventually(
        lambda: f"[{code}]" in client.post(pods, pod, dryRun="All").message, "it has ended", seconds=15
    )


def test_break_glass_access_is_immediate_bounded_and_reported(lab: Lab, own_weightlock: Weightlock) -> None:
    controllers = Controllers(own_weightlock).prepare()
    controllers.start()
    try:
        # The grant is short. A controller that leads only after its end has no reason for an Event.
        controllers.wait_leading()
        rejection = lab.cluster.client("alice").post(
            f"{API}/accessrequests", lab.request("mine", "5m", breakGlass=True)
        )
        assert "[WL416]" in rejection.message
        on_call = lab.cluster.client("oda", ["on-call"])
        long = on_call.post(f"{API}/accessrequests", lab.request("long", "11m", breakGlass=True))
        assert "[WL413]" in long.message
        request = on_call.post(f"{API}/accessrequests", lab.request("fire", "8s", breakGlass=True)).ok()
        eventually(lab.is_admitted, "the pod is admitted", seconds=3)
        assert own_weightlock.metric("weightlock_break_glass_grants_active") == 1
        events = "/api/v1/namespaces/default/events"
        name = request["metadata"]["name"]

        def has_event() -> bool:
            matches = (
                lab.cluster.client().get(events, fieldSelector=f"involvedObject.name={name}").ok()["items"]
            )
            return [item["reason"] for item in matches] == ["BreakGlass"]

        eventually(lambda: not lab.is_admitted(), "it ends by itself", seconds=15, every=0.2)
        eventually(has_event, "an Event reports it", seconds=15)
    finally:
        controllers.stop()
