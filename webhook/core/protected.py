"""The storage that holds models, found through the volumes that lead to it.

It is kept beside the catalog and changes with the cluster's volumes and claims, so that a request asks an index and
never walks over all volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.core.backends import Backend, backend_of
from webhook.core.claims import Finder, Resolver
from webhook.core.model import UNKNOWN, Model
from webhook.core.objects import Lookup, ObjectKey
from webhook.core.patterns import PathIndex
from webhook.core.workload import MalformedObjectError, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.core.catalog import Catalog
    from webhook.core.objects import Document, ObjectStore


@dataclass(frozen=True, slots=True)
class ProtectedVolume:
    """A PersistentVolume that holds a model."""

    name: str
    models: tuple[Model, ...]
    backend: Backend | None
    document: Document


class ProtectedBackends:
    """The backends of the PersistentVolumes that hold a model, found by what they share with another volume."""

    __slots__ = ("_attributes", "_catalog", "_keys", "_paths", "_store", "volumes")

    def __init__(self, catalog: Catalog, store: ObjectStore) -> None:
        self.volumes: dict[str, ProtectedVolume] = {}
        self._catalog = catalog
        self._store = store
        if catalog:
            resolver = self._resolver()
            for document in store.each("PersistentVolume"):
                volume = self._protected(document, resolver)
                if volume is not None:
                    self.volumes[volume.name] = volume
        self._index()

    def find(self, backend: Backend) -> Iterator[ProtectedVolume]:
        """The protected volumes that stand on the same storage; one may come twice."""
        for key in backend.keys:
            yield from self._keys.get(key, ())
        for space, path in backend.paths:
            index = self._paths.get(space)
            if index is not None:
                yield from index.find(path)
        for key, value in backend.identity.items():
            for volume in self._attributes.get((backend.driver, key, value), ()):
                known = volume.backend.identity if volume.backend is not None else {}
                if all(known.get(name, item) == item for name, item in backend.identity.items()):
                    yield volume

    def changed(self, key: ObjectKey) -> None:
        """Take in that the store's object under this key came, went or changed; kinds that do not matter are cheap.

        The index is made again only where a protected volume is touched, from those alone.
        """
        if key.kind == "PersistentVolume":
            names = {key.name}
        elif key.kind == "PersistentVolumeClaim":
            names = self._volumes_of(key)
        else:
            return
        resolver = self._resolver()
        touched = False
        for name in names:
            document = self._store.get(ObjectKey("PersistentVolume", "", name))
            volume = self._protected(document, resolver) if document is not None and self._catalog else None
            before = self.volumes.pop(name, None)
            if volume is not None:
                self.volumes[name] = volume
            touched = touched or volume != before
        if touched:
            self._index()

    def _volumes_of(self, key: ObjectKey) -> set[str]:
        names = {name for name, volume in self.volumes.items() if _claim_of(volume.document) == key[1:]}
        claim = self._store.get(key)
        spec = claim.get("spec") if claim is not None else None
        volume = spec.get("volumeName") if isinstance(spec, dict) else None
        return names | {volume} if isinstance(volume, str) and volume else names

    def _resolver(self) -> Resolver:
        return Resolver(self._catalog, Finder(Lookup(self._store)), None)

    def _protected(self, document: Document, resolver: Resolver) -> ProtectedVolume | None:
        """The volume, where it is declared to hold models, stands on storage that is, or is bound to such a claim."""
        try:
            found = {reach.model for reach in resolver.volume_spec(document)}
            claim = _claim_of(document)
            if claim is not None:
                found.update(reach.model for reach in resolver.claim(*claim))
            backend = backend_of(object_at(document, "spec", ""), "spec")
        except MalformedObjectError:
            return None
        found.discard(UNKNOWN)
        return (
            ProtectedVolume(document["metadata"]["name"], tuple(sorted(found)), backend, document)
            if found
            else None
        )

    def _index(self) -> None:
        self._keys: dict[str, list[ProtectedVolume]] = {}
        self._attributes: dict[tuple[str, str, str], list[ProtectedVolume]] = {}
        self._paths: dict[str, PathIndex[ProtectedVolume]] = {}
        for volume in self.volumes.values():
            backend = volume.backend
            if backend is None:
                continue
            for key in backend.keys:
                self._keys.setdefault(key, []).append(volume)
            for space, path in backend.paths:
                self._paths.setdefault(space, PathIndex()).add(path, volume)
            for key, value in backend.identity.items():
                self._attributes.setdefault((backend.driver, key, value), []).append(volume)


def _claim_of(document: Document) -> tuple[str, str] | None:
    """Namespace and name of the claim a volume is bound to."""
    reference = object_at(object_at(document, "spec", ""), "claimRef", "spec")
    namespace = text_at(reference, "namespace", "spec.claimRef")
    name = text_at(reference, "name", "spec.claimRef")
    return (namespace, name) if namespace and name else None
