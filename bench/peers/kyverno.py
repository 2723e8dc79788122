"""Kyverno's admission controller as its chart starts it, with its CEL policies (ValidatingPolicy, MutatingPolicy).

Other than in the chart: the certificate is ours, so that all have the same kind; policies are for pods only (no rules
are generated for workloads); and it runs beside the cluster with the rights of an admin. It registers its webhooks
itself, as it does in any cluster.
"""

import base64
import json
from pathlib import Path

from harness import manifests
from harness.process import free_port
from harness.waiting import eventually

from bench.peers.engines import (
    API,
    ASKED,
    HOOK,
    READY_SECONDS,
    TIMEOUT_SECONDS,
    Webhook,
    wait_until_established,
)
from bench.peers.policies import MUTATION, POLICIES, RULE, spec

GROUP = "policies.kyverno.io"
VERSION = "v1beta1"
NAMESPACE = "kyverno"
SERVICE = "kyverno-svc"
CA_SECRET, TLS_SECRET = (
    f"{SERVICE}.{NAMESPACE}.svc.kyverno-tls-ca",
    f"{SERVICE}.{NAMESPACE}.svc.kyverno-tls-pair",
)
# As the chart's values have them.
FLAGS = (
    "--admissionReports=true",
    "--autoUpdateWebhooks=true",
    "--enableConfigMapCaching=true",
    "--enableDeferredLoading=true",
    "--maxAPICallResponseLength=2000000",
    "--omitEvents=PolicyApplied,PolicySkipped",
    "--enablePolicyException=false",
    "--protectManagedResources=false",
    "--generateValidatingAdmissionPolicy=true",
    "--generateMutatingAdmissionPolicy=false",
    "--loggingFormat=text",
    "--v=2",
)
ENVIRONMENT = {
    "KYVERNO_NAMESPACE": NAMESPACE,
    "KYVERNO_SERVICEACCOUNT_NAME": "kyverno-admission-controller",
    "KYVERNO_DEPLOYMENT": "kyverno-admission-controller",
    "KYVERNO_ROLE_NAME": "kyverno:admission-controller",
    "KYVERNO_POD_NAME": "kyverno-admission-controller-0",
    "KYVERNO_SVC": SERVICE,
    "INIT_CONFIG": "kyverno",
    "METRICS_CONFIG": "kyverno-metrics",
}
_PODS_ONLY = {"podControllers": {"controllers": []}}


def policy_documents(policies=POLICIES):
    """The policies as ValidatingPolicies."""
    for policy in policies:
        yield {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "ValidatingPolicy",
            "metadata": {"name": f"bench-{policy.name}"},
            "spec": {
                **spec(policy),
                "validationActions": ["Deny"],
                "autogen": _PODS_ONLY,
                "evaluation": {"background": {"enabled": False}},
            },
        }


def mutating_policy():
    """The mutation as a MutatingPolicy."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "MutatingPolicy",
        "metadata": {"name": HOOK},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [RULE]},
            "autogen": _PODS_ONLY,
            "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": MUTATION}}
            ],
        },
    }


def _paths(extra):
    """The paths it registers: that to validate names every policy, and so grows with them."""
    names = {f"bench-{policy.name}" for policy in POLICIES} | {one["metadata"]["name"] for one in extra}
    return {"validate": "/vpol/" + "/".join(sorted(names)), "mutate": f"/mpol/{HOOK}"}


class Kyverno(Webhook):
    """One replica of the admission controller."""

    name = "kyverno"
    label = "Kyverno"

    def __init__(self, bench):
        super().__init__(bench)
        self.paths = _paths(())
        self._installed = False

    @property
    def version(self):
        """That of its module."""
        return self.bench.programs["kyverno"]["version"]

    def names(self):
        """The names of its Service."""
        return [SERVICE, f"{SERVICE}.{NAMESPACE}", f"{SERVICE}.{NAMESPACE}.svc"]

    def prepare(self):
        """Types, namespace, configuration and certificate, once; the policies; no lease of a process that is gone."""
        if not self._installed:
            self.cluster.apply(*manifests.documents(Path(self.bench.programs["kyverno"]["crds"])))
            wait_until_established(self.cluster)
            self.cluster.apply(*self._installation())
            self._installed = True
        self.cluster.apply(*policy_documents())
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
        for name in ("kyverno", "kyverno-health"):
            self.cluster.client().delete(f"{leases}/{name}")

    def _installation(self):
        def encoded(file):
            return base64.b64encode(file.read_bytes()).decode()

        place = {"namespace": NAMESPACE}
        pair = {"tls.crt": encoded(self.serving.certificate), "tls.key": encoded(self.serving.key)}
        settings = {
            "enableDefaultRegistryMutation": "true",
            "defaultRegistry": "docker.io",
            "generateSuccessEvents": "false",
            "excludeGroups": "system:nodes",
            "resourceFilters": "[Event,*,*] [*/*,kube-system,*] [*/*,kube-public,*] [*/*,kyverno,*]",
            "webhooks": json.dumps({"namespaceSelector": ASKED}),
        }
        core = {"apiVersion": "v1"}
        return [
            {**core, "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            {**core, "kind": "ConfigMap", "metadata": {"name": "kyverno", **place}, "data": settings},
            {**core, "kind": "ConfigMap", "metadata": {"name": "kyverno-metrics", **place}, "data": {}},
            {**core, "kind": "Secret", "metadata": {"name": TLS_SECRET, **place}, "data": pair},
            {
                **core,
                "kind": "Secret",
                "metadata": {"name": CA_SECRET, **place},
                "data": {"tls.crt": encoded(self.ca)},
            },
        ]

    def command(self, extra):
        """As the chart has it; ``extra`` policies are applied to the cluster before."""
        if extra:
            self.cluster.apply(*extra)
        self.paths = _paths(extra)
        flags = [
            *FLAGS,
            f"--kubeconfig={self.cluster.kubeconfig()}",
            f"--serverIP={self.bench.address}:{self.port}",
            f"--webhookServerPort={self.port}",
            "--webhookServerHost=::",
            f"--caSecretName={CA_SECRET}",
            f"--tlsSecretName={TLS_SECRET}",
            "--disableCertManagerController=true",
            f"--metricsPort={free_port()}",
            f"--webhookTimeout={TIMEOUT_SECONDS}",
            "--controllerRuntimeMetricsAddress=0",
        ]
        return [self.bench.programs["kyverno"]["program"], *flags], {**self.bench.environment, **ENVIRONMENT}

    def register(self, *, mutating):
        """Wait until it has registered its webhooks; it also registers one to mutate once there is a policy for it."""
        if mutating:
            self.cluster.apply(mutating_policy())
        kinds = ("validating", "mutating") if mutating else ("validating",)
        for kind, path in zip(kinds, (self.paths["validate"], self.paths["mutate"]), strict=False):
            eventually(
                lambda kind=kind, path=path: path in self._urls(kind),
                f"Kyverno registers its {kind} webhook",
                seconds=READY_SECONDS,
            )

    def _urls(self, kind):
        items = self.cluster.client().get(f"{API}/{kind}webhookconfigurations").ok()["items"]
        return " ".join(
            hook["clientConfig"].get("url", "") + " " for item in items for hook in item.get("webhooks", ())
        )

    def unregister(self):
        """It would register again at once, so that is left until it has stopped."""

    def stop(self):
        """End the process, and take away its webhooks and what it was given."""
        super().stop()
        super().unregister()
        for plural in ("validatingpolicies", "mutatingpolicies"):
            self.cluster.client().delete(f"/apis/{GROUP}/{VERSION}/{plural}")
