"""Custom resources that are decided without a pod: which kinds, by name and by schema.

`facts.object_stores` and `facts.memory_images` read what an object refers to. This module decides which kinds the
webhook must receive for that, so it must name at least the fields that those two read. A kind whose writes a node needs
to run pods at all is never one of them.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from webhook.api.base import GROUP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.kube.fields import Document

# Names of kinds that may take images of pods, or copy their volumes.
MAY_TAKE_IMAGES = re.compile(
    r"checkpoint|snapshot|migrat|hibernat|dump|criu|suspen|freez|clone|backup", re.IGNORECASE
)
# The path of a backup's spec, by kind: vmware-tanzu/velero pkg/apis/velero/v1 Backup and Schedule, and k8up-io/k8up
# api/v1 Backup and Schedule, which copy every claim of their own namespace.
BACKUPS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Backup.velero.io": ("spec",),
        "Schedule.velero.io": ("spec", "template"),
        "Backup.k8up.io": ("spec",),
        "Schedule.k8up.io": ("spec", "backup"),
    }
)
# Kinds that copy or share Secrets read them by name or by key.
_COPIES_SECRETS = re.compile(r"secret", re.IGNORECASE)
_BUCKET = re.compile(r"bucket", re.IGNORECASE)
# Agents and operators of the network write these for each pod, and reports only describe.
_NO_REFERENCES = ("cilium.io", "crd.projectcalico.org", "k8s.cni.cncf.io", "k8s.ovn.org", "projectcalico.org")
_REPORT = re.compile(r"\w*Reports?")

# Names of fields, in lower case, that hold the name of a Secret, an account, a role, a pod, or an address of a store.
_REFERENCE = re.compile(
    r"arn|artifact|bucket|checkpoint|credential|dataset|destination|endpoint|gcs|identit|location|member|model|"
    r"objectstor|principal|repo|role|s3|secret|serviceaccount|source(?!s$)|storage(?!class|size|capacity|$)|uri|url|weights"
)
_MAX_NODES = 200_000


# Groups of the API server itself (k8s.io/api and the aggregated APIs of kube-aggregator and metrics). Others below
# k8s.io, such as sparkoperator.k8s.io, belong to operators.
_BUILT_IN = frozenset({
    "admissionregistration.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "authentication.k8s.io",
    "authorization.k8s.io", "certificates.k8s.io", "coordination.k8s.io", "custom.metrics.k8s.io", "discovery.k8s.io",
    "events.k8s.io", "external.metrics.k8s.io", "flowcontrol.apiserver.k8s.io", "imagepolicy.k8s.io",
    "internal.apiserver.k8s.io", "metrics.k8s.io", "networking.k8s.io", "node.k8s.io", "rbac.authorization.k8s.io",
    "resource.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "storagemigration.k8s.io",
})  # fmt: skip


def is_custom(group: str) -> bool:
    """Whether a group's kinds are custom resources, whose fields only their operator knows."""
    return "." in group and group not in _BUILT_IN and group != GROUP


def may_refer(kind: str) -> bool:
    """Whether objects of a kind such as ``ExternalSecret.external-secrets.io`` may be decided without a pod."""
    name, _, group = kind.partition(".")
    if not is_custom(group) or _REPORT.fullmatch(name) is not None:
        return False
    return not any(group == domain or group.endswith(f".{domain}") for domain in _NO_REFERENCES)


def refers_by_name(kind: str) -> bool:
    """Whether a kind's name says that it is a bucket, copies volumes or Secrets, or takes images of pods."""
    if kind in BACKUPS:
        return True
    name = kind.partition(".")[0]
    return may_refer(kind) and any(
        pattern.search(name) is not None for pattern in (MAY_TAKE_IMAGES, _COPIES_SECRETS, _BUCKET)
    )


def refers(schema: Mapping[str, Any]) -> bool:
    """Whether a schema (openAPIV3Schema) has a field that may refer to a Secret, an account, a pod or a store.

    A schema that exceeds the bound does.
    """
    properties = schema.get("properties")
    stack: list[Any] = [
        {"properties": {name: child}}
        for name, child in (properties.items() if isinstance(properties, dict) else ())
        if name not in ("apiVersion", "kind", "metadata", "status")
    ]
    count = 0
    while stack:
        item = stack.pop()
        if not isinstance(item, dict):
            continue
        count += 1
        if count > _MAX_NODES:
            return True
        members = item.get("properties")
        if isinstance(members, dict):
            if _is_reference(members):
                return True
            stack.extend(members.values())
        stack.extend(item.get(key) for key in ("items", "additionalProperties"))
    return False


def _is_reference(members: Document) -> bool:
    if {"kind", "name"} <= members.keys():
        return True
    return any(
        _REFERENCE.search(name.lower()) is not None and _holds_text(child)
        for name, child in members.items()
        if isinstance(name, str)
    )


def _holds_text(schema: Any) -> bool:
    """Whether a field may hold a string, in itself or below."""
    return not isinstance(schema, dict) or schema.get("type") not in ("boolean", "integer", "number")
