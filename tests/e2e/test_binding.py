"""The last decision about a pod, when it gets its node: by its claims as the API server has them at that moment."""

from typing import Any

from harness.installed import Installed
from harness.waiting import eventually

DRA = "/apis/resource.k8s.io/v1"


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


def test_a_claim_that_is_swapped_while_its_pod_waits(weightlock: Installed, namespace: str) -> None:
    """The pod is decided again when it gets its node, by the claim as it is then and as its status names it."""
    cluster = weightlock.cluster
    cluster.let_edit("mallory", namespace)
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
        matches = admin.get(f"{pods}/templated").ok()["status"]
        return matches.get("resourceClaimStatuses", [])  # type: ignore[no-any-return]

    # The controller writes the claim that it makes from the template; the attack replaces that.
    eventually(allotted, "the pod has a claim of the template")
    admin.patch(f"{pods}/templated/status", status).ok()
    assert allotted() == status["status"]["resourceClaimStatuses"]
    # At once: the watch of the webhook may not have delivered the swapped claim yet.
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
    for name in ("swap-nic", "swap-gpu"):
        admin.delete(f"{DRA}/deviceclasses/{name}").ok()
