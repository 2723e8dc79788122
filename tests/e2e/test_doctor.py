"""The doctor on a real cluster: a healthy installation is all ok, and of what is broken each check says its own.

The parts run as local processes from what the chart installed. Deployments have no controller here, so their status is
written by hand; pods and endpoints lead to the processes by an address of this machine, where it has one.
"""

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml
from harness.cluster import run
from harness.controlplane import ControlPlane, Options
from harness.forwarder import Forwarder
from harness.installed import WEBHOOK_PATHS
from harness.programs import ROOT
from harness.release import NAME, NAMESPACE, Release
from harness.waiting import eventually
from harness.weightlock import COMMAND

from webhook.api.config import Cluster
from webhook.cluster.doctor.run import CHECKS, Row, examine

VERSION = yaml.safe_load((ROOT / "charts" / "weightlock" / "Chart.yaml").read_text())["appVersion"]
CORE = f"/api/v1/namespaces/{NAMESPACE}"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
BINDING = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/{NAME}-guard"
TYPE = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/modelweights.weightlock.dev"
# Of a cluster without nodes, the doctor asks in vain.
REMOTE = {"snapshot", "broker", "KMS"}
BAD = {"warn", "fail"}


@pytest.fixture(scope="module")
def release(new_control_plane: Callable[[Options], ControlPlane]) -> Iterator[Release]:
    """The chart installed and running; the controller reports what is broken and leaves it so."""
    cluster = new_control_plane(Options(controllers=False))
    matches = Release(cluster)
    idle = ("controller.restoreWebhooks=false", "controller.restoreDefinitions=false")
    # With selfManaged the controller would restore the CA.
    matches.helm("install", "certificates.mode=selfSigned", *idle)
    with contextlib.ExitStack() as stack:
        # The controller first: it makes the keys of the others.
        for part in ("controller", "webhook", "broker"):
            matches.start(part)
        stack.callback(cluster.stop)
        stack.callback(matches.stop)
        for part in ("controller", "broker"):
            ready(cluster, part, 2)
        if (address := outward()) is not None:
            lead_to_processes(matches, stack, address)
        cluster.apply(*protected("atlas"))
        expect(matches)
        yield matches


def outward() -> str | None:
    """An address of this machine other than loopback, which an API server would reject; None without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        # Nothing is sent: the kernel only chooses a way.
        probe.connect(("192.0.2.200", 9))
        address = str(probe.getsockname()[0])
        return None if address.startswith("127.") else address
    return None


def ready(cluster: ControlPlane, part: str, replicas: int) -> None:
    status = {"replicas": 2, "readyReplicas": replicas, "updatedReplicas": 2, "availableReplicas": replicas}
    cluster.client().patch(f"{DEPLOYMENTS}/{NAME}-{part}/status", {"status": status}).ok()


def lead_to_processes(release: Release, stack: contextlib.ExitStack, address: str) -> None:
    """A pod for the webhook and one for the broker, and endpoints of the broker's Service."""
    client = release.cluster.client()
    for part in ("webhook", "broker"):
        way = stack.enter_context(Forwarder([release.ports[part]], address))
        port = {"name": "https", "containerPort": way.port}
        labels = {"app.kubernetes.io/instance": NAME, "app.kubernetes.io/component": part}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{part}-1", "labels": labels},
            "spec": {
                "serviceAccountName": f"{NAME}-broker",
                "containers": [{"name": part, "image": "none", "ports": [port]}],
            },
        }
        client.post(f"{CORE}/pods", pod).ok()
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        client.patch(f"{CORE}/pods/{part}-1/status", {"status": status}).ok()
    release.cluster.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{NAME}-broker",
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": f"{NAME}-broker"},
            },
            "addressType": "IPv4",
            # The API server proxies only to pods.
            "endpoints": [
                {
                    "addresses": [address],
                    "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": "broker-1"},
                }
            ],
            "ports": [{"name": "https", "port": way.port, "protocol": "TCP"}],
        }
    )


def protected(name: str) -> list[dict[str, Any]]:
    """A model and the claim that it is."""
    existing = [{"persistentVolumeClaim": {"namespaces": ["default"], "names": [name]}}]
    claim = {
        "accessModes": ["ReadOnlyMany"],
        "storageClassName": "",
        "resources": {"requests": {"storage": "1"}},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "default"},
            "spec": claim,
        },
        {
            "apiVersion": "weightlock.dev/v1alpha1",
            "kind": "ModelWeights",
            "metadata": {"name": name},
            "spec": {"sensitivity": "frontier", "volumes": existing},
        },
    ]


def rows(release: Release) -> list[Row]:
    cluster = Cluster(kubeconfig=str(release.cluster.kubeconfig()))
    return asyncio.run(examine(cluster, NAMESPACE, NAME, VERSION, 10.0))


def wrong(release: Release) -> Mapping[str, str]:
    """What is not as it should be, by check; what the doctor cannot reach here is left out."""
    # This release keeps no audit log, and its API server does not authenticate itself to the webhook.
    here = {"audit log", "API server identity"} | (REMOTE if outward() is None else set())
    return {
        row.check: f"{row.result.what} >> {row.result.fix}"
        for row in rows(release)
        if row.result.result in BAD and row.check not in here
    }


def expect(release: Release, **checks: str) -> None:
    """Wait until exactly these checks complain, each with these words; none where none is named.

    So each test also sees that what the one before it broke is well again.
    """
    expectation = {name.replace("_", " "): words for name, words in checks.items()}
    if outward() is None:
        expectation = {name: words for name, words in expectation.items() if name not in REMOTE}

    def as_expected() -> bool:
        matches = wrong(release)
        assert matches.keys() == expectation.keys(), matches
        assert all(words in matches[name] for name, words in expectation.items()), matches
        return True

    eventually(as_expected, "only what was broken is told", seconds=60, every=1.0)


def command(release: Release, *arguments: str, user: str | None = None) -> Any:
    kubeconfig = release.cluster.kubeconfig(user)
    environment = {**os.environ, **release.cluster.tool_environment()}
    return run([COMMAND, "doctor", "--kubeconfig", kubeconfig, *arguments], environment=environment)


def test_a_healthy_installation_is_all_ok(release: Release) -> None:
    matches = rows(release)
    assert {row.check for row in matches} == set(CHECKS)
    if outward() is not None:
        # This release writes no audit log, and the cluster has neither sidecars nor operators.
        others = {row.check: row.result.result for row in matches if row.result.result != "ok"}
        expected = {"audit log": "warn", "API server identity": "warn"}
        assert others == {**expected, "sidecar image": "skipped", "operators": "skipped"}, others
    output = command(release)
    assert output.stdout.startswith("CHECK "), output
    assert "\033" not in output.stdout
    assert output.code == 0, output


def test_a_user_without_rights_sees_which_rights_are_missing(release: Release) -> None:
    output = command(release, "-o", "json", user="unprivileged")
    matches = json.loads(output.stdout)
    assert (output.code, output.stderr) == (0, "")
    assert {item["result"] for item in matches} == {"ok", "skipped"}
    assert all(
        item["what"].startswith("not allowed to ") for item in matches if item["result"] == "skipped"
    ), matches


def test_a_cluster_that_is_not_there_is_one_line(release: Release) -> None:
    kubeconfig = yaml.safe_load(release.cluster.kubeconfig().read_text())
    kubeconfig["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path = release.cluster.directory / "nowhere.kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))
    output = run([COMMAND, "doctor", "--kubeconfig", path], environment=os.environ)
    assert output.code == 2
    assert output.stderr.startswith(
        "weightlock doctor: https://127.0.0.1:1: the API server cannot be reached"
    )
    assert len(output.stderr.splitlines()) == 1


Patch = list[dict[str, Any]]
WEBHOOK = WEBHOOK_PATHS[0]
PATCHES: dict[str, tuple[str, Patch, dict[str, str]]] = {
    "a webhook that lets pass when nobody answers": (
        WEBHOOK,
        [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}],
        {"webhook_configurations": "webhooks[0].failurePolicy is Ignore, expected Fail"},
    ),
    "a namespace let go": (
        WEBHOOK,
        [
            {
                "op": "add",
                "path": "/webhooks/0/namespaceSelector/matchExpressions/0/values/-",
                "value": "kube-public",
            }
        ],
        {"webhook_configurations": "helm upgrade", "exempt_namespaces": "also exempt: kube-public"},
    ),
    "a type that takes anything": (
        TYPE,
        [
            {
                "op": "add",
                "path": "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-preserve-unknown-fields",
                "value": True,
            }
        ],
        {"CRDs": "modelweights.weightlock.dev was changed: versions[0].schema.openAPIV3Schema.x-kubernetes"},
    ),
    "a guard that only watches": (
        BINDING,
        [{"op": "replace", "path": "/spec/validationActions", "value": ["Audit"]}],
        {"guard": "the policy weightlock-guard was weakened"},
    ),
    "a part that is not ready": (
        f"{DEPLOYMENTS}/{NAME}-controller/status",
        [
            {"op": "replace", "path": "/status/readyReplicas", "value": 1},
            {"op": "replace", "path": "/status/availableReplicas", "value": 1},
        ],
        {"deployments": "controller: 1 of 2 replicas are ready >> kubectl -n weightlock-system describe"},
    ),
    "a signing key without its public half": (
        f"{CORE}/secrets/{NAME}-signing",
        [{"op": "remove", "path": "/data/signing.pub"}],
        {"signing_key": "lacks a valid signing.key or signing.pub"},
    ),
    "an authority that nobody has": (
        WEBHOOK,
        [{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}],
        {
            "webhook_configurations": "caBundle is missing",
            "certificate": "has no CA",
            "validating_webhook": "does not trust its certificate",
        },
    ),
}


@pytest.mark.parametrize(("path", "patch", "checks"), PATCHES.values(), ids=PATCHES.keys())
def test_each_broken_part_is_found_by_its_check(
    release: Release, path: str, patch: Patch, checks: dict[str, str]
) -> None:
    client = release.cluster.client()
    before = client.get(path).ok()
    client.patch(path, patch, "json").ok()
    try:
        expect(release, **checks)
    finally:
        field = next(iter({"webhooks", "spec", "data"} & before.keys() - {"status"}))
        field = "status" if path.endswith("/status") else field
        client.patch(path, [{"op": "replace", "path": f"/{field}", "value": before[field]}], "json").ok()


def test_a_webhook_that_is_down(release: Release) -> None:
    release.parts["webhook"].kill()
    down = "the API server cannot reach it: no process listens at its address"
    expect(release, mutating_webhook=down, validating_webhook=down, snapshot="cannot run the check")
    release.start("webhook")


def test_a_controller_that_is_gone(release: Release) -> None:
    release.parts["controller"].stop()
    expect(release, leader="no controller is the leader >> kubectl -n weightlock-system logs")
    release.start("controller")


def test_a_broker_that_is_gone(release: Release) -> None:
    release.parts["broker"].stop()
    expect(release, broker="not ready: ", KMS="cannot run the check")
    release.start("broker")


def test_a_policy_that_does_not_compile_written_past_admission(release: Release) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    spec = {
        "code": "WL500",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.spec =="}],
    }
    policy = {"apiVersion": "weightlock.dev/v1alpha1", "kind": "WeightPolicy", "metadata": {"name": "bad"}}
    path = "/apis/weightlock.dev/v1alpha1/weightpolicies"
    rejection = release.cluster.client().post(path, {**policy, "spec": spec})
    assert "[WL504]" in rejection.message
    key = "/registry/weightlock.dev/weightpolicies/bad"
    metadata = {
        "name": "bad",
        "uid": "0b9d1b5e-0000-4000-8000-000000000000",
        "creationTimestamp": "2026-11-02T09:00:00Z",
    }
    release.cluster.etcd.put(key, {**policy, "metadata": {**metadata, "generation": 1}, "spec": spec})
    # An API that cannot be evaluated denies what it is about.
    expect(
        release,
        policies="bad: ",
        snapshot="reports 1 invalid policies or models",
    )
    release.cluster.etcd.delete(key)


def test_a_model_that_nothing_is_and_nodes_that_are_not_fit(release: Release) -> None:
    cluster = release.cluster
    cluster.apply(protected("ghost")[1])
    cluster.add_node("old", {"nvidia.com/gpu": "8"})
    info = {"kubeletVersion": "v1.31.4"}
    cluster.client().patch("/api/v1/nodes/old/status", {"status": {"nodeInfo": info}}).ok()
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gpu-operator"}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "toolkit", "namespace": "gpu-operator"},
            "data": {"config.toml": "accept-nvidia-visible-devices-envvar-when-unprivileged = true\n"},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "device-plugin", "namespace": "gpu-operator"},
            "spec": {
                "selector": {"matchLabels": {"app": "plugin"}},
                "template": {
                    "metadata": {"labels": {"app": "plugin"}},
                    "spec": {"containers": [{"name": "c", "image": "nvcr.io/nvidia/k8s-device-plugin:1"}]},
                },
            },
        },
    )
    expect(
        release,
        models="ghost matches no claim or volume in this cluster",
        nodes="old cannot run native sidecars >> upgrade these kubelets",
        runtime_classes="the RuntimeClass nvidia is missing",
        gpu_runtime="ConfigMap gpu-operator/toolkit: any image can get every GPU",
    )
    client = cluster.client()
    for path in (
        "/apis/weightlock.dev/v1alpha1/modelweights/ghost",
        "/api/v1/nodes/old",
        "/apis/apps/v1/namespaces/gpu-operator/daemonsets/device-plugin",
    ):
        client.delete(path).ok()
    expect(release)
