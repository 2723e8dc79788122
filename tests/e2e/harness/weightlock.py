"""Weightlock as a local process in front of a control plane of ours, installed as an admin would have it.

It runs the same command as the image, with a certificate of its own authority, under the identity and with
the rights that it has in a cluster. Tests may kill it, restart it, and take its webhooks away.
"""

import http.client
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness import manifests
from harness.cluster import Result, run
from harness.controlplane import ControlPlane
from harness.pki import Authority
from harness.process import free_port
from harness.programs import ROOT
from harness.waiting import eventually

START_SECONDS = 30.0
POLICIES = ROOT / "policies"
COMMAND = Path(sys.executable).parent / "weightlock"
WEBHOOK_PATHS = tuple(
    f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations/{manifests.NAME}"
    for kind in ("validating", "mutating")
)


class Weightlock:
    """One Weightlock. `install` puts it before the API server; then it can be killed, restarted, looked into.

    `url` and `ca` reach it directly, `log` is its log file. `settings` are those of its configuration file,
    `config` any other top-level keys of it, `policies` the directory of policies it starts with.
    """

    def __init__(
        self,
        cluster: ControlPlane,
        *,
        name: str = "weightlock",
        policies: Path | None = POLICIES,
        settings: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.cluster = cluster
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._component = cluster.component(name)
        self._config_file = cluster.directory / f"{name}.yaml"
        self._authority = Authority(cluster.directory / "pki" / name, f"{name}-ca")
        self._serving = self._authority.server(name, ["127.0.0.1"])
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{manifests.NAMESPACE}"]
        kubeconfig = cluster.kubeconfig(manifests.USERNAME, groups)
        self.config: dict[str, Any] = {
            "listen": {"host": "127.0.0.1", "port": self.port},
            "tls": {
                "certificate": str(self._serving.certificate),
                "key": str(self._serving.key),
                "clientCa": str(cluster.webhook_client_ca),
            },
            "cluster": {"kubeconfig": str(kubeconfig)},
            "policies": str(policies) if policies else "",
            **({"settings": dict(settings)} if settings else {}),
            **(config or {}),
        }

    @property
    def ca(self) -> Path:
        """The PEM file with the CA that vouches for Weightlock's certificate."""
        return self._authority.certificate

    @property
    def log(self) -> Path:
        """The file with all that Weightlock wrote, over all its restarts."""
        return self._component.log

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._component.running

    def install(self) -> "Weightlock":
        """Apply types and rights, start, register the webhooks, and wait until the API server asks."""
        self.cluster.apply(*manifests.identity())
        self.cluster.apply(*manifests.crds())
        self.cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s").ok()
        self.start()
        self.add_webhooks()
        return self

    def uninstall(self) -> None:
        """Take the webhooks away and stop; types and what people made of them stay."""
        self.remove_webhooks()
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it is ready. Raises AssertionError with the end of its log."""
        self._config_file.write_text(yaml.safe_dump(self.config, sort_keys=False))
        self._component.start([COMMAND, "serve", "--config", self._config_file])
        self._component.wait_ready(lambda: self.get("/readyz")[0] == 200, START_SECONDS)

    def stop(self) -> None:
        """Stop the process in an orderly way; the webhooks stay registered."""
        self._component.stop(grace=15.0)

    def kill(self) -> None:
        """End the process as a crash would; the webhooks stay registered, so the API server finds nobody."""
        self._component.kill()

    def restart(self, *, crash: bool = False) -> None:
        """End the process and start it on the same port."""
        if crash:
            self.kill()
        else:
            self.stop()
        self.start()

    def add_webhooks(self) -> None:
        """Register the webhooks and wait until the API server asks them."""
        self.cluster.apply(*manifests.webhooks(self.url, self.ca))
        eventually(self._is_asked, "the API server asks Weightlock", seconds=15, every=0.2)

    def remove_webhooks(self) -> None:
        """Take the webhook configurations away, as an attacker with the rights of an admin would."""
        for path in WEBHOOK_PATHS:
            self.cluster.client().delete(path)

    def webhooks_present(self) -> bool:
        """Whether both webhook configurations exist."""
        return all(self.cluster.client().get(path).status == 200 for path in WEBHOOK_PATHS)

    def _is_asked(self) -> bool:
        """Whether a pod that is only tried (dry run) passes through the mutating webhook."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"generateName": "is-weightlock-asked-"},
            "spec": {"containers": [{"name": "main", "image": "registry.example.com/none:1"}]},
        }
        client = self.cluster.client("weightlock-probe", ["system:masters"])
        client.post("/api/v1/namespaces/default/pods", pod, dryRun="All")
        event = self.cluster.audit_events(user="weightlock-probe")[-1]
        return any(name.startswith("mutation.webhook") for name in event.get("annotations", {}))

    def get(self, path: str) -> tuple[int, str]:
        """GET a path of Weightlock's own port, such as `/readyz` or `/metrics`: status and text."""
        tls = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=tls, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry `labels`; 0 where there is none."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            wanted = [f'{label}="{text}"' for label, text in labels.items()]
            if series.partition("{")[0] == name and all(label in series for label in wanted):
                total += float(value)
        return total

    def command(self, *arguments: str, user: str | None = None, stdin: str | None = None) -> Result:
        """Run `weightlock ...` as a person at a terminal would, with a kubeconfig for `user`."""
        environment = {**self.cluster.tool_environment(), "KUBECONFIG": str(self.cluster.kubeconfig(user))}
        return run([COMMAND, *arguments], stdin=stdin, environment=environment)
