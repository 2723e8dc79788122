"""The attack corpus on a real API server, as far as a case needs no other objects, and the swap of a device claim."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.installed import Installed
from harness.waiting import eventually

CORPUS = Path(__file__).resolve().parents[1] / "redteam"
RESOURCES = {
    "Pod": "/api/v1/namespaces/{}/pods",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "ReplicaSet": "/apis/apps/v1/namespaces/{}/replicasets",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "CronJob": "/apis/batch/v1/namespaces/{}/cronjobs",
}
DRA = "/apis/resource.k8s.io/v1"
NEEDS_OTHERS = ("state", "operation", "who", "namespace", "resource")
# Fields that refer to objects which do not exist here, and the image of the corpus' model.
REFERENCES = (
    "serviceAccountName",
    "persistentVolumeClaim",
    "runtimeClassName",
    "resourceClaimName",
    "models/atlas",
)


def cases() -> Iterator[Any]:
    """Creations that need no other object and no account of their own."""
    for file in sorted(CORPUS.glob("*.yaml")):
        if file.name.endswith(".state.yaml"):
            continue
        corpus = yaml.safe_load(file.read_text())
        if any(isinstance(item, dict) for item in corpus.get("state", ())):
            # Its models and objects are its own.
            continue
        for case in corpus["cases"]:
            document = case.get("object") or {}
            text = yaml.safe_dump(document)
            if any(key in case for key in NEEDS_OTHERS) or document.get("kind") not in RESOURCES:
                continue
            if not any(reference in text for reference in REFERENCES):
                yield pytest.param(case, id=f"{file.stem}: {case['name']}")


CASES = list(cases())


@pytest.fixture(scope="module")
def place(installed_weightlock: Installed) -> Iterator[tuple[Installed, str]]:
    """Weightlock, and a namespace in which mallory may edit."""
    if not installed_weightlock.running:
        installed_weightlock.start()
    if not installed_weightlock.webhooks_present():
        installed_weightlock.add_webhooks()
    namespace = installed_weightlock.cluster.new_namespace("redteam")
    installed_weightlock.cluster.let_edit("mallory", namespace)
    yield installed_weightlock, namespace
    installed_weightlock.cluster.delete_namespace(namespace)


def test_most_of_the_corpus_is_tried() -> None:
    assert len(CASES) > 250


@pytest.mark.parametrize("case", CASES)
def test_a_case(place: tuple[Installed, str], case: dict[str, Any]) -> None:
    """Objects that the API server itself rejects (422) never reach a validating webhook."""
    weightlock, namespace = place
    document = case["object"]
    document = {**document, "metadata": {**document["metadata"], "namespace": namespace}}
    path = RESOURCES[document["kind"]].format(namespace)
    answer = weightlock.cluster.client("mallory").post(path, document, dryRun="All")
    if answer.status == 422:
        return
    expected = case["expect"]
    if expected["allowed"]:
        assert answer.status == 201, answer.message
    else:
        assert answer.status == 403, answer.message
        assert any(f"[{code}]" in answer.message for code in expected["codes"]), answer.message


def device_class(name: str, driver: str) -> dict[str, Any]:
    selector = {"cel": {"expression": f"device.driver == '{driver}'"}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": name},
        "spec": {"selectors": [selector]},
    }


def claim(name: str, device: str) -> dict[str, Any]:
    request = {"name": "r", "exactly": {"deviceClassName": device}}
    spec = {"devices": {"requests": [request]}}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name},
        "spec": spec,
    }


def test_a_claim_that_is_swapped_while_its_pod_waits(place: tuple[Installed, str]) -> None:
    """The pod is decided again when it gets its node, by the claim as it is then and as its status names it."""
    weightlock, namespace = place
    cluster = weightlock.cluster
    admin = cluster.client()
    for document in (device_class("swap-nic", "dra.net"), device_class("swap-gpu", "gpu.nvidia.com")):
        admin.post(f"{DRA}/deviceclasses", document).ok()
    claims = f"{DRA}/namespaces/{namespace}/resourceclaims"
    admin.post(claims, claim("mine", "swap-nic")).ok()
    admin.post(claims, claim("made", "swap-gpu")).ok()
    template = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "t"},
    }
    template["spec"] = {"spec": claim("x", "swap-nic")["spec"]}
    admin.post(f"{DRA}/namespaces/{namespace}/resourceclaimtemplates", template).ok()
    pods = f"/api/v1/namespaces/{namespace}/pods"

    def waiting(name: str, **reference: str) -> dict[str, Any]:
        container = {
            "name": "m",
            "image": "registry.example.com/none:1",
            "resources": {"claims": [{"name": "c"}]},
        }
        spec = {
            "schedulerName": "none",
            "containers": [container],
            "resourceClaims": [{"name": "c", **reference}],
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}

    mallory = cluster.client("mallory")
    eventually(
        lambda: mallory.post(pods, waiting("probe", resourceClaimName="mine"), dryRun="All").status == 201,
        "the classes are known",
        seconds=30,
    )
    mallory.post(pods, waiting("named", resourceClaimName="mine")).ok()
    mallory.post(pods, waiting("templated", resourceClaimTemplateName="t")).ok()
    admin.delete(f"{claims}/mine").ok()
    admin.post(claims, claim("mine", "swap-gpu")).ok()
    status = {"status": {"resourceClaimStatuses": [{"name": "c", "resourceClaimName": "made"}]}}

    def allotted() -> list[dict[str, str]]:
        found = admin.get(f"{pods}/templated").ok()["status"]
        return found.get("resourceClaimStatuses", [])  # type: ignore[no-any-return]

    # The controller writes the claim that it makes from the template; the attack replaces that.
    eventually(allotted, "the pod has a claim of the template")
    admin.patch(f"{pods}/templated/status", status).ok()
    assert allotted() == status["status"]["resourceClaimStatuses"]
    eventually(
        lambda: mallory.post(pods, waiting("probe", resourceClaimName="mine"), dryRun="All").status == 403,
        "the swapped claim is known",
        seconds=30,
    )
    scheduler = cluster.client("system:kube-scheduler")
    for name in ("named", "templated"):
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"kind": "Node", "name": "node-1"},
        }
        answer = scheduler.post(f"{pods}/{name}/binding", binding)
        assert (answer.status, "[WL201]" in answer.message) == (403, True), f"{name}: {answer.message}"
