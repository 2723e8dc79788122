"""What is measured: each engine with a common handle. `start` it, `register` it with the API server, `stop` it.

Only one is registered at a time. All have certificates of the same kind (ECDSA P-256), the same failure policy and the
same timeout, and are reached by the same kind of address.
"""

import base64
import http.client
import json
import ssl
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import yaml
from harness import manifests
from harness.pki import Authority
from harness.process import free_port
from harness.waiting import eventually
from harness.weightlock import COMMAND

from bench.peers import pods
from bench.peers.policies import MUTATION, RULE, admission_policies

API = "/apis/admissionregistration.k8s.io/v1"
HOOK = "bench-peers"
EXEMPT = ["kube-system", "weightlock-system", "kyverno", "gatekeeper-system", pods.UNASKED]
# Which namespaces an engine is asked about.
ASKED = {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": EXEMPT}]}
READY_SECONDS = 120.0
# The most there is: what waits long is to be measured, and not to fail.
TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Target:
    """Where something is posted to, and how it is trusted."""

    url: str
    ca: Path
    certificate: Path | None = None
    key: Path | None = None


class Engine:
    """One engine."""

    name = ""
    label = ""
    mutates = True
    # The status with which its denials reach the client; the check of verdicts finds out.
    denial = 0
    paths: ClassVar[dict[str, str]] = {}

    def __init__(self, bench):
        self.bench = bench
        self.cluster = bench.cluster

    @property
    def version(self):
        """Its version, for the report."""
        return ""

    def start(self, extra=()):
        """Start it with the policies and ``extra`` ones; return the seconds to the first verdict of a process."""
        assert not extra, f"{self.label} takes no policies"

    def register(self, *, mutating):
        """Make the API server ask it."""

    def unregister(self):
        """Make the API server forget it."""

    def stop(self):
        """End it."""

    @property
    def pid(self):
        """Its process; None where it is none of its own."""
        return None


class AdmissionPolicy(Engine):
    """The API server's own policies."""

    name = "vap"
    label = "ValidatingAdmissionPolicy"
    _mutating = False

    @property
    def version(self):
        """That of the API server."""
        return self.bench.kubernetes

    def start(self, extra=()):
        """Put the policies."""
        self.cluster.apply(*map(_limited_to_test_namespaces, admission_policies()), *extra)

    def register(self, *, mutating):
        """Put the mutating policy, too."""
        self._mutating = mutating
        if not mutating:
            return
        group = f"admissionregistration.k8s.io/{self._version()}"
        self.cluster.apply(
            {
                "apiVersion": group,
                "kind": "MutatingAdmissionPolicy",
                "metadata": {"name": HOOK},
                "spec": {
                    "failurePolicy": "Fail",
                    "reinvocationPolicy": "Never",
                    "matchConstraints": {"resourceRules": [RULE]},
                    "mutations": [
                        {
                            "patchType": "ApplyConfiguration",
                            "applyConfiguration": {"expression": MUTATION},
                        }
                    ],
                },
            },
            {
                "apiVersion": group,
                "kind": "MutatingAdmissionPolicyBinding",
                "metadata": {"name": HOOK},
                "spec": {"policyName": HOOK, "matchResources": {"namespaceSelector": ASKED}},
            },
        )

    def _version(self):
        endpoint = self.cluster.client().get(API).ok()["resources"]
        return "v1" if any(one["name"] == "mutatingadmissionpolicies" for one in endpoint) else "v1beta1"

    def unregister(self):
        """Take the mutating policy away."""
        if self._mutating:
            for kind in ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies"):
                path = f"/apis/admissionregistration.k8s.io/{self._version()}/{kind}/{HOOK}"
                self.cluster.client().delete(path)
        self._mutating = False

    def stop(self):
        """Take all policies away."""
        self.cluster.client().delete(f"{API}/validatingadmissionpolicybindings")
        self.cluster.client().delete(f"{API}/validatingadmissionpolicies")


class Webhook(Engine):
    """An engine with a process and a port of its own."""

    paths: ClassVar = {"validate": "/validate", "mutate": "/mutate"}

    def __init__(self, bench):
        super().__init__(bench)
        self.port = free_port()
        self.component = self.cluster.component(self.name)
        self.directory = self.cluster.directory / f"engine-{self.name}"
        authority = Authority(self.directory / "pki", f"{self.name}-ca")
        self.serving = authority.server(self.name, [bench.address, "127.0.0.1", *self.names()])
        self.ca = authority.certificate

    def names(self):
        """Host names for its certificate."""
        return []

    @property
    def pid(self):
        """The process that was started; children of it count as well."""
        return self.component.pid

    def target(self, path):
        """Where its port is asked at one of ``paths``."""
        return Target(f"https://{self.bench.address}:{self.port}{self.paths[path]}", self.ca)

    def prepare(self):
        """What must be in the cluster before it starts."""

    def command(self, extra):
        """Its command line, and environment."""
        raise NotImplementedError

    def start(self, extra=()):
        """Start it, and ask until it denies what it should: seconds since the process was started."""
        self.prepare()
        command, environment = self.command(list(extra))
        begun = time.monotonic()
        self.component.start(command, environment)
        self.component.wait_ready(self.is_correct, READY_SECONDS)
        return time.monotonic() - begun

    def is_correct(self):
        """Whether its verdicts at its own port are correct; an engine that is not ready may allow all, or deny all."""
        verdicts = [self.ask("validate", pod)["allowed"] for pod in (pods.good(), pods.bad())]
        return verdicts == [True, False]

    def ask(self, path, pod):
        """The response of one review straight at its port."""
        url = urlsplit(self.target(path).url)
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection(url.hostname, url.port, context=context, timeout=10)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", url.path, pods.review(pod), headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, body[:300]
        return json.loads(body)["response"]

    def register(self, *, mutating):
        """Register its webhooks."""
        kinds = {"Validating": "validate", **({"Mutating": "mutate"} if mutating else {})}
        self.cluster.apply(*(self._configuration(kind, path) for kind, path in kinds.items()))

    def _configuration(self, kind, path):
        webhook = {
            "name": f"{path}.bench.example.com",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "url": self.target(path).url,
                "caBundle": base64.b64encode(self.ca.read_bytes()).decode(),
            },
            "rules": [{**RULE, "scope": "*"}],
            "namespaceSelector": ASKED,
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT_SECONDS,
        }
        if kind == "Mutating":
            webhook["reinvocationPolicy"] = "Never"
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": f"{kind}WebhookConfiguration",
            "metadata": {"name": HOOK},
            "webhooks": [webhook],
        }

    def unregister(self):
        """Delete all webhook configurations of any owner."""
        for kind in ("validating", "mutating"):
            self.cluster.client().delete(f"{API}/{kind}webhookconfigurations")

    def stop(self):
        """End the process."""
        self.component.stop(grace=5.0)


class Noop(Webhook):
    """A webhook in Go that allows everything: the least that one can cost."""

    name = "noop"
    label = "Go no-op"
    mutates = False

    def command(self, extra):
        """No policies: it has none."""
        del extra
        listen = f"{self.bench.address}:{self.port}"
        files = ["-certificate", str(self.serving.certificate), "-key", str(self.serving.key)]
        return [self.bench.programs["noop"]["program"], "-listen", listen, *files], None

    def is_correct(self):
        """Whether it answers."""
        return self.ask("validate", pods.bad())["allowed"] is True


class Weightlock(Webhook):
    """Weightlock on the cluster, with the manifests of ValidatingAdmissionPolicies as they are."""

    name = "weightlock"
    label = "Weightlock"

    @property
    def version(self):
        """The commit it is measured at."""
        return self.bench.commit

    def prepare(self):
        """Types and rights."""
        self.cluster.apply(*manifests.identity(), *manifests.crds())
        wait_until_established(self.cluster)

    def command(self, extra):
        """The command of the image."""
        policies = self.directory / "policies.yaml"
        policies.write_text(yaml.safe_dump_all([*admission_policies(), *extra]))
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{manifests.NAMESPACE}"]
        folder = self.directory / "policies"
        folder.mkdir(exist_ok=True)
        policies.replace(folder / "policies.yaml")
        config = {
            "listen": {"host": self.bench.address, "port": self.port},
            "tls": {"certificate": str(self.serving.certificate), "key": str(self.serving.key)},
            "cluster": {"kubeconfig": str(self.cluster.kubeconfig(manifests.USERNAME, groups))},
            "policies": str(folder),
            "drainSeconds": 0,
            **self.bench.weightlock_config,
        }
        file = self.directory / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        return [COMMAND, "serve", "--config", file], self.bench.environment

    def metric(self, name):
        """The sum of one of its metrics, as it tells them itself."""
        context = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(
            f"https://{self.bench.address}:{self.port}/metrics", context=context
        ) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].split(" ")[0] == name
        )


def _limited_to_test_namespaces(document):
    """A binding as it is for the namespaces that engines are asked about; a policy as it is."""
    if not document["kind"].endswith("Binding"):
        return document
    return {**document, "spec": {**document["spec"], "matchResources": {"namespaceSelector": ASKED}}}


def wait_until_established(cluster, names=()):
    """Wait until all types that the cluster was given, and those of ``names``, are served."""

    def are_served():
        matches = (
            cluster.client().get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").ok()["items"]
        )
        endpoint = {
            one["metadata"]["name"]
            for one in matches
            for condition in one.get("status", {}).get("conditions") or ()
            if (condition["type"], condition["status"]) == ("Established", "True")
        }
        return endpoint.issuperset(names) and len(endpoint) == len(matches)

    eventually(are_served, "the types are served", seconds=READY_SECONDS)


def wait_for(look, what, seconds=READY_SECONDS):
    """Wait until the API server does as the engine just registered would have it; what ``look`` then returns."""
    return eventually(look, what, seconds=seconds, every=0.1)
