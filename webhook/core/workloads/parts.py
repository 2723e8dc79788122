"""Small pieces that the readers of `readers` and `operator_readers` share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.kube.fields import Document


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
