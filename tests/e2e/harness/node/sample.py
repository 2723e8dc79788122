"""Install Weightlock on a node, and the sample model of docs/quickstart.md with weights that pods can read.

The weights are sealed with a keyset, which only the broker gets: as a Secret. A real cluster uses a KMS.
"""

import base64
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness import manifests
from harness.cluster import run
from harness.node.outside import Node
from harness.programs import ROOT
from harness.waiting import eventually

CHART = ROOT / "charts" / "weightlock"
NAMESPACE = manifests.NAMESPACE
KEYSET = "weightlock-sample-keyset"
MOUNTED = "/etc/weightlock/keyset/keyset.json"
WAIT = "180s"
COMMAND = Path(sys.executable).parent / "weightlock"


def keyset(node: Node) -> Path:
    """Return the file of the keyset; the first seal creates it."""
    return node.directory / "keyset.json"


def seal(node: Node, model: str, files: Mapping[str, bytes], key_id: str = "k1") -> tuple[Path, list[dict[str, str]]]:
    """Seal files for a model: the sealed directory, and the `keys` of its ModelWeights as the broker needs them."""
    plain, sealed = (node.directory / "weights" / model / name for name in ("plain", "sealed"))
    for name, content in files.items():
        file = plain / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    command = [COMMAND, "weights", "seal", plain, sealed, "--model", model, "--key-id", key_id]
    result = run([*command, "--kms", f"local://{keyset(node)}", "-o", "json"], environment=node.tool_environment())
    result.ok()
    manifest = json.loads((sealed / "weightlock.json").read_text())
    key = manifest["key"]
    return sealed, [{"id": key["id"], "kms": f"local://{MOUNTED}", "wrapped": key["wrapped"]}]


def volume(node: Node, name: str, namespace: str, claim: str, directory: Path) -> list[dict[str, Any]]:
    """Return a volume of the node's disk and the claim that is bound to it."""
    storage = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}]}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                **storage,
                "capacity": {"storage": "1Gi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": namespace, "name": claim},
                "local": {"path": str(directory)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": namespace},
            "spec": {**storage, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}},
        },
    ]


def install(node: Node, *values: str) -> None:
    """Install the chart with the image under test, and a keyset for the broker."""
    repository, _, tag = node.image.rpartition(":")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    if not keyset(node).exists():
        seal(node, "first", {"empty": b""})
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": KEYSET, "namespace": NAMESPACE},
        "data": {"keyset.json": base64.b64encode(keyset(node).read_bytes()).decode()},
    }
    node.apply(namespace)
    node.apply(secret)
    chosen = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
        "broker": {
            "config": {"production": False},
            "volumes": [{"name": "keyset", "secret": {"secretName": KEYSET, "defaultMode": 0o440}}],
            "volumeMounts": [{"name": "keyset", "mountPath": str(Path(MOUNTED).parent), "readOnly": True}],
        },
    }
    file = node.directory / "values.yaml"
    file.write_text(yaml.safe_dump(chosen))
    command = ["install", "weightlock", str(CHART), "--namespace", NAMESPACE, "--wait", f"--timeout={WAIT}"]
    for value in values:
        command += ["--set", value]
    node.helm(*command, "--values", str(file), seconds=240).ok()


def apply_sample(node: Node) -> None:
    """Apply the namespaces, the volume and the model of the quickstart, with weights that are sealed."""
    state = ROOT / "examples" / "state"
    node.kubectl("apply", "-f", str(state / "namespaces.yaml")).ok()
    (model,) = yaml.safe_load_all((state / "models.yaml").read_text())
    files = {"config.json": b'{"layers": 2}', "model.bin": bytes(range(256)) * 4096}
    sealed, model["spec"]["keys"] = seal(node, model["metadata"]["name"], files)
    node.apply(*volume(node, "atlas-volume", "research", "atlas-weights", sealed), model)
    claim = "/api/v1/namespaces/research/persistentvolumeclaims/atlas-weights"
    eventually(lambda: node.client().get(claim).ok()["status"]["phase"] == "Bound", "the weights' claim is bound")
