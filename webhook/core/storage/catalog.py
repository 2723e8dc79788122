"""Which model does this claim, volume, backend or image hold? Compiled once from the ModelWeights.

`Catalog` answers from patterns alone; `protected.with_volumes` adds the backends of the cluster's volumes, so that
another volume onto the same storage is known for what it is. Answers cost what matches, not how many models there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.core.kube.names import GlobIndex, PathIndex, PatternSet, compile_glob, image_reference, is_glob
from webhook.core.kube.selectors import Selector, compile_selector
from webhook.core.storage.backends import NODE, Backend, nfs_space
from webhook.core.storage.csidrivers import folds_case
from webhook.core.storage.model import Model, VolumeIndex

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.api.modelweights import CsiVolumes, ModelWeights, NfsVolumes, VolumeMatch


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


class _Driver:
    """The csi entries of one driver: any handle that matches, or all attributes that match, make a volume weights."""

    __slots__ = ("attributes", "every", "folds", "handles")

    def __init__(self, driver: str) -> None:
        self.folds = folds_case(driver)
        self.every: list[Model] = []
        self.handles: GlobIndex[Model] = GlobIndex()
        self.attributes: dict[str, GlobIndex[tuple[tuple[tuple[str, PatternSet], ...], Model]]] = {}

    def add(self, entry: CsiVolumes, model: Model) -> None:
        """Put an entry under each of its handles, and under its first attribute with the others to be met."""
        if not entry.volume_handles and not entry.attributes:
            self.every.append(model)
        for handle in entry.volume_handles:
            self.handles.add(self._folded(handle), model)
        wanted = [(key.lower(), self._folded(glob)) for key, glob in entry.attributes.items()]
        if wanted:
            (key, glob), rest = wanted[0], tuple((name, PatternSet([item])) for name, item in wanted[1:])
            self.attributes.setdefault(key, GlobIndex()).add(glob, (rest, model))

    def find(self, backend: Backend) -> Iterator[Model]:
        """The models whose entries describe a backend of this driver."""
        yield from self.every
        if backend.handle:
            yield from self.handles.find(backend.handle)
        values = backend.attributes
        for key, index in self.attributes.items():
            for rest, model in index.find(values[key]) if key in values else ():
                if all(name in values and pattern.matches(values[name]) for name, pattern in rest):
                    yield model

    def _folded(self, pattern: str) -> str:
        return pattern.lower() if self.folds else pattern


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
        "_exports",
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
        self.backends: VolumeIndex | None = None
        self._claims: GlobIndex[_Labelled] = GlobIndex()
        self._volumes: GlobIndex[_Labelled] = GlobIndex()
        self._csi: dict[str, _Driver] = {}
        self._nfs: GlobIndex[PathIndex[Model]] = GlobIndex()
        self._exports: dict[str, PathIndex[Model]] = {}
        self._node: PathIndex[Model] = PathIndex()
        self._images: GlobIndex[_Image] = GlobIndex()
        self._digests: dict[str, list[Model]] = {}
        self._image_models: dict[str, tuple[Model, ...]] = {}
        for weights in models:
            spec = weights.spec
            model = Model(weights.metadata.name, spec.sensitivity, spec.exclusive_devices)
            self.models[model.name] = model
            for entry in weights.spec.volumes:
                self._add(entry, model)

    def __bool__(self) -> bool:
        """Whether there is anything to protect."""
        return bool(self.models)

    def with_backends(self, backends: VolumeIndex) -> Catalog:
        """Return this catalog with an index of volumes; the patterns are shared, not compiled again."""
        copy = object.__new__(Catalog)
        for name in Catalog.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.backends = backends
        return copy

    def of_claim(self, namespace: str, name: str, labels: Mapping[str, Any] | None) -> Iterator[Model]:
        """The models a PersistentVolumeClaim is declared to hold; ``labels`` is None where they are not known."""
        return (entry.model for entry in self._claims.find(name) if entry.matches(namespace, labels))

    def of_volume(self, name: str, labels: Mapping[str, Any]) -> Iterator[Model]:
        """The models a PersistentVolume is declared to hold."""
        return (entry.model for entry in self._volumes.find(name) if entry.matches("", labels))

    def of_backend(self, backend: Backend) -> Iterator[Model]:
        """The models whose csi, nfs and hostPath entries describe a backend."""
        driver = self._csi.get(backend.driver)
        if driver is not None:
            yield from driver.find(backend)
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
        matches = {
            entry.model
            for entry in self._images.find(image.repository)
            if entry.matches(image.tag, image.digest)
        }
        matches.update(self._digests.get(image.digest, ()))
        answer = tuple(sorted(matches))
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
            self._csi.setdefault(entry.csi.driver, _Driver(entry.csi.driver)).add(entry.csi, model)
        if entry.nfs is not None:
            self._add_export(entry.nfs, model)
        if entry.host_path is not None:
            self._node.add(entry.host_path.path, model)
        if entry.image is not None:
            image = image_reference(entry.image.reference)
            self._images.add(image.repository, _Image(image.tag, image.digest, model))
            if image.digest and not is_glob(image.digest):
                self._digests.setdefault(image.digest, []).append(model)

    def _add_export(self, entry: NfsVolumes, model: Model) -> None:
        space = nfs_space(entry.server)
        if space not in self._exports:
            self._exports[space] = PathIndex()
            self._nfs.add(space, self._exports[space])
        self._exports[space].add(entry.path, model)
