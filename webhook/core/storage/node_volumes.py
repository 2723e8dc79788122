"""Find the paths of a node behind a claim: through the volume that it names, and those that it could be bound to.

The PersistentVolumes on node paths are indexed by class as the store changes, so a request never reads all volumes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from webhook.cel.libraries import quantity
from webhook.core.kube.fields import MalformedObjectError, object_at, text_at
from webhook.core.storage.binding import claim_classes, fits, is_available, offered_class, storage_class
from webhook.core.storage.drivers import driver_of
from webhook.core.storage.identity import origin_of
from webhook.core.storage.locations import NODE
from webhook.core.storage.sources import backend_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup
    from webhook.core.storage.backends import Backend
    from webhook.core.storage.finder import Finder

_ORDINALS = re.compile(r"(?:-[0-9]+){0,2}")
VOLUME = "PersistentVolume"
# The volume sources that name a path of the node.
_SOURCES = frozenset({"hostPath", "local"})
CLAIM = "PersistentVolumeClaim"


class NodeVolumes:
    """The PersistentVolumes on paths of a node, by the claim or class that they are for."""

    __slots__ = ("_by_claim", "_by_class", "_places")

    def __init__(self) -> None:
        self._by_class: dict[str, dict[str, Document]] = {}
        self._by_claim: dict[tuple[str, str], dict[str, Document]] = {}
        self._places: dict[str, dict[str, Document]] = {}

    def put(self, document: Document) -> None:
        """Add or replace a volume; volumes on other storage, and bound ones, are not kept."""
        name = document["metadata"]["name"]
        self.remove(name)
        if not volume_paths(document):
            return
        owner = _owner(document)
        if owner is not None:
            place = self._by_claim.setdefault(owner, {})
        elif is_available(document):
            place = self._by_class.setdefault(offered_class(document), {})
        else:
            return
        place[name] = document
        self._places[name] = place

    def remove(self, name: str) -> None:
        """Forget a volume."""
        place = self._places.pop(name, None)
        if place is not None:
            place.pop(name, None)

    def bindable(
        self, namespace: str, spec: Mapping[str, Any], metadata: Mapping[str, Any], lookup: Lookup
    ) -> Iterator[Document]:
        """The volumes that an unbound claim could be bound to."""
        name = metadata.get("name")
        if isinstance(name, str):
            yield from self._by_claim.get((namespace, name), {}).values()
        if not any(self._by_class.values()):
            return
        for class_name in claim_classes(spec, metadata, lookup):
            for volume in self._by_class.get(class_name, {}).values():
                if fits(volume, spec) and _is_large_enough(volume, spec):
                    yield volume


def volume_paths(document: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths of the node that a stored PersistentVolume stands for.

    Those of a volume that its driver's provisioner made are none: they were decided when it was written.
    """
    spec = document.get("spec")
    if not isinstance(spec, dict) or (_SOURCES.isdisjoint(spec) and not _mounts_node_paths(spec.get("csi"))):
        return ()
    try:
        backend = backend_of(spec, "spec")
        if backend is None or (
            backend.driver and origin_of(document, backend.driver, None, None).provisioned
        ):
            return ()
    except MalformedObjectError:
        return ()
    return tuple(backend.exposed_paths)


def written_paths(
    document: Mapping[str, Any], backend: Backend, lookup: Lookup, writer: str | None
) -> list[str]:
    """The paths of the node that a PersistentVolume adds, which ``writer`` creates or changes.

    A provisioner copies the parameters of the StorageClass, which cluster admins write, to the volume.
    """
    paths = list(backend.exposed_paths)
    if not paths or not backend.driver or not origin_of(document, backend.driver, lookup, writer).provisioned:
        return paths
    spec = object_at(document, "spec", "")
    source = object_at(spec, "csi", "spec")
    parameters = object_at(storage_class(lookup, spec["storageClassName"]) or {}, "parameters", "")
    attributes = object_at(source, "volumeAttributes", "spec.csi")
    added = {key: value for key, value in attributes.items() if parameters.get(key) != value}
    rest = backend_of({**spec, "csi": {**source, "volumeAttributes": added}}, "spec")
    return list(rest.exposed_paths) if rest is not None else []


def _mounts_node_paths(source: Any) -> bool:
    """Whether a CSI driver can mount paths of the node, so that the volume has to be read."""
    if not isinstance(source, dict) or not isinstance(source.get("driver"), str):
        return False
    attributes = source.get("volumeAttributes")
    driver = driver_of(source["driver"], attributes if isinstance(attributes, dict) else None)
    return driver is not None and NODE in driver.spaces


def volumes_of_claim(namespace: str, name: str, finder: Finder) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(name, paths) of the volumes on node paths that a claim is bound to, or could be."""
    document = finder.get(CLAIM, namespace, name)
    if document is not None:
        spec, metadata = object_at(document, "spec", ""), object_at(document, "metadata", "")
        yield from volumes_of_spec(namespace, spec, metadata, finder)


def volumes_of_spec(
    namespace: str, spec: Mapping[str, Any], metadata: Mapping[str, Any], finder: Finder
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The same for the spec of a claim that exists or will be made."""
    volume = text_at(spec, "volumeName", "spec")
    if volume:
        document = finder.get(VOLUME, "", volume)
        if document is not None:
            yield from _named([document])
        return
    index = finder.lookup.store.index(VOLUME, NodeVolumes)
    yield from _named(index.bindable(namespace, spec, metadata, finder.lookup))


def volumes_of_claims_named(
    namespace: str, base: str, finder: Finder
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The same for existing claims that a workload names after itself: ``base``, perhaps followed by ordinals."""
    for document in finder.lookup.each(CLAIM, namespace):
        name = document["metadata"]["name"]
        if name.startswith(base) and _ORDINALS.fullmatch(name, len(base)) is not None:
            yield from volumes_of_claim(namespace, name, finder)


def _named(documents: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    for document in documents:
        paths = volume_paths(document)
        if paths:
            yield document["metadata"]["name"], paths


def _owner(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """Namespace and name of the claim that a volume is reserved for or bound to."""
    spec = document.get("spec")
    reference = spec.get("claimRef") if isinstance(spec, dict) else None
    if not isinstance(reference, dict):
        return None
    return str(reference.get("namespace", "")), str(reference.get("name", ""))


def _is_large_enough(volume: Mapping[str, Any], claim: Mapping[str, Any]) -> bool:
    """Whether a volume has the capacity that a claim requests; true where either cannot be read."""
    capacity = _storage(volume.get("spec"), "capacity")
    requested = _storage(claim.get("resources"), "requests")
    return capacity is None or requested is None or capacity.compare(requested) >= 0


def _storage(parent: Any, field: str) -> quantity.Quantity | None:
    amounts = parent.get(field) if isinstance(parent, dict) else None
    text = amounts.get("storage") if isinstance(amounts, dict) else None
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    try:
        return quantity.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None
