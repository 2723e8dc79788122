"""A namespace with protected weights in it, and people who ask for them: what tests of access begin with."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.cluster import Cluster, Result, run
from harness.waiting import eventually

API = "/apis/weightlock.dev/v1alpha1"
COMMAND = Path(sys.executable).parent / "weightlock"
APPROVERS = ("weights-approvers",)
# The security context that the Pod Security level "restricted" requires.
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_IMAGE = "registry.example.com/research/train@sha256:" + "4f" * 32
_PEOPLE = [
    {
        "apiGroups": ["weightlock.dev"],
        "resources": ["accessrequests", "accessapprovals"],
        "verbs": ["create", "get", "list", "watch", "update", "patch", "delete"],
    },
    {"apiGroups": ["weightlock.dev"], "resources": ["modelweights"], "verbs": ["get", "list", "watch"]},
]


class Lab:
    """One namespace, one model of its own name, its volume and claim, and the service account ``trainer``."""

    def __init__(self, cluster: Cluster, namespace: str, **access: Any) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.model = f"atlas-{namespace}"
        self.access: dict[str, Any] = {
            "approvals": 2,
            "approvers": {"groups": [*APPROVERS]},
            "maxDuration": "1h",
            **access,
        }
        self.account = f"system:serviceaccount:{namespace}:trainer"

    def build(self) -> "Lab":
        """Make all of it as the admin; `alice` may edit here and use the service account."""
        self.cluster.apply(
            *self.storage(),
            {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "trainer", "namespace": self.namespace},
            },
            self.weights(),
            *self._rights(),
        )
        self.cluster.let_edit("alice", self.namespace)
        self.cluster.allow("alice", ["use"], ["serviceaccounts"], self.namespace)
        claim = f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims/weights"
        eventually(
            lambda: self.cluster.client().get(claim).ok()["status"]["phase"] == "Bound", "the claim is bound"
        )
        return self

    def storage(self) -> list[dict[str, Any]]:
        """The volume of the weights, and the claim that is bound to it."""
        handle = {"driver": "blob.csi.example.com", "volumeHandle": f"{self.model}/1"}
        storage = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
        return [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": self.model},
                "spec": {**storage, "capacity": {"storage": "1Gi"}, "csi": handle},
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "weights", "namespace": self.namespace},
                "spec": {
                    **storage,
                    "volumeName": self.model,
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            },
        ]

    def weights(self, **access: Any) -> dict[str, Any]:
        """The ModelWeights."""
        spec = {
            "sensitivity": "frontier",
            "volumes": [{"persistentVolumeClaim": {"namespaces": [self.namespace], "names": ["weights"]}}],
            "access": {**self.access, **access},
        }
        return {
            "apiVersion": "weightlock.dev/v1alpha1",
            "kind": "ModelWeights",
            "metadata": {"name": self.model},
            "spec": spec,
        }

    def pod(self, name: str = "train") -> dict[str, Any]:
        """A pod of ``trainer`` that reads the weights."""
        mount = {"name": "weights", "mountPath": "/weights", "readOnly": True}
        container = {"name": "main", "image": _IMAGE, "securityContext": RESTRICTED, "volumeMounts": [mount]}
        volume = {"name": "weights", "persistentVolumeClaim": {"claimName": "weights", "readOnly": True}}
        spec = {
            "serviceAccountName": "trainer",
            "containers": [container],
            "volumes": [volume],
            "restartPolicy": "Never",
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }

    def try_pod(self, name: str = "train", *, dry: bool = False) -> Any:
        """Create the pod as alice: the answer of the API server."""
        query = {"dryRun": "All"} if dry else {}
        client = self.cluster.client("alice")
        return client.post(f"/api/v1/namespaces/{self.namespace}/pods", self.pod(name), **query)

    def is_admitted(self) -> bool:
        """Whether the pod would be admitted now (a dry run)."""
        return bool(self.try_pod("tried", dry=True).status == 201)

    def request(self, name: str, duration: str = "10m", **spec: Any) -> dict[str, Any]:
        """An AccessRequest for ``trainer``."""
        body = {
            "model": self.model,
            "subject": {"kind": "ServiceAccount", "namespace": self.namespace, "name": "trainer"},
            "namespaces": [self.namespace],
            "duration": duration,
            "reason": "an end-to-end test",
            **spec,
        }
        return access("AccessRequest", f"{name}-{self.namespace}", body)

    def ask(self, name: str = "r", duration: str = "10m", user: str = "alice", **spec: Any) -> dict[str, Any]:
        """Create the request and return it as stored."""
        produced = (
            self.cluster.client(user).post(f"{API}/accessrequests", self.request(name, duration, **spec)).ok()
        )
        return self.cluster.signed(produced)

    def approval(
        self, request: Mapping[str, Any], name: str, decision: str = "Approve", **spec: Any
    ) -> dict[str, Any]:
        """An AccessApproval of a stored request."""
        reference = {"name": request["metadata"]["name"], "uid": request["metadata"]["uid"]}
        body = {"request": reference, "decision": decision, **spec}
        return access("AccessApproval", f"{name}-{reference['name']}", body)

    def vote(
        self,
        request: Mapping[str, Any],
        user: str,
        decision: str = "Approve",
        groups: Sequence[str] = APPROVERS,
        name: str = "",
    ) -> Any:
        """Create a decision as a user; return the answer of the API server."""
        document = self.approval(request, name or f"{user}-{decision.lower()}", decision)
        return self.cluster.client(user, groups).post(f"{API}/accessapprovals", document)

    def weightlock(self, *arguments: str, user: str, groups: Sequence[str] = ()) -> Result:
        """Run `weightlock access ...` as a user at a terminal."""
        environment = {
            **self.cluster.tool_environment(),
            "KUBECONFIG": str(self.cluster.kubeconfig(user, groups)),
        }
        return run([COMMAND, "access", *arguments], environment=environment)

    def _rights(self) -> list[dict[str, Any]]:
        rbac = "rbac.authorization.k8s.io"
        everybody = {"kind": "Group", "name": "system:authenticated", "apiGroup": rbac}
        name = "weightlock-access-people"
        return [
            {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": _PEOPLE},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name},
                "subjects": [everybody],
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            },
        ]


def access(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """An access object."""
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": dict(spec),
    }
