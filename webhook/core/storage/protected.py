"""The storage that holds models, matches through the volumes that lead to it.

It is kept beside the catalog and changes with the cluster's volumes and claims, so that a request asks an index and
never walks over all volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import MalformedObjectError, object_at, text_at
from webhook.core.kube.names import PathIndex
from webhook.core.kube.objects import Lookup, ObjectKey
from webhook.core.storage.binding import claim_classes, fits, is_available, offered_class
from webhook.core.storage.claims import ANY_CONTENT, Resolver
from webhook.core.storage.finder import Finder
from webhook.core.storage.model import UNKNOWN, Model
from webhook.core.storage.snapshots import CONTENT, GROUP_CONTENT, SNAPSHOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectStore
    from webhook.core.storage.backends import Backend
    from webhook.core.storage.catalog import Catalog
    from webhook.core.storage.claims import ObjectRef
    from webhook.core.storage.model import VolumeIndex


@dataclass(frozen=True, slots=True)
class ProtectedVolume:
    """A PersistentVolume that holds models; ``claim`` is the namespace and name of the claim it is bound to."""

    name: str
    models: tuple[Model, ...]
    backend: Backend | None
    claim: tuple[str, str] | None
    document: Document


class ProtectedBackends:
    """The PersistentVolumes that hold a model, matches by the storage they share with another volume."""

    __slots__ = (
        "_attributes",
        "_available",
        "_catalog",
        "_claimed",
        "_dependents",
        "_keys",
        "_needs",
        "_paths",
        "_store",
        "_volumes",
    )

    def __init__(self, catalog: Catalog, store: ObjectStore) -> None:
        self._catalog = catalog
        self._store = store
        self._volumes: dict[str, ProtectedVolume] = {}
        # Which volumes must be looked at again when an object changes, and the same by volume.
        self._dependents: dict[ObjectRef, set[str]] = {}
        self._needs: dict[str, set[ObjectRef]] = {}
        if catalog:
            for document in store.each("PersistentVolume"):
                self._look_at(document["metadata"]["name"])
        self._index()

    def find(self, backend: Backend) -> Iterator[ProtectedVolume]:
        """The protected volumes that stand on the same storage; one may come twice."""
        for key in backend.keys:
            yield from self._keys.get(key, ())
        for space, path in backend.paths:
            index = self._paths.get(space)
            if index is not None:
                yield from (volume for volume in index.find(path) if not _apart(backend, volume))
        for identity in backend.identity():
            for volume in self._attributes.get(identity, ()):
                if volume.backend is not None and backend.shares_attributes(volume.backend):
                    yield volume

    def bindable(
        self, namespace: str, name: str, claim: Mapping[str, Any], metadata: Mapping[str, Any], lookup: Lookup
    ) -> Iterator[ProtectedVolume]:
        """The protected volumes that a claim which names none could be bound to."""
        if name:
            yield from self._claimed.get((namespace, name), ())
        if self._available:
            for wanted in claim_classes(claim, metadata, lookup):
                yield from (
                    volume for volume in self._available.get(wanted, ()) if fits(volume.document, claim)
                )

    def changed(self, key: ObjectKey) -> None:
        """Take in that the store's object under this key came, went or changed; kinds that do not matter are cheap.

        The index is made again only where a protected volume is touched, from those alone.
        """
        what = _OBJECTS.get(key.kind)
        if what is None or not self._catalog:
            return
        names = set(self._dependents.get((what, key.namespace, key.name), ()))
        if what == "volume":
            names.add(key.name)
        elif what == "content":
            names.update(self._dependents.get(ANY_CONTENT, ()))
        touched = [self._look_at(name) for name in names]
        if any(touched):
            self._index()

    def _look_at(self, name: str) -> bool:
        """Find out anew what a volume holds. Whether that, or anything else about a protected volume, changed."""
        for place in self._needs.pop(name, ()):
            self._dependents[place].discard(name)
            if not self._dependents[place]:
                del self._dependents[place]
        before = self._volumes.pop(name, None)
        volume = self._protected(name)
        if volume is not None:
            self._volumes[name] = volume
        return volume != before

    def _protected(self, name: str) -> ProtectedVolume | None:
        """The volume, where it is declared to hold models, stands on storage that is, or is bound to such a claim."""
        document = self._store.get(ObjectKey("PersistentVolume", "", name))
        if document is None:
            return None
        resolver = Resolver(self._catalog, Finder(Lookup(self._store)), None)
        claim = None
        try:
            matches = {reach.model for reach in resolver.volume(name)}
            claim = _claim_of(document)
            if claim is not None:
                matches.update(reach.model for reach in resolver.claim(*claim))
        except MalformedObjectError:
            matches = set()
        self._remember(name, resolver)
        matches.discard(UNKNOWN)
        if not matches:
            return None
        return ProtectedVolume(
            name, tuple(sorted(matches)), resolver.backend_of_volume.get(name), claim, document
        )

    def _remember(self, name: str, resolver: Resolver) -> None:
        """Note what the answer depends on besides the volume itself."""
        needs = resolver.visited - {("volume", "", name)}
        if needs:
            self._needs[name] = needs
            for place in needs:
                self._dependents.setdefault(place, set()).add(name)

    def _index(self) -> None:
        self._keys: dict[str, list[ProtectedVolume]] = {}
        self._attributes: dict[tuple[str, str, str], list[ProtectedVolume]] = {}
        self._paths: dict[str, PathIndex[ProtectedVolume]] = {}
        self._claimed: dict[tuple[str, str], list[ProtectedVolume]] = {}
        self._available: dict[str, list[ProtectedVolume]] = {}
        for volume in self._volumes.values():
            if volume.claim is not None:
                self._claimed.setdefault(volume.claim, []).append(volume)
            elif is_available(volume.document):
                self._available.setdefault(offered_class(volume.document), []).append(volume)
            if volume.backend is not None:
                self._index_backend(volume, volume.backend)

    def _index_backend(self, volume: ProtectedVolume, backend: Backend) -> None:
        for key in backend.keys:
            self._keys.setdefault(key, []).append(volume)
        for space, path in backend.paths:
            self._paths.setdefault(space, PathIndex()).add_literal(path, volume)
        for identity in backend.identity():
            self._attributes.setdefault(identity, []).append(volume)


_OBJECTS = {
    "PersistentVolume": "volume",
    "PersistentVolumeClaim": "claim",
    SNAPSHOT: "snapshot",
    CONTENT: "content",
    GROUP_CONTENT: "content",
}


def _apart(backend: Backend, volume: ProtectedVolume) -> bool:
    return volume.backend is not None and backend.apart(volume.backend)


def _claim_of(document: Document) -> tuple[str, str] | None:
    """Namespace and name of the claim a volume is bound to."""
    reference = object_at(object_at(document, "spec", ""), "claimRef", "spec")
    namespace = text_at(reference, "namespace", "spec.claimRef")
    name = text_at(reference, "name", "spec.claimRef")
    return (namespace, name) if namespace and name else None


def with_volumes(catalog: Catalog, store: ObjectStore) -> Catalog:
    """Return the catalog with the backends of the store's volumes.

    The provider calls it after it loaded a store, and `ProtectedBackends.changed` when an object changes.
    """
    return catalog.with_backends(ProtectedBackends(catalog, store))


def protected_backends(catalog: Catalog, lookup: Lookup) -> VolumeIndex:
    """Return the index kept by `with_volumes`, or one for this evaluation only."""
    return catalog.backends if catalog.backends is not None else ProtectedBackends(catalog, lookup.store)
