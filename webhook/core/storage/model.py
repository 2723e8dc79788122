"""A protected asset as resolution passes it along, and the placeholder for an unknown one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup, ObjectKey
    from webhook.core.storage.backends import Backend


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


class VolumeIndex(Protocol):
    """The PersistentVolumes that hold models; `webhook.core.storage.protected` implements it."""

    def find(self, backend: Backend) -> Iterator[ProtectedVolume]:
        """Yield the protected volumes on the same storage; one may come twice."""

    def bindable(
        self, namespace: str, name: str, claim: Mapping[str, Any], metadata: Mapping[str, Any], lookup: Lookup
    ) -> Iterator[ProtectedVolume]:
        """Yield the protected volumes that an unbound claim could be bound to."""

    def changed(self, key: ObjectKey) -> None:
        """Update the index after the store's object under this key was added, deleted or changed."""
