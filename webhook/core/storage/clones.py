"""Copies of volumes that a claim's spec does not show: annotations of drivers, parameters of classes, CDI sources.

Only the references are read here; the resolver follows them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

from webhook.core.kube.fields import object_at, text_at
from webhook.core.storage.binding import storage_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.kube.objects import Lookup


class ClaimSource(NamedTuple):
    """A claim or a snapshot that another volume is filled from; an empty ``kind`` means: something unknown."""

    kind: str
    namespace: str
    name: str
    detail: str


CLAIM = "PersistentVolumeClaim"
# A claim only if one of this name exists.
POSSIBLE_CLAIM = "PossibleClaim"
SNAPSHOT = "VolumeSnapshot"

# NetApp/trident frontend/csi/controller_helpers/kubernetes/plugin.go, annotations of a claim.
_TRIDENT = "trident.netapp.io/"
# kubevirt/containerized-data-importer pkg/controller/clone/util.go.
_CDI_CLONES = ("k8s.io/CloneRequest", "cdi.kubevirt.io/storage.clone.sourcePVC")
# Words in annotations by which other drivers fill a claim, such as csi.hpe.com/cloneOf.
_COPIES = re.compile(r"clone|copy|import|restore|share|snapshot|source", re.IGNORECASE)
# Parameters of a StorageClass that fill its volumes (longhorn/longhorn-manager csi/util.go).
_FILLING = frozenset({"frombackup", "backingimage"})
# Sources of a CDI DataVolume that read no storage of the cluster (kubevirt/containerized-data-importer, types.go).
_IMPORTS = frozenset({"blank", "gcs", "http", "imageio", "registry", "s3", "upload", "vddk"})


def annotated_sources(namespace: str, metadata: Mapping[str, Any]) -> Iterator[ClaimSource]:
    """Yield the sources that a claim's annotations name."""
    annotations = object_at(metadata, "annotations", "metadata")
    if not annotations:
        return
    clone = annotations.get(f"{_TRIDENT}cloneFromPVC")
    if isinstance(clone, str) and clone:
        other = annotations.get(f"{_TRIDENT}cloneFromNamespace")
        place = other if isinstance(other, str) and other else namespace
        yield ClaimSource(CLAIM, place, clone, f"cloned from PersistentVolumeClaim {place}/{clone}")
    for key in _CDI_CLONES:
        request = annotations.get(key)
        if isinstance(request, str) and request:
            place, _, name = request.rpartition("/")
            place = place or namespace
            yield ClaimSource(CLAIM, place, name, f"cloned from PersistentVolumeClaim {place}/{name}")
    shared = annotations.get(f"{_TRIDENT}shareFromPVC")
    if isinstance(shared, str) and shared:
        place, _, name = shared.rpartition("/")
        place = place or namespace
        yield ClaimSource(CLAIM, place, name, f"shared from PersistentVolumeClaim {place}/{name}")
    for key in ("cloneFromSnapshot", "importOriginalName", "importBackendUUID"):
        value = annotations.get(f"{_TRIDENT}{key}")
        if isinstance(value, str) and value and not (key == "cloneFromSnapshot" and clone):
            yield ClaimSource("", namespace, value, f"filled by annotation {_TRIDENT}{key}")
    for key, value in annotations.items():
        if isinstance(value, str) and _COPIES.search(key) is not None and not key.startswith(_TRIDENT):
            place, _, name = value.rpartition("/")
            detail = f"named by annotation {key}"
            yield ClaimSource(POSSIBLE_CLAIM, place or namespace, name, detail)


def class_source(name: str, lookup: Lookup) -> str:
    """Return the parameter of a StorageClass that fills its volumes; empty if they are new."""
    parameters = object_at(storage_class(lookup, name) or {}, "parameters", "")
    return next((key for key, value in parameters.items() if value and key.lower() in _FILLING), "")


def data_volume_sources(namespace: str, spec: Mapping[str, Any]) -> Iterator[ClaimSource]:
    """Yield the claims and snapshots that a CDI DataVolume or DataSource reads."""
    source = object_at(spec, "source", "spec")
    for field, kind in (("pvc", CLAIM), ("snapshot", SNAPSHOT)):
        reference = object_at(source, field, "spec.source")
        if reference:
            yield _reference(kind, namespace, reference, f"spec.source.{field}")
    for field in source:
        if field not in _IMPORTS and field not in ("pvc", "snapshot"):
            yield ClaimSource("", namespace, field, f"filled from source {field}")
    reference = object_at(spec, "sourceRef", "spec")
    if reference:
        kind, name = (text_at(reference, key, "spec.sourceRef") for key in ("kind", "name"))
        place = text_at(reference, "namespace", "spec.sourceRef") or namespace
        yield ClaimSource(kind, place, name, f"filled from {kind} {place}/{name}")


def _reference(kind: str, namespace: str, reference: Mapping[str, Any], path: str) -> ClaimSource:
    place = text_at(reference, "namespace", path) or namespace
    name = text_at(reference, "name", path)
    return ClaimSource(kind, place, name, f"cloned from {kind} {place}/{name}")


def machine_claims(machine: Mapping[str, Any]) -> Iterator[str]:
    """Yield the claims that a KubeVirt VirtualMachine mounts; a data volume's claim has its name."""
    template = object_at(object_at(machine, "spec", ""), "template", "spec")
    spec = object_at(template, "spec", "spec.template")
    volumes = spec.get("volumes")
    for volume in volumes if isinstance(volumes, list) else ():
        if not isinstance(volume, dict):
            continue
        for field, key in (
            ("persistentVolumeClaim", "claimName"),
            ("dataVolume", "name"),
            ("memoryDump", "claimName"),
        ):
            value = volume.get(field)
            if isinstance(value, dict) and isinstance(value.get(key), str):
                yield value[key]
        ephemeral = volume.get("ephemeral")
        inner = ephemeral.get("persistentVolumeClaim") if isinstance(ephemeral, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get("claimName"), str):
            yield inner["claimName"]


def longhorn_volumes(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the volumes that a Backup, Volume or BackingImage of Longhorn copies.

    The fields are those of longhorn/longhorn-manager k8s/pkg/apis/longhorn/v1beta2.
    """
    spec = object_at(document, "spec", "")
    exported = object_at(spec, "sourceParameters", "spec").get("volume-name")
    if isinstance(exported, str) and exported:
        yield exported
    yield from parse_qs(text_at(spec, "fromBackup", "spec").partition("?")[2]).get("volume", ())
    labels = object_at(object_at(document, "metadata", ""), "labels", "metadata")
    name = labels.get("backup-volume")
    if isinstance(name, str) and name:
        yield name
    scheme, separator, rest = text_at(spec, "dataSource", "spec").partition("://")
    if separator and scheme in ("vol", "snap"):
        yield rest.partition("/")[0]
