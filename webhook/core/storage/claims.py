"""From a claim, a volume or a snapshot to the models it reaches, through every object in between.

Clones, restores and aliases are followed as far as the objects go, with a bound; a reference that leads nowhere counts
as protected, since nobody can say what it will hold. Nothing here decides who may read what it finds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from webhook.core.kube.fields import MalformedObjectError, object_at, text_at
from webhook.core.kube.selectors import SelectorError, compile_selector
from webhook.core.storage.backends import NODE, Backend
from webhook.core.storage.model import UNKNOWN
from webhook.core.storage.nodepaths import exposes_pods
from webhook.core.storage.reach import Reach, Reaches, distinct, rerouted, unresolved
from webhook.core.storage.snapshots import CONTENT, SNAPSHOT, group_origins, origins
from webhook.core.storage.sources import backend_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from webhook.core.storage.catalog import Catalog
    from webhook.core.storage.finder import Finder
    from webhook.core.storage.model import VolumeIndex

# What an answer may depend on: "claim", "volume", "snapshot" or "content", its namespace and its name.
Place: TypeAlias = tuple[str, str, str]
ANY_CONTENT: Place = ("content", "", "")
_MAX_DEPTH = 32
# Ordinals tried against name patterns; claims that exist are found whatever their ordinal.
_MAX_ORDINALS = 64
_ORDINALS = re.compile(r"(?:-\d+){0,2}")


class Resolver:
    """Follows references for one evaluation, each object once. ``backends`` is None while those are worked out.

    ``visited`` is what was looked at: an answer holds as long as none of it changes.
    """

    __slots__ = ("_backends", "_catalog", "_finder", "_open", "_seen", "backend_of_volume", "visited")

    def __init__(self, catalog: Catalog, finder: Finder, backends: VolumeIndex | None) -> None:
        self._catalog = catalog
        self._finder = finder
        self._backends = backends
        self._seen: dict[Place, Reaches] = {}
        self.visited: set[Place] = set()
        self.backend_of_volume: dict[str, Backend] = {}
        self._open: set[Place] = set()

    def claim(self, namespace: str, name: str) -> Reaches:
        """What a PersistentVolumeClaim, by name, reaches."""
        return self._once(("claim", namespace, name), lambda: self._claim(namespace, name))

    def claim_spec(
        self, namespace: str, spec: Mapping[str, Any], path: str, metadata: Mapping[str, Any] | None = None
    ) -> Reaches:
        """What a claim's spec reaches: the volume it names, its sources, the volumes it could be bound to.

        ``metadata`` is the claim's, where there is one already.
        """
        found: list[Reach] = []
        metadata = metadata or {}
        volume = text_at(spec, "volumeName", path)
        if volume:
            found.extend(self.volume(volume))
        elif self._backends is not None:
            name = text_at(metadata, "name", "metadata")
            for candidate in self._backends.bindable(namespace, name, spec, metadata, self._finder.lookup):
                detail = f"could bind PersistentVolume {candidate.name}"
                found.extend(Reach(model, "persistentVolume", detail) for model in candidate.models)
        for source in ("dataSource", "dataSourceRef"):
            found.extend(self._source(namespace, object_at(spec, source, path), f"{path}.{source}"))
        return distinct(found)

    def claims_named(self, namespace: str, base: str) -> Reaches:
        """What the claims a workload names after itself reach: those that exist, and those patterns wait for.

        Names are ``base``, perhaps followed by ordinals: ``data-train``, ``data-train-0``, ``data-train-0-1``.
        """
        found: list[Reach] = []
        for document in self._finder.lookup.each("PersistentVolumeClaim", namespace):
            name = document["metadata"]["name"]
            if name.startswith(base) and _ORDINALS.fullmatch(name, len(base)) is not None:
                found.extend(self.claim(namespace, name))
        for ordinal in ("", *(f"-{number}" for number in range(_MAX_ORDINALS))):
            name = f"{base}{ordinal}"
            detail = f"PersistentVolumeClaim {namespace}/{name}"
            models = self._catalog.of_claim(namespace, name, None)
            found.extend(Reach(model, "persistentVolumeClaim", detail) for model in models)
        return distinct(found)

    def volume(self, name: str) -> Reaches:
        """What a PersistentVolume, by name, reaches."""
        return self._once(("volume", "", name), lambda: self._volume(name))

    def volume_spec(self, document: Mapping[str, Any]) -> Reaches:
        """What a PersistentVolume's document reaches."""
        metadata, spec = object_at(document, "metadata", ""), object_at(document, "spec", "")
        name = text_at(metadata, "name", "metadata")
        found = [
            Reach(model, "persistentVolume", f"PersistentVolume {name}")
            for model in self._catalog.of_volume(name, object_at(metadata, "labels", "metadata"))
        ]
        backend = backend_of(spec, "spec")
        if backend is not None:
            self.backend_of_volume[name] = backend
            found.extend(self.backend(backend))
        return distinct(found)

    def backend(self, backend: Backend) -> Reaches:
        """What a volume on this storage reaches."""
        found = [Reach(model, backend.via) for model in self._catalog.of_backend(backend)]
        if self._backends is not None:
            for volume in self._backends.find(backend):
                detail = f"the storage of PersistentVolume {volume.name}"
                found.extend(Reach(model, backend.via, detail) for model in volume.models)
        for space, path in backend.paths:
            if space == NODE and exposes_pods(path):
                found.append(Reach(UNKNOWN, backend.via, f"{path} exposes the volumes of other pods"))
        return distinct(found)

    def node_paths(self, namespace: str, claim: str) -> Iterator[str]:
        """The paths of the node that a claim's volume stands for, where it is a hostPath or local volume."""
        document = self._finder.get("PersistentVolumeClaim", namespace, claim)
        name = text_at(object_at(document or {}, "spec", ""), "volumeName", "spec")
        if name:
            # What a volume reaches is found once, and its backend with it.
            self.volume(name)
            backend = self.backend_of_volume.get(name)
            yield from (path for space, path in backend.paths if space == NODE) if backend is not None else ()

    def group_snapshot(self, namespace: str, document: Mapping[str, Any]) -> Reaches:
        """What a VolumeGroupSnapshot's document is taken from: every claim its selector meets."""
        source = object_at(object_at(document, "spec", ""), "source", "spec")
        selector = object_at(source, "selector", "spec.source")
        if not selector:
            return unresolved("a VolumeGroupSnapshot without a selector")
        try:
            compiled = compile_selector(selector)
        except SelectorError as error:
            raise MalformedObjectError("spec.source.selector", str(error)) from error
        found: list[Reach] = []
        for claim in self._finder.lookup.each("PersistentVolumeClaim", namespace):
            if compiled.matches(object_at(claim["metadata"], "labels", "metadata")):
                found.extend(self.claim(namespace, claim["metadata"]["name"]))
        return rerouted(found, "snapshot")

    def group_content(self, document: Mapping[str, Any]) -> Reaches:
        """What a VolumeGroupSnapshotContent's document is taken from."""
        driver, volumes = group_origins(document)
        if not volumes:
            return unresolved("group snapshot of unknown origin")
        found = [reach for volume in volumes for reach in self._handle(driver, volume)]
        return rerouted(found, "snapshot")

    def snapshot(self, namespace: str, name: str) -> Reaches:
        """What a VolumeSnapshot, by name, was taken from."""
        return self._once(("snapshot", namespace, name), lambda: self._snapshot(namespace, name))

    def snapshot_document(self, namespace: str, document: Mapping[str, Any]) -> Reaches:
        """What a VolumeSnapshot's document is taken from."""
        source = object_at(object_at(document, "spec", ""), "source", "spec")
        claim = text_at(source, "persistentVolumeClaimName", "spec.source")
        found = list(self.claim(namespace, claim)) if claim else []
        status = object_at(document, "status", "")
        contents = {
            text_at(source, "volumeSnapshotContentName", "spec.source"),
            text_at(status, "boundVolumeSnapshotContentName", "status"),
        }
        for content in sorted(contents - {""}):
            found.extend(self.content(content))
        if not claim and contents == {""}:
            found.extend(unresolved("a VolumeSnapshot without a source"))
        return rerouted(found, "snapshot")

    def content(self, name: str) -> Reaches:
        """What a VolumeSnapshotContent, by name, was taken from."""
        return self._once(("content", "", name), lambda: self._content(name))

    def content_document(self, document: Mapping[str, Any]) -> Reaches:
        """What a VolumeSnapshotContent's document was taken from."""
        spec = object_at(document, "spec", "")
        source, driver = object_at(spec, "source", "spec"), text_at(spec, "driver", "spec")
        handle = text_at(source, "volumeHandle", "spec.source")
        if handle:
            found = self._handle(driver, handle)
        else:
            found = self._snapshot_handle(driver, text_at(source, "snapshotHandle", "spec.source"))
        return rerouted(found, "snapshot")

    def _claim(self, namespace: str, name: str) -> Reaches:
        document = self._finder.get("PersistentVolumeClaim", namespace, name)
        labels = object_at(object_at(document, "metadata", ""), "labels", "metadata") if document else None
        found = [
            Reach(model, "persistentVolumeClaim", f"PersistentVolumeClaim {namespace}/{name}")
            for model in self._catalog.of_claim(namespace, name, labels)
        ]
        if document is None:
            return distinct(found) or unresolved(f"PersistentVolumeClaim {namespace}/{name} does not exist")
        metadata = object_at(document, "metadata", "")
        found.extend(self.claim_spec(namespace, object_at(document, "spec", ""), "spec", metadata))
        return distinct(found)

    def _volume(self, name: str) -> Reaches:
        document = self._finder.get("PersistentVolume", "", name)
        if document is not None:
            return self.volume_spec(document)
        found = [Reach(model, "persistentVolume") for model in self._catalog.of_volume(name, {})]
        return distinct(found) or unresolved(f"PersistentVolume {name} does not exist")

    def _source(self, namespace: str, source: Mapping[str, Any], path: str) -> Reaches:
        if not source:
            return ()
        kind, name = text_at(source, "kind", path), text_at(source, "name", path)
        group = text_at(source, "apiGroup", path)
        place = text_at(source, "namespace", path) or namespace
        if (group, kind) == ("", "PersistentVolumeClaim"):
            return rerouted(
                self.claim(place, name), "clone", f"cloned from PersistentVolumeClaim {place}/{name}"
            )
        if f"{kind}.{group}" == SNAPSHOT:
            return rerouted(
                self.snapshot(place, name), "snapshot", f"restored from VolumeSnapshot {place}/{name}"
            )
        return unresolved(f"filled from {kind} {place}/{name}")

    def _snapshot(self, namespace: str, name: str) -> Reaches:
        document = self._finder.get(SNAPSHOT, namespace, name)
        if document is None:
            return unresolved(f"VolumeSnapshot {namespace}/{name} does not exist")
        return self.snapshot_document(namespace, document)

    def _content(self, name: str) -> Reaches:
        document = self._finder.get(CONTENT, "", name)
        if document is None:
            return unresolved(f"VolumeSnapshotContent {name} does not exist")
        return self.content_document(document)

    def _handle(self, driver: str, handle: str) -> Reaches:
        backend = backend_of({"csi": {"driver": driver, "volumeHandle": handle}}, "spec.source")
        return self.backend(backend) if backend is not None else ()

    def _snapshot_handle(self, driver: str, handle: str) -> Reaches:
        """A snapshot known only to its driver: other contents may say what it was taken from."""
        self.visited.add(ANY_CONTENT)
        volumes = list(origins(self._finder.lookup, driver, handle))
        if not volumes:
            return unresolved(f"snapshot {handle[:64]!r} of unknown origin")
        return distinct([reach for volume in volumes for reach in self._handle(driver, volume)])

    def _once(self, key: Place, resolve: Callable[[], Reaches]) -> Reaches:
        """Resolve an object once. One that leads back to itself, or too far away, counts as leading nowhere."""
        known = self._seen.get(key)
        if known is not None:
            return known
        if key in self._open or len(self._open) >= _MAX_DEPTH:
            return unresolved(f"{key[0]} {key[2]} leads back to itself or further than {_MAX_DEPTH} objects")
        self._open.add(key)
        self.visited.add(key)
        try:
            found = self._seen[key] = resolve()
        finally:
            self._open.discard(key)
        return found
