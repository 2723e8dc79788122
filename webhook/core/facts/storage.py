"""The facts of objects that hold, copy or hand out weights and devices without being a pod.

Claims, volumes, snapshots and resource claims are judged when they are written, so that a clone or an alias is refused
before any pod uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.facts.context import Context, context
from webhook.core.facts.dra import asked
from webhook.core.facts.model import DeviceUse, Escape, Facts, WeightUse
from webhook.core.facts.weights import weight_use
from webhook.core.kube.fields import object_at, text_at
from webhook.core.storage.backends import NODE
from webhook.core.storage.nodepaths import devices_at, escapes_at
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
    """What an object of a kind such as ``PersistentVolumeClaim`` reaches; nothing for kinds that reach nothing.

    With ``old``, what the update adds: models the object did not reach before by any way, since a claim that is
    bound reaches what it was bound for. An update by which an object ceases to be declared as a model's counts as
    reaching it.
    Raises `MalformedObjectError` and `MissingObjectError`.
    """
    read = _READERS.get(kind)
    if read is None:
        return Facts()
    here = context(namespace, lookup, catalog, settings)
    facts = read(document, here)
    if old is not None:
        before = read(old, here)
        known = {use.model for use in before.weights}
        added = facts.added_since(before)
        weights = {use for use in facts.weights if use.model not in known}
        weights.update(_undeclared(kind, document, old, here))
        facts = Facts(tuple(sorted(weights)), added.devices, added.escapes)
    here.finder.raise_if_missing()
    return facts


def _claim(document: Document, here: Context) -> Facts:
    # Its own name is not counted: a claim that gets a new, empty volume reads nothing.
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
        DeviceUse(vendor, path, 1, "hostPath", "", where) for path in paths for vendor in devices_at(path)
    }
    escapes = {Escape(kind, where, path) for path in paths for kind in escapes_at(path)}
    return Facts(weights, tuple(sorted(devices)), tuple(sorted(escapes)))


def _snapshot(document: Document, here: Context) -> Facts:
    return _weights(here.resolver.snapshot_document(here.namespace, document), here)


def _group_snapshot(document: Document, here: Context) -> Facts:
    return _weights(here.resolver.group_snapshot(here.namespace, document), here)


def _content(document: Document, here: Context) -> Facts:
    found = here.resolver.content_document(document)
    return _besides(found, document, "volumeSnapshotRef", SNAPSHOT, here)


def _group_content(document: Document, here: Context) -> Facts:
    found = here.resolver.group_content(document)
    return _besides(found, document, "volumeGroupSnapshotRef", GROUP_SNAPSHOT, here)


def _besides(
    found: Iterable[ProtectedRef], document: Document, field: str, kind: str, here: Context
) -> Facts:
    """What a content reaches besides the claims that its snapshot names: that snapshot was judged for those."""
    reference = object_at(object_at(document, "spec", ""), field, "spec")
    namespace, name = (text_at(reference, key, f"spec.{field}") for key in ("namespace", "name"))
    snapshot = here.finder.get(kind, namespace, name) if namespace and name else None
    known: set[Model] = set()
    if snapshot is not None:
        source = object_at(object_at(snapshot, "spec", ""), "source", "spec")
        claim = text_at(source, "persistentVolumeClaimName", "spec.source")
        if claim:
            known.update(reach.model for reach in here.resolver.claim(namespace, claim))
        if source.get("selector") is not None:
            known.update(reach.model for reach in here.resolver.group_snapshot(namespace, snapshot))
    return _weights([reach for reach in found if reach.model not in known], here)


def _resource_claim(document: Document, here: Context) -> Facts:
    return _devices(object_at(document, "spec", ""), "spec", here)


def _resource_claim_template(document: Document, here: Context) -> Facts:
    return _devices(object_at(object_at(document, "spec", ""), "spec", "spec"), "spec.spec", here)


def _weights(found: Iterable[ProtectedRef], here: Context) -> Facts:
    return Facts(tuple(sorted({weight_use(reach, "") for reach in found})) if here.catalog else ())


def _devices(spec: Document, path: str, here: Context) -> Facts:
    requests = tuple(asked(spec, path, here))
    devices = {
        DeviceUse(item.vendor, item.device_class, item.number, "claim", "", item.path) for item in requests
    }
    escapes = {Escape("adminAccess", item.path, item.device_class) for item in requests if item.admin}
    return Facts((), tuple(sorted(devices)), tuple(sorted(escapes)))


def _undeclared(kind: str, document: Document, old: Document, here: Context) -> Iterable[WeightUse]:
    """The models an object was declared to hold, by its labels or its claim, and after the update no longer is."""
    if kind not in ("PersistentVolumeClaim", "PersistentVolume"):
        return
    for model in _declared(kind, old, here) - _declared(kind, document, here):
        yield WeightUse(
            model.name, model.sensitivity, "", "unlabelled", detail="the update takes it out of the model"
        )


def _declared(kind: str, document: Document, here: Context) -> set[Model]:
    metadata = object_at(document, "metadata", "")
    name, labels = text_at(metadata, "name", "metadata"), object_at(metadata, "labels", "metadata")
    if kind == "PersistentVolumeClaim":
        return set(here.catalog.of_claim(here.namespace, name, labels))
    # A volume that was its claim's alone would be anybody's without it.
    owner = object_at(object_at(document, "spec", ""), "claimRef", "spec")
    place = (text_at(owner, "namespace", "spec.claimRef"), text_at(owner, "name", "spec.claimRef"))
    held = here.catalog.of_claim(*place, _labels(*place, here)) if all(place) else ()
    return {*here.catalog.of_volume(name, labels), *held}


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
    "ResourceClaim.resource.k8s.io": _resource_claim,
    "ResourceClaimTemplate.resource.k8s.io": _resource_claim_template,
}
