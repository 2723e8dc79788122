"""A control plane with all of Weightlock, a Prometheus that scrapes it, and sample traffic, for monitoring tests."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import ssl
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from harness import examples, manifests
from harness.broker import BrokerProcess, grant_rights
from harness.controller import Controllers
from harness.controlplane import ControlPlane
from harness.keylab import KeyLab
from harness.process import free_port
from harness.programs import ROOT
from harness.prometheus import Prometheus, Target
from harness.weightlock import Weightlock
from webhook.keys.agent.client import BrokerRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

RULES = ROOT / "charts" / "weightlock" / "files" / "alerts" / "weightlock.yaml"
PLAIN = examples.SAMPLES / "01-plain-pod.yaml"
OTHER_TOKEN = "not.a.token"
DRILL = "weightlock-drill"
# Names below .invalid never resolve (RFC 2606).
UNKNOWN_REGISTRY = "registry.invalid/acme"


# A policy that is tried out before it denies.
ROLLOUT: Mapping[str, Any] = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "WeightPolicy",
    "metadata": {"name": "pods-name-their-team"},
    "spec": {
        "code": "WL500",
        "validationActions": ["Warn", "Audit"],
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ]
        },
        "validations": [
            {
                "expression": "object.metadata.?labels.team.hasValue()",
                "message": "the pod has no label team",
            }
        ],
    },
}


def report_types() -> list[Mapping[str, Any]]:
    """Types of openreports.io that take anything: here only counts matter."""
    anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{kind.lower()}s.openreports.io"},
            "spec": {
                "group": "openreports.io",
                "scope": scope,
                "names": {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower()},
                "versions": [{"name": "v1alpha1", "served": True, "storage": True, "schema": anything}],
            },
        }
        for kind, scope in (("Report", "Namespaced"), ("ClusterReport", "Cluster"))
    ]


def drill_record() -> Mapping[str, Any]:
    """The result of a drill, as the Job of the chart leaves it."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    control = {"control": "WL201", "holds": True, "attacks": 3, "stopped": 3}
    drill = {"started": now, "ended": now, "result": "passed", "controls": [control]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": DRILL, "namespace": manifests.NAMESPACE},
        "data": {"drill.json": json.dumps(drill)},
    }


class Monitored:
    """Everything, ``replicas`` of each part as processes of ours; the first webhook and broker are asked."""

    def __init__(self, control_plane: Path, prometheus: Path, *, replicas: int = 1, seconds: int = 2) -> None:
        self.cluster = ControlPlane(control_plane)
        self.webhooks = [Weightlock(self.cluster, name=f"weightlock-{number}") for number in range(replicas)]
        self.weightlock = self.webhooks[0]
        for number, webhook in enumerate(self.webhooks):
            log = {"directory": str(self.cluster.directory / "audit"), "instance": str(number)}
            webhook.config["audit"] = log
        for other in self.webhooks[1:]:
            other.config["signing"] = self.weightlock.config["signing"]
        self.controllers = Controllers(self.weightlock, signs=True)
        self.controller_ports = [free_port() for _ in range(replicas)]
        self.brokers: list[BrokerProcess] = []
        component = self.cluster.component("prometheus")
        self.prometheus = Prometheus(component, prometheus, self.cluster.directory, seconds=seconds)
        self._numbers = itertools.count()

    def start(self) -> Monitored:
        """Start everything, and apply the examples' state. Raises AssertionError with the end of a log."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def _start(self) -> None:
        cluster = self.cluster.start()
        cluster.apply(*manifests.crds(), *report_types())
        cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s").ok()
        examples.apply_state(cluster)
        self.weightlock.install()
        cluster.apply(ROLLOUT)
        examples.grant_access(cluster)
        for other in self.webhooks[1:]:
            other.start()
        # What takes long to start starts together.
        self.controllers.prepare()
        cluster.apply(drill_record())
        for number, port in enumerate(self.controller_ports):
            config = {
                "metricsListen": {"host": "127.0.0.1", "port": port},
                "reports": {"enabled": True, "settleSeconds": 1, "api": "openreports.io"},
                "audit": {**self.weightlock.config["audit"], "instance": f"controller-{number}"},
                "detection": {"enabled": True, "intervalSeconds": 0.5, "settleSeconds": 1},
            }
            drills = {"record": DRILL, "periodSeconds": 3600}
            self.controllers.start(restore=True, drills=drills, config=config)
        grant_rights(cluster)
        for number in range(len(self.webhooks)):
            home = cluster.directory / f"broker-{number}"
            home.mkdir()
            self.brokers.append(BrokerProcess(self.weightlock, home, home.name))
            self.brokers[-1].start()
        self.controllers.wait_leading()
        self.prometheus.start(self.targets(), RULES)

    def stop(self) -> None:
        """End everything."""
        with contextlib.suppress(AssertionError):
            self.controllers.stop()
        self.cluster.stop()

    def targets(self) -> list[Target]:
        """What a Prometheus operator would scrape, and the API server."""
        admin = yaml.safe_load(self.cluster.kubeconfig().read_text())["users"][0]["user"]
        client = {"cert_file": admin["client-certificate"], "key_file": admin["client-key"]}
        parts = [
            *(("webhook", webhook.port, {"ca_file": str(webhook.ca)}) for webhook in self.webhooks),
            *(("broker", broker.port, {"ca_file": str(broker.ca)}) for broker in self.brokers),
            *(("controller", port, None) for port in self.controller_ports),
        ]
        numbers: dict[str, itertools.count[int]] = {}
        matches = []
        for part, port, tls in parts:
            number = next(numbers.setdefault(part, itertools.count()))
            labels = {
                "cluster": "lab",
                "namespace": manifests.NAMESPACE,
                "job": f"weightlock-{part}",
                "pod": f"{part}-{number}",
            }
            matches.append(Target(f"127.0.0.1:{port}", labels, tls))
        address = self.cluster.server.removeprefix("https://")
        labels = {"cluster": "lab", "job": "apiserver"}
        return [*matches, Target(address, labels, {"ca_file": str(self.cluster.ca), **client})]

    def metrics(self, target: Target) -> str:
        """What a part of Weightlock shows at /metrics."""
        tls = target.tls
        context = ssl.create_default_context(cafile=tls["ca_file"]) if tls is not None else None
        scheme = "http" if tls is None else "https"
        with urllib.request.urlopen(
            f"{scheme}://{target.address}/metrics", context=context, timeout=30
        ) as answer:
            text: str = answer.read().decode()
        return text

    def try_samples(self) -> None:
        """Each sample of the examples once, by the person it names, as a dry run: some allowed, most denied."""
        for sample in examples.samples():
            for document in manifests.documents(sample.file):
                self.try_object(document, sample.user, sample.groups)

    def try_object(
        self, document: Mapping[str, Any], user: str, groups: tuple[str, ...] = ()
    ) -> tuple[int, str]:
        """Create an object as a user in a dry run; return the status and the message."""
        kind = document["kind"].lower()
        group = f"apis/{document['apiVersion']}" if "/" in document["apiVersion"] else "api/v1"
        namespace = document["metadata"]["namespace"]
        metadata = {**document["metadata"], "name": f"{document['metadata']['name']}-{next(self._numbers)}"}
        answer = self.cluster.client(user, groups).post(
            f"/{group}/namespaces/{namespace}/{kind}s", {**document, "metadata": metadata}, dryRun="All"
        )
        return answer.status, answer.message

    def try_plain_pods(self, times: int) -> None:
        """So many pods that nothing speaks against, as a dry run."""
        (document,) = manifests.documents(PLAIN)
        for _ in range(times):
            self.try_object(document, "alice@example.com")

    def trust_images(self) -> None:
        """Create a trust rule for a registry that does not exist, so that its images are not verified."""
        key = Ed25519PrivateKey.generate().public_key()
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.cluster.apply(
            {
                "apiVersion": "weightlock.dev/v1alpha1",
                "kind": "ImageTrust",
                "metadata": {"name": "acme"},
                "spec": {"images": [f"{UNKNOWN_REGISTRY}/*"], "signers": [{"key": pem.decode()}]},
            }
        )

    def try_unverified_image(self) -> None:
        """Try a pod with an image of that registry, as a dry run. The shipped policy warns."""
        (document,) = manifests.documents(PLAIN)
        image = f"{UNKNOWN_REGISTRY}/trainer@sha256:{'0' * 64}"
        for container in document["spec"]["containers"]:
            container["image"] = image
        self.try_object(document, "alice@example.com")

    def lab(self) -> KeyLab:
        """A namespace with sealed weights, and a grant that ends within the hour."""
        namespace = self.cluster.new_namespace("keys")
        home = self.cluster.directory / namespace
        home.mkdir()
        lab = KeyLab(self.cluster, namespace, home, self.brokers[0])
        lab.seal().build()
        lab.granted()
        return lab

    def budgeted(self) -> KeyLab:
        """A namespace with a model that has an egress budget, and a running pod that reads it."""
        namespace = self.cluster.new_namespace("egress")
        home = self.cluster.directory / namespace
        home.mkdir()
        lab = KeyLab(self.cluster, namespace, home, self.brokers[0])
        lab.spec = {"egress": {"size": "810Gi", "minimumTime": "720h", "perPod": "2M"}}
        lab.seal().build()
        lab.granted()
        lab.running_pod("reader")
        return lab

    def use_keys(self, lab: KeyLab, name: str) -> None:
        """A pod gets its key, renews it, and is refused what it should not get."""
        pod = lab.running_pod(name)
        token = lab.token(pod)
        client = lab.client(token)
        client.release(lab.model)
        client.renew(lab.model)
        client.release(lab.model)
        for again in (client, lab.client(OTHER_TOKEN)):
            with contextlib.suppress(BrokerRefusedError):
                again.release(lab.model)

    def kill_a_worker(self) -> None:
        """Kill the worker process, as the kernel does when memory runs out."""
        parent = self.weightlock.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)

    def tamper(self) -> None:
        """Take away a webhook configuration, as an admin could; the controller puts it back."""
        self.cluster.client().delete(
            f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{manifests.NAME}"
        )
