"""Which model does this claim, volume, backend or image hold? Compiled once from the ModelWeights.

`Catalog` answers from patterns alone; `Catalog.with_volumes` adds the backends of the volumes a cluster holds, so that
another volume onto the same storage is known for what it is. Answers cost what matches, not how many models there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.core.backends import NODE, Backend, nfs_space
from webhook.core.csidrivers import folds_case
from webhook.core.model import Model
from webhook.core.patterns import GlobIndex, PathIndex, PatternSet, compile_glob, image_reference, is_glob
from webhook.core.protected import ProtectedBackends
from webhook.core.selectors import Selector, compile_selector

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.api.modelweights import CsiVolumes, ModelWeights, VolumeMatch
    from webhook.core.objects import Lookup, ObjectStore


_MAX_REMEMBERED = 4096
_MAX_REFERENCE = 512


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A claim or volume matcher whose name pattern has matched already."""

    namespaces: PatternSet
    selector: Selector | None
    model: Model

    def matches(self, namespace: str, labels: Mapping[str, Any] | None) -> bool:
        if not self.namespaces.matches(namespace):
            return False
        return self.selector is None or (labels is not None and self.selector.matches(labels))


class _Csi:
    """A csi entry: any handle that matches, or all attributes that match, make a volume these weights."""

    __slots__ = ("attributes", "handles", "model")

    def __init__(self, entry: CsiVolumes, model: Model) -> None:
        def folded(pattern: str) -> str:
            return pattern.lower() if folds_case(entry.driver) else pattern

        self.model = model
        self.handles = PatternSet(map(folded, entry.volume_handles)) if entry.volume_handles else None
        self.attributes = tuple(
            (key.lower(), PatternSet([folded(glob)])) for key, glob in entry.attributes.items()
        )

    def matches(self, handle: str, attributes: Mapping[str, str]) -> bool:
        if self.handles is None and not self.attributes:
            return True
        if self.handles is not None and handle and self.handles.matches(handle):
            return True
        return bool(self.attributes) and all(
            key in attributes and pattern.matches(attributes[key]) for key, pattern in self.attributes
        )


class _Image:
    """An image entry. A tag cannot rule out a digest, nor a digest a tag: only the same kind of name tells apart."""

    __slots__ = ("digest", "model", "tag")

    def __init__(self, tag: str, digest: str, model: Model) -> None:
        self.tag: re.Pattern[str] | None = compile_glob(tag) if tag else None
        self.digest: re.Pattern[str] | None = compile_glob(digest) if digest else None
        self.model = model

    def matches(self, tag: str, digest: str) -> bool:
        if digest:
            return self.digest is None or self.digest.fullmatch(digest) is not None
        return self.digest is not None or self.tag is None or self.tag.fullmatch(tag or "latest") is not None


class Catalog:
    """The models, indexed by every way a volume can be recognised as theirs."""

    __slots__ = (
        "_claims",
        "_csi",
        "_digests",
        "_image_models",
        "_images",
        "_nfs",
        "_node",
        "_volumes",
        "backends",
        "models",
    )

    def __init__(self, models: Iterable[ModelWeights]) -> None:
        self.models: dict[str, Model] = {}
        self.backends: ProtectedBackends | None = None
        self._claims: GlobIndex[_Labelled] = GlobIndex()
        self._volumes: GlobIndex[_Labelled] = GlobIndex()
        self._csi: dict[str, list[_Csi]] = {}
        self._nfs: GlobIndex[PathIndex[Model]] = GlobIndex()
        self._node: PathIndex[Model] = PathIndex()
        self._images: GlobIndex[_Image] = GlobIndex()
        self._digests: dict[str, list[Model]] = {}
        self._image_models: dict[str, tuple[Model, ...]] = {}
        for weights in models:
            model = Model(weights.metadata.name, weights.spec.sensitivity)
            self.models[model.name] = model
            for entry in weights.spec.volumes:
                self._add(entry, model)

    def __bool__(self) -> bool:
        """Whether there is anything to protect."""
        return bool(self.models)

    def with_volumes(self, store: ObjectStore) -> Catalog:
        """This catalog with the backends of the store's volumes; the patterns are shared, not compiled again.

        The provider calls it when it has loaded a store, and `ProtectedBackends.changed` when an object changes.
        """
        copy = object.__new__(Catalog)
        for name in Catalog.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.backends = ProtectedBackends(self, store)
        return copy

    def protected_backends(self, lookup: Lookup) -> ProtectedBackends:
        """The backends kept by `with_volumes`, or worked out for this evaluation where nobody keeps them."""
        return self.backends if self.backends is not None else ProtectedBackends(self, lookup.store)

    def of_claim(self, namespace: str, name: str, labels: Mapping[str, Any] | None) -> Iterator[Model]:
        """The models a PersistentVolumeClaim is declared to hold; ``labels`` is None where they are not known."""
        return (entry.model for entry in self._claims.find(name) if entry.matches(namespace, labels))

    def of_volume(self, name: str, labels: Mapping[str, Any]) -> Iterator[Model]:
        """The models a PersistentVolume is declared to hold."""
        return (entry.model for entry in self._volumes.find(name) if entry.matches("", labels))

    def of_backend(self, backend: Backend) -> Iterator[Model]:
        """The models whose csi, nfs and hostPath entries describe a backend."""
        for entry in self._csi.get(backend.driver, ()):
            if entry.matches(backend.handle, backend.attributes):
                yield entry.model
        for space, path in backend.paths:
            if space == NODE:
                yield from self._node.find(path)
            elif space.startswith("nfs:"):
                for paths in self._nfs.find(space):
                    yield from paths.find(path)

    def of_image(self, reference: str) -> tuple[Model, ...]:
        """The models an image reference holds. Answers are remembered, up to a bound: requesters choose references."""
        known = self._image_models.get(reference)
        if known is not None:
            return known
        image = image_reference(reference)
        found = {
            entry.model
            for entry in self._images.find(image.repository)
            if entry.matches(image.tag, image.digest)
        }
        found.update(self._digests.get(image.digest, ()))
        answer = tuple(sorted(found))
        if len(self._image_models) < _MAX_REMEMBERED and len(reference) <= _MAX_REFERENCE:
            self._image_models[reference] = answer
        return answer

    def _add(self, entry: VolumeMatch, model: Model) -> None:
        if (claim := entry.persistent_volume_claim) is not None:
            selector = compile_selector(claim.selector) if claim.selector is not None else None
            for name in claim.names or ["*"]:
                self._claims.add(name, _Labelled(PatternSet(claim.namespaces), selector, model))
        if (volume := entry.persistent_volume) is not None:
            selector = compile_selector(volume.selector) if volume.selector is not None else None
            for name in volume.names or ["*"]:
                self._volumes.add(name, _Labelled(PatternSet(()), selector, model))
        if entry.csi is not None:
            self._csi.setdefault(entry.csi.driver, []).append(_Csi(entry.csi, model))
        if entry.nfs is not None:
            paths: PathIndex[Model] = PathIndex()
            paths.add(entry.nfs.path, model)
            self._nfs.add(nfs_space(entry.nfs.server), paths)
        if entry.host_path is not None:
            self._node.add(entry.host_path.path, model)
        if entry.image is not None:
            image = image_reference(entry.image.reference)
            self._images.add(image.repository, _Image(image.tag, image.digest, model))
            if image.digest and not is_glob(image.digest):
                self._digests.setdefault(image.digest, []).append(model)
