"""Could the volume controller bind this claim to this volume? Used for claims that name no volume yet.

It follows k8s.io/component-helpers/storage/volume ``FindMatchingVolume`` but leaves capacity and node affinity out, so
that false is certain and true means "possibly".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.kube.selectors import SelectorError, compile_selector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup

STORAGE_CLASS = "StorageClass.storage.k8s.io"
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_ANNOTATIONS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def is_available(volume: Mapping[str, Any]) -> bool:
    """Whether a volume is bound to no claim and may be bound to one."""
    if isinstance(_spec(volume).get("claimRef"), dict) or volume["metadata"].get("deletionTimestamp"):
        return False
    status = volume.get("status")
    phase = status.get("phase") if isinstance(status, dict) else None
    return phase in (None, "", "Pending", "Available")


def offered_class(volume: Mapping[str, Any]) -> str:
    """The storage class of a volume; empty for none."""
    return _annotated_class(volume["metadata"]) or _text(_spec(volume).get("storageClassName"))


def claim_classes(claim: Mapping[str, Any], metadata: Mapping[str, Any], lookup: Lookup) -> set[str]:
    """Return the classes a claim may bind: its own, or no class and the default classes if it names none."""
    annotated = _annotated_class(metadata)
    if annotated:
        return {annotated}
    name = claim.get("storageClassName")
    return {_text(name)} if name is not None else {"", *_default_classes(lookup)}


def fits(volume: Mapping[str, Any], claim: Mapping[str, Any]) -> bool:
    """Whether an available volume of a matching class has the modes and labels that a claim's spec requests."""
    return (
        _mode(_spec(volume)) == _mode(claim)
        and _has_access_modes(_spec(volume), claim)
        and _is_selected(volume["metadata"], claim.get("selector"))
    )


def _spec(volume: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = volume.get("spec")
    return spec if isinstance(spec, dict) else {}


def _annotated_class(metadata: Mapping[str, Any]) -> str:
    annotations = metadata.get("annotations")
    return _text(annotations.get(_CLASS_ANNOTATION)) if isinstance(annotations, dict) else ""


def storage_class(lookup: Lookup, name: str) -> Document | None:
    """Return a StorageClass by its name, or None."""
    return next((each for each in lookup.each(STORAGE_CLASS) if each["metadata"].get("name") == name), None)


def _default_classes(lookup: Lookup) -> set[str]:
    names = set()
    for document in lookup.each(STORAGE_CLASS):
        annotations = document["metadata"].get("annotations")
        if isinstance(annotations, dict) and any(
            annotations.get(key) == "true" for key in _DEFAULT_ANNOTATIONS
        ):
            names.add(document["metadata"]["name"])
    return names


def _mode(spec: Mapping[str, Any]) -> str:
    return _text(spec.get("volumeMode")) or "Filesystem"


def _has_access_modes(spec: Mapping[str, Any], claim: Mapping[str, Any]) -> bool:
    offer, request = spec.get("accessModes"), claim.get("accessModes")
    if not isinstance(offer, list) or not isinstance(request, list):
        return True
    return all(mode in offer for mode in request)


def _is_selected(metadata: Mapping[str, Any], selector: Any) -> bool:
    if not isinstance(selector, dict):
        return True
    labels = metadata.get("labels")
    try:
        return compile_selector(selector).matches(labels if isinstance(labels, dict) else {})
    except SelectorError:
        return False


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
