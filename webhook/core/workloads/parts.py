"""Small pieces that the readers of `readers` and `operator_readers` share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.kube.fields import Document

# The account of a partial pod that stands for pods of other users. No object has such a name.
SELECTED = "{{selected pods}}"


@dataclass(frozen=True, slots=True)
class AssembledPod:
    """A pod that a reader assembled from parts. ``path`` is the location of the parts, ``claims`` are (spec, name) by
    volume, ``opaque`` names fields that change the pod in unforeseeable ways. A ``partial`` pod lacks fields that only
    its controller knows. ``namespace`` is another one than the object's, or empty; ``unresolved`` names the referenced
    objects that do not exist.
    """

    path: str
    pod: Document
    claims: Mapping[str, tuple[Document, str]] = field(default_factory=dict)
    opaque: tuple[str, ...] = ()
    partial: bool = False
    namespace: str = ""
    unresolved: tuple[str, ...] = ()


def pod_of(spec: Document, annotations: Document | None = None) -> Document:
    """A pod ``{metadata, spec}``."""
    return {"metadata": {"annotations": annotations or {}}, "spec": spec}


def member(parent: Mapping[str, Any], key: str) -> Document:
    """A member that is an object, or an empty one."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def overlaid(base: Document, patch: Document) -> Document:
    """Return a pod spec under another one: lists are merged by name, other fields replaced."""
    merged = {**base}
    for key, value in patch.items():
        if isinstance(value, list) and isinstance(merged.get(key), list):
            merged[key] = _merged(merged[key], value)
        elif value is not None:
            merged[key] = value
    return merged


def _merged(base: list[Any], patch: list[Any]) -> list[Any]:
    by_name = {
        item["name"]: item for item in base if isinstance(item, dict) and isinstance(item.get("name"), str)
    }
    rest = [item for item in base if not (isinstance(item, dict) and isinstance(item.get("name"), str))]
    for item in patch:
        name = item.get("name") if isinstance(item, dict) else None
        if isinstance(name, str):
            by_name[name] = {**by_name.get(name, {}), **item}
        else:
            rest.append(item)
    return [*by_name.values(), *rest]
