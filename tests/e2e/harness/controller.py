"""The controller as a local process, under the identity and with the rights that it has in a cluster."""

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from harness import manifests
from harness.installed import WEBHOOK_PATHS
from harness.lab import COMMAND
from harness.process import Component, free_port
from harness.waiting import eventually
from harness.weightlock import Weightlock

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "weightlock-controller"
# How long the webhook configurations must be intact before a controller of the tests signs.
SETTLE_SECONDS = 0.5
USERNAME = f"system:serviceaccount:{manifests.NAMESPACE}:{NAME}"
RIGHTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    *manifests.RIGHTS,
    ("weightlock.dev", ("accessrequests", "accessapprovals"), ("patch",)),
    ("weightlock.dev", ("accessapprovals",), ("create",)),
    ("", ("secrets", "configmaps"), ("get", "patch")),
    ("weightlock.dev", ("accessrequests/status", "accessapprovals/status"), ("patch",)),
    ("weightlock.dev", ("imageverifications",), ("create", "patch", "delete")),
    ("weightlock.dev", ("imagetrusts/status",), ("patch",)),
    ("apps", ("daemonsets", "deployments", "statefulsets"), ("list",)),
    ("batch", ("cronjobs", "jobs"), ("list",)),
    ("", ("events",), ("create",)),
    ("", ("pods",), ("list", "watch", "patch", "delete")),
    ("", ("pods/eviction",), ("create",)),
    (
        "admissionregistration.k8s.io",
        ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"),
        ("get", "list", "watch", "create", "patch"),
    ),
    ("apiextensions.k8s.io", ("customresourcedefinitions",), ("get", "list", "watch", "patch")),
    ("weightlock.dev", ("weightpolicies",), ("weaken",)),
    ("coordination.k8s.io", ("leases",), ("get", "create", "update")),
    ("openreports.io", ("reports", "clusterreports"), ("list", "create", "patch", "delete")),
    ("wgpolicyk8s.io", ("policyreports", "clusterpolicyreports"), ("list", "create", "patch", "delete")),
    ("apps", ("replicasets",), ("get",)),
    ("batch", ("jobs",), ("get",)),
)


class Controllers:
    """Controllers beside one Weightlock; `start` another replica, `stop` all."""

    def __init__(self, weightlock: Weightlock, *, signs: bool = False, stamp: Path | None = None) -> None:
        self.weightlock = weightlock
        self.stamp = stamp
        self.cluster = weightlock.control_plane
        self.signs = signs
        self._started: list[Component] = []

    def prepare(self) -> "Controllers":
        """Give the controller its rights, and note the webhook configurations as they should be."""
        rbac = "rbac.authorization.k8s.io"
        rules = [
            {"apiGroups": [group], "resources": [*names], "verbs": [*verbs]} for group, names, verbs in RIGHTS
        ]
        subject = {"kind": "ServiceAccount", "name": NAME, "namespace": manifests.NAMESPACE}
        role = {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME}
        self.cluster.apply(
            {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": NAME}, "rules": rules},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": NAME},
                "subjects": [subject],
                "roleRef": role,
            },
        )
        expected = []
        for path in WEBHOOK_PATHS:
            matches = self.cluster.client().get(path).ok()
            remaining = {field: matches[field] for field in ("apiVersion", "kind", "webhooks")}
            expected.append({**remaining, "metadata": {"name": matches["metadata"]["name"]}})
        self._webhooks.write_text(yaml.safe_dump_all(expected))
        return self

    def start(self, *, config: Mapping[str, Any] | None = None, **controller: Any) -> Component:
        """Start a replica; keyword arguments are settings of the configuration's `controller`, `config` others."""
        name = f"{NAME}-{len(self._started)}"
        groups: Sequence[str] = ["system:serviceaccounts", f"system:serviceaccounts:{manifests.NAMESPACE}"]
        settings = {
            "webhooks": str(self._webhooks),
            "identity": name,
            "settleSeconds": SETTLE_SECONDS,
            "restore": False,
        }
        whole = {
            "signing": self.signing(),
            "cluster": {"kubeconfig": str(self.cluster.kubeconfig(USERNAME, groups))},
            "policies": self.weightlock.config["policies"],
            "controller": {**settings, **controller},
            "settings": self.weightlock.config.get("settings", {}),
            **(config or {}),
        }
        file = self.cluster.directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump(whole))
        component = self.cluster.component(name)
        component.start([COMMAND, "controller", "--config", file])
        self._started.append(component)
        return component

    def start_ready(self, **controller: Any) -> Component:
        """Start a replica and wait until it has read everything, also if it does not lead."""
        port = free_port()
        component = self.start(config={"metricsListen": {"host": "127.0.0.1", "port": port}}, **controller)
        component.wait_ready(lambda: _status(port) == 200, 60)
        return component

    def signing(self) -> dict[str, str]:
        """The keys the controller has: the private one where it signs, else the public half."""
        key = self.weightlock.signing_key
        keys = {"key": str(key)} if self.signs else {"keys": str(public_half(key))}
        return keys | ({"stampKey": str(self.stamp)} if self.stamp is not None else {})

    def log(self) -> str:
        """What all replicas wrote."""
        return "".join(component.log.read_text() for component in self._started)

    def wait_leading(self) -> None:
        """Wait until one of them leads."""
        eventually(lambda: '"became leader"' in self.log(), "a controller leads", seconds=60)

    def kill(self) -> None:
        """End all replicas as a crash would, and keep what they wrote out of `wait_leading`."""
        for component in self._started:
            component.kill()
        self.stop()

    def stop(self) -> None:
        """Stop all replicas in an orderly way, and forget what they wrote."""
        for component in self._started:
            if component.running:
                component.stop(grace=10.0)
            # pytest shows this where the test failed.
            print(component.log.read_text())
            component.log.unlink(missing_ok=True)
        self._started.clear()

    @property
    def _webhooks(self) -> Path:
        return self.cluster.directory / "expected-webhooks.yaml"


def _status(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    finally:
        connection.close()


def public_half(key: Path) -> Path:
    """A file beside a private key with its public half."""
    public = key.with_suffix(".pub")
    private = load_pem_private_key(key.read_bytes(), None)
    public.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public


@contextmanager
def signing_controllers(weightlock: Weightlock) -> Iterator[Controllers]:
    """Controllers that sign, beside a webhook that has only the public key."""
    before = weightlock.config["signing"]
    weightlock.config["signing"] = {"keys": str(public_half(weightlock.signing_key))}
    weightlock.restart()
    controllers = Controllers(weightlock, signs=True).prepare()
    yield controllers
    controllers.stop()
    weightlock.config["signing"] = before
    weightlock.restart()
