"""Install Weightlock on a node, and the sample model of docs/quickstart.md with weights that pods can read.

The weights are sealed with a keyset, which only the broker gets: as a Secret. A real cluster uses a KMS.
"""

import base64
import json
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness import manifests
from harness.cluster import run
from harness.controlplane import WEBHOOK_CLIENT
from harness.node.outside import Node
from harness.programs import ROOT
from harness.waiting import eventually
from webhook.keys.kms.local import add_key

CHART = ROOT / "charts" / "weightlock"
NAMESPACE = manifests.NAMESPACE
SECRET = "weightlock-sample-kms"
NODE_PATH = "sample-weights"
CALLERS = "weightlock-callers"
MOUNTED = "/etc/weightlock/kms"
WAIT_SECONDS = 420
COMMAND = Path(sys.executable).parent / "weightlock"
VAULT_PORT = 8200


@dataclass(frozen=True, slots=True)
class Kms:
    """A KMS: how the command line reaches it, how the broker does, and the files that the broker needs."""

    local: str
    url: str
    environment: Mapping[str, str]
    files: Mapping[str, bytes]
    broker: Mapping[str, Any]


def keyset(node: Node) -> Kms:
    """Return a keyset in a file, which the broker gets as a Secret. Only for evaluation."""
    file = node.directory / "keyset.json"
    if not file.exists():
        add_key(file)
    return Kms(
        f"local://{file}",
        f"local://{MOUNTED}/keyset.json",
        {},
        {"keyset.json": file.read_bytes()},
        {"config": {"production": False}},
    )


def plain_vault(node: Node) -> Kms:
    """Start a Vault in memory on the node, over http, with a Transit key, for a broker that receives no files."""
    token = _start_vault(node, f"{node.address}:{VAULT_PORT}")
    address = f"http://{node.address}:{VAULT_PORT}"
    _transit(address, None, token)
    environment = {"VAULT_ADDR": address, "VAULT_TOKEN": token}
    return Kms("vault://transit/atlas", "vault://transit/atlas", environment, {}, {})


def _start_vault(node: Node, listen: str) -> str:
    """Start a Vault in memory and return its root token."""
    tool = ROOT / "tests" / "tools" / "vaultserver.py"
    program = run([sys.executable, tool], seconds=900).ok().stdout.strip()
    node.control("spawn", "vault", [program, listen])
    # Its first line has the root token.
    started = json.loads(eventually(lambda: node.control("log", "vault"), "Vault starts").splitlines()[0])
    return str(started["token"])


def _transit(address: str, ca: str | None, token: str) -> None:
    """Create the Transit engine and its key, as soon as Vault answers."""
    for path, body in (("sys/mounts/transit", {"type": "transit"}), ("transit/keys/atlas", {})):
        eventually(lambda path=path, body=body: _vault(address, ca, token, path, body), path)  # type: ignore[misc]


def vault(node: Node) -> Kms:
    """Start a Vault in memory on the node, over https, with a Transit key; return it as the broker's KMS."""
    token = _start_vault(node, f"127.0.0.1:{VAULT_PORT}")
    certificate, key, ca = node.control("certificate", "vault", [node.address])
    proxy = [sys.executable, "-m", "harness.node.tlsproxy", f"{node.address}:{VAULT_PORT}"]
    search = f"PYTHONPATH={ROOT / 'tests' / 'e2e'}"
    node.control("spawn", "vault-tls", ["env", search, *proxy, str(VAULT_PORT), certificate, key])
    address = f"https://{node.address}:{VAULT_PORT}"
    _transit(address, ca, token)
    return Kms(
        "vault://transit/atlas",
        "vault://transit/atlas",
        {"VAULT_ADDR": address, "VAULT_TOKEN": token, "VAULT_CACERT": ca},
        {"token": token.encode(), "ca.crt": Path(ca).read_bytes()},
        {
            "env": [
                {"name": "VAULT_ADDR", "value": address},
                {"name": "VAULT_TOKEN_FILE", "value": f"{MOUNTED}/token"},
                {"name": "VAULT_CACERT", "value": f"{MOUNTED}/ca.crt"},
            ]
        },
    )


def _vault(address: str, ca: str | None, token: str, path: str, body: Mapping[str, str]) -> bool:
    """Send a request to Vault. An object that exists already is accepted."""
    headers = {"X-Vault-Token": token, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/v1/{path}", json.dumps(body).encode(), headers)
    try:
        context = ssl.create_default_context(cafile=ca) if ca else None
        with urllib.request.urlopen(request, timeout=5, context=context):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 400


def seal(
    node: Node, model: str, files: Mapping[str, bytes], key_id: str = "k1", *, kms: Kms | None = None
) -> tuple[Path, list[dict[str, str]]]:
    """Seal files for a model: the sealed directory, and the `keys` of its ModelWeights as the broker needs them."""
    kms = kms or keyset(node)
    plain, sealed = (node.directory / "weights" / model / name for name in ("plain", "sealed"))
    for name, content in files.items():
        file = plain / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    command = [
        COMMAND,
        "weights",
        "seal",
        plain,
        sealed,
        "--model",
        model,
        "--key-id",
        key_id,
        "--kms",
        kms.local,
    ]
    run(command, environment={**node.tool_environment(), **kms.environment}).ok()
    key = json.loads((sealed / "weightlock.json").read_text())["key"]
    return sealed, [{"id": key["id"], "kms": kms.url, "wrapped": key["wrapped"]}]


def volume(node: Node, name: str, namespace: str, claim: str, directory: Path) -> list[dict[str, Any]]:
    """Return a volume of the node's disk and the claim that is bound to it. A second node has the same disk."""
    storage = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    names = [node.name, *([node.second["name"]] if node.second else [])]
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": names}]}
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


def weights_path(node: Node) -> dict[str, Any]:
    """Return the exception for the node's directory with weights: only volumes behind a claim may use it."""
    return {"name": NODE_PATH, "path": f"{node.directory}/weights", "persistentVolumesOnly": True}


def may_mount(namespace: str) -> list[dict[str, Any]]:
    """Return the right of a namespace's service accounts to mount volumes of that directory."""
    api = "rbac.authorization.k8s.io"
    metadata = {"name": NODE_PATH, "namespace": namespace}
    rule = {
        "apiGroups": ["weightlock.dev"],
        "resources": ["escapes"],
        "resourceNames": [NODE_PATH],
        "verbs": ["use"],
    }
    group = {"kind": "Group", "name": f"system:serviceaccounts:{namespace}", "apiGroup": api}
    return [
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": NODE_PATH},
            "subjects": [group],
        },
    ]


def install(node: Node, *values: str, kms: Kms | None = None, verb: str = "install") -> None:
    """Install or upgrade the chart with the image under test, and the files of the KMS for the broker."""
    kms = kms or keyset(node)
    repository, _, tag = node.image.rpartition(":")
    sidecar, _, sidecar_tag = str(node.parts["sidecar"]).rpartition(":")
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "data": {name: base64.b64encode(content).decode() for name, content in kms.files.items()},
    }
    # With this CA, the webhook accepts API servers only, and signs requests and approvals itself.
    callers = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CALLERS, "namespace": NAMESPACE},
        "data": {"ca.crt": Path(node.control("webhook_client_ca")).read_text()},
    }
    node.apply(namespace)
    node.apply(secret, callers)
    selection = {
        "config": {"settings": {"nodePaths": [weights_path(node)]}},
        "webhook": {"apiServerClient": {"caConfigMap": CALLERS, "names": [WEBHOOK_CLIENT]}},
        "image": {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"},
        "sidecar": {"image": {"repository": sidecar, "tag": sidecar_tag}},
        "broker": {
            **kms.broker,
            "volumes": [{"name": "kms", "secret": {"secretName": SECRET, "defaultMode": 0o440}}],
            "volumeMounts": [{"name": "kms", "mountPath": MOUNTED, "readOnly": True}],
        },
    }
    file = node.directory / "values.yaml"
    file.write_text(yaml.safe_dump(selection))
    helm = [node.programs["helm"], "--kubeconfig", node.kubeconfig()]
    command = [
        *helm,
        verb,
        "weightlock",
        CHART,
        "--namespace",
        NAMESPACE,
        "--wait",
        f"--timeout={WAIT_SECONDS}s",
    ]
    for value in values:
        command += ["--set", value]
    run([*command, "--values", file], environment=node.tool_environment(), seconds=WAIT_SECONDS + 30).ok()


def apply_sample(node: Node, kms: Kms | None = None) -> None:
    """Apply the namespaces, the volume and the model of the quickstart, with weights that are sealed."""
    state = ROOT / "examples" / "state"
    node.kubectl("apply", "-f", str(state / "namespaces.yaml")).ok()
    (model,) = yaml.safe_load_all((state / "models.yaml").read_text())
    files = {"config.json": b'{"layers": 2}', "model.bin": bytes(range(256)) * 4096}
    sealed, model["spec"]["keys"] = seal(node, model["metadata"]["name"], files, kms=kms)
    node.apply(
        *volume(node, "atlas-volume", "research", "atlas-weights", sealed), *may_mount("research"), model
    )
    claim = "/api/v1/namespaces/research/persistentvolumeclaims/atlas-weights"
    eventually(
        lambda: node.client().get(claim).ok()["status"]["phase"] == "Bound", "the weights' claim is bound"
    )
