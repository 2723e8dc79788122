"""What every cluster offers the tests, be it our own control plane, kind, or one that exists already.

Tests speak to the cluster as people do: `kubectl` with a kubeconfig of their own, or the API directly.
"""

import abc
import json
import os
import subprocess
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.programs import ROOT
from harness.rest import Client
from harness.waiting import eventually, slowness

KUBECTL_SECONDS = 60.0
RBAC_API = "/apis/rbac.authorization.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did: its exit code, and what it wrote."""

    command: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    def ok(self) -> "Result":
        """This result. Raises AssertionError with the output unless the exit code is 0."""
        assert self.code == 0, f"{self}"
        return self

    def failed(self) -> str:
        """What was written to stderr. Raises AssertionError if the exit code is 0."""
        assert self.code != 0, f"expected a failure: {self}"
        return self.stderr

    def json(self) -> Any:
        """The output as JSON. Raises AssertionError unless the exit code is 0."""
        return json.loads(self.ok().stdout)

    def __str__(self) -> str:
        return f"{' '.join(self.command)} exited with {self.code}\n{self.stdout}{self.stderr}"


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float = KUBECTL_SECONDS,
) -> Result:
    """Run a command and return what it did. Raises AssertionError if it takes longer than `seconds` (`slowness`)."""
    words = tuple(str(part) for part in command)
    try:
        done = subprocess.run(
            words,
            input=stdin or "",
            env=None if environment is None else dict(environment),
            capture_output=True,
            text=True,
            timeout=seconds * slowness(),
            check=False,
        )
    except subprocess.TimeoutExpired as slow:
        raise AssertionError(f"{' '.join(words)}: no end within {seconds:g} s: {slow.stderr!r}") from None
    return Result(words, done.returncode, done.stdout, done.stderr)


class Cluster(abc.ABC):
    """A running Kubernetes cluster.

    `own` tells whether its processes are ours to stop, pause and restart; `controllers` whether the workload
    controllers run, which ready-made programs may lack. With `controller_signs`, the API server of the cluster proves
    nothing to the webhook, and the controller signs requests and approvals a moment later.
    """

    own = False
    controllers = True
    controller_signs = False

    def __init__(self, directory: Path, programs: Mapping[str, Path]) -> None:
        self.directory = directory
        self.programs = programs
        self._clients: dict[tuple[str | None, tuple[str, ...]], Client] = {}

    @abc.abstractmethod
    def kubeconfig(self, user: str | None = None, groups: Sequence[str] = ()) -> Path:
        """The path of a kubeconfig for `user` in `groups`; for the cluster admin where no user is given."""

    def client(self, user: str | None = None, groups: Sequence[str] = ()) -> Client:
        """A client of the API as `user` in `groups`, the admin where no user is given; we close it."""
        who = (user, tuple(groups))
        if who not in self._clients:
            self._clients[who] = Client.from_kubeconfig(self.kubeconfig(user, groups))
        return self._clients[who]

    def tool_environment(self) -> dict[str, str]:
        """The environment of kubectl and helm: no configuration or cache of the user who runs the tests."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        return {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "KUBECTL_KUBERC": "false",
            "LC_ALL": "C",
        }

    def kubectl(
        self,
        *arguments: str,
        user: str | None = None,
        groups: Sequence[str] = (),
        stdin: str | Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
        seconds: float = KUBECTL_SECONDS,
    ) -> Result:
        """Run kubectl as `user` in `groups`, the cluster admin where no user is given.

        `stdin` may be text, an object or several: `kubectl("apply", "-f", "-", stdin=pod, user="alice")`.
        """
        kubeconfig = self.kubeconfig(user, groups)
        command = [str(self.programs["kubectl"]), "--kubeconfig", str(kubeconfig), *arguments]
        text = stdin if stdin is None or isinstance(stdin, str) else as_yaml(stdin)
        return run(command, stdin=text, environment=self.tool_environment(), seconds=seconds)

    def helm(self, *arguments: str, seconds: float = 120.0) -> Result:
        """Run helm as the cluster admin. A new release accepts callers that prove nothing."""
        assert "helm" in self.programs, "helm is not among the programs of this cluster"
        command = [str(self.programs["helm"]), "--kubeconfig", str(self.kubeconfig()), *arguments]
        if arguments[0] in ("install", "template") and str(ROOT / "charts" / "weightlock") in arguments:
            command += ["--set", "webhook.acceptUnauthenticatedCallers=true"]
        return run(command, environment=self.tool_environment(), seconds=seconds)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Apply objects as the cluster admin (server-side, so that large CRDs fit). Raises AssertionError."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=objects).ok()

    def signed(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return an access object that was just created. If the controller signs here, wait for the signature."""
        if not self.controller_signs:
            return dict(document)
        plural, name = f"{document['kind'].lower()}s", document["metadata"]["name"]
        path = f"/apis/weightlock.dev/v1alpha1/{plural}/{name}"

        def read() -> dict[str, Any]:
            saved: dict[str, Any] = self.client().get(path).ok()
            return saved if saved["spec"].get("signature") else {}

        return eventually(read, f"{name} is signed", seconds=60, every=0.3)

    def new_namespace(self, prefix: str = "test", labels: Mapping[str, str] | None = None) -> str:
        """Create a namespace of a new name, wait for its default service account, return the name."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        admin = self.client()
        metadata = {"name": name, "labels": dict(labels or {})}
        admin.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}).ok()
        self._default_account(name)
        return name

    def _default_account(self, namespace: str) -> None:
        """Wait for the default service account of a namespace; make it where no controller would."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        if not self.controllers:
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            self.client().post(accounts, account)
        path = f"{accounts}/default"
        eventually(lambda: self.client().get(path).status == 200, f"service account default in {namespace}")

    def delete_namespace(self, name: str) -> None:
        """Ask for a namespace to be deleted, without waiting for the end of it."""
        self.client().delete(f"/api/v1/namespaces/{name}")

    def add_node(self, name: str, capacity: Mapping[str, str] | None = None) -> None:
        """Make up a node that is ready and has room, so that pods can be bound to it; no kubelet runs there."""
        room = {"cpu": "64", "memory": "512Gi", "pods": "200", **(capacity or {})}
        status = {
            "capacity": room,
            "allocatable": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "MadeUp", "message": "no kubelet"}],
        }
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        self.client().post("/api/v1/nodes", node).ok()
        self.client().patch(f"/api/v1/nodes/{name}/status", {"status": status}).ok()
        # The API server taints every new node until a controller has seen it ready.
        self.client().patch(f"/api/v1/nodes/{name}", {"spec": {"taints": None}}).ok()

    def allow(
        self, user: str, verbs: Sequence[str], resources: Sequence[str], namespace: str, group: str = ""
    ) -> None:
        """Let `user` do `verbs` on `resources` of an API group in a namespace: a Role and its binding."""
        rule = {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
        name = f"{user}-{uuid.uuid4().hex[:8]}"
        role = {**_rbac("Role", name, namespace), "rules": [rule]}
        self.client().post(f"{RBAC_API}/namespaces/{namespace}/roles", role).ok()
        self._bind(user, namespace, "Role", name)

    def let_edit(self, user: str, namespace: str) -> None:
        """Give `user` the ClusterRole `edit` in a namespace, as a researcher has it: pods, jobs, exec, …"""
        # `edit` is put together of these by a controller.
        parts = ("edit",) if self.controllers else ("system:aggregate-to-edit", "system:aggregate-to-view")
        for role in parts:
            self._bind(user, namespace, "ClusterRole", role)

    def _bind(self, user: str, namespace: str, kind: str, role: str) -> None:
        binding = {
            **_rbac("RoleBinding", f"{user}-{role}", namespace),
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        }
        self.client().post(f"{RBAC_API}/namespaces/{namespace}/rolebindings", binding).ok()

    def stop(self) -> None:
        """Close what this process holds open; the cluster itself goes on unless it is ours."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()


def _rbac(kind: str, name: str, namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata}


def as_yaml(objects: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> str:
    """Objects as a stream of YAML documents."""
    documents = [objects] if isinstance(objects, Mapping) else list(objects)
    return yaml.safe_dump_all(documents, sort_keys=False)
