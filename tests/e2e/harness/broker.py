"""The key broker as a process beside a control plane of ours, with the rights that it has in a cluster."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from typing import TYPE_CHECKING, Any

import yaml

from harness import manifests
from harness.process import free_port
from harness.weightlock import COMMAND, POLICIES, START_SECONDS, Weightlock

if TYPE_CHECKING:
    from pathlib import Path

    from harness.cluster import Cluster

BROKER_USER = f"system:serviceaccount:{manifests.NAMESPACE}:weightlock-broker"
BROKER_RIGHTS = (
    *manifests.RIGHTS,
    ("authentication.k8s.io", ("tokenreviews",), ("create",)),
    (
        "admissionregistration.k8s.io",
        ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"),
        ("get",),
    ),
)


class BrokerProcess:
    """The key broker as a process beside the control plane."""

    def __init__(self, weightlock: Weightlock, directory: Path, name: str = "broker") -> None:
        cluster = weightlock.control_plane
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._authority = weightlock.broker_authority
        serving = self._authority.server("broker", ["127.0.0.1"])
        self.ca = self._authority.certificate
        self._component = cluster.component(name)
        self._challenge = directory / "challenge.key"
        self._challenge.write_bytes(os.urandom(32))
        expected = directory / "webhooks.yaml"
        expected.write_text(yaml.safe_dump_all(manifests.webhooks(weightlock._client_config)))
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{manifests.NAMESPACE}"]
        config = {
            "listen": {"host": "127.0.0.1", "port": self.port},
            "tls": {"certificate": str(serving.certificate), "key": str(serving.key)},
            "signing": {"key": str(weightlock.signing_key)},
            "cluster": {"kubeconfig": str(cluster.kubeconfig(BROKER_USER, groups))},
            "policies": str(POLICIES),
            "settings": weightlock.config["settings"],
            "drainSeconds": 0,
            # Its log is beside that of the webhook, if there is one.
            "audit": {**weightlock.config.get("audit", {}), "instance": name},
            "broker": {
                "challengeKey": str(self._challenge),
                "webhooks": str(expected),
                "production": False,
                "leaseSeconds": 60,
                "renewSeconds": 10,
                "podRequestsPerMinute": 200,
            },
        }
        self._config = directory / "broker.yaml"
        self._config.write_text(yaml.safe_dump(config))
        self.issuer_ca = directory / "issuers.pem"

    def start(self) -> None:
        environment = {**os.environ, "SSL_CERT_FILE": str(self.ca)}
        self._component.start([COMMAND, "broker", "--config", self._config], environment)
        self._component.wait_ready(self._ready, START_SECONDS)

    def stop(self) -> None:
        self._component.stop()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL)."""
        self._component.kill()

    def joins(self, other: BrokerProcess) -> None:
        """Take the other's key for challenges, as a second replica has it. Before it is started."""
        self._challenge.write_bytes(other._challenge.read_bytes())

    def log(self) -> str:
        return self._component.log.read_text()

    def certificate(self, name: str) -> Any:
        return self._authority.server(name, ["127.0.0.1"])

    def events(self, **expectation: str) -> list[dict[str, Any]]:
        """The audit events in its log that carry these values."""
        matches = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [event for event in matches if expectation.items() <= event.items()]

    def post(self, path: str, body: Any, token: str = "") -> tuple[int, dict[str, Any]]:
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=30)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        try:
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def _ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        finally:
            connection.close()


def grant_rights(cluster: Cluster) -> None:
    """Give the broker's user what it may do."""
    rules = [
        {"apiGroups": [group], "resources": [*names], "verbs": [*verbs]}
        for group, names, verbs in BROKER_RIGHTS
    ]
    rbac, name = "rbac.authorization.k8s.io", "weightlock-broker"
    cluster.apply(
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "subjects": [{"kind": "User", "name": BROKER_USER, "apiGroup": rbac}],
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
        },
    )
