"""The source volumes of snapshots, as the contents of snapshots and group snapshots record them.

Shapes: github.com/kubernetes-csi/external-snapshotter, client/apis/volumesnapshot/v1 and volumegroupsnapshot/v1beta1
and later. Only handles are read here; the resolver follows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import MalformedObjectError, list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.kube.objects import Lookup

SNAPSHOT = "VolumeSnapshot.snapshot.storage.k8s.io"
CONTENT = "VolumeSnapshotContent.snapshot.storage.k8s.io"
GROUP_SNAPSHOT = "VolumeGroupSnapshot.groupsnapshot.storage.k8s.io"
GROUP_CONTENT = "VolumeGroupSnapshotContent.groupsnapshot.storage.k8s.io"

# v1beta2 and later, and v1beta1.
_MEMBERS = ("volumeSnapshotInfoList", "volumeSnapshotHandlePairList")


def origins(lookup: Lookup, driver: str, handle: str) -> Iterator[str]:
    """Yield the handles of the source volumes of a snapshot, which its driver identifies by a handle."""
    for content in lookup.each(CONTENT):
        spec, status = object_at(content, "spec", ""), object_at(content, "status", "")
        origin = text_at(object_at(spec, "source", "spec"), "volumeHandle", "spec.source")
        if origin and spec.get("driver") == driver and status.get("snapshotHandle") == handle:
            yield origin
    for group in lookup.each(GROUP_CONTENT):
        if object_at(group, "spec", "").get("driver") != driver:
            continue
        status = object_at(group, "status", "")
        for members in _MEMBERS:
            for member in list_at(status, members, "status"):
                if member.get("snapshotHandle") == handle:
                    yield text_at(member, "volumeHandle", f"status.{members}")


def group_origins(document: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the driver and the source volumes of a group snapshot's content; or none."""
    spec = object_at(document, "spec", "")
    handles = object_at(spec, "source", "spec").get("volumeHandles") or []
    if not isinstance(handles, list) or not all(isinstance(handle, str) for handle in handles):
        raise MalformedObjectError("spec.source.volumeHandles", "must be a list of strings")
    return text_at(spec, "driver", "spec"), handles
