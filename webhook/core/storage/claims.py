"""From a claim, a volume or a snapshot to the models it reaches, through every object in between.

Clones, restores and aliases are followed up to a bound. An unresolved reference counts as protected, because
its content is unknown. Nothing here decides who is allowed to read the models.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

from webhook.core.kube.fields import MalformedObjectError, object_at, text_at
from webhook.core.kube.selectors import SelectorError, compile_selector
from webhook.core.storage.backends import Backend
from webhook.core.storage.clones import (
    POSSIBLE_CLAIM,
    annotated_sources,
    class_source,
    data_volume_sources,
    longhorn_volumes,
    machine_claims,
)
from webhook.core.storage.identity import STATIC, Origin, origin_of, references
from webhook.core.storage.locations import Location
from webhook.core.storage.refs import (
    UNPROVEN,
    ProtectedRef,
    ProtectedRefs,
    distinct,
    missing,
    rerouted,
    unresolved,
)
from webhook.core.storage.snapshots import CONTENT, SNAPSHOT, group_origins, origins
from webhook.core.storage.sources import backend_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from webhook.core.storage.catalog import Catalog
    from webhook.core.storage.clones import ClaimSource
    from webhook.core.storage.finder import Finder
    from webhook.core.storage.model import VolumeIndex

# An object that a result depends on: "claim", "volume", "snapshot" or "content", its namespace and its name.
ObjectRef: TypeAlias = tuple[str, str, str]
ANY_CONTENT: ObjectRef = ("content", "", "")
_MAX_DEPTH = 32
# Ordinals tried against name patterns; existing claims match with any ordinal.
_MAX_ORDINALS = 64
_ORDINALS = re.compile(r"(?:-\d+){0,2}")


class Resolver:
    """Follows references for one evaluation, each object once. ``backends`` is None while the index is built.

    ``visited`` are the objects that were read: a result stays valid until one of them changes.
    """

    __slots__ = ("_backends", "_catalog", "_finder", "_open", "_seen", "backend_of_volume", "visited")

    def __init__(self, catalog: Catalog, finder: Finder, backends: VolumeIndex | None) -> None:
        self._catalog = catalog
        self._finder = finder
        self._backends = backends
        self._seen: dict[ObjectRef, ProtectedRefs] = {}
        self.visited: set[ObjectRef] = set()
        self.backend_of_volume: dict[str, Backend] = {}
        self._open: set[ObjectRef] = set()

    def claim(self, namespace: str, name: str) -> ProtectedRefs:
        """Return the references of a PersistentVolumeClaim, by name."""
        return self._once(("claim", namespace, name), lambda: self._claim(namespace, name))

    def claim_spec(
        self, namespace: str, spec: Mapping[str, Any], path: str, metadata: Mapping[str, Any] | None = None
    ) -> ProtectedRefs:
        """Return the references of a claim's spec: the volume it names, its sources, the volumes it could bind.

        ``metadata`` is the claim's, if the claim exists.
        """
        refs: list[ProtectedRef] = []
        metadata = metadata or {}
        volume = text_at(spec, "volumeName", path)
        if volume:
            refs.extend(self.volume(volume))
        elif self._backends is not None:
            name = text_at(metadata, "name", "metadata")
            for candidate in self._backends.bindable(namespace, name, spec, metadata, self._finder.lookup):
                detail = f"could bind PersistentVolume {candidate.name}"
                refs.extend(ProtectedRef(model, "persistentVolume", detail) for model in candidate.models)
        for source in ("dataSource", "dataSourceRef"):
            refs.extend(self._source(namespace, object_at(spec, source, path), f"{path}.{source}"))
        refs.extend(self._sources(annotated_sources(namespace, metadata)))
        refs.extend(self._of_class(text_at(spec, "storageClassName", path)))
        return distinct(refs)

    def data_volume(self, namespace: str, spec: Mapping[str, Any]) -> ProtectedRefs:
        """Return the references of the spec of a CDI DataVolume or DataSource."""
        refs = self._sources(data_volume_sources(namespace, spec))
        for field in ("pvc", "storage"):
            claim = object_at(spec, field, "spec")
            if claim:
                refs.extend(self.claim_spec(namespace, claim, f"spec.{field}"))
        return distinct(refs)

    def longhorn(self, document: Mapping[str, Any]) -> ProtectedRefs:
        """Return the references of the volumes that a Backup or Volume of Longhorn copies."""
        places = tuple(Location("longhorn", name.lower()) for name in longhorn_volumes(document))
        refs = self.backend(Backend("csi", places)) if places else ()
        return rerouted(refs, "clone")

    def machine_source(self, namespace: str, source: Mapping[str, Any]) -> ProtectedRefs:
        """Return the references of a snapshot, clone or export of KubeVirt: a machine, a claim, or an earlier copy."""
        kind, name = text_at(source, "kind", "spec.source"), text_at(source, "name", "spec.source")
        detail = f"copied from {kind} {namespace}/{name}"
        if kind == "PersistentVolumeClaim":
            return rerouted(self.claim(namespace, name), "clone", detail)
        group = "kubevirt.io" if kind == "VirtualMachine" else "snapshot.kubevirt.io"
        document = self._finder.get(f"{kind}.{group}", namespace, name)
        if document is None:
            return missing(kind, namespace, name)
        if kind == "VirtualMachine":
            refs = [ref for claim in machine_claims(document) for ref in self.claim(namespace, claim)]
            return rerouted(refs, "clone", detail)
        inner = object_at(object_at(document, "spec", ""), "source", "spec")
        if kind != "VirtualMachineSnapshot" or inner.get("kind") == kind:
            return unresolved(detail)
        return rerouted(self.machine_source(namespace, inner), "clone", detail)

    def claims_named(self, namespace: str, base: str) -> ProtectedRefs:
        """Return the references of the claims that a workload names after itself, existing or matched by a pattern.

        Names are ``base``, optionally followed by ordinals: ``data-train``, ``data-train-0``, ``data-train-0-1``.
        """
        refs: list[ProtectedRef] = []
        for document in self._finder.lookup.each("PersistentVolumeClaim", namespace):
            name = document["metadata"]["name"]
            if name.startswith(base) and _ORDINALS.fullmatch(name, len(base)) is not None:
                refs.extend(self.claim(namespace, name))
        for ordinal in ("", *(f"-{number}" for number in range(_MAX_ORDINALS))):
            name = f"{base}{ordinal}"
            detail = f"PersistentVolumeClaim {namespace}/{name}"
            models = self._catalog.of_claim(namespace, name, None)
            refs.extend(ProtectedRef(model, "persistentVolumeClaim", detail) for model in models)
        return distinct(refs)

    def volume(self, name: str) -> ProtectedRefs:
        """Return the references of a PersistentVolume, by name."""
        return self._once(("volume", "", name), lambda: self._volume(name))

    def volume_spec(self, document: Mapping[str, Any], writer: str | None = None) -> ProtectedRefs:
        """Return the references of a PersistentVolume's document; ``writer`` is the user who creates it now."""
        metadata, spec = object_at(document, "metadata", ""), object_at(document, "spec", "")
        name = text_at(metadata, "name", "metadata")
        refs = [
            ProtectedRef(model, "persistentVolume", f"PersistentVolume {name}")
            for model in self._catalog.of_volume(name, object_at(metadata, "labels", "metadata"))
        ]
        backend = self._backends.backend_of(name, document) if self._backends is not None else None
        backend = backend or backend_of(spec, "spec")
        if backend is not None:
            self.backend_of_volume[name] = backend
            origin = origin_of(document, backend.driver, self._finder.lookup, writer)
            refs.extend(self.backend(backend, origin))
        return distinct(refs)

    def backend(self, backend: Backend, origin: Origin = STATIC) -> ProtectedRefs:
        """Return the references of a volume on this storage."""
        return distinct([*references(backend, self._catalog, self._backends, origin)])

    def node_paths(self, namespace: str, claim: str) -> Iterator[str]:
        """Yield the node paths of a claim's volume, if it is a hostPath or local volume."""
        document = self._finder.get("PersistentVolumeClaim", namespace, claim)
        name = text_at(object_at(document or {}, "spec", ""), "volumeName", "spec")
        if name:
            # A volume is resolved once, and its backend with it.
            self.volume(name)
            backend = self.backend_of_volume.get(name)
            yield from backend.node_paths if backend is not None else ()

    def group_snapshot(self, namespace: str, document: Mapping[str, Any]) -> ProtectedRefs:
        """Return the references of a VolumeGroupSnapshot's document: every claim that its selector matches."""
        source = object_at(object_at(document, "spec", ""), "source", "spec")
        selector = object_at(source, "selector", "spec.source")
        if not selector:
            return unresolved("a VolumeGroupSnapshot without a selector")
        try:
            compiled = compile_selector(selector)
        except SelectorError as error:
            raise MalformedObjectError("spec.source.selector", str(error)) from error
        refs: list[ProtectedRef] = []
        for claim in self._finder.lookup.each("PersistentVolumeClaim", namespace):
            if compiled.matches(object_at(claim["metadata"], "labels", "metadata")):
                refs.extend(self.claim(namespace, claim["metadata"]["name"]))
        return rerouted(refs, "snapshot")

    def group_content(self, document: Mapping[str, Any]) -> ProtectedRefs:
        """Return the references of a VolumeGroupSnapshotContent's document."""
        driver, volumes = group_origins(document)
        if not volumes:
            return unresolved("group snapshot of unknown origin")
        refs = [ref for volume in volumes for ref in self._handle(driver, volume)]
        return rerouted(refs, "snapshot")

    def snapshot(self, namespace: str, name: str) -> ProtectedRefs:
        """Return the references of a VolumeSnapshot, by name."""
        return self._once(("snapshot", namespace, name), lambda: self._snapshot(namespace, name))

    def snapshot_document(self, namespace: str, document: Mapping[str, Any]) -> ProtectedRefs:
        """Return the references of a VolumeSnapshot's document."""
        source = object_at(object_at(document, "spec", ""), "source", "spec")
        claim = text_at(source, "persistentVolumeClaimName", "spec.source")
        refs = list(self.claim(namespace, claim)) if claim else []
        status = object_at(document, "status", "")
        contents = {
            text_at(source, "volumeSnapshotContentName", "spec.source"),
            text_at(status, "boundVolumeSnapshotContentName", "status"),
        }
        for content in sorted(contents - {""}):
            refs.extend(self.content(content))
        if not claim and contents == {""}:
            refs.extend(unresolved("a VolumeSnapshot without a source"))
        return rerouted(refs, "snapshot")

    def content(self, name: str) -> ProtectedRefs:
        """Return the references of a VolumeSnapshotContent, by name."""
        return self._once(("content", "", name), lambda: self._content(name))

    def content_document(self, document: Mapping[str, Any]) -> ProtectedRefs:
        """Return the references of a VolumeSnapshotContent's document."""
        spec = object_at(document, "spec", "")
        source, driver = object_at(spec, "source", "spec"), text_at(spec, "driver", "spec")
        handle = text_at(source, "volumeHandle", "spec.source")
        if handle:
            refs = self._handle(driver, handle)
        else:
            refs = self._snapshot_handle(driver, text_at(source, "snapshotHandle", "spec.source"))
        return rerouted(refs, "snapshot")

    def _claim(self, namespace: str, name: str) -> ProtectedRefs:
        document = self._finder.get("PersistentVolumeClaim", namespace, name)
        labels = object_at(object_at(document, "metadata", ""), "labels", "metadata") if document else None
        refs = [
            ProtectedRef(model, "persistentVolumeClaim", f"PersistentVolumeClaim {namespace}/{name}")
            for model in self._catalog.of_claim(namespace, name, labels)
        ]
        if document is None:
            return distinct(refs) or missing("PersistentVolumeClaim", namespace, name)
        metadata = object_at(document, "metadata", "")
        refs.extend(self.claim_spec(namespace, object_at(document, "spec", ""), "spec", metadata))
        return distinct(refs)

    def _volume(self, name: str) -> ProtectedRefs:
        document = self._finder.get("PersistentVolume", "", name)
        if document is not None:
            return self.volume_spec(document)
        refs = [ProtectedRef(model, "persistentVolume") for model in self._catalog.of_volume(name, {})]
        return distinct(refs) or missing("PersistentVolume", "", name)

    def _source(self, namespace: str, source: Mapping[str, Any], path: str) -> ProtectedRefs:
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
        if f"{kind}.{group}" in self._catalog.harmless_populators:
            return ()
        return unresolved(f"filled from {kind} {place}/{name}")

    def _sources(self, sources: Iterable[ClaimSource]) -> list[ProtectedRef]:
        """Return the references of sources outside a claim's dataSource."""
        refs: list[ProtectedRef] = []
        for kind, namespace, name, detail in sources:
            if kind == "PersistentVolumeClaim":
                refs.extend(rerouted(self.claim(namespace, name), "clone", detail))
            elif kind == POSSIBLE_CLAIM:
                if self._finder.get("PersistentVolumeClaim", namespace, name) is not None:
                    refs.extend(rerouted(self.claim(namespace, name), "clone", detail))
            elif kind == "VolumeSnapshot":
                refs.extend(rerouted(self.snapshot(namespace, name), "snapshot", detail))
            elif kind == "DataSource":
                document = self._finder.get("DataSource.cdi.kubevirt.io", namespace, name)
                spec = object_at(document or {}, "spec", "")
                nested = spec and "sourceRef" not in spec
                refs.extend(self.data_volume(namespace, spec) if nested else unresolved(detail))
            else:
                refs.extend(unresolved(detail))
        return refs

    def _of_class(self, name: str) -> ProtectedRefs:
        """Return a doubt if a class fills its volumes from a copy, and the driver holds protected storage."""
        volumes = self._backends
        if (
            not name
            or volumes is None
            or not (
                volumes.holds("driver.longhorn.io", ("longhorn",))
                or self._catalog.holds("driver.longhorn.io", ("longhorn",))
            )
        ):
            return ()
        parameter = class_source(name, self._finder.lookup)
        return unresolved(f"filled by parameter {parameter} of StorageClass {name}") if parameter else ()

    def _snapshot(self, namespace: str, name: str) -> ProtectedRefs:
        document = self._finder.get(SNAPSHOT, namespace, name)
        if document is None:
            return missing("VolumeSnapshot", namespace, name)
        return self.snapshot_document(namespace, document)

    def _content(self, name: str) -> ProtectedRefs:
        document = self._finder.get(CONTENT, "", name)
        if document is None:
            return missing("VolumeSnapshotContent", "", name)
        return self.content_document(document)

    def _handle(self, driver: str, handle: str) -> ProtectedRefs:
        """Return the references of a volume that only its driver and handle identify."""
        backend = backend_of({"csi": {"driver": driver, "volumeHandle": handle}}, "spec.source")
        refs = self.backend(backend) if backend is not None else ()
        if any(ref.via == UNPROVEN for ref in refs):
            # Attributes may say more than the handle.
            for volume in self._finder.lookup.each("PersistentVolume"):
                csi = object_at(object_at(volume, "spec", ""), "csi", "spec")
                if csi.get("driver") == driver and csi.get("volumeHandle") == handle:
                    return self.volume(volume["metadata"]["name"])
        return refs

    def _snapshot_handle(self, driver: str, handle: str) -> ProtectedRefs:
        """Return the references of a snapshot that only its driver knows: other contents may record its source."""
        self.visited.add(ANY_CONTENT)
        volumes = list(origins(self._finder.lookup, driver, handle))
        if not volumes:
            return unresolved(f"snapshot {handle[:64]!r} of unknown origin")
        return distinct([ref for volume in volumes for ref in self._handle(driver, volume)])

    def _once(self, key: ObjectRef, resolve: Callable[[], ProtectedRefs]) -> ProtectedRefs:
        """Resolve an object once. A cycle, or a chain beyond the bound, is unresolved."""
        result = self._seen.get(key)
        if result is not None:
            return result
        if key in self._open or len(self._open) >= _MAX_DEPTH:
            return unresolved(f"{key[0]} {key[2]} refers to itself or to more than {_MAX_DEPTH} objects")
        self._open.add(key)
        self.visited.add(key)
        try:
            result = self._seen[key] = resolve()
        finally:
            self._open.discard(key)
        return result
