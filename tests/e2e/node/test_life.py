"""What expiry, rotation, upgrades, faults and removal of Weightlock mean for running pods: `make e2e-node`."""

import json
import operator
import re
import signal
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness import manifests
from harness.cluster import run
from harness.lab import API
from harness.load import CLIENTS, load
from harness.node import sample
from harness.node.conditions import LEASE_SECONDS, RENEW_SECONDS, VALUES
from harness.node.lab import AGENT, DIGEST, READ_FOREVER, READ_UNTIL_WIPED, NodeLab
from harness.node.outside import Node
from harness.waiting import eventually

Make = Callable[..., NodeLab]
SYSTEM = manifests.NAMESPACE
# One more than the sidecar's pause after a denial, which has a jitter of a fifth.
REFUSED_SECONDS = 25
MOST_MEMORY = 30 * 1024
STARTS = 5
# How a connection to a killed container ends, or does not begin.
BROKEN = re.compile(
    r"EOF|connection reset by peer|connection refused|broken pipe|http2: client connection lost"
)
# A line for each change: which key the manifest names, and whether the pod can read with it.
READ_KEYS = """
import json, pathlib, time, weightlock
last = None
while True:
    key = json.loads(pathlib.Path("/weights/weightlock.json").read_text())["key"]["id"]
    try:
        with weightlock.open_weights("/weights") as weights:
            weights.read("shards/model.bin")
        line = f"READ {key}"
    except Exception as error:
        line = f"LOST {key}"
    if line != last:
        print(line, flush=True)
    last = line
    time.sleep(0.2)
"""


def sidecar_restarts(made: NodeLab) -> int:
    """How often the kubelet restarted the sidecar."""
    (sidecar,) = [entry for entry in made.status()["initContainerStatuses"] if entry["name"] == AGENT]
    return int(sidecar["restartCount"])


@pytest.mark.parametrize("action", ["wipe", "evict"])
def test_a_grant_that_expires_ends_the_reads(node: Node, lab: Make, action: str) -> None:
    """At the end of the grant, the key is wiped with the next renewal, or the pod is evicted."""
    made = lab(onExpiry=action)
    began = time.time()
    made.grant(duration="1m")
    made.start(script=READ_UNTIL_WIPED)
    made.wait_log("READING")
    path = f"/api/v1/namespaces/{made.namespace}/pods/train"

    def over() -> bool:
        pod = node.client().get(path)
        return pod.status == 404 or "deletionTimestamp" in pod.body["metadata"] or "WIPED" in made.logs()

    eventually(over, f"the grant expires: {action}", seconds=60 + 3 * RENEW_SECONDS, every=0.3)
    # The approval starts the minute, some seconds after the request.
    assert 60 <= time.time() - began <= 60 + RENEW_SECONDS + 20


def test_a_rotated_key_reaches_a_running_pod(node: Node, lab: Make) -> None:
    """`weights rotate --key-id`, then the new entry: the pod loses the old key and reads with the new one."""
    made = lab()
    made.grant()
    made.start(script=READ_KEYS)
    made.wait_log("READ k1")
    kms = sample.keyset(node)
    command = [sample.COMMAND, "weights", "rotate", made.sealed, "--kms", kms.local, "--key-id", "k2"]
    run(command, environment=node.tool_environment()).ok()
    key = json.loads((made.sealed / "weightlock.json").read_text())["key"]
    entry = {"id": key["id"], "kms": kms.url, "wrapped": key["wrapped"]}
    node.client().patch(f"{API}/modelweights/{made.model}", {"spec": {"keys": [entry]}}).ok()
    log = made.wait_log("READ k2", seconds=RENEW_SECONDS + REFUSED_SECONDS + 20)
    assert log.split() == ["READ", "k1", "LOST", "k2", "READ", "k2"]
    assert sidecar_restarts(made) == 0


def test_an_upgrade_and_a_rollback_disturb_no_pod(node: Node, lab: Make) -> None:
    """Both replace all pods of Weightlock under load; reviews are answered, and a running pod keeps its key."""
    made = lab()
    made.grant()
    made.start(script=READ_FOREVER)
    made.wait_log("READING")
    namespace = node.new_namespace()
    release = json.loads(node.helm("-n", SYSTEM, "history", "weightlock", "-o", "json").ok().stdout)[-1]
    changed = [value for value in VALUES if "settleSeconds" not in value]
    with load(node, namespace).running() as attempts:
        sample.install(node, *changed, "config.controller.settleSeconds=2", verb="upgrade")
        after_upgrade = len(attempts.refused)
        back = ["rollback", "weightlock", str(release["revision"]), "--wait", "--timeout=300s"]
        node.helm("-n", SYSTEM, *back, seconds=330).ok()
    node.delete_namespace(namespace)
    assert attempts.refused == [], f"{after_upgrade} during the upgrade"
    assert attempts.admitted > 100
    # The next renewal is that of the replaced broker.
    time.sleep(RENEW_SECONDS + 2)
    assert "WIPED" not in made.logs()
    assert sidecar_restarts(made) == 0


@pytest.mark.parametrize("part", ["webhook", "controller", "broker"])
def test_a_killed_container_costs_no_key(node: Node, lab: Make, part: str) -> None:
    """kill -9 of all processes of one replica under load. The other replica answers; every denial is a retry's."""
    made = lab()
    made.grant()
    made.start(script=READ_FOREVER)
    made.wait_log("READING")
    pods = node.client().get(f"/api/v1/namespaces/{SYSTEM}/pods").ok()["items"]
    pod = next(
        each
        for each in pods
        if each["metadata"]["labels"].get("app.kubernetes.io/component") == part
        and each["status"]["phase"] == "Running"
    )
    namespace = node.new_namespace()
    with load(node, namespace).running() as attempts:
        time.sleep(2)
        for process in node.control("processes", pod["metadata"]["uid"]):
            if "pause" not in process["command"]:
                node.control("signal", process["pid"], int(signal.SIGKILL))
        node.rolled_out(SYSTEM, f"weightlock-{part}")
    node.delete_namespace(namespace)
    print(
        f"\nkill -9 of the {part}: {len(attempts.refused)} of {attempts.admitted + len(attempts.refused)} denied"
    )
    # Never an admission without a review: each is answered, or denied by the failure policy. client-go repeats no POST
    # after a broken connection (rest/request.go), so the review that was being answered is denied.
    for message in attempts.refused:
        assert "failed calling webhook" in message
        assert BROKEN.search(message), message
    cut = [message for message in attempts.refused if "connection refused" not in message]
    assert len(cut) <= CLIENTS, cut
    assert part == "webhook" or attempts.refused == []
    time.sleep(RENEW_SECONDS + 2)
    assert "WIPED" not in made.logs()


def test_the_sidecar_stays_small(node: Node, lab: Make) -> None:
    """After the release and a renewal: the kernel's counters of the real sidecar."""
    made = lab()
    made.grant()
    made.start(script=READ_FOREVER)
    made.wait_log("READING")
    time.sleep(RENEW_SECONDS + 2)
    (process,) = made.processes("train", "weightlock agent")
    status = node.run("cat", f"/proc/{process}/status").ok().stdout
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident
    print(f"\nthe sidecar has {int(resident[1]) / 1024:.1f} MB resident")
    assert int(resident[1]) <= MOST_MEMORY


def ready_seconds(node: Node, made: NodeLab, document: dict[str, Any]) -> float:
    """The seconds from the creation of a pod until it is ready."""
    path = f"/api/v1/namespaces/{made.namespace}/pods"
    began = time.monotonic()
    name = node.client("alice").post(path, document).ok()["metadata"]["name"]

    def is_ready() -> bool:
        conditions = node.client().get(f"{path}/{name}").ok()["status"].get("conditions", ())
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    eventually(is_ready, f"{name} is ready", seconds=120, every=0.05)
    seconds = time.monotonic() - began
    node.client().delete(f"{path}/{name}", gracePeriodSeconds=0)
    return seconds


def test_how_much_later_a_pod_with_a_sidecar_is_ready(node: Node, lab: Make) -> None:
    """The same pod with and without weights, in turn: the median of the ratios of all pairs is printed."""
    made = lab()
    made.grant()
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for number in range(STARTS):
        for kind, times in seconds.items():
            document = made.pod(f"{kind}-{number}", "import time; time.sleep(600)")
            if kind == "without":
                document["spec"]["volumes"] = [{"name": "weights", "emptyDir": {}}]
            times.append(ready_seconds(node, made, document))
    medians = {kind: statistics.median(times) for kind, times in seconds.items()}
    ratio = statistics.median(map(operator.truediv, seconds["with"], seconds["without"]))
    print(
        f"\ncreate to ready: {medians['with']:.2f} s with the sidecar, {medians['without']:.2f} s without: {ratio:.2f}"
    )
    assert ratio < 3


REGISTRATIONS = tuple(
    f"/apis/admissionregistration.k8s.io/v1/{kind}"
    for kind in (
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    )
)


def registrations(node: Node) -> dict[str, str]:
    """The identity of each object with which Weightlock takes part in admission, by its path."""
    return {
        f"{path}/{each['metadata']['name']}": each["metadata"]["uid"]
        for path in REGISTRATIONS
        for each in node.client().get(path).ok()["items"]
        if each["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == "weightlock"
    }


def delete_registrations(node: Node) -> None:
    """Delete the webhook configurations, and wait until the controller has restored each."""
    before = registrations(node)
    hooks = [path for path in before if "webhookconfigurations" in path]
    assert len(hooks) == 2, before
    for path in hooks:
        node.client().delete(path).ok()

    def restored() -> bool:
        after = registrations(node)
        return after.keys() == before.keys() and all(after[path] != before[path] for path in hooks)

    eventually(restored, "the controller restores the webhook configurations", seconds=60, every=0.5)


def test_an_uninstall_opens_the_cluster(node: Node, lab: Make) -> None:
    """Pods are admitted without Weightlock, and running pods read until their lease ends. Grants survive.

    Helm also deletes the objects that the controller restored.
    """
    delete_registrations(node)
    made = lab()
    made.grant(duration="30m")
    made.start(script=READ_FOREVER)
    made.wait_log("READING")
    began = time.monotonic()
    node.helm("-n", SYSTEM, "uninstall", "weightlock", "--wait", "--timeout=120s", seconds=150).ok()
    try:
        assert registrations(node) == {}
        other = made.pod("other", "print('open')")
        path = f"/api/v1/namespaces/{made.namespace}/pods"
        saved = node.client("alice").post(path, other).ok()
        assert not saved["spec"].get("initContainers")
        made.wait_phase("Succeeded", "other")
        if time.monotonic() - began < LEASE_SECONDS - RENEW_SECONDS:
            assert "WIPED" not in made.logs()
        made.wait_log("WIPED", seconds=LEASE_SECONDS + RENEW_SECONDS)
    finally:
        sample.install(node, *VALUES)
    eventually(made.is_admitted, "the grant of before counts", seconds=30)
    made.start("again")
    made.wait_phase("Succeeded", "again")
    assert made.logs("again").strip() == DIGEST
