"""GPUs on a real node, by a device plugin that offers `nvidia.com/gpu` and by drivers of resource claims."""

from collections.abc import Callable
from typing import Any

import pytest
from harness.node.lab import NodeLab
from harness.node.outside import Node
from harness.waiting import eventually

Make = Callable[..., NodeLab]
GPU = "nvidia.com/gpu"
SHOW = 'import os; print("devices", os.environ.get("NVIDIA_VISIBLE_DEVICES"))'
RBAC = "rbac.authorization.k8s.io"


@pytest.fixture(scope="module")
def gpus(node: Node) -> None:
    """Two GPUs that do not exist."""
    node.control("spawn", "gpuplugin", [node.parts["programs"]["gpuplugin"]])

    def offered() -> bool:
        matches = node.client().get(f"/api/v1/nodes/{node.name}").ok()
        return bool(matches["status"]["allocatable"].get(GPU) == "2")

    eventually(offered, "the node offers two GPUs", seconds=30, every=0.3)


def pod(made: NodeLab, name: str, gpus: int) -> dict[str, Any]:
    """A pod without weights that asks for GPUs."""
    document = made.pod(name, SHOW)
    document["spec"].pop("volumes")
    (container,) = document["spec"]["containers"]
    container.pop("volumeMounts")
    if gpus:
        container["resources"] = {"limits": {GPU: str(gpus)}}
    return document


def entitle(made: NodeLab) -> None:
    """Entitle the service account `trainer` to NVIDIA GPUs in its namespace."""
    role = {"kind": "Role", "metadata": {"name": "gpus", "namespace": made.namespace}}
    rule = {"apiGroups": ["weightlock.dev"], "resources": ["accelerators"], "resourceNames": ["nvidia.com"]}
    made.node.apply(
        {"apiVersion": f"{RBAC}/v1", **role, "rules": [{**rule, "verbs": ["use"]}]},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": role["metadata"],
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "gpus"},
            "subjects": [{"kind": "ServiceAccount", "name": "trainer", "namespace": made.namespace}],
        },
    )


@pytest.mark.usefixtures("gpus")
def test_only_an_entitled_account_gets_a_gpu(node: Node, lab: Make) -> None:
    """Denied without the entitlement; with it, the pod sees the one device that it was allocated."""
    made = lab()
    path = f"/api/v1/namespaces/{made.namespace}/pods"
    alice = node.client("alice")
    answer = alice.post(path, pod(made, "trains", 1))
    assert answer.status == 403
    assert "nvidia.com" in answer.message, answer.message
    entitle(made)
    eventually(
        lambda: alice.post(path, pod(made, "trains", 1), dryRun="All").status == 201, "the pod is admitted"
    )
    alice.post(path, pod(made, "trains", 1)).ok()
    made.wait_phase("Succeeded", "trains")
    assert made.logs("trains").strip() in ("devices 0", "devices 1")


@pytest.mark.usefixtures("gpus")
def test_a_pod_without_a_gpu_sees_none(node: Node, lab: Make) -> None:
    """Admission hides the devices of the node from a container that asked for none."""
    made = lab()
    node.client("alice").post(f"/api/v1/namespaces/{made.namespace}/pods", pod(made, "idle", 0)).ok()
    made.wait_phase("Succeeded", "idle")
    assert made.logs("idle").strip() in ("devices void", "devices None")


DRA = "/apis/resource.k8s.io/v1"
# The driver of the devices, and the devices that it offers, by the name of their class.
CLASSES = {"node-gpu": ("gpu.nvidia.com", 1), "node-nic": ("dra.net", 1)}
SHOW_CLAIM = 'import os; print("devices", os.environ.get("DRA_DEVICES"))'


@pytest.fixture(scope="module")
def dra(node: Node) -> None:
    """Two drivers of resource claims with one device each: a GPU, and a network card, which needs no entitlement."""
    kubeconfig = str(node.kubeconfig())
    for name, (driver, number) in CLASSES.items():
        flags = [
            f"--name={driver}",
            f"--devices={number}",
            f"--node={node.name}",
            f"--kubeconfig={kubeconfig}",
        ]
        node.control("spawn", name, [node.parts["programs"]["dradriver"], *flags])
        selector = {"cel": {"expression": f"device.driver == '{driver}'"}}
        node.apply(
            {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "DeviceClass",
                "metadata": {"name": name},
                "spec": {"selectors": [selector]},
            }
        )

    def offered() -> bool:
        slices = node.client().get(f"{DRA}/resourceslices").ok()["items"]
        return {each["spec"]["driver"] for each in slices} == {driver for driver, _ in CLASSES.values()}

    eventually(offered, "the node offers the devices", seconds=60, every=0.3)


def claim(made: NodeLab, name: str, device: str) -> str:
    """Create a claim for a device of a class as alice; return its path."""
    path = f"{DRA}/namespaces/{made.namespace}/resourceclaims"
    request = {"name": "device", "exactly": {"deviceClassName": device}}
    document = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name},
        "spec": {"devices": {"requests": [request]}},
    }
    made.node.client().post(path, document).ok()
    return f"{path}/{name}"


def claiming_pod(made: NodeLab, name: str, claim_name: str) -> dict[str, Any]:
    """A pod without weights that uses a claim."""
    document = pod(made, name, 0)
    document["spec"]["resourceClaims"] = [{"name": "device", "resourceClaimName": claim_name}]
    (container,) = document["spec"]["containers"]
    container |= {"command": ["python", "-c", SHOW_CLAIM], "resources": {"claims": [{"name": "device"}]}}
    return document


def admit(made: NodeLab, document: dict[str, Any]) -> None:
    """Create a pod as alice, as soon as the webhook has the class, the claim and the right."""
    path = f"/api/v1/namespaces/{made.namespace}/pods"
    alice = made.node.client("alice")
    name = document["metadata"]["name"]
    eventually(lambda: alice.post(path, document).status == 201, f"pod {name} is admitted", seconds=30)


def sees_its_device(made: NodeLab, name: str, claim_name: str) -> None:
    """Run a pod that uses a claim. It sees the device that was allocated."""
    admit(made, claiming_pod(made, name, claim_name))
    made.wait_phase("Succeeded", name)
    assert made.logs(name).strip() == "devices device-0"


@pytest.mark.usefixtures("dra")
def test_only_an_entitled_account_claims_a_gpu(node: Node, lab: Make) -> None:
    """A claim for another device needs no entitlement. With it, the pod sees the device that it was allocated."""
    made = lab()
    claim(made, "nic", "node-nic")
    sees_its_device(made, "plain", "nic")
    claim(made, "gpu", "node-gpu")
    path = f"/api/v1/namespaces/{made.namespace}/pods"
    answer = node.client("alice").post(path, claiming_pod(made, "trains", "gpu"))
    assert (answer.status, "nvidia.com" in answer.message) == (403, True), answer.message
    entitle(made)
    sees_its_device(made, "trains", "gpu")


@pytest.mark.usefixtures("dra")
def test_a_claim_that_is_swapped_while_its_pod_waits(node: Node, lab: Make) -> None:
    """The pod waits for the device of another one. Its claim then asks for a GPU, and the scheduler cannot bind it."""
    made = lab()
    pods = f"/api/v1/namespaces/{made.namespace}/pods"
    claim(made, "taken", "node-nic")
    holder = claiming_pod(made, "holder", "taken")
    holder["spec"]["containers"][0]["command"] = ["python", "-c", "import time; time.sleep(600)"]
    holder["spec"]["terminationGracePeriodSeconds"] = 1
    admit(made, holder)
    made.wait_phase("Running", "holder")
    mine = claim(made, "mine", "node-nic")
    admit(made, claiming_pod(made, "waits", "mine"))

    def condition() -> str:
        listed = made.status("waits").get("conditions", ())
        return next((each.get("message", "") for each in listed if each["type"] == "PodScheduled"), "")

    eventually(lambda: "claim" in condition(), "the second pod waits for a device", seconds=30, every=0.3)
    node.client().patch(mine, {"metadata": {"finalizers": None}}).ok()
    node.client().delete(mine).ok()
    eventually(lambda: node.client().get(mine).status == 404, "the claim is gone")
    claim(made, "mine", "node-gpu")
    eventually(lambda: "WL201" in made.events(), "the binding is denied", seconds=60, every=0.5)
    assert made.status("waits")["phase"] == "Pending"
    assert "nodeName" not in node.client().get(f"{pods}/waits").ok()["spec"]
