"""A pod that admission never saw gets no key, whatever its sidecar sends."""

import copy
from collections.abc import Callable
from typing import Any

from harness.node.lab import AGENT, READ_FOREVER, NodeLab
from harness.node.outside import Node
from harness.waiting import eventually

Make = Callable[..., NodeLab]


def bare(pod: dict[str, Any], namespace: str, name: str) -> dict[str, Any]:
    """A pod as it was stored, for another namespace: sidecar, token and all, but no trace of its owner."""
    spec = copy.deepcopy(pod["spec"])
    for field in ("nodeName", "tolerations", "priority", "enableServiceLinks", "preemptionPolicy"):
        spec.pop(field, None)
    spec["volumes"] = [
        volume for volume in spec["volumes"] if not volume["name"].startswith("kube-api-access")
    ]
    for container in [*spec["containers"], *spec["initContainers"]]:
        mounts = container.get("volumeMounts", [])
        container["volumeMounts"] = [m for m in mounts if not m["name"].startswith("kube-api-access")]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def test_a_pod_in_an_exempt_namespace_gets_no_key(node: Node, lab: Make) -> None:
    """The same volume and the same sidecar in kube-system, where admission does not look."""
    produced = lab()
    produced.grant()
    produced.start(script=READ_FOREVER)
    produced.wait_log("READING")
    original = node.client().get(f"/api/v1/namespaces/{produced.namespace}/pods/train").ok()
    copied = bare(original, "kube-system", f"thief-{produced.namespace}")
    copied["spec"]["serviceAccountName"] = "default"
    volumes = copied["spec"]["volumes"]
    copied["spec"]["volumes"] = [
        {"name": volume["name"], "hostPath": {"path": str(produced.sealed)}}
        if "persistentVolumeClaim" in volume
        else volume
        for volume in volumes
    ]
    name = copied["metadata"]["name"]
    node.client().post("/api/v1/namespaces/kube-system/pods", copied).ok()
    try:

        def denied() -> str:
            log = node.kubectl("-n", "kube-system", "logs", name, "-c", AGENT).stdout
            return log if "WL" in log else ""

        log = eventually(denied, "the broker denies the release", seconds=60, every=0.5)
        assert "WL327" in log, log
        status = node.client().get(f"/api/v1/namespaces/kube-system/pods/{name}").ok()["status"]
        (main,) = status["containerStatuses"]
        assert not main.get("started")
    finally:
        node.client().delete(f"/api/v1/namespaces/kube-system/pods/{name}", gracePeriodSeconds=0)
