"""What a cluster needs to know of Weightlock when it runs beside it as a process: types, rights, webhooks.

Plain dictionaries, ready for `Cluster.apply`. Exemptions go by `kubernetes.io/metadata.name` alone, the one
label of a namespace that no user can choose.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from harness.programs import ROOT

Manifest = dict[str, Any]

CRDS = ROOT / "charts" / "weightlock" / "files" / "crds"
NAMESPACE = "weightlock-system"
ACCOUNT = "weightlock"
USERNAME = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
EXEMPT = ("kube-system", NAMESPACE)
NAME = "weightlock"

READ = ("get", "list", "watch")
WRITE = ("CREATE", "UPDATE")
# What the webhook does in a cluster: it watches what verdicts depend on, reads what they ask for, and asks RBAC.
RIGHTS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "",
        (
            "namespaces",
            "persistentvolumeclaims",
            "persistentvolumes",
            "configmaps",
            "limitranges",
            "resourcequotas",
        ),
        READ,
    ),
    ("", ("pods", "serviceaccounts"), ("get",)),
    # Those with an egress limit.
    ("", ("pods",), ("list", "watch")),
    ("storage.k8s.io", ("storageclasses",), READ),
    ("node.k8s.io", ("runtimeclasses",), READ),
    ("apiextensions.k8s.io", ("customresourcedefinitions",), READ),
    ("networking.k8s.io", ("networkpolicies",), READ),
    ("resource.k8s.io", ("deviceclasses", "resourceclaims", "resourceclaimtemplates"), READ),
    ("snapshot.storage.k8s.io", ("volumesnapshots", "volumesnapshotcontents"), READ),
    ("weightlock.dev", ("modelweights", "weightpolicies", "accessrequests", "accessapprovals"), READ),
    ("weightlock.dev", ("imagetrusts", "imageverifications"), READ),
    ("authorization.k8s.io", ("subjectaccessreviews",), ("create",)),
    # Owners of pods that operators write.
    ("jobset.x-k8s.io", ("jobsets",), ("get",)),
    ("leaderworkerset.x-k8s.io", ("leaderworkersets",), ("get",)),
    ("ray.io", ("rayclusters",), ("get",)),
)

# API group, resources, operations: what the validating webhook is asked about.
VALIDATED: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "",
        ("pods", "replicationcontrollers", "podtemplates", "persistentvolumeclaims", "persistentvolumes"),
        WRITE,
    ),
    ("", ("pods/ephemeralcontainers", "pods/resize"), ("UPDATE",)),
    ("", ("pods/binding", "serviceaccounts/token"), ("CREATE",)),
    ("", ("pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "nodes/proxy"), ("CONNECT",)),
    ("apps", ("deployments", "statefulsets", "daemonsets", "replicasets"), WRITE),
    ("batch", ("jobs", "cronjobs"), WRITE),
    ("resource.k8s.io", ("resourceclaims", "resourceclaimtemplates"), WRITE),
    ("snapshot.storage.k8s.io", ("volumesnapshots",), WRITE),
    ("weightlock.dev", ("*",), (*WRITE, "DELETE")),
    ("weightlock.dev", ("accessrequests/status", "accessapprovals/status"), ("UPDATE",)),
)
MUTATED: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("", ("pods",), ("CREATE",)),
    ("weightlock.dev", ("accessrequests", "accessapprovals"), ("CREATE",)),
)


def crds() -> list[Manifest]:
    """The CustomResourceDefinitions that the chart ships."""
    return list(documents(CRDS))


def documents(place: Path) -> Iterator[Manifest]:
    """Every object in a YAML file, or in the YAML files of a directory tree in the order of their names."""
    files = sorted(place.rglob("*.yaml")) if place.is_dir() else [place]
    for file in files:
        yield from (document for document in yaml.safe_load_all(file.read_text()) if document)


def identity() -> list[Manifest]:
    """The namespace, the service account, and the rights that Weightlock has in a cluster."""
    rbac = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": [group], "resources": [*names], "verbs": [*verbs]} for group, names, verbs in RIGHTS
    ]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": ACCOUNT, "namespace": NAMESPACE},
        },
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": NAME}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME},
        },
    ]


def webhooks(
    client_config: Callable[[str], Mapping[str, Any]], exempt: Sequence[str] = EXEMPT
) -> list[Manifest]:
    """The validating and the mutating webhook configuration; `client_config` says how a path is reached."""
    by_name = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [*exempt]}

    def configuration(
        kind: str, path: str, table: Sequence[tuple[str, Sequence[str], Sequence[str]]]
    ) -> Manifest:
        webhook = {
            "name": f"{path}.weightlock.dev",
            "admissionReviewVersions": ["v1"],
            "clientConfig": dict(client_config(f"/{path}")),
            "rules": [_rule(*row) for row in table],
            "namespaceSelector": {"matchExpressions": [by_name]},
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "sideEffects": "None",
            "timeoutSeconds": 10,
        }
        if kind == "MutatingWebhookConfiguration":
            webhook["reinvocationPolicy"] = "IfNeeded"
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": NAME},
            "webhooks": [webhook],
        }

    return [
        configuration("ValidatingWebhookConfiguration", "validate", VALIDATED),
        configuration("MutatingWebhookConfiguration", "mutate", MUTATED),
    ]


def base64_of(file: Path) -> str:
    """The content of a file in base64, as `caBundle` and Secrets have it."""
    return base64.b64encode(file.read_bytes()).decode()


def _rule(group: str, resources: Sequence[str], operations: Sequence[str]) -> Manifest:
    return {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "resources": [*resources],
        "operations": [*operations],
        "scope": "*",
    }
