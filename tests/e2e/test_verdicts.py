"""What a researcher meets on a real API server: each sample of examples/, applied with kubectl by whom it names."""

import json
import re
import time
from collections.abc import Iterator

import pytest
from harness import examples
from harness.installed import Installed
from harness.waiting import eventually, slowness

ALICE = "alice@example.com"
RESEARCH = "/api/v1/namespaces/research"
# What must come out, written down a second time and by hand: the code of the denial, or None.
EXPECTED = {
    "01-plain-pod.yaml": None,
    "02-weights-without-grant.yaml": "WL101",
    "03-weights-with-grant.yaml": None,
    "04-borrowed-account.yaml": "WL103",
    "05-gpu-without-entitlement.yaml": "WL201",
    "06-gpu-with-entitlement.yaml": None,
    "07-weights-deployment-without-grant.yaml": "WL101",
    "08-weights-deployment-with-grant.yaml": None,
    "09-weights-job-without-grant.yaml": "WL101",
    "10-weights-job-with-grant.yaml": None,
    "11-gpu-deployment-without-entitlement.yaml": "WL201",
    "12-gpu-deployment-with-entitlement.yaml": None,
    "13-gpu-job-without-entitlement.yaml": "WL201",
    "14-gpu-job-with-entitlement.yaml": None,
    "15-visible-devices-trick.yaml": "WL202",
    "16-clone-of-weights.yaml": "WL101",
    "17-kubelet-directory.yaml": "WL102",
    "18-privileged.yaml": "WL113",
}
SAMPLES = {sample.file.name: sample for sample in examples.samples()}


@pytest.fixture(scope="module")
def applied(installed_weightlock: Installed) -> Iterator[Installed]:
    """Weightlock with the state of the examples and the access they ask for, each made by whom it names."""
    if not installed_weightlock.running:
        installed_weightlock.start()
    if not installed_weightlock.webhooks_present():
        installed_weightlock.add_webhooks()
    examples.apply_state(installed_weightlock.cluster)
    examples.grant_access(installed_weightlock.cluster)
    eventually(
        lambda: (
            examples.apply_sample(installed_weightlock.cluster, SAMPLES["03-weights-with-grant.yaml"]).code
            == 0
        ),
        "the grant is known",
        seconds=10,
    )
    yield installed_weightlock
    for namespace in examples.NAMESPACES:
        installed_weightlock.cluster.delete_namespace(namespace)


def test_every_sample_has_its_expected_verdict() -> None:
    assert set(EXPECTED) == set(SAMPLES)


@pytest.mark.parametrize(("name", "code"), EXPECTED.items(), ids=lambda value: value)
def test_samples(applied: Installed, name: str, code: str | None) -> None:
    result = examples.apply_sample(applied.cluster, SAMPLES[name])
    if code is None:
        result.ok()
    else:
        assert f"[{code}]" in result.failed()


def test_a_denial_lists_every_reason(applied: Installed) -> None:
    output = examples.apply_sample(applied.cluster, SAMPLES["02-weights-without-grant.yaml"]).failed()
    first, fix, *_, last = output[output.index("denied the request: ") :].strip().splitlines()
    assert first == (
        'denied the request: Pod research/peek is not allowed to read model "atlas-70b": '
        "service account research/default has no active grant, nor has alice@example.com [WL101]"
    )
    assert fix.startswith("Fix: weightlock access request atlas-70b")
    assert re.fullmatch(
        r"Policy: weights-need-grant   Help: https://weightlock\.dev/docs/0\.3/denied#WL101   Request: [0-9a-f-]{36}",
        last,
    )


def test_the_api_server_stored_the_pod_with_its_sidecar(applied: Installed) -> None:
    pod = applied.cluster.client().get(f"{RESEARCH}/pods/evals").ok()
    agent = pod["spec"]["initContainers"][0]
    assert (agent["name"], agent["restartPolicy"]) == ("weightlock-agent", "Always")
    key = next(
        mount
        for mount in pod["spec"]["containers"][0]["volumeMounts"]
        if mount["name"].startswith("weightlock-")
    )
    assert key["readOnly"] is True
    assert key["mountPath"] == "/var/run/weightlock/keys/atlas-70b"
    token = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "weightlock-token")
    assert token["projected"]["sources"][0]["serviceAccountToken"]["audience"] == "weightlock.dev/broker"


def test_the_replicaset_controller_makes_the_pods_of_an_allowed_deployment(applied: Installed) -> None:
    examples.apply_sample(applied.cluster, SAMPLES["08-weights-deployment-with-grant.yaml"]).ok()

    def pods() -> list[dict[str, object]]:
        matches = applied.cluster.kubectl(
            "get", "pods", "-n", "research", "-l", "app=serve", "-o", "json"
        ).json()
        items: list[dict[str, object]] = matches["items"]
        return items

    eventually(lambda: bool(pods()), "the Deployment has a pod", seconds=30)
    assert "weightlock-agent" in json.dumps(pods()[0])


def test_pods_of_a_deployment_are_denied_when_their_account_loses_access(applied: Installed) -> None:
    cluster = applied.cluster
    examples.apply_sample(cluster, SAMPLES["10-weights-job-with-grant.yaml"])
    cluster.kubectl("delete", "accessapproval", "--all").failed()
    request = cluster.client().get("/apis/weightlock.dev/v1alpha1/accessrequests/trainer-atlas").ok()
    revoke = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "AccessApproval",
        "metadata": {"generateName": "revoke-"},
        "spec": {
            "request": {"name": "trainer-atlas", "uid": request["metadata"]["uid"]},
            "decision": "Revoke",
            "comment": "the evaluation is over",
        },
    }
    bob = cluster.client("bob@example.com", ["weights-approvers"])
    bob.post("/apis/weightlock.dev/v1alpha1/accessapprovals", revoke).ok()
    began = time.monotonic()
    cluster.kubectl("delete", "pod", "evals", "-n", "research", "--force", "--grace-period=0").ok()
    sample = SAMPLES["03-weights-with-grant.yaml"]
    eventually(
        lambda: "[WL1" in examples.apply_sample(cluster, sample).stderr, "the grant has ended", seconds=10
    )
    assert time.monotonic() - began < 10 * slowness()
