"""The storage that holds models, found through the volumes that lead to it.

The index is kept beside the catalog and follows the cluster's volumes and claims, so that a request never walks over
all volumes. `ProtectedBackends.fill` works in steps, so that an edited ModelWeights delays no review.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import MalformedObjectError, object_at, text_at
from webhook.core.kube.objects import Lookup, ObjectKey
from webhook.core.storage.binding import claim_classes, fits, is_available, offered_class
from webhook.core.storage.claims import ANY_CONTENT, Resolver
from webhook.core.storage.finder import Finder
from webhook.core.storage.locations import LocationIndex, Relation
from webhook.core.storage.model import UNKNOWN, Match, Model
from webhook.core.storage.snapshots import CONTENT, GROUP_CONTENT, SNAPSHOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectStore
    from webhook.core.storage.backends import Backend
    from webhook.core.storage.catalog import Catalog
    from webhook.core.storage.claims import ObjectRef
    from webhook.core.storage.locations import Location
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
    """The PersistentVolumes that hold a model, found by the storage they share with another volume."""

    __slots__ = (
        "_attributes",
        "_available",
        "_catalog",
        "_claimed",
        "_dependents",
        "_drivers",
        "_locations",
        "_needs",
        "_store",
        "_volumes",
    )

    def __init__(self, catalog: Catalog, store: ObjectStore, *, fill: bool = True) -> None:
        self._catalog = catalog
        self._store = store
        self._volumes: dict[str, ProtectedVolume] = {}
        # Which volumes to resolve again when an object changes, and the same by volume.
        self._dependents: dict[ObjectRef, set[str]] = {}
        self._needs: dict[str, set[ObjectRef]] = {}
        self._locations: LocationIndex[ProtectedVolume] = LocationIndex()
        self._attributes: dict[tuple[str, str, str], dict[str, ProtectedVolume]] = {}
        self._claimed: dict[tuple[str, str], dict[str, ProtectedVolume]] = {}
        self._available: dict[str, dict[str, ProtectedVolume]] = {}
        self._drivers: dict[str, int] = {}
        if fill:
            for _ in self.fill():
                pass

    def fill(self) -> Iterator[None]:
        """Read the store's volumes, one a step. `changed` keeps the index correct between two steps."""
        if self._catalog:
            for name in [document["metadata"]["name"] for document in self._store.each("PersistentVolume")]:
                self._update(name)
                yield

    def find(self, backend: Backend) -> Iterator[Match]:
        """Yield the protected volumes that are or may be on the same storage; one may come twice."""
        for location in backend.locations:
            yield from (
                Match(volume, entry, relation)
                for entry, volume, relation in self._locations.find(location)
                if volume.backend is None or not backend.apart(volume.backend)
            )
        for identity in backend.named_attributes():
            for volume in self._attributes.get(identity, {}).values():
                if volume.backend is not None and backend.shares_attributes(volume.backend):
                    yield Match(volume, None, Relation.SAME)

    def at(self, location: Location) -> Iterator[Match]:
        """Yield the protected volumes that are or may be at a location."""
        return (Match(volume, entry, relation) for entry, volume, relation in self._locations.find(location))

    def holds(self, driver: str, spaces: Iterable[str]) -> bool:
        """Whether a protected volume is of this driver or in one of these spaces."""
        indexed = self._locations.spaces
        return driver in self._drivers or any(space in indexed for space in spaces)

    @property
    def holds_csi(self) -> bool:
        """Whether a protected volume is a CSI volume."""
        return bool(self._drivers)

    def bindable(
        self, namespace: str, name: str, claim: Mapping[str, Any], metadata: Mapping[str, Any], lookup: Lookup
    ) -> Iterator[ProtectedVolume]:
        """Yield the protected volumes that a claim without a volume could bind."""
        if name:
            yield from self._claimed.get((namespace, name), {}).values()
        if self._available:
            for storage_class in claim_classes(claim, metadata, lookup):
                yield from (
                    volume
                    for volume in self._available.get(storage_class, {}).values()
                    if fits(volume.document, claim)
                )

    def changed(self, key: ObjectKey) -> None:
        """Update the index after the store's object under this key was added, deleted or changed."""
        kind = _OBJECTS.get(key.kind)
        if kind is None or not self._catalog:
            return
        names = set(self._dependents.get((kind, key.namespace, key.name), ()))
        if kind == "volume":
            names.add(key.name)
        elif kind == "content":
            names.update(self._dependents.get(ANY_CONTENT, ()))
        for name in names:
            self._update(name)

    def _update(self, name: str) -> None:
        """Resolve one volume again."""
        for ref in self._needs.pop(name, ()):
            self._dependents[ref].discard(name)
            if not self._dependents[ref]:
                del self._dependents[ref]
        before = self._volumes.pop(name, None)
        if before is not None:
            self._index(before, add=False)
        volume = self._protected(name)
        if volume is not None:
            self._volumes[name] = volume
            self._index(volume, add=True)

    def _protected(self, name: str) -> ProtectedVolume | None:
        """Return the volume if it is declared to hold models, is on such storage, or is bound to such a claim."""
        document = self._store.get(ObjectKey("PersistentVolume", "", name))
        if document is None:
            return None
        resolver = Resolver(self._catalog, Finder(Lookup(self._store)), None)
        claim = None
        try:
            models = {ref.model for ref in resolver.volume(name)}
            claim = _claim_of(document)
            if claim is not None:
                models.update(ref.model for ref in resolver.claim(*claim))
        except MalformedObjectError:
            models = set()
        self._remember(name, resolver)
        models.discard(UNKNOWN)
        if not models:
            return None
        return ProtectedVolume(
            name, tuple(sorted(models)), resolver.backend_of_volume.get(name), claim, document
        )

    def _remember(self, name: str, resolver: Resolver) -> None:
        """Record the objects that the result depends on, besides the volume itself."""
        needs = resolver.visited - {("volume", "", name)}
        if needs:
            self._needs[name] = needs
            for ref in needs:
                self._dependents.setdefault(ref, set()).add(name)

    def _index(self, volume: ProtectedVolume, *, add: bool) -> None:
        """Add a volume to every index, or remove it."""
        if volume.claim is not None:
            _put(self._claimed, volume.claim, volume, add=add)
        elif is_available(volume.document):
            _put(self._available, offered_class(volume.document), volume, add=add)
        backend = volume.backend
        if backend is None:
            return
        for location in backend.locations:
            if add:
                self._locations.add(location, volume)
            else:
                self._locations.discard(location, volume)
        for identity in backend.named_attributes():
            _put(self._attributes, identity, volume, add=add)
        if backend.via == "csi":
            count = self._drivers.pop(backend.driver, 0) + (1 if add else -1)
            if count:
                self._drivers[backend.driver] = count


def _put(
    index: dict[Any, dict[str, ProtectedVolume]], key: Any, volume: ProtectedVolume, *, add: bool
) -> None:
    if add:
        index.setdefault(key, {})[volume.name] = volume
        return
    index[key].pop(volume.name, None)
    if not index[key]:
        del index[key]


_OBJECTS = {
    "PersistentVolume": "volume",
    "PersistentVolumeClaim": "claim",
    SNAPSHOT: "snapshot",
    CONTENT: "content",
    GROUP_CONTENT: "content",
}


def _claim_of(document: Document) -> tuple[str, str] | None:
    """Return namespace and name of the claim that a volume is bound to."""
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
