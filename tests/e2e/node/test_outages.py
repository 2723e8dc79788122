"""What outages of the broker and of the node cost, with real pods. They take minutes: `make e2e-node`."""

import sys
import time
from collections.abc import Callable

from harness import manifests
from harness.node.conditions import LEASE_SECONDS, RENEW_SECONDS
from harness.node.lab import AGENT, DIGEST, READ_FOREVER, NodeLab
from harness.node.outside import Node
from harness.waiting import eventually

HEALTH = (
    "from urllib.request import urlopen; print(urlopen('http://127.0.0.1:10248/healthz').read().decode())"
)
Make = Callable[..., NodeLab]
SYSTEM = manifests.NAMESPACE


def test_without_a_broker_the_key_is_wiped_when_the_lease_ends(node: Node, lab: Make) -> None:
    """The pod reads until the end of its lease, no longer, and reads again once the broker is back."""
    produced = lab()
    produced.grant()
    produced.start(script=READ_FOREVER)
    produced.wait_log("READING")
    scale = ("-n", SYSTEM, "scale", "deployment/weightlock-broker")
    node.kubectl(*scale, "--replicas=0").ok()
    began = time.monotonic()
    try:
        time.sleep(LEASE_SECONDS / 3)
        assert "WIPED" not in produced.logs()
        produced.wait_log("WIPED", seconds=LEASE_SECONDS)
        assert time.monotonic() - began <= LEASE_SECONDS + RENEW_SECONDS
    finally:
        node.kubectl(*scale, "--replicas=2").ok()
    node.rolled_out(SYSTEM, "weightlock-broker")


def test_a_reboot_of_the_node_restores_weightlock(node: Node, lab: Make) -> None:
    """All containers end, etcd stays; afterwards webhook and broker serve again, and a new pod reads weights."""
    produced = lab()
    produced.grant()
    node.control("reboot")

    def starts() -> bool:
        produced.start("again")
        return True

    # The containers of the webhook start again, with new addresses.
    eventually(starts, "a pod is admitted", seconds=120, every=0.5)
    produced.wait_phase("Succeeded", "again", seconds=120)
    assert produced.logs("again").strip() == DIGEST


def test_a_kubelet_that_restarts_disturbs_no_pod(node: Node, lab: Make) -> None:
    """The sidecar keeps its lease while the kubelet restarts."""
    produced = lab()
    produced.grant()
    produced.start(script=READ_FOREVER)
    produced.wait_log("READING")
    node.control("restart", "kubelet")
    eventually(
        lambda: node.run(sys.executable, "-c", HEALTH).stdout.strip() == "ok",
        "the kubelet is healthy",
        every=0.5,
    )
    time.sleep(RENEW_SECONDS + 2)
    assert "WIPED" not in produced.logs()
    sidecar = [entry for entry in produced.status()["initContainerStatuses"] if entry["name"] == AGENT]
    assert [entry["restartCount"] for entry in sidecar] == [0]
