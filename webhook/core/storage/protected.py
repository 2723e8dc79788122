"""The storage that holds models, found through the volumes that lead to it.

The index is kept beside the catalog and follows the cluster's volumes and claims, so that a request never walks over
all volumes. `ProtectedBackends.fill` works in steps, so that an edited ModelWeights delays no review.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.core.kube.fields import MalformedObjectError, object_at, text_at
from webhook.core.kube.names import compile_glob
from webhook.core.kube.objects import Lookup, ObjectKey
from webhook.core.storage.binding import claim_classes, fits, is_available, offered_class
from webhook.core.storage.claims import ANY_CONTENT, Resolver
from webhook.core.storage.finder import Finder
from webhook.core.storage.locations import LocationIndex, Relation, is_evidence
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
        "_backends",
        "_by_driver",
        "_by_model",
        "_by_space",
        "_catalog",
        "_claimed",
        "_claims",
        "_dependents",
        "_documents",
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
        # Every volume, protected or not, so that an edited model finds those that it matches now.
        self._backends: dict[str, Backend] = {}
        self._documents: dict[str, Document] = {}
        self._by_driver: dict[str, dict[str, str]] = {}
        self._by_space: dict[str, set[str]] = {}
        self._by_model: dict[str, set[str]] = {}
        # The claims that volumes depend on, by namespace.
        self._claims: dict[str, set[str]] = {}
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

    def backend_of(self, name: str, document: Mapping[str, Any]) -> Backend | None:
        """Return the backend of a stored volume; None for another document of this name, and where it has none."""
        return self._backends.get(name) if self._documents.get(name) is document else None

    def at(self, location: Location) -> Iterator[Match]:
        """Yield the protected volumes that are or may be at a location."""
        return (Match(volume, entry, relation) for entry, volume, relation in self._locations.find(location))

    def holds(self, driver: str, spaces: Iterable[str]) -> bool:
        """Whether a protected volume is of this driver or in one of these spaces."""
        indexed = self._locations.spaces
        return driver in self._drivers or any(map(indexed.__contains__, spaces))

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

    def model_changed(self, name: str, catalog: Catalog) -> None:
        """Update the index after a model was added, removed or changed in the catalog.

        ``catalog`` has the model's new form only, or no model if it was removed.
        """
        for volume in self._by_model.get(name, set()) | (self._matching(catalog) if catalog else set()):
            self._update(volume)

    def _matching(self, catalog: Catalog) -> set[str]:
        """Return the volumes that may match a catalog of one model; some of them may not."""
        volumes = {
            document["metadata"]["name"]
            for document in (self._store.each("PersistentVolume") if catalog.names_volumes else ())
            if any(True for _ in catalog.of_volume_name(document["metadata"]["name"]))
        }
        for namespace, names in self._claims.items() if catalog.names_claims else ():
            if catalog.may_name_claims(namespace):
                for name in names:
                    if any(True for _ in catalog.of_claim_name(namespace, name)):
                        volumes |= self._dependents["claim", namespace, name]
        candidates = {
            name
            for driver, patterns in catalog.handles()
            for name in _by_pattern(self._by_driver.get(driver, {}), patterns)
        }
        for driver in catalog.unbounded_drivers():
            candidates.update(self._by_driver.get(driver, {}))
        for space in catalog.spaces():
            candidates |= self._by_space.get(space, set())
        volumes |= {
            name for name in candidates if any(True for _ in catalog.of_backend(self._backends[name]))
        }
        # Copies of a volume depend on it.
        return volumes.union(*(self._dependents.get(("volume", "", name), ()) for name in volumes))

    def _update(self, name: str) -> None:
        """Resolve one volume again."""
        for ref in self._needs.pop(name, ()):
            self._dependents[ref].discard(name)
            if not self._dependents[ref]:
                del self._dependents[ref]
                if ref[0] == "claim":
                    self._claims[ref[1]].discard(ref[2])
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
            self._remember_backend(name, None, None)
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
        self._remember_backend(name, resolver.backend_of_volume.get(name), document)
        models.discard(UNKNOWN)
        if not models:
            return None
        return ProtectedVolume(
            name, tuple(sorted(models)), resolver.backend_of_volume.get(name), claim, document
        )

    def _remember(self, name: str, resolver: Resolver) -> None:
        """Record the objects that the result depends on, in addition to the volume itself."""
        needs = resolver.visited - {("volume", "", name)}
        if needs:
            self._needs[name] = needs
            for ref in needs:
                self._dependents.setdefault(ref, set()).add(name)
                if ref[0] == "claim":
                    self._claims.setdefault(ref[1], set()).add(ref[2])

    def _remember_backend(self, name: str, backend: Backend | None, document: Document | None) -> None:
        before = self._backends.pop(name, None)
        self._documents.pop(name, None)
        if before is not None:
            self._by_driver.get(before.driver, {}).pop(name, None)
            for location in before.locations:
                self._by_space[location.space].discard(name)
        if backend is not None and document is not None:
            self._backends[name], self._documents[name] = backend, document
            if backend.driver:
                self._by_driver.setdefault(backend.driver, {})[name] = backend.handle
            for location in backend.locations:
                self._by_space.setdefault(location.space, set()).add(name)

    def _index(self, volume: ProtectedVolume, *, add: bool) -> None:
        """Add a volume to every index, or remove it."""
        for model in volume.models:
            if add:
                self._by_model.setdefault(model.name, set()).add(volume.name)
            else:
                self._by_model[model.name].discard(volume.name)
        self._index_claim(volume, add=add)
        backend = volume.backend
        if backend is None:
            return
        for location in filter(is_evidence, backend.locations):
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

    def _index_claim(self, volume: ProtectedVolume, *, add: bool) -> None:
        if volume.claim is not None:
            _put(self._claimed, volume.claim, volume, add=add)
        elif is_available(volume.document):
            _put(self._available, offered_class(volume.document), volume, add=add)


def _put(
    index: dict[Any, dict[str, ProtectedVolume]], key: Any, volume: ProtectedVolume, *, add: bool
) -> None:
    if add:
        index.setdefault(key, {})[volume.name] = volume
        return
    index[key].pop(volume.name, None)
    if not index[key]:
        del index[key]


def _by_pattern(values: Mapping[str, str], patterns: Iterable[str]) -> Iterator[str]:
    """Yield the keys whose value matches a pattern; a literal prefix sorts out most of them."""
    for pattern in patterns:
        prefix = _WILD.split(pattern, maxsplit=1)[0]
        compiled = compile_glob(pattern)
        yield from [
            key for key, value in values.items() if value.startswith(prefix) and compiled.fullmatch(value)
        ]


_WILD = re.compile(r"[*?]")

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
