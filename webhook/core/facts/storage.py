"""Gather the facts of objects that contain, copy or assign weights and devices without being a pod.

Claims, volumes, snapshots, resource claims and device classes are evaluated when they are written, so that a clone or
an alias is denied before a pod uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.facts.context import Context, context
from webhook.core.facts.dra import CLAIM, CLASS, CLUSTER_TEMPLATE, TEMPLATE, asked
from webhook.core.facts.model import DeviceUse, Escape, Facts, WeightUse
from webhook.core.facts.weights import weight_use
from webhook.core.kube.fields import object_at, text_at
from webhook.core.storage.backends import NODE
from webhook.core.storage.nodepaths import HOST_PATH, devices_at, escapes_at, node_paths_of
from webhook.core.storage.snapshots import CONTENT, GROUP_CONTENT, GROUP_SNAPSHOT, SNAPSHOT
from webhook.core.storage.sources import backend_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from webhook.api.config import Settings
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup
    from webhook.core.storage.catalog import Catalog
    from webhook.core.storage.model import Model
    from webhook.core.storage.refs import ProtectedRef


def gather_object(
    kind: str,
    document: Document,
    old: Document | None,
    namespace: str,
    lookup: Lookup,
    catalog: Catalog,
    settings: Settings,
) -> Facts:
    """Gather the facts of an object of a kind such as ``PersistentVolumeClaim``; none for kinds that reach nothing.

    With ``old``, only the additions: models that the object did not reach before by any route, since a claim that is
    bound reaches what it was bound for. An update by which an object is no longer declared as a model's counts as
    reaching the model.
    Raises `MalformedObjectError` and `MissingObjectError`.
    """
    if kind == CLASS:
        return _device_class(document, old)
    read = _READERS.get(kind)
    if read is None:
        return Facts()
    here = context(namespace, lookup, catalog, settings)
    facts = read(document, here)
    if old is not None:
        before = read(old, here)
        existing = {use.model for use in before.weights}
        added = facts.added_since(before)
        weights = {use for use in facts.weights if use.model not in existing}
        weights.update(_undeclared(kind, document, old, here))
        facts = Facts(tuple(sorted(weights)), added.devices, added.escapes)
    here.finder.raise_if_missing()
    return facts


def _device_class(document: Document, old: Document | None) -> Facts:
    """The writer of a DeviceClass decides which devices its name stands for."""
    if old is not None and object_at(document, "spec", "") == object_at(old, "spec", ""):
        return Facts()
    return Facts(escapes=(Escape("deviceClass", "spec"),))


def _claim(document: Document, here: Context) -> Facts:
    # Its own name is not matched: a claim that gets a new, empty volume reads nothing.
    spec, metadata = object_at(document, "spec", ""), object_at(document, "metadata", "")
    return _weights(here.resolver.claim_spec(here.namespace, spec, "spec", metadata), here)


def _volume(document: Document, here: Context) -> Facts:
    weights = _weights(here.resolver.volume_spec(document), here).weights
    backend = backend_of(object_at(document, "spec", ""), "spec")
    if backend is None:
        return Facts(weights)
    where = f"spec.{backend.via}"
    paths = [path for space, path in backend.paths if space == NODE]
    devices = {
        DeviceUse(vendor, path, 1, "hostPath", "", where, exceptions=(HOST_PATH,))
        for path in paths
        for vendor in devices_at(path)
    }
    # The volume may be written by a pod later. That mount is decided with the pod.
    node_paths = node_paths_of(here.settings)
    escapes = set()
    for path in paths:
        names = node_paths.names(path, writable=False, declared=False)
        escapes.add(Escape(HOST_PATH, where, path, names))
        escapes.update(
            Escape(kind, where, path, tuple(dict.fromkeys((kind, *names)))) for kind in escapes_at(path)
        )
    return Facts(weights, tuple(sorted(devices)), tuple(sorted(escapes)))


def _snapshot(document: Document, here: Context) -> Facts:
    return _weights(here.resolver.snapshot_document(here.namespace, document), here)


def _group_snapshot(document: Document, here: Context) -> Facts:
    return _weights(here.resolver.group_snapshot(here.namespace, document), here)


def _content(document: Document, here: Context) -> Facts:
    reaches = here.resolver.content_document(document)
    return _beyond_snapshot(reaches, document, "volumeSnapshotRef", SNAPSHOT, here)


def _group_content(document: Document, here: Context) -> Facts:
    reaches = here.resolver.group_content(document)
    return _beyond_snapshot(reaches, document, "volumeGroupSnapshotRef", GROUP_SNAPSHOT, here)


def _beyond_snapshot(
    reaches: Iterable[ProtectedRef], document: Document, field: str, kind: str, here: Context
) -> Facts:
    """The models of a content beyond those of its snapshot's claims, which were evaluated with the snapshot."""
    reference = object_at(object_at(document, "spec", ""), field, "spec")
    namespace, name = (text_at(reference, key, f"spec.{field}") for key in ("namespace", "name"))
    snapshot = here.finder.get(kind, namespace, name) if namespace and name else None
    existing: set[Model] = set()
    if snapshot is not None:
        source = object_at(object_at(snapshot, "spec", ""), "source", "spec")
        claim = text_at(source, "persistentVolumeClaimName", "spec.source")
        if claim:
            existing.update(reach.model for reach in here.resolver.claim(namespace, claim))
        if source.get("selector") is not None:
            existing.update(reach.model for reach in here.resolver.group_snapshot(namespace, snapshot))
    return _weights([reach for reach in reaches if reach.model not in existing], here)


def _resource_claim(document: Document, here: Context) -> Facts:
    return _devices(object_at(document, "spec", ""), "spec", here)


def _resource_claim_template(document: Document, here: Context) -> Facts:
    return _devices(object_at(object_at(document, "spec", ""), "spec", "spec"), "spec.spec", here)


def _weights(reaches: Iterable[ProtectedRef], here: Context) -> Facts:
    return Facts(tuple(sorted({weight_use(reach, "") for reach in reaches})) if here.catalog else ())


def _devices(spec: Document, path: str, here: Context) -> Facts:
    requests = tuple(asked(spec, path, here))
    devices = {
        DeviceUse(
            item.devices.vendor,
            item.device_class,
            item.number,
            "claim",
            "",
            item.path,
            item.devices.shared,
            item.exceptions,
        )
        for item in requests
    }
    escapes = {Escape("adminAccess", item.path, item.device_class) for item in requests if item.admin}
    return Facts((), tuple(sorted(devices)), tuple(sorted(escapes)))


def _undeclared(kind: str, document: Document, old: Document, here: Context) -> Iterable[WeightUse]:
    """The models that an object was declared to contain, by its labels or its claim, before the update only."""
    if kind not in ("PersistentVolumeClaim", "PersistentVolume"):
        return
    for model in _declared(kind, old, here) - _declared(kind, document, here):
        yield WeightUse(
            model.name, model.sensitivity, "", "unlabelled", detail="the update removes it from the model"
        )


def _declared(kind: str, document: Document, here: Context) -> set[Model]:
    metadata = object_at(document, "metadata", "")
    name, labels = text_at(metadata, "name", "metadata"), object_at(metadata, "labels", "metadata")
    if kind == "PersistentVolumeClaim":
        return set(here.catalog.of_claim(here.namespace, name, labels))
    # Without its claim, a volume that was reserved for it becomes available to all claims.
    owner = object_at(object_at(document, "spec", ""), "claimRef", "spec")
    place = (text_at(owner, "namespace", "spec.claimRef"), text_at(owner, "name", "spec.claimRef"))
    claimed = here.catalog.of_claim(*place, _labels(*place, here)) if all(place) else ()
    return {*here.catalog.of_volume(name, labels), *claimed}


def _labels(namespace: str, claim: str, here: Context) -> Document | None:
    document = here.finder.get("PersistentVolumeClaim", namespace, claim)
    return object_at(object_at(document, "metadata", ""), "labels", "metadata") if document else None


_READERS: dict[str, Callable[[Document, Context], Facts]] = {
    "PersistentVolumeClaim": _claim,
    "PersistentVolume": _volume,
    SNAPSHOT: _snapshot,
    CONTENT: _content,
    GROUP_SNAPSHOT: _group_snapshot,
    GROUP_CONTENT: _group_content,
    CLAIM: _resource_claim,
    TEMPLATE: _resource_claim_template,
    CLUSTER_TEMPLATE: _resource_claim_template,
}
