"""Real operators, each as a process beside the control plane, under the identity and with the rights of its chart."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness.controller import Controllers
from harness.controlplane import ControlPlane
from harness.manifests import documents
from harness.pki import Authority
from harness.process import Component, free_port
from harness.programs import ROOT
from harness.rest import Client
from harness.waiting import eventually
from harness.weightlock import Weightlock

from webhook.api.operators import PRESETS

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TOOL = ROOT / "tests" / "tools" / "operators.py"
# All that an operator's own role allows here; never the verb `use`, which wildcards of a role with listed verbs lack.
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
START_SECONDS = 60.0


@pytest.fixture(scope="session")
def programs() -> Path:
    """The directory of the built operators. Without it the tests are skipped."""
    inputs = os.environ.get("WEIGHTLOCK_OPERATORS")
    if inputs:
        return Path(inputs)
    done = subprocess.run([sys.executable, TOOL, "--find"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.strip() or "the operators are not built")
    return Path(done.stdout.strip().splitlines()[-1])


class RunningOperator:
    """One operator as a process. ``component`` has its log."""

    def __init__(self, cluster: ControlPlane, programs: Path, name: str) -> None:
        preset = PRESETS[name]
        self.cluster, self.name, self.program = cluster, name, programs / name
        if not self.program.exists():
            pytest.skip(f"{self.program} does not exist")
        self.namespace, self.account = preset.namespace, preset.accounts[0]
        self.username = f"system:serviceaccount:{self.namespace}:{self.account}"
        self.crds = list(documents(programs / f"{name}-crds"))
        self.component: Component = cluster.component(f"operator-{name}")
        self._directory = cluster.directory / f"operator-{name}"
        self.groups = ["system:serviceaccounts", f"system:serviceaccounts:{self.namespace}"]

    def install(self) -> None:
        """Apply the CRDs, the namespace and the rights."""
        rbac = "rbac.authorization.k8s.io"
        role = f"operator-{self.name}"
        subject = {"kind": "ServiceAccount", "name": self.account, "namespace": self.namespace}
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRole",
                "metadata": {"name": role},
                "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": VERBS}],
            },
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": role},
                "subjects": [subject],
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            },
        )
        for crd in self.crds:
            # Large schemas do not fit the annotation of a client-side apply.
            self.cluster.client().post(CRDS, crd)
        for crd in self.crds:
            eventually(
                lambda name=crd["metadata"]["name"]: self._serves(name), "the CRD is served", seconds=60
            )

    def _serves(self, name: str) -> bool:
        status = self.cluster.client().get(f"{CRDS}/{name}").ok().get("status") or {}
        conditions = status.get("conditions") or ()
        return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

    def start(self) -> None:
        """Start the program and wait until it watches."""
        self._directory.mkdir(exist_ok=True)
        serving = Authority(self._directory / "pki", "operator").server("operator", ["127.0.0.1"])
        certificates = self._directory / "k8s-webhook-server" / "serving-certs"
        certificates.mkdir(parents=True, exist_ok=True)
        shutil.copy(serving.certificate, certificates / "tls.crt")
        shutil.copy(serving.key, certificates / "tls.key")
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.cluster.kubeconfig(self.username, self.groups)),
            "TMPDIR": str(self._directory),
            "ENABLE_WEBHOOKS": "false",
            "POD_NAMESPACE": self.namespace,
        }
        self.component.start([self.program, *self._arguments()], environment)
        self.component.wait_ready(lambda: "Starting workers" in self.component.log.read_text(), START_SECONDS)

    def client(self) -> Client:
        """A client of the API with the identity of the operator."""
        return self.cluster.client(self.username, self.groups)

    def stop(self) -> None:
        """Stop the program and delete the CRDs with their objects."""
        if self.component.running:
            self.component.stop()
        print(self.component.tail(40))
        for crd in self.crds:
            self.cluster.client().delete(f"{CRDS}/{crd['metadata']['name']}")

    def _arguments(self) -> list[str]:
        if self.name == "kuberay":
            probe, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
            return [
                "--enable-leader-election=false",
                f"--health-probe-bind-address={probe}",
                f"--metrics-addr={metrics}",
            ]
        config = {
            "apiVersion": f"config.{'jobset' if self.name == 'jobset' else 'lws'}.x-k8s.io/v1alpha1",
            "kind": "Configuration",
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "metrics": {"bindAddress": "0"},
            "health": {"healthProbeBindAddress": f"127.0.0.1:{free_port()}"},
            "webhook": {"port": free_port(), "host": "127.0.0.1"},
        }
        file = self._directory / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        return [f"--config={file}"]


@pytest.fixture
def listed(own_weightlock: Weightlock) -> Iterator[Callable[[list[Any]], None]]:
    """A function that restarts Weightlock with other `settings.operators`."""
    settings = dict(own_weightlock.config["settings"])

    def listed(operators: list[Any]) -> None:
        own_weightlock.config["settings"] = {**settings, "operators": operators}
        own_weightlock.restart()

    yield listed
    own_weightlock.config["settings"] = settings
    own_weightlock.restart()


@pytest.fixture
def operator(
    own_control_plane: ControlPlane, own_weightlock: Weightlock, programs: Path
) -> Iterator[Callable[[str], RunningOperator]]:
    """A function that installs and starts an operator by the name of its preset."""
    started: list[RunningOperator] = []

    def start(name: str) -> RunningOperator:
        running = RunningOperator(own_control_plane, programs, name)
        running.install()
        started.append(running)
        running.start()
        return running

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def controllers(own_weightlock: Weightlock) -> Iterator[Controllers]:
    """A leading controller that restores webhook configurations."""
    controllers = Controllers(own_weightlock).prepare()
    controllers.start(restore=True)
    controllers.wait_leading()
    yield controllers
    controllers.stop()
