"""The life of protected weights with real pods: denied, approved, read, revoked."""

import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness.node.conditions import RENEW_SECONDS
from harness.node.lab import AGENT, DIGEST, READ_FOREVER, READ_PLAIN, READ_UNTIL_WIPED, NodeLab
from harness.node.outside import Node
from harness.waiting import eventually, slowness

Make = Callable[..., NodeLab]


def wiped_after(log: str, since: float) -> float:
    """The seconds from `since` until the pod found its key gone."""
    matches = re.search(r"WIPED (\S+) after [1-9]", log)
    assert matches, log
    return float(matches[1]) - since


def test_a_job_reads_sealed_weights_after_two_approvals(node: Node, lab: Make) -> None:
    """Denied, requested, approved twice, admitted; the sidecar fetches; the script reads; the Job completes."""
    produced = lab()
    jobs = f"/apis/batch/v1/namespaces/{produced.namespace}/jobs"
    alice = node.client("alice")
    answer = alice.post(jobs, produced.job("train"))
    assert answer.status == 403
    assert "WL101" in answer.message or "is not allowed to read" in answer.message, answer.message
    request = produced.ask()
    produced.decide(request, "bob")
    assert alice.post(jobs, produced.job("train"), dryRun="All").status == 403
    produced.decide(request, "carol")
    eventually(lambda: alice.post(jobs, produced.job("train"), dryRun="All").ok(), "the Job is admitted")
    alice.post(jobs, produced.job("train")).ok()
    node.kubectl(
        "-n", produced.namespace, "wait", "job/train", "--for=condition=Complete", "--timeout=60s"
    ).ok()
    assert (
        node.kubectl("-n", produced.namespace, "logs", "job/train", "-c", "main").ok().stdout.strip()
        == DIGEST
    )


def test_plaintext_is_delivered_into_memory(lab: Make) -> None:
    """With `delivery: plaintext`, a program that knows nothing of sealing reads the files."""
    produced = lab(spec={"delivery": "plaintext"})
    produced.grant()
    produced.start(script=READ_PLAIN)
    produced.wait_phase("Succeeded")
    assert produced.logs().strip() == DIGEST


def test_a_revoked_grant_wipes_the_key_while_the_pod_reads(lab: Make) -> None:
    """The key is gone at the next renewal of the lease."""
    produced = lab(onExpiry="wipe")
    request = produced.grant()
    produced.start(script=READ_UNTIL_WIPED)
    produced.wait_log("READING")
    began = time.time()
    produced.weightlock("revoke", request["metadata"]["name"], user="alice").ok()
    log = produced.wait_log("WIPED", seconds=3 * RENEW_SECONDS)
    # On a busy machine, the renewal and the script that notices the wipe take longer.
    assert wiped_after(log, began) <= RENEW_SECONDS + 4 * slowness()


def test_a_revoked_grant_evicts_the_pod(node: Node, lab: Make) -> None:
    """With `onExpiry: evict`, the pod does not outlive its grant."""
    produced = lab(onExpiry="evict")
    request = produced.grant()
    produced.start(script=READ_UNTIL_WIPED)
    produced.wait_log("READING")
    produced.weightlock("revoke", request["metadata"]["name"], user="alice").ok()
    path = f"/api/v1/namespaces/{produced.namespace}/pods/train"

    def ends() -> bool:
        answer = node.client().get(path)
        return answer.status == 404 or "deletionTimestamp" in answer.body["metadata"]

    eventually(ends, "the pod is evicted", seconds=20)


def test_a_killed_sidecar_comes_back_and_the_pod_keeps_reading(node: Node, lab: Make) -> None:
    """kill -9 of the sidecar restarts only the sidecar."""
    produced = lab()
    produced.grant()
    produced.start(script=READ_FOREVER)
    produced.wait_log("READING")
    (process,) = produced.processes("train", "weightlock agent")
    node.control("signal", process, int(signal.SIGKILL))

    def restarted() -> bool:
        (sidecar,) = [entry for entry in produced.status()["initContainerStatuses"] if entry["name"] == AGENT]
        return bool(sidecar["restartCount"] == 1 and sidecar["ready"])

    eventually(restarted, "the sidecar is ready again", seconds=40, every=0.3)
    assert "WIPED" not in produced.logs()


@pytest.mark.parametrize(
    "command",
    [
        ("exec", "train", "-c", "main", "--", "true"),
        ("cp", "{ns}/train:/weights/config.json", "{home}/stolen", "-c", "main"),
        ("port-forward", "train", "18080:8080"),
        ("attach", "train", "-c", "main"),
        ("debug", "train", "--image={image}", "--target=main", "--profile=restricted", "--", "true"),
    ],
    ids=lambda command: command[0],
)
def test_no_user_enters_a_pod_with_weights(node: Node, reading: NodeLab, command: tuple[str, ...]) -> None:
    """exec, cp, port-forward, attach and debug containers are denied, for the cluster admin as well."""
    places = {"ns": reading.namespace, "home": node.directory, "image": node.image}
    words = [word.format(**places) for word in command]
    # RBAC keeps debug containers from alice already.
    for user in (None,) if words[0] == "debug" else ("alice", None):
        output = node.kubectl("-n", reading.namespace, *words, user=user).failed()
        assert "WL121" in output, output


@pytest.fixture(scope="module")
def reading(node: Node) -> Any:
    """A pod that reads weights as long as the tests of this module run."""
    produced = NodeLab(node, node.new_namespace())
    produced.build()
    produced.grant()
    produced.start(script=READ_FOREVER)
    produced.wait_log("READING")
    yield produced
    node.delete_namespace(produced.namespace)
