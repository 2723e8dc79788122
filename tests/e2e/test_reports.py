"""Reports of what runs, in both report APIs, and the way of a policy from Audit over Warn to Deny, as docs/rollout.md
tells it. On a control plane of its own: the types of reports are the whole cluster's.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import console, reporttypes
from harness.controller import Controllers
from harness.controlplane import ControlPlane, Options
from harness.programs import ROOT
from harness.waiting import eventually
from harness.weightlock import Weightlock

OPEN, OLD = "openreports.io/v1alpha1", "wgpolicyk8s.io/v1alpha2"
RESOURCES = {OPEN: "reports", OLD: "policyreports"}
POLICIES = "/apis/weightlock.dev/v1alpha1/weightpolicies"
PAGE = ROOT / "docs" / "rollout.md"
SCAN = {"enabled": True, "settleSeconds": 0.5}


@pytest.fixture(scope="module")
def weightlock(new_control_plane: Callable[[Options], ControlPlane]) -> Iterator[Weightlock]:
    cluster = new_control_plane(Options())
    installed = Weightlock(cluster)
    installed.install()
    yield installed
    installed.uninstall()
    cluster.stop()


@pytest.fixture
def controllers(weightlock: Weightlock) -> Iterator[Controllers]:
    matches = Controllers(weightlock).prepare()
    yield matches
    matches.stop()


@pytest.fixture
def namespace(weightlock: Weightlock) -> Iterator[str]:
    name = weightlock.cluster.new_namespace()
    yield name
    weightlock.cluster.delete_namespace(name)


def policy(name: str, *actions: str) -> dict[str, Any]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    expression = f"!object.metadata.namespace.startsWith('test-') || object.metadata.name != '{name}'"
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "WeightPolicy",
        "metadata": {"name": name},
        "spec": {
            "code": "WL802",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": expression, "message": f"{name} is not wanted"}],
            "validationActions": list(actions),
            "controls": ["SOC2/CC6.1"],
        },
    }


def pod(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": "registry.example.com/train:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container]},
    }


def report(weightlock: Weightlock, api: str, namespace: str) -> dict[str, Any]:
    """The namespace's report; AssertionError where there is none."""
    path = f"/apis/{api}/namespaces/{namespace}/{RESOURCES[api]}/weightlock"
    return dict(weightlock.cluster.client().get(path).ok())


def results(weightlock: Weightlock, api: str, namespace: str) -> list[tuple[str, str, str]]:
    matches = report(weightlock, api, namespace)["results"]
    return [(item["resources"][0]["name"], item["rule"], item["result"]) for item in matches]


def test_without_the_crds_nothing_is_written_and_each_component_logs_it(
    weightlock: Weightlock, controllers: Controllers
) -> None:
    controllers.start(config={"reports": SCAN})
    eventually(
        lambda: "the types of reports are not installed" in controllers.log(), "it is said", seconds=30
    )
    answer = weightlock.command("report")
    assert (answer.code, "no types for reports" in answer.stderr) == (2, True)


@pytest.mark.parametrize("api", [OLD, OPEN])
def test_running_pods_are_evaluated_by_the_current_policies(
    weightlock: Weightlock, controllers: Controllers, namespace: str, api: str
) -> None:
    group = api.partition("/")[0]
    reporttypes.install(weightlock.cluster, group)
    client, pods = weightlock.cluster.client(), f"/api/v1/namespaces/{namespace}/pods"
    for name in ("early", namespace):
        client.post(pods, pod(name)).ok()
    client.post(POLICIES, policy(namespace, "Audit")).ok()
    controllers.start(config={"reports": {**SCAN, "api": group}})

    expected = [(namespace, "WL802", "fail")]
    eventually(lambda: results(weightlock, api, namespace) == expected, "the report", seconds=60, every=0.3)
    matches = report(weightlock, api, namespace)
    assert matches["summary"]["fail"] == 1
    assert matches["summary"]["pass"] > 1
    (entry,) = matches["results"]
    assert entry["properties"] == {"actions": "Audit", "controls": "SOC2/CC6.1"}
    assert (entry["severity"], entry["source"]) == ("medium", "weightlock")
    managers = {item["manager"] for item in matches["metadata"]["managedFields"]}
    assert managers == {"weightlock-reports"}
    display = weightlock.cluster.kubectl("get", f"{RESOURCES[api]}.{group}", "-n", namespace).ok().stdout
    assert display.splitlines()[1].split()[0] == "weightlock"

    # A pod that comes later, a policy that changes, a pod that goes.
    client.delete(f"{pods}/{namespace}").ok()
    eventually(
        lambda: results(weightlock, api, namespace) == [], "its results go with it", seconds=60, every=0.3
    )
    answer = client.post(pods, pod(namespace))
    assert (answer.status, answer.warnings) == (201, ())
    eventually(lambda: results(weightlock, api, namespace) == expected, "a new pod", seconds=60, every=0.3)
    client.patch(f"{POLICIES}/{namespace}", {"spec": {"validationActions": ["Warn"]}}).ok()
    warned = [(namespace, "WL802", "warn")]
    eventually(
        lambda: results(weightlock, api, namespace) == warned, "a policy that warns", seconds=60, every=0.3
    )
    eventually(lambda: client.post(pods, pod(namespace), dryRun="All").warnings, "a warning", seconds=10)

    of_cluster = f"/apis/{api}/cluster{RESOURCES[api]}/weightlock"
    total = client.get(of_cluster).ok()["results"]
    assert {item["result"] for item in total if item["policy"] == "weights-need-grant"} == {"pass"}
    client.delete(f"{POLICIES}/{namespace}").ok()
    client.delete(pods).ok()
    path = f"/apis/{api}/namespaces/{namespace}/{RESOURCES[api]}/weightlock"
    eventually(lambda: client.get(path).status == 404, "nothing runs, no report", seconds=60, every=0.3)
    assert "forbidden" not in controllers.log().lower()
    assert "internal error" not in controllers.log()


def test_people_read_the_reports_they_may(
    weightlock: Weightlock, controllers: Controllers, namespace: str
) -> None:
    reporttypes.install(weightlock.cluster, "openreports.io")
    client = weightlock.cluster.client()
    client.post(POLICIES, policy(namespace, "Audit")).ok()
    client.post(f"/api/v1/namespaces/{namespace}/pods", pod(namespace)).ok()
    controllers.start(config={"reports": SCAN})
    weightlock.cluster.allow("alice", ["get", "list"], ["reports"], namespace, "openreports.io")
    command = ("report", "-n", namespace, "--code", "WL802")
    eventually(
        lambda: weightlock.command(*command, user="alice").code == 1, "alice reads it", seconds=60, every=0.3
    )
    table = weightlock.command(*command, user="alice").stdout
    assert f"Pod/{namespace}" in table
    assert "1 fail, 0 error, 0 warn selected; 1 resource evaluated" in table
    denied = weightlock.command("report", "-A", user="alice")
    sentence = 'reports.openreports.io is forbidden: User "alice" cannot list resource "reports"'
    assert (denied.code, sentence in denied.stderr) == (3, True), denied
    rows = weightlock.command("report", "-A", "--would-deny", "-o", "json")
    assert {"policy": namespace, "action": "Audit", "namespace": namespace, "resources": 1} in (
        json.loads(rows.stdout)
    )
    client.delete(f"{POLICIES}/{namespace}").ok()


def test_the_page_about_bringing_a_policy_in(weightlock: Weightlock, controllers: Controllers) -> None:
    reporttypes.install(weightlock.cluster, "openreports.io")
    controllers.start(config={"reports": SCAN})
    steps = list(console.steps(PAGE))
    assert len(steps) > 8
    for step in steps:
        console.perform(step, weightlock.cluster)
