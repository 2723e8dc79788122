"""The kinds that the snapshot watches, and their paths on the API server.

Watched are the kinds that core searches as a whole or that almost every evaluation needs. Other objects are fetched on
demand. Of the pods, only those with an egress limit are watched: there are too many others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from webhook.api.base import API_VERSION
from webhook.core.egress import readers as egress_readers
from webhook.core.egress import stamp as egress_stamp
from webhook.core.kube.kinds import is_namespaced, plural
from webhook.core.kube.objects import group_kind
from webhook.core.workloads.schema import compact

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectKey

_RESOURCE_API = "resource.k8s.io/v1"
_SNAPSHOT_API = "snapshot.storage.k8s.io/v1"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# A valid name in a path (k8s.io/apimachinery pkg/api/validation/path IsValidPathSegmentName).
_SEGMENT = re.compile(r"(?!\.\.?\Z)[^/%]+")


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """A kind and its resource. ``optional``: a cluster may lack it, and then there are no such objects.

    A list is read ``page`` objects at a time. ``slim`` reduces an object to its relevant part. ``selectors`` restrict
    the objects, and ``alias`` is then the name under which core stores what ``slim`` returns.
    """

    api_version: str
    kind: str
    resource: str
    namespaced: bool
    optional: bool = False
    drop: tuple[str, ...] = ()
    page: int = 500
    selectors: tuple[tuple[str, str], ...] = ()
    alias: str = ""
    slim: Callable[[Document], Document] | None = None

    @property
    def name(self) -> str:
        """``Kind.group``, as core names kinds."""
        return self.alias or group_kind(self.api_version, self.kind)

    def path(self, namespace: str = "") -> str:
        """Return the path of the kind's objects, in one namespace or in all."""
        place = f"namespaces/{quote(namespace, safe='')}/" if namespace else ""
        return f"{api_path(self.api_version)}/{place}{self.resource}"

    def object_path(self, key: ObjectKey) -> str | None:
        """Return the path of one object, or None if no such object can exist."""
        if bool(key.namespace) != self.namespaced or not _SEGMENT.fullmatch(key.name):
            return None
        if self.namespaced and not _SEGMENT.fullmatch(key.namespace):
            return None
        return f"{self.path(key.namespace)}/{quote(key.name, safe='')}"

    def stripped(self, document: Document) -> Document:
        """Remove the fields that no verdict depends on, in place, and set apiVersion and kind."""
        # Items in a list of a built-in kind lack apiVersion and kind.
        document["apiVersion"], document["kind"] = self.api_version, self.kind
        metadata = document.get("metadata")
        if isinstance(metadata, dict):
            metadata.pop("managedFields", None)
            annotations = metadata.get("annotations")
            if isinstance(annotations, dict):
                annotations.pop(_LAST_APPLIED, None)
        for field in self.drop:
            document.pop(field, None)
        return document if self.slim is None else self.slim(document)


def api_path(api_version: str) -> str:
    """``v1`` to ``/api/v1``, ``apps/v1`` to ``/apis/apps/v1``."""
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _kind(api_version: str, kind: str, *, optional: bool = False, drop: tuple[str, ...] = ()) -> ResourceKind:
    name = group_kind(api_version, kind)
    return ResourceKind(api_version, kind, plural(name), is_namespaced(name), optional, drop)


HELD = (
    _kind("v1", "Namespace"),
    _kind("v1", "PersistentVolumeClaim", drop=("status",)),
    _kind("v1", "PersistentVolume"),
    # The key sidecar must fit both.
    _kind("v1", "LimitRange"),
    _kind("v1", "ResourceQuota", drop=("status",)),
    _kind("storage.k8s.io/v1", "StorageClass"),
    _kind("node.k8s.io/v1", "RuntimeClass"),
    _kind(_RESOURCE_API, "DeviceClass", optional=True),
    _kind(_RESOURCE_API, "ResourceClaim", optional=True, drop=("status",)),
    _kind(_RESOURCE_API, "ResourceClaimTemplate", optional=True),
    _kind(_SNAPSHOT_API, "VolumeSnapshot", optional=True),
    _kind(_SNAPSHOT_API, "VolumeSnapshotContent", optional=True),
    # A CRD takes up to a megabyte, and only what its schema shows of pods is stored.
    replace(
        _kind("apiextensions.k8s.io/v1", "CustomResourceDefinition", drop=("status",)), page=20, slim=compact
    ),
    _kind(API_VERSION, "ModelWeights"),
    _kind(API_VERSION, "WeightPolicy"),
    _kind(API_VERSION, "AccessRequest"),
    _kind(API_VERSION, "AccessApproval"),
    _kind(API_VERSION, "ImageTrust", drop=("status",)),
    # One object has up to a megabyte.
    replace(_kind(API_VERSION, "ImageVerification", drop=("status",)), page=20),
    # Finished pods leave the selection, and the API server reports them as deleted.
    ResourceKind(
        "v1",
        "Pod",
        "pods",
        namespaced=True,
        selectors=(
            ("labelSelector", f"{egress_stamp.LABEL}={egress_stamp.LABEL_VALUE}"),
            ("fieldSelector", "status.phase!=Succeeded,status.phase!=Failed"),
        ),
        alias=egress_readers.KIND,
        slim=egress_readers.slim,
    ),
)

# Fetched on demand; other kinds are found by discovery.
FETCHED = (
    _kind("v1", "Pod"),
    _kind("v1", "ConfigMap"),
    _kind("v1", "ServiceAccount"),
)

KNOWN = {kind.name: kind for kind in (*HELD, *FETCHED)}
