"""GPUs on a real node, by a device plugin that offers `nvidia.com/gpu`."""

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
