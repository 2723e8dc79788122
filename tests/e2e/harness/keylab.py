"""A lab whose weights are sealed, and the sidecar as a kubelet would start it.

What a kubelet would do is done here in its place and under its identity: it asks for the pod's token and starts the
sidecar with the arguments that admission gave it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.lab import Lab
from harness.waiting import eventually
from harness.weightlock import COMMAND
from webhook.api.authorities import known
from webhook.keys.agent.client import BrokerClient, BrokerRefusedError
from webhook.keys.agent.trust import Trust
from webhook.keys.sealed import operations
from webhook.keys.sealed.operations import KeyService, Work
from webhook.keys.sealed.transfer import NoProgress

if TYPE_CHECKING:
    from harness.broker import BrokerProcess
    from harness.cluster import Cluster

AUDIENCE = "weightlock.dev/broker"


class KeyLab(Lab):
    """A lab whose weights are sealed: plain files in ``plain``, sealed ones in ``sealed``."""

    def __init__(self, cluster: Cluster, namespace: str, home: Path, broker: BrokerProcess) -> None:
        super().__init__(cluster, namespace, approvals=1)
        self.home, self.broker, self.node = home, broker, f"node-{namespace}"
        self.plain, self.sealed = home / "plain", home / "sealed"
        self.keys: list[dict[str, str]] = []
        self.spec: dict[str, Any] = {}

    def weights(self, **access: Any) -> dict[str, Any]:
        document = super().weights(**access)
        document["spec"] |= {"keys": self.keys, **self.spec}
        return document

    def seal(self) -> KeyLab:
        (self.plain / "shards").mkdir(parents=True)
        (self.plain / "config.json").write_text('{"layers": 2}')
        (self.plain / "shards/model.bin").write_bytes(os.urandom(3_000_000))
        service = KeyService(f"local://{self.home}/keyset.json")
        work = Work(2, NoProgress(), "2026-11-23T00:00:00Z")
        manifest = operations.seal(self.plain, self.sealed, service, self.model, "k1", work)
        key = manifest.key
        self.keys = [{"id": key.id, "kms": key.kms, "wrapped": base64.b64encode(key.wrapped).decode()}]
        return self

    def granted(self, duration: str = "10m", **spec: Any) -> dict[str, Any]:
        """A grant for ``trainer``, or for whom ``spec`` names, that admission knows of."""
        request = self.ask(duration=duration, **spec)
        self.vote(request, "bob").ok()
        eventually(self.is_admitted, "the pod is admitted", seconds=10)
        return request

    def running_pod(self, name: str = "train", document: dict[str, Any] | None = None) -> dict[str, Any]:
        """A pod as alice makes it, on a node as the scheduler would put it there."""
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        self.cluster.client("alice").post(pods, document or self.pod(name)).ok()
        self.bind(name)
        return dict(self.cluster.client().get(f"{pods}/{name}").ok())

    def bind(self, name: str) -> None:
        if self.cluster.client().get(f"/api/v1/nodes/{self.node}").status == 404:
            self.cluster.add_node(self.node)
        target = {"apiVersion": "v1", "kind": "Node", "name": self.node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/binding"
        self.cluster.client("system:kube-scheduler").post(path, binding).ok()

    def token(self, pod: dict[str, Any]) -> str:
        """The sidecar's token, as the node's kubelet asks for it."""
        metadata = pod["metadata"]
        reference = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {"audiences": [AUDIENCE], "expirationSeconds": 600, "boundObjectRef": reference}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        account = pod["spec"]["serviceAccountName"]
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        kubelet = self.cluster.client(f"system:node:{self.node}", ["system:nodes"])
        # The API server learns by a watch on which node a pod is, and a kubelet asks again until it has.
        return str(
            eventually(lambda: kubelet.post(path, body).ok()["status"]["token"], "the kubelet gets the token")
        )

    def client(self, token: str, **options: Any) -> BrokerClient:
        path = self.home / f"token-{hashlib.sha256(token.encode()).hexdigest()[:8]}"
        path.write_text(token)
        return BrokerClient(self.broker.url, path, Trust(known(self.broker.ca.read_text())), **options)

    def refusal(self, token: str, **options: Any) -> str:
        """The sentence with which a release is refused."""
        with pytest.raises(BrokerRefusedError) as rejection:
            self.client(token, **options).release(self.model)
        print(rejection.value)
        return str(rejection.value)


class Sidecar:
    """The agent as a kubelet would start it: with the arguments of the pod, and directories instead of mounts."""

    def __init__(self, lab: KeyLab, pod: dict[str, Any], token: str) -> None:
        self.root = lab.home / "run"
        (lab.home / "token").write_text(token)
        (container,) = [
            container
            for container in pod["spec"]["initContainers"]
            if container["name"] == "weightlock-agent"
        ]
        for mount in container["volumeMounts"]:
            if mount["mountPath"].startswith("/var/run/weightlock/"):
                self.local(mount["mountPath"]).mkdir(parents=True, exist_ok=True)
        self.arguments = [self._localised(text, lab) for text in container["args"]]
        self.log = lab.home / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def local(self, path: str) -> Path:
        return Path(path.replace("/var/run/weightlock", str(self.root)))

    def _localised(self, argument: str, lab: KeyLab) -> str:
        name, _, value = argument.partition("=")
        if name == "--broker":
            return f"--broker={lab.broker.url}"
        if name == "--token":
            return f"--token={lab.home / 'token'}"
        sealed = f"/var/run/weightlock/sealed/{lab.model}"
        value = value.replace(sealed, str(lab.sealed)).replace("/var/run/weightlock", str(self.root))
        return f"{name}={value}" if value else name

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([COMMAND, *self.arguments], stderr=log)

    def ready(self) -> bool:
        """What the startup probe says."""
        command = [COMMAND, "agent", "--check", f"--root={self.root}"]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)
