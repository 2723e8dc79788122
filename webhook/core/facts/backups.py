"""Backups: objects whose operator copies the claims of whole namespaces, or the volumes of a pod, to other storage.

The operator reads the volumes on the node or through snapshots, so no pod mounts a claim. The writer of the object
decides what is copied, and is decided like the writer of a clone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.facts.model import WeightUse
from webhook.core.facts.weights import weight_use
from webhook.core.kube.fields import object_at
from webhook.core.workloads.outside import BACKUPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.facts.context import Context
    from webhook.core.kube.fields import Document

# Resources by which a backup includes volumes; an absent list includes all.
_VOLUMES = frozenset(
    {
        "*",
        "persistentvolume",
        "persistentvolumeclaim",
        "persistentvolumeclaims",
        "persistentvolumes",
        "po",
        "pod",
        "pods",
        "pv",
        "pvc",
    }
)
_RESOURCES = ("includedResources", "includedNamespaceScopedResources", "includedClusterScopedResources")


def gather_backup(kind: str, document: Document, context: Context) -> Iterator[WeightUse]:
    """Yield the models in the claims that a backup copies. A backup of all namespaces may copy any model."""
    if not context.catalog or kind not in BACKUPS:
        return
    spec, path = document, ".".join(BACKUPS[kind])
    for step in BACKUPS[kind]:
        spec = object_at(spec, step, "")
    if kind.endswith(".k8up.io"):
        if spec or kind == "Backup.k8up.io":
            yield from _claims(context.namespace, path, context)
    elif not _without_volumes(spec):
        excluded = _texts(spec, "excludedNamespaces")
        for namespace in _texts(spec, "includedNamespaces") or ("*",):
            if "*" in namespace:
                detail = f"every claim of {'all namespaces' if namespace == '*' else f'the namespaces {namespace}'}"
                yield WeightUse("?", "?", f"{path}.includedNamespaces", "clone", detail=detail)
            elif namespace not in excluded:
                yield from _claims(namespace, f"{path}.includedNamespaces", context)


def _claims(namespace: str, path: str, context: Context) -> Iterator[WeightUse]:
    for document in context.finder.lookup.each("PersistentVolumeClaim", namespace):
        context.finder.lookup.charge("claims of a backup", 20)
        name = document["metadata"]["name"]
        yield from (weight_use(ref, path) for ref in context.resolver.claim(namespace, name))


def _without_volumes(spec: Mapping[str, Any]) -> bool:
    """Whether a backup names resources, and none of them brings a volume."""
    names = {name.partition(".")[0].lower() for key in _RESOURCES for name in _texts(spec, key)}
    return bool(names) and names.isdisjoint(_VOLUMES)


def _texts(spec: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = spec.get(key)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
