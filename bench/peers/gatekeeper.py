"""Gatekeeper's webhook as its chart starts it, with ConstraintTemplates for its CEL engine (K8sNativeValidation).

Other than in the chart: it does not hand its templates to the API server as ValidatingAdmissionPolicies, since it is
its webhook that is measured; the certificate is ours, so that all have the same kind; and it runs beside the cluster
with the rights of an admin.
"""

from pathlib import Path
from typing import ClassVar

from harness import manifests
from harness.process import free_port

from bench.peers.engines import READY_SECONDS, Webhook, wait_until_established
from bench.peers.policies import CONTAINERS, POLICIES, VARIABLE, elsewhere, message

NAMESPACE = "gatekeeper-system"
POD = "gatekeeper-controller-manager-0"
PODS = {"kinds": [{"apiGroups": [""], "kinds": ["Pod"]}]}
VARIABLES = [{"name": "containers", "expression": CONTAINERS}]
CONFIG_MAPS = {"kinds": [{"apiGroups": [""], "kinds": ["ConfigMap"]}]}


def kind(policy):
    """The kind of constraint that a policy becomes."""
    return "Bench" + "".join(part.capitalize() for part in policy.name.split("-"))


def template(policy, variables=VARIABLES):
    """The policy as a ConstraintTemplate."""
    source = {
        "failurePolicy": "Fail",
        "generateVAP": False,
        "variables": variables,
        "validations": [{"expression": policy.expression, "message": message(policy)}],
    }
    target = {
        "target": "admission.k8s.gatekeeper.sh",
        "code": [{"engine": "K8sNativeValidation", "source": source}],
    }
    return {
        "apiVersion": "templates.gatekeeper.sh/v1",
        "kind": "ConstraintTemplate",
        "metadata": {"name": kind(policy).lower()},
        "spec": {"crd": {"spec": {"names": {"kind": kind(policy)}}}, "targets": [target]},
    }


def constraint(policy, name="bench", match=None):
    """The constraint that makes a template count."""
    return {
        "apiVersion": "constraints.gatekeeper.sh/v1beta1",
        "kind": kind(policy),
        "metadata": {"name": name},
        "spec": {"enforcementAction": "deny", "match": match or PODS},
    }


def assign():
    """The mutation as an Assign."""
    return {
        "apiVersion": "mutations.gatekeeper.sh/v1",
        "kind": "Assign",
        "metadata": {"name": "bench"},
        "spec": {
            "applyTo": [{"groups": [""], "versions": ["v1"], "kinds": ["Pod"]}],
            "match": {"scope": "Namespaced", **PODS},
            "location": f"spec.containers[name:*].env[name:{VARIABLE['name']}].value",
            "parameters": {"assign": {"value": VARIABLE["value"]}},
        },
    }


class Gatekeeper(Webhook):
    """One replica of the controller manager."""

    name = "gatekeeper"
    label = "Gatekeeper"
    paths: ClassVar = {"validate": "/v1/admit", "mutate": "/v1/mutate"}

    def __init__(self, bench):
        super().__init__(bench)
        self._installed = False
        # The number of extra constraints. They stay, since later stages add more.
        self._extra = 0

    @property
    def version(self):
        """That of its module."""
        return self.bench.programs["gatekeeper"]["version"]

    def prepare(self):
        """Create CRDs, policies and a pod for the process once. They stay, since no other engine reads them."""
        if self._installed:
            return
        self.cluster.apply(*manifests.documents(Path(self.bench.programs["gatekeeper"]["crds"])))
        wait_until_established(self.cluster)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": NAMESPACE},
        }
        # What it writes about its state belongs to its pod.
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": POD, "namespace": NAMESPACE},
            "spec": {"containers": [{"name": "manager", "image": "gatekeeper"}]},
        }
        self.cluster.apply(namespace)
        self.cluster.apply(account)
        self.cluster.apply(pod)
        self.cluster.apply(*(template(policy) for policy in POLICIES), template(elsewhere(0), []), assign())
        (self.directory / "certs").mkdir(parents=True, exist_ok=True)
        for name, file in (
            ("tls.crt", self.serving.certificate),
            ("tls.key", self.serving.key),
            ("ca.crt", self.ca),
        ):
            (self.directory / "certs" / name).write_bytes(file.read_bytes())

    def start(self, extra=()):
        """As any; the first start also makes the kinds of the constraints, which can only then be put."""
        if self._installed:
            return super().start(extra)
        self.prepare()
        command, environment = self.command(())
        self.component.start(command, environment)
        names = [f"{kind(policy).lower()}.constraints.gatekeeper.sh" for policy in (*POLICIES, elsewhere(0))]
        wait_until_established(self.cluster, names)
        self.cluster.apply(*(constraint(policy) for policy in POLICIES))
        self.component.wait_ready(self.is_correct, READY_SECONDS)
        self.component.stop(grace=5.0)
        self._installed = True
        return super().start(extra)

    def command(self, extra):
        """As the chart has it."""
        if len(extra) > self._extra:
            self.cluster.apply(*extra)
            self._extra = len(extra)
        flags = [
            f"--host={self.bench.address}",
            f"--port={self.port}",
            f"--health-addr=127.0.0.1:{free_port()}",
            f"--prometheus-port={free_port()}",
            f"--cert-dir={self.directory / 'certs'}",
            f"--kubeconfig={self.cluster.kubeconfig()}",
            "--disable-cert-rotation=true",
            "--logtostderr",
            "--log-denies=false",
            "--log-level=INFO",
            "--operation=webhook",
            "--operation=generate",
            "--operation=mutation-webhook",
            f"--exempt-namespace={NAMESPACE}",
            "--enable-external-data=true",
            "--enable-generator-resource-expansion=true",
            "--max-serving-threads=-1",
            "--tls-min-version=1.3",
            "--default-create-vap-for-templates=false",
            "--default-create-vap-binding-for-constraints=false",
            "--shutdown-delay=0",
        ]
        environment = {**self.bench.environment, "POD_NAME": POD, "POD_NAMESPACE": NAMESPACE}
        return [self.bench.programs["gatekeeper"]["program"], *flags], environment
