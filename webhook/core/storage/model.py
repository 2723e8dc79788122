"""A protected asset as resolution passes it along, and the placeholder for an unknown one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup, ObjectKey
    from webhook.core.storage.backends import Backend
    from webhook.core.storage.locations import Location, Relation


@dataclass(frozen=True, slots=True, order=True)
class Model:
    """A protected asset, as facts name it."""

    name: str
    sensitivity: str
    exclusive_devices: bool = False


UNKNOWN = Model("?", "?")


class ProtectedVolume(Protocol):
    """A PersistentVolume that holds a model, as resolution reads it."""

    @property
    def name(self) -> str:
        """The name of the PersistentVolume."""

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that the volume holds."""

    @property
    def document(self) -> Document:
        """The PersistentVolume."""


class Match(NamedTuple):
    """A protected volume that is or may be the same storage; ``location`` is the volume's, if locations matched."""

    volume: ProtectedVolume
    location: Location | None
    relation: Relation


class VolumeIndex(Protocol):
    """The PersistentVolumes that hold models; `webhook.core.storage.protected` implements it."""

    def find(self, backend: Backend) -> Iterator[Match]:
        """Yield the protected volumes that are or may be on the same storage; one may come twice."""

    def backend_of(self, name: str, document: Mapping[str, Any]) -> Backend | None:
        """Return the backend of a stored volume; None for another document of this name, and where it has none."""

    def at(self, location: Location) -> Iterator[Match]:
        """Yield the protected volumes that are or may be at a location."""

    def holds(self, driver: str, spaces: Iterable[str]) -> bool:
        """Whether a protected volume is of this driver or in one of these spaces."""

    @property
    def holds_csi(self) -> bool:
        """Whether a protected volume is a CSI volume."""

    def bindable(
        self, namespace: str, name: str, claim: Mapping[str, Any], metadata: Mapping[str, Any], lookup: Lookup
    ) -> Iterator[ProtectedVolume]:
        """Yield the protected volumes that an unbound claim could be bound to."""

    def changed(self, key: ObjectKey) -> None:
        """Update the index after the store's object under this key was added, deleted or changed."""

    def model_changed(self, name: str, catalog: Any) -> None:
        """Update the index after a model was added, removed or changed; ``catalog`` has its new form only."""
