"""The chart installed before a control plane of ours, and its parts as local processes.

Pods cannot run there. So webhook, controller and broker run from what the chart installed: its configuration files,
Secrets and policies, under the identities and rights it gave them, at `webhook.url`.
"""

import base64
import http.client
import itertools
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.cluster import Result
from harness.controlplane import ControlPlane
from harness.installed import WEBHOOK_PATHS
from harness.lab import API, Lab
from harness.process import Component, free_port
from harness.programs import ROOT
from harness.waiting import eventually
from harness.weightlock import COMMAND

CHART = ROOT / "charts" / "weightlock"
NAME = "weightlock"
NAMESPACE = "weightlock-system"
# The keys that the controller makes, and those of the audit log, which an admin creates.
SECRETS = {"signing": f"{NAME}-signing", "challenge": f"{NAME}-challenge", "stamp": f"{NAME}-stamp"}
ADMIN_SECRETS = {"audit": f"{NAME}-audit-key"}
CONFIG_MAPS = {"policies": f"{NAME}-policies", "expected": f"{NAME}-webhooks"}


def previous_chart(version: str) -> Path:
    """The chart as it was at a former version, packaged with `helm package`."""
    return ROOT / "tests" / "e2e" / "fixtures" / f"weightlock-{version}.tgz"


class Release:
    """The chart installed before a control plane of ours, and its parts as processes."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.cluster = cluster
        self.ports = {"webhook": free_port(), "broker": free_port()}
        self.metrics_port = free_port()
        self.url = f"https://127.0.0.1:{self.ports['webhook']}"
        self.parts: dict[str, Component] = {}

    def helm(
        self, verb: str, *values: str, chart: Path = CHART, files: Mapping[str, Path] | None = None
    ) -> str:
        """`helm install` or `upgrade` with values, and values that are the content of files; what it says."""
        command = [verb, NAME, str(chart), "--namespace", NAMESPACE, "--set", f"webhook.url={self.url}"]
        # Tests of signatures need not wait half a minute after each change of a webhook configuration.
        command += ["--set", "config.controller.settleSeconds=1"]
        # The controller has put a webhook configuration back and owns its fields since.
        command.append("--create-namespace" if verb == "install" else "--force-conflicts")
        for value in values:
            command += ["--set", value]
        for name, file in (files or {}).items():
            command += ["--set-file", f"{name}={file}"]
        output = self.cluster.helm(*command).ok().stdout
        self.cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s").ok()
        return output

    def rollback(self, revision: int) -> None:
        """`helm rollback` to a revision; 1 is what was installed first."""
        self.cluster.helm("rollback", NAME, str(revision), "--namespace", NAMESPACE, "--force-conflicts").ok()

    def uninstall(self) -> Result:
        """`helm uninstall`."""
        return self.cluster.helm("uninstall", NAME, "--namespace", NAMESPACE).ok()

    def data(self, kind: str, name: str) -> dict[str, bytes]:
        """The files in a Secret or ConfigMap of the release."""
        matches = self.cluster.client().get(f"/api/v1/namespaces/{NAMESPACE}/{kind}/{name}").ok()["data"]
        decode = base64.b64decode if kind == "secrets" else str.encode
        return {key: decode(text) for key, text in matches.items()}

    def filled(self, secret: str) -> dict[str, bytes]:
        """The files of a Secret, which the controller may have to fill yet."""
        answer = self.cluster.client().get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{secret}").ok()
        return self.data("secrets", secret) if answer.get("data") else {}

    def pair(self, part: str) -> dict[str, bytes]:
        """The files of a part's certificate. Where the controller makes it, it is waited for, as a kubelet does."""
        return eventually(lambda: self._pair(part), f"there is a certificate for the {part}")

    def _pair(self, part: str) -> dict[str, bytes]:
        for kind in ("serving", "tls"):
            path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{NAME}-{part}-{kind}"
            answer = self.cluster.client().get(path)
            if answer.status == 200:
                matches = {key: base64.b64decode(text) for key, text in answer.body.get("data", {}).items()}
                return matches if {"tls.crt", "tls.key", "ca.crt"} <= set(matches) else {}
        return {}

    def start(self, part: str) -> Component:
        """Start a part as the chart says it; the parts that listen are waited for."""
        place = self.cluster.directory / "chart" / part
        text = self.data("configmaps", f"{NAME}-config")[f"{part}.yaml"].decode()
        files = {name: self.data("configmaps", source) for name, source in CONFIG_MAPS.items()}
        files |= {
            name: eventually(
                lambda source=source: self.filled(source),  # type: ignore[misc]
                f"there are keys in {source}",
            )
            for name, source in (SECRETS | ADMIN_SECRETS).items()
            if f"/etc/weightlock/{name}/" in text
        }
        if part in self.ports:
            files["tls"] = self.pair(part)
        if "/broker-ca/" in text:
            # The controller, which may be the one who makes it, waits for none.
            pair = self.pair("broker") if part in self.ports else self._pair("broker")
            files["broker-ca"] = {name: pem for name, pem in pair.items() if name == "ca.crt"}
        for directory, content in files.items():
            (place / directory).mkdir(parents=True, exist_ok=True)
            for key, data in content.items():
                (place / directory / key).write_bytes(data)
        # The volume of the logs, which all parts share.
        text = text.replace("/var/lib/weightlock/audit/", f"{self.cluster.directory}/")
        config = yaml.safe_load(text.replace("/etc/weightlock/", f"{place}/"))
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}"]
        config["cluster"] = {"kubeconfig": str(self.cluster.kubeconfig(account(part), groups))}
        config["drainSeconds"] = 0
        if "metricsListen" in config:
            port = self.metrics_port if part == "controller" else 0
            config["metricsListen"] = {"host": "127.0.0.1", "port": port}
        if part in self.ports:
            config["listen"] = {"host": "127.0.0.1", "port": self.ports[part]}
        file = place / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        if part not in self.parts:
            self.parts[part] = self.cluster.component(f"chart-{part}")
        command = "serve" if part == "webhook" else part
        self.parts[part].start(
            [COMMAND, command, "--config", file], {**os.environ, "TMPDIR": str(self.cluster.directory)}
        )
        if part == "webhook":
            self.parts[part].wait_ready(lambda: self.status(part) == 200, 90)
        return self.parts[part]

    def restart(self, *parts: str) -> None:
        """Stop parts and start them as the chart says now, as a changed pod template does."""
        for part in parts:
            self.parts[part].stop(grace=10.0)
            self.start(part)

    def wait_admitting(self, namespace: str) -> None:
        """Wait until a pod that asks for nothing is admitted (a dry run)."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        eventually(
            lambda: self.cluster.client().post(path, pod("tried"), dryRun="All").status == 201,
            "a plain pod is admitted",
        )

    def status(self, part: str) -> int:
        """The answer of a component's /readyz to a client that trusts its CA."""
        ca = self.cluster.directory / "chart" / part / "tls" / "ca.crt"
        tls = ssl.create_default_context(cafile=str(ca))
        # The broker's certificate names its Service only.
        tls.check_hostname = part == "webhook"
        connection = http.client.HTTPSConnection("127.0.0.1", self.ports[part], context=tls, timeout=10)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status
        finally:
            connection.close()

    def controller_says(self, path: str) -> tuple[int, str]:
        """What the controller answers on its plain port: status and text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def create(self, namespace: str, manifest: Mapping[str, Any]) -> tuple[int, str]:
        """Create a pod as the admin: status and message."""
        answer = self.cluster.client().post(f"/api/v1/namespaces/{namespace}/pods", dict(manifest))
        return answer.status, str(answer.body.get("message", ""))

    def webhooks(self) -> list[int]:
        """The status of a GET of each webhook configuration."""
        return [self.cluster.client().get(path).status for path in WEBHOOK_PATHS]

    def exempt(self) -> list[list[str]]:
        """The namespaces that each webhook configuration leaves out."""
        matches = [self.cluster.client().get(path).ok()["webhooks"][0] for path in WEBHOOK_PATHS]
        return [webhook["namespaceSelector"]["matchExpressions"][0]["values"] for webhook in matches]

    def stop(self) -> None:
        """Stop the processes, and show what they wrote where a test fails."""
        for component in self.parts.values():
            if component.running:
                component.stop(grace=10.0)
            print(component.log.read_text())


def signed_request(lab: Lab, duration: str) -> dict[str, Any]:
    """A request of alice's that the controller signed.

    An object written too soon after a webhook configuration was restored is never signed, so it is created again.
    """
    names = (f"r{number}" for number in itertools.count())
    client = lab.cluster.client()

    def ask() -> dict[str, Any]:
        path = f"{API}/accessrequests/{lab.ask(next(names), duration)['metadata']['name']}"
        eventually(lambda: client.get(path).ok().get("status"), "the controller decides")
        saved: dict[str, Any] = client.get(path).ok()
        return saved if saved["spec"].get("signature") else {}

    return eventually(ask, "a request is signed", seconds=60, every=1)


def account(part: str) -> str:
    """The user name under which a part of the release speaks to the API server."""
    return f"system:serviceaccount:{NAMESPACE}:{NAME}-{part}"


def pod(name: str, **spec: Any) -> dict[str, Any]:
    """A pod of one container; keyword arguments are further fields of its spec."""
    container: dict[str, Any] = {"name": "main", "image": "registry.example.com/train:1"}
    container.update(spec.pop("container", {}))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], **spec},
    }
