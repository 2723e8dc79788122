"""The chart on a real API server: accepted as rendered, installed, upgraded with other policies, and taken away again.

Pods cannot run here. So webhook, controller and broker run as local processes from what the chart installed: its
configuration files, Secrets and policies, under the identities and rights it gave them, at `webhook.url`.
"""

import base64
import http.client
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml
from harness.cluster import Cluster
from harness.controlplane import ControlPlane, Options
from harness.installed import WEBHOOK_PATHS
from harness.process import Component, free_port
from harness.programs import ROOT
from harness.waiting import eventually
from harness.weightlock import COMMAND

CHART = ROOT / "charts" / "weightlock"
NAME = "weightlock"
NAMESPACE = "weightlock-system"
SECRETS = {"signing": f"{NAME}-signing", "challenge": f"{NAME}-challenge"}
CONFIG_MAPS = {"policies": f"{NAME}-policies", "expected": f"{NAME}-webhooks"}


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


GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
WEIGHTS: dict[str, Any] = {
    "container": {"volumeMounts": [{"name": "weights", "mountPath": "/weights"}]},
    "volumes": [{"name": "weights", "persistentVolumeClaim": {"claimName": "atlas"}}],
}


class Release:
    """The chart installed before a control plane of ours, and its parts as processes."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.cluster = cluster
        self.ports = {"webhook": free_port(), "broker": free_port()}
        self.metrics_port = free_port()
        self.url = f"https://127.0.0.1:{self.ports['webhook']}"
        self.parts: dict[str, Component] = {}

    def helm(self, verb: str, *values: str) -> str:
        """`helm install` or `upgrade` with values."""
        command = [verb, NAME, str(CHART), "--namespace", NAMESPACE, "--set", f"webhook.url={self.url}"]
        # The controller has put a webhook configuration back and owns its fields since.
        command.append("--create-namespace" if verb == "install" else "--force-conflicts")
        for value in values:
            command += ["--set", value]
        return self.cluster.helm(*command).ok().stdout

    def data(self, kind: str, name: str) -> dict[str, bytes]:
        """The files in a Secret or ConfigMap of the release."""
        found = self.cluster.client().get(f"/api/v1/namespaces/{NAMESPACE}/{kind}/{name}").ok()["data"]
        decode = base64.b64decode if kind == "secrets" else str.encode
        return {key: decode(text) for key, text in found.items()}

    def start(self, part: str) -> Component:
        """Start a part as the chart says it; the parts that listen are waited for."""
        place = self.cluster.directory / "chart" / part
        files = {name: self.data("configmaps", source) for name, source in CONFIG_MAPS.items()}
        files |= {name: self.data("secrets", source) for name, source in SECRETS.items()}
        if part in self.ports:
            files["tls"] = self.data("secrets", f"{NAME}-{part}-tls")
        for directory, content in files.items():
            (place / directory).mkdir(parents=True, exist_ok=True)
            for key, data in content.items():
                (place / directory / key).write_bytes(data)
        text = self.data("configmaps", f"{NAME}-config")[f"{part}.yaml"].decode()
        config = yaml.safe_load(text.replace("/etc/weightlock/", f"{place}/"))
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}"]
        user = f"system:serviceaccount:{NAMESPACE}:{NAME}-{part}"
        config["cluster"] = {"kubeconfig": str(self.cluster.kubeconfig(user, groups))}
        config["drainSeconds"] = 0
        if "metricsListen" in config:
            config["metricsListen"] = {"host": "127.0.0.1", "port": self.metrics_port}
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
            self.parts[part].wait_ready(lambda: self.status(part) == 200, 30)
        return self.parts[part]

    def status(self, part: str) -> int:
        """What /readyz of a part answers to somebody who trusts its authority."""
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
        found = [self.cluster.client().get(path).ok()["webhooks"][0] for path in WEBHOOK_PATHS]
        return [webhook["namespaceSelector"]["matchExpressions"][0]["values"] for webhook in found]

    def stop(self) -> None:
        """Stop the processes, and show what they wrote where a test fails."""
        for component in self.parts.values():
            if component.running:
                component.stop(grace=10.0)
            print(component.log.read_text())


@pytest.fixture
def release(new_control_plane: Callable[[Options], ControlPlane]) -> Iterator[Release]:
    cluster = new_control_plane(Options())
    found = Release(cluster)
    yield found
    found.stop()
    cluster.stop()


def render(cluster: Cluster, namespace: str, *arguments: str) -> str:
    return cluster.helm("template", NAME, str(CHART), "-n", namespace, *arguments).ok().stdout


@pytest.mark.parametrize(
    "values",
    [
        (),
        ("webhook.apiServerClient.caConfigMap=apiserver-ca", "networkPolicy.apiServerCIDRs={10.0.0.0/28}"),
        ("webhook.url=https://weightlock.example.com:8443", "broker.enabled=false"),
    ],
    ids=["defaults", "closed", "outside"],
)
def test_the_api_server_accepts_what_is_rendered(
    control_plane: Cluster, namespace: str, values: tuple[str, ...]
) -> None:
    settings = ["--set", f"fullnameOverride=chart-{namespace}"]
    for value in values:
        settings += ["--set", value]
    rendered = render(control_plane, namespace, *settings)
    done = control_plane.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", stdin=rendered
    ).ok()
    kinds = [document["kind"] for document in yaml.safe_load_all(rendered) if document]
    assert len(done.stdout.splitlines()) == len(kinds)
    # A field that the API server does not know is dropped with a warning.
    assert "unknown field" not in done.stderr


def test_it_refuses_the_system_namespace(control_plane: Cluster) -> None:
    said = control_plane.helm("template", NAME, str(CHART), "-n", "kube-system").failed()
    assert "Weightlock is not installed into kube-system" in said


def test_its_life(release: Release) -> None:
    cluster = release.cluster
    assert "Weightlock 0.1.0 is installed" in release.helm("install")
    cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s").ok()
    namespace = cluster.new_namespace()

    # Nobody answers yet: governed namespaces are closed.
    status, message = release.create(namespace, pod("early"))
    assert (status, "failed calling webhook" in message) == (500, True)

    release.start("webhook")
    assert eventually(lambda: release.create(namespace, pod("plain"))[0] == 201, "a plain pod is admitted")
    status, message = release.create(namespace, pod("gpu", container=GPU))
    assert (status, "[WL201]" in message) == (403, True), message
    cluster.apply(
        {
            "apiVersion": "weightlock.dev/v1alpha1",
            "kind": "ModelWeights",
            "metadata": {"name": "atlas"},
            "spec": {
                "sensitivity": "frontier",
                "volumes": [{"persistentVolumeClaim": {"namespaces": [namespace], "names": ["atlas"]}}],
                "access": {"approvals": 1, "approvers": {"users": ["carol"]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "atlas", "namespace": namespace},
            "spec": {
                "accessModes": ["ReadOnlyMany"],
                "storageClassName": "none",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    )
    denied = eventually(
        lambda: release.create(namespace, pod("reader", **WEIGHTS))[1] or None,
        "a reader without grant is denied",
    )
    assert 'may not read model "atlas"' in denied

    keeps_and_releases(release)
    upgraded(release, namespace)
    uninstalled(release, namespace)


def keeps_and_releases(release: Release) -> None:
    """Controller and broker work under the rights the chart gave them."""
    controller = release.start("controller")
    eventually(lambda: '"leading"' in controller.log.read_text(), "the controller leads")
    release.cluster.client().delete(WEBHOOK_PATHS[0])
    eventually(lambda: release.webhooks() == [200, 200], "the controller puts a webhook configuration back")
    eventually(lambda: release.controller_says("/readyz") == (200, "ready\n"), "the controller is ready")
    shown = release.controller_says("/metrics")[1]
    assert "\nweightlock_controller_leader 1.0\n" in shown
    assert "\nweightlock_webhook_configurations_restored_total 1.0\n" in shown
    assert "\nweightlock_controller_last_round_timestamp_seconds " in shown
    release.start("broker")
    eventually(lambda: release.status("broker") == 200, "the broker is ready")
    for part in release.parts.values():
        assert "forbidden" not in part.log.read_text().lower()


def upgraded(release: Release, namespace: str) -> None:
    """Policies and webhooks follow the values, the controller follows them; certificates and keys stay."""
    names = [f"{NAME}-webhook-tls", f"{NAME}-broker-tls", *SECRETS.values()]
    before = [release.data("secrets", name) for name in names]
    release.helm(
        "upgrade",
        "policies.gpus-need-entitlement.enabled=false",
        "exemptNamespaces={kube-system,gpu-operator}",
    )
    assert [release.data("secrets", name) for name in names] == before
    release.parts["webhook"].stop(grace=10.0)
    release.start("webhook")
    assert release.create(namespace, pod("gpu", container=GPU))[0] == 201
    release.parts["controller"].stop(grace=10.0)
    release.start("controller")
    eventually(
        lambda: all("gpu-operator" in names for names in release.exempt()), "the new webhooks are kept"
    )


def uninstalled(release: Release, namespace: str) -> None:
    """Nothing stays that would close the cluster, though the controller still runs; people's objects stay."""
    release.cluster.helm("uninstall", NAME, "-n", NAMESPACE).ok()
    release.parts["webhook"].stop(grace=10.0)
    controller = release.parts["controller"]
    eventually(lambda: "forbidden" in controller.log.read_text().lower(), "the controller may do no more")
    assert release.webhooks() == [404, 404], controller.log.read_text()
    assert release.create(namespace, pod("after"))[0] == 201
    kept = release.cluster.kubectl("get", "modelweights", "atlas", "-o", "name").ok()
    assert kept.stdout.strip() == "modelweights.weightlock.dev/atlas"
    # A second installation takes over what was kept. A controller of the first would be gone by then.
    controller.stop(grace=10.0)
    release.helm("install")
    assert release.webhooks() == [200, 200]
