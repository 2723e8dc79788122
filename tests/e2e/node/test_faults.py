"""What faults of Weightlock and of the node cost, with real pods."""

import time
from collections.abc import Callable

from harness import manifests
from harness.load import load
from harness.node.conditions import LEASE_SECONDS, RENEW_SECONDS
from harness.node.lab import AGENT, DIGEST, READ_FOREVER, NodeLab
from harness.node.outside import Node
from harness.waiting import eventually

Make = Callable[..., NodeLab]
SYSTEM = manifests.NAMESPACE


def rolled_out(node: Node, part: str, seconds: int = 90) -> None:
    """Wait until every replica of a part is up to date and ready."""
    node.kubectl(
        "-n",
        SYSTEM,
        "rollout",
        "status",
        f"deployment/weightlock-{part}",
        f"--timeout={seconds}s",
        seconds=seconds + 10,
    ).ok()


def test_a_rolling_restart_of_the_webhook_fails_no_review(node: Node) -> None:
    """With two replicas, each review is answered while both are replaced."""
    namespace = node.new_namespace()
    with load(node, namespace).running() as tried:
        node.kubectl("-n", SYSTEM, "rollout", "restart", "deployment/weightlock-webhook").ok()
        rolled_out(node, "webhook")
    assert tried.refused == []
    assert tried.admitted > 100
    node.delete_namespace(namespace)


def test_without_a_broker_the_key_is_wiped_when_the_lease_ends(node: Node, lab: Make) -> None:
    """The pod reads until the end of its lease, no longer, and reads again once the broker is back."""
    made = lab()
    made.grant()
    made.start(script=READ_FOREVER)
    made.wait_log("READING")
    scale = ("-n", SYSTEM, "scale", "deployment/weightlock-broker")
    node.kubectl(*scale, "--replicas=0").ok()
    began = time.monotonic()
    try:
        time.sleep(LEASE_SECONDS / 3)
        assert "WIPED" not in made.logs()
        made.wait_log("WIPED", seconds=LEASE_SECONDS)
        assert time.monotonic() - began <= LEASE_SECONDS + RENEW_SECONDS
    finally:
        node.kubectl(*scale, "--replicas=2").ok()
    rolled_out(node, "broker")


def test_a_reboot_of_the_node_restores_weightlock(node: Node, lab: Make) -> None:
    """All containers end, etcd stays; afterwards webhook and broker serve again, and a new pod reads weights."""
    made = lab()
    made.grant()
    node.control("reboot")
    for part in ("webhook", "controller", "broker"):
        rolled_out(node, part)

    def starts() -> bool:
        made.start("again")
        return True

    # The API server closes its connections to the pods that ended one by one.
    eventually(starts, "a pod is admitted", seconds=30, every=0.5)
    made.wait_phase("Succeeded", "again")
    assert made.logs("again").strip() == DIGEST


def test_a_kubelet_that_restarts_disturbs_no_pod(node: Node, lab: Make) -> None:
    """The sidecar keeps its lease while the kubelet restarts."""
    made = lab()
    made.grant()
    made.start(script=READ_FOREVER)
    made.wait_log("READING")
    node.control("restart", "kubelet")
    eventually(
        lambda: node.kubectl("get", "--raw", f"/api/v1/nodes/{node.name}/proxy/healthz").stdout == "ok",
        "kubelet",
    )
    time.sleep(RENEW_SECONDS + 2)
    assert "WIPED" not in made.logs()
    sidecar = [entry for entry in made.status()["initContainerStatuses"] if entry["name"] == AGENT]
    assert [entry["restartCount"] for entry in sidecar] == [0]
