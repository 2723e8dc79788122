"""Could the volume controller bind this claim to this volume? Used where a claim names none yet.

It follows k8s.io/component-helpers/storage/volume ``FindMatchingVolume`` but leaves capacity out, so that an answer of no
is certain and one of yes means: perhaps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.selectors import SelectorError, compile_selector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.objects import Lookup

_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_ANNOTATIONS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def could_bind(
    volume: Mapping[str, Any], claim: Mapping[str, Any], namespace: str, name: str, lookup: Lookup
) -> bool:
    """Whether a claim with this spec, in this namespace and perhaps of this name, could bind to a volume's document."""
    spec, metadata = volume.get("spec"), volume.get("metadata")
    if not isinstance(spec, dict) or not isinstance(metadata, dict):
        return False
    status = volume.get("status")
    phase = status.get("phase") if isinstance(status, dict) else None
    reference = spec.get("claimRef")
    if isinstance(reference, dict):
        if (reference.get("namespace"), reference.get("name")) != (namespace, name):
            return False
    elif phase not in (None, "", "Pending", "Available"):
        return False
    return (
        _same_class(spec, metadata, claim, lookup)
        and _same_modes(spec, claim)
        and _selected(metadata, claim.get("selector"))
    )


def _same_class(
    spec: Mapping[str, Any], metadata: Mapping[str, Any], claim: Mapping[str, Any], lookup: Lookup
) -> bool:
    annotations = metadata.get("annotations")
    beta = annotations.get(_CLASS_ANNOTATION) if isinstance(annotations, dict) else None
    offered = beta or spec.get("storageClassName") or ""
    wanted = claim.get("storageClassName")
    if wanted is not None:
        return bool(wanted == offered)
    return offered == "" or offered in _default_classes(lookup)


def _default_classes(lookup: Lookup) -> set[str]:
    """The classes a claim without one may be given, now or later."""
    names = set()
    for storage_class in lookup.each("StorageClass.storage.k8s.io"):
        annotations = storage_class["metadata"].get("annotations")
        if isinstance(annotations, dict) and any(
            annotations.get(key) == "true" for key in _DEFAULT_ANNOTATIONS
        ):
            names.add(storage_class["metadata"]["name"])
    return names


def _same_modes(spec: Mapping[str, Any], claim: Mapping[str, Any]) -> bool:
    if (spec.get("volumeMode") or "Filesystem") != (claim.get("volumeMode") or "Filesystem"):
        return False
    offered, wanted = spec.get("accessModes"), claim.get("accessModes")
    if not isinstance(offered, list) or not isinstance(wanted, list):
        return True
    return all(mode in offered for mode in wanted)


def _selected(metadata: Mapping[str, Any], selector: Any) -> bool:
    if not isinstance(selector, dict):
        return True
    labels = metadata.get("labels")
    try:
        return compile_selector(selector).matches(labels if isinstance(labels, dict) else {})
    except SelectorError:
        return False
