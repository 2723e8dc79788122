"""The optional parts of a cluster, all in one: two nodes, enforced NetworkPolicies, gVisor and a CSI driver."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import manifests
from harness.cluster import Result
from harness.load import load
from harness.node import sample
from harness.node.conditions import RENEW_SECONDS, VALUES
from harness.node.lab import AGENT, DIGEST, READ, READ_FOREVER, NodeLab
from harness.node.outside import Node, NoNodeError, find_parts
from harness.node.settings import CSI_CLASS
from harness.waiting import eventually

SYSTEM = manifests.NAMESPACE
PARTS = ("network-policy", "gvisor", "csi", "two-nodes")
MONITORING = "parts-monitoring"
METRICS, SERVING, CLOSED = 8080, 8443, 9999
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
WAIT = "import time; time.sleep(3600)"
# Prints the addresses of its arguments that accept a connection.
CONNECT = """
import socket, sys
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        print(target)
    except OSError:
        pass
"""
LISTEN = f"""
import http.server
http.server.HTTPServer(("", {CLOSED}), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A cluster with all optional parts, and Weightlock with NetworkPolicies for its API server and metrics."""
    running = os.environ.get("WEIGHTLOCK_NODE")
    if running:
        attached = Node.attach(Path(running))
        yield attached
        attached.stop()
        return
    try:
        parts = find_parts(optional=PARTS)
    except NoNodeError as reason:
        pytest.skip(str(reason))
    cluster = Node(parts)
    cluster.start()
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": MONITORING}})
    policy = f"networkPolicy.apiServerCIDRs={{{cluster.address}/32}}"
    sample.install(cluster, *VALUES, policy, f"networkPolicy.metricsNamespaces={{{MONITORING}}}")
    yield cluster
    cluster.stop()


def plain(node: Node, namespace: str, name: str, script: str, **spec: Any) -> dict[str, Any]:
    """A pod without weights, running; its stored form."""
    document = NodeLab.plain_pod(node, namespace, name, script)
    document["spec"] |= spec
    path = f"/api/v1/namespaces/{namespace}/pods"
    node.client().post(path, document).ok()

    def running() -> dict[str, Any]:
        pod: dict[str, Any] = node.client().get(f"{path}/{name}").ok()
        return pod if pod["status"]["phase"] == "Running" else {}

    return eventually(running, f"{name} runs", seconds=60, every=0.2)


def components(node: Node) -> list[dict[str, Any]]:
    """The running pods of Weightlock."""
    pods = node.client().get(f"/api/v1/namespaces/{SYSTEM}/pods").ok()["items"]
    return [pod for pod in pods if pod["status"]["phase"] == "Running"]


def on_second(node: Node, pod: dict[str, Any]) -> bool:
    """Whether a pod is on the second node."""
    assert node.second
    return bool(pod["spec"]["nodeName"] == node.second["name"])


def reached(node: Node, pod: dict[str, Any], *targets: str) -> set[str]:
    """The targets that accept a connection from the network of a pod."""
    second = on_second(node, pod)
    processes = node.control("processes", pod["metadata"]["uid"], second=second)
    words = [
        "nsenter",
        "--net",
        "--target",
        str(processes[0]["pid"]),
        sys.executable,
        "-c",
        CONNECT,
        *targets,
    ]
    answer = node.control("run", words, "", 120.0, seconds=130.0, second=second)
    return set(Result(tuple(words), *answer).ok().stdout.split())


def addresses(pods: list[dict[str, Any]], port: int, *parts: str) -> set[str]:
    """The addresses of the pods of these components."""
    return {
        f"{pod['status']['podIP']}:{port}"
        for pod in pods
        if pod["metadata"]["labels"]["app.kubernetes.io/component"] in parts
    }


def test_network_policies_close_the_ports_of_weightlock(node: Node) -> None:
    """Metrics only for the namespace of the values, the webhook only for API servers, the broker for every pod."""
    everything = ("webhook", "broker", "controller")
    pods = components(node)
    metrics = addresses(pods, METRICS, *everything)
    webhooks, brokers = addresses(pods, SERVING, "webhook"), addresses(pods, SERVING, "broker")
    assert (len(metrics), len(webhooks), len(brokers)) == (6, 2, 2)
    assert {on_second(node, pod) for pod in pods} == {True, False}
    other = plain(node, node.new_namespace(), "other", WAIT)
    scraper = plain(node, MONITORING, "scraper", WAIT)
    targets = (*metrics, *webhooks, *brokers)
    # The firewall learns of a new pod a moment after it runs.
    eventually(
        lambda: reached(node, scraper, *targets) == metrics | webhooks | brokers,
        "metrics are open",
        seconds=30,
    )
    assert reached(node, other, *targets) == brokers
    # The API server itself is admitted: it calls the webhook for each pod.
    answer = node.client().post(
        f"/api/v1/namespaces/{MONITORING}/pods", NodeLab.plain_pod(node, MONITORING, "x", WAIT)
    )
    assert answer.status == 201, answer.message


def test_network_policies_limit_the_egress_of_weightlock(node: Node) -> None:
    """DNS, the API server and the KMS, and no other port of a pod that every other pod reaches."""
    namespace = node.new_namespace()
    listener = plain(node, namespace, "listener", LISTEN)
    other = plain(node, namespace, "other", WAIT)
    target = f"{listener['status']['podIP']}:{CLOSED}"
    eventually(lambda: reached(node, other, target) == {target}, "the listener listens", seconds=30)
    server = "10.96.0.1:443"
    for pod in components(node):
        assert reached(node, pod, target, server) == {server}, pod["metadata"]["name"]


def test_a_pod_in_gvisor_reads_weights(node: Node) -> None:
    """The sidecar fetches the key and the script reads, both in one sandbox with a kernel of its own."""
    made = NodeLab(node, node.new_namespace(labels=RESTRICTED))
    made.build()
    made.grant()
    script = f"import platform; print(platform.release())\n{READ}"
    document = made.pod("sandboxed", script)
    document["spec"]["runtimeClassName"] = "gvisor"
    node.client("alice").post(f"/api/v1/namespaces/{made.namespace}/pods", document).ok()
    made.wait_phase("Succeeded", "sandboxed", seconds=120)
    release, digest = made.logs("sandboxed").split()
    assert digest == DIGEST
    assert release.endswith("-gvisor")


class CsiLab(NodeLab):
    """A lab whose weights are on a volume that the CSI driver provisions."""

    def storage(self) -> list[dict[str, Any]]:
        return [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "weights", "namespace": self.namespace},
                "spec": {
                    "accessModes": ["ReadWriteMany"],
                    "storageClassName": CSI_CLASS,
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            }
        ]

    def fill(self) -> str:
        """Copy the sealed weights to the volume, and return the handle of the volume."""
        claims = f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims"
        volume = self.node.client().get(f"{claims}/weights").ok()["spec"]["volumeName"]
        handle = (
            self.node.client().get(f"/api/v1/persistentvolumes/{volume}").ok()["spec"]["csi"]["volumeHandle"]
        )
        shutil.copytree(self.sealed, self.node.directory / "csi" / handle, dirs_exist_ok=True)
        return str(handle)


def test_weights_on_a_csi_volume(node: Node) -> None:
    """A provisioned volume is read with a grant, and another PersistentVolume of the same handle is denied."""
    made = CsiLab(node, node.new_namespace(labels=RESTRICTED))
    made.build()
    handle = made.fill()
    made.grant()
    made.start()
    made.wait_phase("Succeeded")
    assert made.logs().strip() == DIGEST
    alias = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"alias-{made.namespace}"},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "capacity": {"storage": "1Gi"},
            "storageClassName": "",
            "csi": {"driver": "hostpath.csi.k8s.io", "volumeHandle": handle},
        },
    }
    rights = {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["create"]}
    node.apply(*cluster_role("writes-volumes", "mallory", rights))
    answer = node.client("mallory").post("/api/v1/persistentvolumes", alias)
    assert answer.status == 403
    assert made.model in answer.message, answer.message


def cluster_role(name: str, user: str, rule: dict[str, Any]) -> list[dict[str, Any]]:
    """A ClusterRole and its binding to a user."""
    api = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rule]},
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": api, "kind": "User", "name": user}],
        },
    ]


def restarts(node: Node) -> dict[str, int]:
    """How often the containers on the second node were restarted, by pod."""
    return {
        pod["metadata"]["name"]: sum(each["restartCount"] for each in pod["status"]["containerStatuses"])
        for pod in components(node)
        if on_second(node, pod)
    }


def test_a_reboot_of_one_of_two_nodes(node: Node) -> None:
    """Reviews are answered by the replica on the other node, and a pod there keeps its key."""
    assert node.second
    made = NodeLab(node, node.new_namespace(labels=RESTRICTED))
    made.build()
    made.grant()
    document = made.pod("train", READ_FOREVER)
    document["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node.name}
    node.client("alice").post(f"/api/v1/namespaces/{made.namespace}/pods", document).ok()
    made.wait_log("READING")
    namespace = node.new_namespace()
    before = restarts(node)
    assert before
    with load(node, namespace).running() as attempts:
        eventually(lambda: attempts.admitted > 20, "the load runs", seconds=30)
        node.control("reboot", second=True)

        def again() -> bool:
            after = restarts(node)
            return all(after.get(name, 0) > count for name, count in before.items())

        eventually(again, "the containers of the second node run again", seconds=120, every=0.5)
        for part in ("webhook", "broker", "controller"):
            node.rolled_out(SYSTEM, f"weightlock-{part}")
    total = attempts.admitted + len(attempts.refused)
    print(f"\nreboot of one of two nodes: {len(attempts.refused)} of {total} denied")
    print(*attempts.refused, sep="\n")
    for message in attempts.refused:
        assert "failed calling webhook" in message, message
    status = json.dumps(made.status())
    assert "WIPED" not in made.logs(), status
    made.wait_log("delivered", container=AGENT, seconds=RENEW_SECONDS)
