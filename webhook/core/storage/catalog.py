"""Which model does this claim, volume, backend, image or credential hold? Compiled once from the ModelWeights.

`Catalog` knows the declared patterns; `protected.with_volumes` adds the backends of the cluster's volumes, so that
another volume on the same storage is recognised. A lookup costs what matches, not the number of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.api.config import StorageSettings
from webhook.core.kube.names import GlobIndex, PatternSet, compile_glob, image_reference, is_glob, normal_path
from webhook.core.kube.selectors import Selector, compile_selector
from webhook.core.storage.drivers import driver_of, nfs
from webhook.core.storage.locations import NODE, Location, PatternIndex, Relation, is_evidence
from webhook.core.storage.model import Model, VolumeIndex
from webhook.core.storage.sources import csi_locations
from webhook.core.storage.uris import parse_uri

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.api.modelweights import CsiVolumes, ModelWeights, ObjectNames, ObjectStore, VolumeMatch
    from webhook.core.storage.backends import Backend


_MAX_REMEMBERED = 4096
_MAX_REFERENCE = 512
_MAX_DEAD = 1000


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A claim or volume matcher whose name pattern has matched already."""

    namespaces: PatternSet
    selector: Selector | None
    model: Model

    def matches(self, namespace: str | None, labels: Mapping[str, Any] | None) -> bool:
        if namespace is not None and not self.namespaces.matches(namespace):
            return False
        return self.selector is None or (labels is not None and self.selector.matches(labels))


class _Driver:
    """The csi entries of one driver, compared with handles and attributes as they are written."""

    __slots__ = ("attributes", "every", "folds", "handles", "patterns")

    def __init__(self, driver: str) -> None:
        driver_entry = driver_of(driver)
        self.folds = driver_entry is not None and driver_entry.folds_case
        self.every: list[Model] = []
        self.handles: GlobIndex[Model] = GlobIndex()
        self.patterns: list[str] = []
        self.attributes: dict[str, GlobIndex[tuple[tuple[tuple[str, PatternSet], ...], Model]]] = {}

    def add(self, entry: CsiVolumes, model: Model) -> None:
        """Put an entry under each of its handles, and under its first attribute with the others."""
        if not entry.volume_handles and not entry.attributes:
            self.every.append(model)
        for handle in entry.volume_handles:
            self.handles.add(self._folded(handle), model)
            self.patterns.append(self._folded(handle))
        pairs = [(key.lower(), self._folded(glob)) for key, glob in entry.attributes.items()]
        if pairs:
            (key, glob), rest = pairs[0], tuple((name, PatternSet([item])) for name, item in pairs[1:])
            self.attributes.setdefault(key, GlobIndex()).add(glob, (rest, model))

    def find(self, backend: Backend) -> Iterator[Model]:
        """Yield the models whose entries describe a backend of this driver."""
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
    """The models, indexed by every rule that recognises a volume, an image or a credential as theirs."""

    __slots__ = (
        "_accounts",
        "_claim_namespaces",
        "_claims",
        "_csi",
        "_dead",
        "_digests",
        "_held",
        "_image_models",
        "_images",
        "_locations",
        "_secrets",
        "_volumes",
        "account_names",
        "backends",
        "harmless_drivers",
        "harmless_populators",
        "has_accounts",
        "has_secrets",
        "has_uris",
        "models",
        "no_memory_images",
        "secret_names",
    )

    def __init__(self, models: Iterable[ModelWeights], settings: StorageSettings | None = None) -> None:
        settings = settings or StorageSettings()
        self.models: dict[str, Model] = {}
        self.backends: VolumeIndex | None = None
        self.harmless_drivers = frozenset(settings.harmless_drivers)
        self.harmless_populators = frozenset(settings.harmless_populators)
        self.has_uris = self.has_secrets = self.has_accounts = False
        # The drivers and spaces that models name, and entries of earlier forms of a model, which no lookup returns.
        self._held: dict[str, set[str]] = {}
        self._dead = 0
        self.no_memory_images: set[str] = set()
        self.account_names: set[tuple[str, str]] = set()
        self.secret_names: set[tuple[str, str]] = set()
        self._claims: GlobIndex[_Labelled] = GlobIndex()
        self._claim_namespaces: list[PatternSet] = []
        self._volumes: GlobIndex[_Labelled] = GlobIndex()
        self._secrets: GlobIndex[_Labelled] = GlobIndex()
        self._accounts: GlobIndex[_Labelled] = GlobIndex()
        self._csi: dict[str, _Driver] = {}
        self._locations: PatternIndex[Model] = PatternIndex()
        self._images: GlobIndex[_Image] = GlobIndex()
        self._digests: dict[str, list[Model]] = {}
        self._image_models: dict[str, tuple[Model, ...]] = {}
        for weights in models:
            self.add(weights)

    def add(self, weights: ModelWeights) -> None:
        """Compile one ModelWeights, also if it replaces an earlier form."""
        self.discard(weights.metadata.name)
        model = Model(weights.metadata.name, weights.spec.sensitivity, weights.spec.exclusive_devices)
        self.models[model.name] = model
        if weights.spec.access.memory_images == "forbidden":
            self.no_memory_images.add(model.name)
        for entry in weights.spec.volumes:
            self._add(entry, model)

    def discard(self, name: str) -> None:
        """Remove a model. Its entries stay behind, and lookups leave them out."""
        if self.models.pop(name, None) is None:
            return
        self._dead += 1
        self.no_memory_images.discard(name)
        self._image_models.clear()
        for names in self._held.values():
            names.discard(name)

    @property
    def is_worn(self) -> bool:
        """Whether entries of earlier forms outnumber the models, so that the catalog should be compiled again."""
        return self._dead > len(self.models) + _MAX_DEAD

    @property
    def has_csi(self) -> bool:
        """Whether a model names CSI storage."""
        return bool(self._held.get("csi"))

    @property
    def has_images(self) -> bool:
        """Whether a model names an image."""
        return bool(self._held.get("image"))

    def _is_current(self, model: Model) -> bool:
        return self.models.get(model.name) is model

    def _hold(self, key: str, model: Model) -> None:
        self._held.setdefault(key, set()).add(model.name)

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
        """Yield the models that a PersistentVolumeClaim is declared to hold; ``labels`` is None if unknown."""
        return self._matching(self._claims, namespace, name, labels)

    def of_volume(self, name: str, labels: Mapping[str, Any]) -> Iterator[Model]:
        """Yield the models that a PersistentVolume is declared to hold."""
        return self._matching(self._volumes, "", name, labels)

    def of_secret(self, namespace: str | None, name: str) -> Iterator[Model]:
        """Yield the models whose object store a Secret opens; without a namespace, a Secret of any namespace."""
        return self._matching(self._secrets, namespace, name, None)

    def of_account(self, namespace: str | None, name: str) -> Iterator[Model]:
        """Yield the models whose object store a service account can read."""
        return self._matching(self._accounts, namespace, name, None)

    def _matching(
        self, index: GlobIndex[_Labelled], namespace: str | None, name: str, labels: Mapping[str, Any] | None
    ) -> Iterator[Model]:
        return (
            entry.model
            for entry in index.find(name)
            if self._is_current(entry.model) and entry.matches(namespace, labels)
        )

    def of_backend(self, backend: Backend) -> Iterator[tuple[Model, Location | None, Relation]]:
        """Yield the models whose entries describe or may describe a backend, with the declared location."""
        driver = self._csi.get(backend.driver)
        if driver is not None:
            for model in driver.find(backend):
                if self._is_current(model):
                    yield model, None, Relation.SAME
        for location in backend.locations:
            for entry, model, relation in self.of_location(location):
                yield model, entry, relation

    def of_location(self, location: Location) -> Iterator[tuple[Location, Model, Relation]]:
        """Yield the models whose entries describe or may describe a location."""
        return (match for match in self._locations.find(location) if self._is_current(match[1]))

    def holds(self, driver: str, spaces: Iterable[str]) -> bool:
        """Whether an entry names storage of this driver or in one of these spaces."""
        return bool(self._held) and (
            bool(self._held.get(f"csi:{driver}")) or any(map(self._held.get, spaces))
        )

    @property
    def names_volumes(self) -> bool:
        """Whether an entry matches PersistentVolumes by name or label."""
        return bool(self._held.get("persistentVolume"))

    @property
    def names_claims(self) -> bool:
        """Whether an entry matches claims."""
        return bool(self._held.get("persistentVolumeClaim"))

    def may_name_claims(self, namespace: str) -> bool:
        """Whether an entry can match claims of a namespace."""
        return any(patterns.matches(namespace) for patterns in self._claim_namespaces)

    def of_volume_name(self, name: str) -> Iterator[Model]:
        """Yield the models that match a PersistentVolume's name, whatever its labels."""
        return (entry.model for entry in self._volumes.find(name))

    def of_claim_name(self, namespace: str, name: str) -> Iterator[Model]:
        """Yield the models that match a claim's namespace and name, whatever its labels."""
        return (entry.model for entry in self._claims.find(name) if entry.namespaces.matches(namespace))

    def handles(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each driver with the handle patterns of its entries."""
        return ((name, driver.patterns) for name, driver in self._csi.items())

    def unbounded_drivers(self) -> Iterator[str]:
        """Yield the drivers with an entry that handles do not narrow down."""
        return (name for name, driver in self._csi.items() if driver.every or driver.attributes)

    def spaces(self) -> Iterator[str]:
        """Yield the spaces in which entries name locations."""
        return iter(self._locations.spaces)

    def of_image(self, reference: str) -> tuple[Model, ...]:
        """Return the models that an image reference holds. The cache has a bound: users choose references."""
        cached = self._image_models.get(reference)
        if cached is not None:
            return cached
        image = image_reference(reference)
        matches = {
            entry.model
            for entry in self._images.find(image.repository)
            if self._is_current(entry.model) and entry.matches(image.tag, image.digest)
        }
        matches.update(filter(self._is_current, self._digests.get(image.digest, ())))
        result = tuple(sorted(matches))
        if len(self._image_models) < _MAX_REMEMBERED and len(reference) <= _MAX_REFERENCE:
            self._image_models[reference] = result
        return result

    def _add(self, entry: VolumeMatch, model: Model) -> None:
        if (claim := entry.persistent_volume_claim) is not None:
            self._hold("persistentVolumeClaim", model)
            self._claim_namespaces.append(PatternSet(claim.namespaces))
            selector = compile_selector(claim.selector) if claim.selector is not None else None
            for name in claim.names or ["*"]:
                self._claims.add(name, _Labelled(PatternSet(claim.namespaces), selector, model))
        if (volume := entry.persistent_volume) is not None:
            self._hold("persistentVolume", model)
            selector = compile_selector(volume.selector) if volume.selector is not None else None
            for name in volume.names or ["*"]:
                self._volumes.add(name, _Labelled(PatternSet(()), selector, model))
        if entry.csi is not None:
            self._add_csi(entry.csi, model)
        if entry.nfs is not None:
            self._add_locations(nfs(entry.nfs.server, entry.nfs.path), model)
        if entry.host_path is not None:
            self._add_locations((Location(NODE, "", normal_path(entry.host_path.path)),), model)
        if entry.image is not None:
            self._add_image(entry.image.reference, model)
        if entry.object_store is not None:
            self._add_store(entry.object_store, model)

    def _add_locations(self, locations: Iterable[Location], model: Model) -> None:
        for location in filter(is_evidence, locations):
            self._locations.add(location, model)
            self._hold(location.space, model)

    def _add_csi(self, entry: CsiVolumes, model: Model) -> None:
        self._hold("csi", model)
        self._hold(f"csi:{entry.driver}", model)
        if not entry.paths:
            self._csi.setdefault(entry.driver, _Driver(entry.driver)).add(entry, model)
        attributes = entry.attributes
        named_volumes: list[tuple[str, Mapping[str, str]]] = [(handle, {}) for handle in entry.volume_handles]
        named_volumes += [("", attributes)] if attributes else []
        for handle, values in named_volumes:
            for location in csi_locations(entry.driver, handle, values):
                places = (normal_path(f"{location.path}/{path}") for path in entry.paths or ("",))
                self._add_locations((location._replace(path=path) for path in places), model)
            if handle:
                space = f"csi:{entry.driver}"
                places = (normal_path(path) for path in entry.paths)
                self._add_locations((Location(space, handle, path) for path in places), model)

    def _add_image(self, reference: str, model: Model) -> None:
        self._hold("image", model)
        image = image_reference(reference)
        self._images.add(image.repository, _Image(image.tag, image.digest, model))
        if image.digest and not is_glob(image.digest):
            self._digests.setdefault(image.digest, []).append(model)

    def _add_store(self, store: ObjectStore, model: Model) -> None:
        for uri in store.uris:
            self.has_uris = True
            target = parse_uri(uri)
            if target.image:
                self._add_image(target.image, model)
            self._add_locations(target.locations, model)
        for secret in store.secrets:
            self.has_secrets = True
            self.secret_names.update(_literal_names(secret))
            for name in secret.names or ["*"]:
                self._secrets.add(name, _Labelled(PatternSet(secret.namespaces), None, model))
        for account in store.service_accounts:
            self.has_accounts = True
            self.account_names.update(_literal_names(account))
            for name in account.names or ["*"]:
                self._accounts.add(name, _Labelled(PatternSet(account.namespaces), None, model))


def _literal_names(entry: ObjectNames) -> Iterator[tuple[str, str]]:
    """Yield the pairs of a namespace and a name without wildcards."""
    for namespace in entry.namespaces:
        for name in entry.names:
            if not is_glob(namespace) and not is_glob(name):
                yield namespace, name
