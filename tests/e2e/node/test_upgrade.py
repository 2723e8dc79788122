"""An upgrade from the chart, the image and the objects of 0.2.0, under a running pod and load."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import manifests
from harness.load import load
from harness.node import sample
from harness.node.conditions import LEASE_SECONDS, RENEW_SECONDS
from harness.node.lab import AGENT, READ_FOREVER, NodeLab
from harness.node.outside import TOOL, Node, NoNodeError, find_parts
from harness.programs import ROOT
from harness.waiting import eventually

SYSTEM = manifests.NAMESPACE
OLD = "0.2.0"
CHART = ROOT / "tests" / "e2e" / "fixtures" / f"weightlock-{OLD}.tgz"
CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
def node() -> Iterator[Node]:
    """A node of its own with the image of the older version, and nothing installed."""
    command = [sys.executable, TOOL, "--find", "--previous", OLD]
    image = subprocess.run(command, capture_output=True, text=True, check=False)
    if image.returncode == 3:
        pytest.skip(image.stderr.strip())
    try:
        parts = find_parts()
    except NoNodeError as reason:
        pytest.skip(str(reason))
    parts["archives"].append(image.stdout.strip())
    cluster = Node(parts)
    yield cluster.start()
    cluster.stop()


def old_values(kms: sample.Kms) -> dict[str, Any]:
    """Values that the older chart has. Its broker receives no files, so Vault is not behind https here."""
    leases = {"renewSeconds": RENEW_SECONDS, "leaseSeconds": LEASE_SECONDS}
    env = [{"name": name, "value": value} for name, value in kms.environment.items()]
    return {
        "image": {"pullPolicy": "IfNotPresent"},
        "config": {"controller": {"settleSeconds": 1}},
        "broker": {"config": {**leases, "production": False}, "env": env},
    }


def new_values(node: Node) -> dict[str, Any]:
    """What the upgrade adds: the images of this version, and the exception for volumes of the node's disk."""
    names = {"": node.image, "sidecar": str(node.parts["sidecar"])}
    images = {}
    for part, image in names.items():
        repository, _, tag = image.rpartition(":")
        images[part] = {"repository": repository, "tag": tag}
    return {
        "image": images[""],
        "sidecar": {"image": images["sidecar"]},
        "config": {"settings": {"nodePaths": [sample.weights_path(node)]}},
    }


def helm(node: Node, verb: str, chart: Path, values: dict[str, Any], *arguments: str) -> None:
    """Install or upgrade a chart, and wait for all its pods."""
    file = node.directory / f"{verb}.yaml"
    file.write_text(yaml.safe_dump(values))
    command = [
        verb,
        "weightlock",
        str(chart),
        "-n",
        SYSTEM,
        "--wait",
        "--timeout=300s",
        "--values",
        str(file),
    ]
    node.helm(*command, *arguments, seconds=330).ok()


def images_of(node: Node) -> set[str]:
    """The images of the running containers of Weightlock, by their tags."""
    pods = node.client().get(f"/api/v1/namespaces/{SYSTEM}/pods").ok()["items"]
    running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    return {container["image"] for pod in running for container in pod["spec"]["containers"]}


def restarts(made: NodeLab, name: str) -> int:
    """How often the kubelet restarted the sidecar of a pod."""
    states = made.status(name)["initContainerStatuses"]
    return sum(int(state["restartCount"]) for state in states if state["name"] == AGENT)


def losses(made: NodeLab, *names: str) -> dict[str, int]:
    """How often each pod reported that it cannot read."""
    return {name: made.logs(name).count("WIPED") for name in names}


def has_key(made: NodeLab, name: str) -> bool:
    """Whether the last line of a sidecar reports a delivery."""
    return "delivered" in made.logs(name, AGENT).splitlines()[-1]


def definitions(node: Node) -> set[str]:
    """The CRDs of Weightlock."""
    items = node.client().get(CRD_PATH).ok()["items"]
    return {each["metadata"]["name"] for each in items if each["spec"]["group"] == "weightlock.dev"}


def test_an_upgrade_from_the_older_version(node: Node) -> None:
    """No review is denied, and grants stay. A running pod may lose its key until the new controller leads (WL328)."""
    kms = sample.plain_vault(node)
    node.kubectl("create", "namespace", SYSTEM).ok()
    helm(node, "install", CHART, old_values(kms))
    assert images_of(node) == {f"ghcr.io/weightlock/weightlock:{OLD}"}
    namespace = node.new_namespace(labels={"pod-security.kubernetes.io/enforce": "restricted"})
    made = NodeLab(node, namespace, kms=kms)
    made.build()
    made.grant(duration="50m")
    made.start("old", READ_FOREVER)
    made.wait_log("READING", "old")
    other = node.new_namespace()

    with load(node, other).running() as attempts:
        helm(
            node,
            "upgrade",
            sample.CHART,
            new_values(node),
            "--reset-then-reuse-values",
            "--force-conflicts",
        )
    print(f"\nupgrade: {len(attempts.refused)} of {attempts.admitted + len(attempts.refused)} denied")
    assert attempts.refused == []
    assert images_of(node) == {node.image}
    assert definitions(node) == {each["metadata"]["name"] for each in manifests.crds()}
    eventually(made.is_admitted, "the grant of before is active", seconds=60)
    made.start("new", READ_FOREVER)
    made.wait_log("READING", "new")
    eventually(lambda: has_key(made, "old"), "the pod of before has its key", seconds=120, every=1.0)
    before = losses(made, "old", "new")
    # Longer than a lease: both then have their key from the brokers of now.
    time.sleep(LEASE_SECONDS + RENEW_SECONDS)
    assert losses(made, "old", "new") == before
    assert restarts(made, "old") == restarts(made, "new") == 0
