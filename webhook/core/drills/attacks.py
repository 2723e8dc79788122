"""The attacks of a drill: cases of the attack corpus, chosen by what a cluster contains. Pure.

A case is usable if it creates one namespaced object and needs no other object. The corpus protects the claim ``atlas``,
and a drill's own ModelWeights protects a claim of this name in the drill's namespace. The claim does not exist, and
every attack is sent as a dry run, so a drill never touches a protected byte.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from webhook.api.base import API_VERSION
from webhook.api.codes import (
    BROKER_TOKEN,
    EGRESS_BUDGET,
    NO_GRANT,
    SERVICE_ACCOUNT_REQUEST,
    SERVICE_ACCOUNT_VOTE,
    UNKNOWN_MODEL,
    UNKNOWN_REQUEST,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.core.kube.fields import Document

CLAIM = "atlas"
# Text that refers to objects which a drill does not create.
_REFERENCES = (
    b'"serviceAccountName"',
    b'"serviceAccount"',
    b'"runtimeClassName"',
    b'"resourceClaimName"',
    b'"resourceClaimTemplateName"',
    b'"clusterResourceClaimTemplateName"',
    b'"podGroupResourceClaimName"',
    b"models/atlas",
    b"atlas-volume",
    b'"alone"',
    b'"scratch"',
)
_BUILT_IN = {
    ("v1", "Pod"): "pods",
    ("v1", "PersistentVolumeClaim"): "persistentvolumeclaims",
    ("v1", "PodTemplate"): "podtemplates",
    ("v1", "ReplicationController"): "replicationcontrollers",
    ("apps/v1", "DaemonSet"): "daemonsets",
    ("apps/v1", "Deployment"): "deployments",
    ("apps/v1", "ReplicaSet"): "replicasets",
    ("apps/v1", "StatefulSet"): "statefulsets",
    ("batch/v1", "CronJob"): "cronjobs",
    ("batch/v1", "Job"): "jobs",
}
_GENERIC = frozenset({"v1", "apps/v1", "batch/v1"})


@dataclass(frozen=True, slots=True)
class Contents:
    """What a cluster contains: CSI drivers, extended resources and device classes, and its resources by kind.

    ``kinds`` maps (apiVersion, kind) of namespaced custom resources to their plurals.
    """

    drivers: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    kinds: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def plural(self, api_version: str, kind: str) -> str | None:
        """Return the plural of a namespaced kind; None if the cluster lacks it."""
        return _BUILT_IN.get((api_version, kind)) or self.kinds.get((api_version, kind))


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack: a creation by dry run, and the codes that must stop it.

    With ``alternatives`` one of the codes is enough.
    """

    name: str
    path: str
    body: Document
    codes: tuple[str, ...]
    alternatives: bool = False
    relevance: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One case of the corpus: its file and name, its object and the expected codes."""

    group: str
    name: str
    document: Document
    codes: tuple[str, ...]


def chosen(
    cases: Iterable[Case], contents: Contents, namespace: str, *, limit: int, seed: str
) -> list[Attack]:
    """Return the attacks of one drill: at most ``limit``, some for each control and each kind, the relevant ones first.

    ``seed`` rotates the choice, so that successive drills cover the whole corpus. The same seed gives the same attacks.
    """
    attacks = [attack for case in cases if (attack := _attack(case, contents, namespace)) is not None]
    order = random.Random(seed)  # noqa: S311 - a rotation, not a secret
    order.shuffle(attacks)
    attacks.sort(key=lambda attack: -attack.relevance)
    fixed = list(own_attacks(namespace))
    rounds: dict[tuple[tuple[str, ...], str], list[Attack]] = {}
    for attack in attacks:
        rounds.setdefault((attack.codes, attack.path), []).append(attack)
    selection: list[Attack] = []
    while any(rounds.values()) and len(selection) < limit - len(fixed):
        for queue in rounds.values():
            if queue and len(selection) < limit - len(fixed):
                selection.append(queue.pop(0))
    return [*fixed, *selection]


def own_attacks(namespace: str) -> Iterator[Attack]:
    """Yield the attacks of every drill that the corpus lacks: the drill's own model, tokens and access objects."""
    base = f"/api/v1/namespaces/{namespace}"
    yield Attack("the drill's weights, without a grant", f"{base}/pods", reader(), (NO_GRANT,))
    yield Attack("the drill's weights, over the egress budget", f"{base}/pods", reader(), (EGRESS_BUDGET,))
    yield Attack(
        "a token for the key broker",
        f"{base}/serviceaccounts/default/token",
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": ["weightlock.dev/broker"], "expirationSeconds": 600},
        },
        (BROKER_TOKEN,),
    )
    yield Attack(
        "a request for a model that does not exist",
        f"/apis/{API_VERSION}/accessrequests",
        {
            "apiVersion": API_VERSION,
            "kind": "AccessRequest",
            "metadata": {"generateName": "weightlock-drill-"},
            "spec": {
                "model": "weightlock-drill-absent",
                "subject": {"kind": "ServiceAccount", "namespace": namespace, "name": "default"},
                "namespaces": [namespace],
                "duration": "1h",
                "reason": "drill",
            },
        },
        (UNKNOWN_MODEL, SERVICE_ACCOUNT_REQUEST),
        alternatives=True,
    )
    yield Attack(
        "an approval of a request that does not exist",
        f"/apis/{API_VERSION}/accessapprovals",
        {
            "apiVersion": API_VERSION,
            "kind": "AccessApproval",
            "metadata": {"generateName": "weightlock-drill-"},
            "spec": {
                "request": {"name": "weightlock-drill-absent", "uid": "00000000-0000-0000-0000-000000000000"},
                "decision": "Approve",
            },
        },
        (UNKNOWN_REQUEST, SERVICE_ACCOUNT_VOTE),
        alternatives=True,
    )


def reader() -> Document:
    """Return a pod that reads the drill's weights. It is otherwise harmless."""
    context = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "main",
        "image": "registry.invalid/weightlock/drill@sha256:" + "0" * 64,
        "securityContext": context,
        "volumeMounts": [{"name": "weights", "mountPath": "/weights", "readOnly": True}],
    }
    volume = {"name": "weights", "persistentVolumeClaim": {"claimName": CLAIM, "readOnly": True}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "weightlock-drill-reader"},
        "spec": {"containers": [container], "volumes": [volume]},
    }


def model(name: str, namespace: str) -> Document:
    """Return the drill's own ModelWeights. It names a claim only, so no other object of the cluster matches it."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelWeights",
        "metadata": {"name": name, "labels": dict(LABELS)},
        "spec": {
            "sensitivity": "frontier",
            "owner": "weightlock-drill",
            "volumes": [{"persistentVolumeClaim": {"namespaces": [namespace], "names": [CLAIM]}}],
            "access": {"approvals": 2, "approvers": {"users": ["weightlock-drill:nobody"]}},
            # One reader at this rate sends it in two hours, so every reader exceeds the budget.
            "egress": {"size": "1Gi", "minimumTime": "1000d", "perPod": "1M"},
        },
    }


LABELS = {"app.kubernetes.io/managed-by": "weightlock-drill"}


def _attack(case: Case, contents: Contents, namespace: str) -> Attack | None:
    """Return a case as an attack on this cluster; None if it needs something that the cluster lacks."""
    document = case.document
    api_version, kind = str(document.get("apiVersion")), str(document.get("kind"))
    plural = contents.plural(api_version, kind)
    text = orjson.dumps(document)
    if plural is None or not case.codes or any(reference in text for reference in _REFERENCES):
        return None
    if any(driver not in contents.drivers for driver in _drivers(document)):
        return None
    matches = sum(name.encode() in text for name in contents.drivers | contents.devices)
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    metadata = {**(document.get("metadata") or {}), "namespace": namespace}
    return Attack(
        f"{case.group}: {case.name}",
        f"{root}/namespaces/{namespace}/{plural}",
        {**document, "metadata": metadata},
        case.codes,
        relevance=matches + (api_version not in _GENERIC),
    )


def _drivers(value: Any) -> Iterator[str]:
    """Yield the CSI drivers that an object names."""
    if isinstance(value, dict):
        csi = value.get("csi")
        if isinstance(csi, dict) and isinstance(csi.get("driver"), str):
            yield csi["driver"]
        for item in value.values():
            yield from _drivers(item)
    elif isinstance(value, list):
        for item in value:
            yield from _drivers(item)
