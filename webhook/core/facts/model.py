"""The facts about one pod or pod template, as policies see them. Plain values: comparable, hashable, ordered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class WeightUse:
    """One protected asset the pod can read, and the way it gets there.

    ``model`` and ``sensitivity`` are ``"?"`` where a reference cannot be resolved: unknown means protected.
    ``volume`` is the pod's volume name (or a JSON-path-like place where there is none), ``via`` the route, such as
    ``persistentVolumeClaim``, ``persistentVolume``, ``csi``, ``nfs``, ``hostPath``, ``image``, ``clone``, ``snapshot``,
    ``unresolved``; ``containers`` are the names of those that mount it.
    """

    model: str
    sensitivity: str
    volume: str
    via: str
    read_only: bool = True
    containers: tuple[str, ...] = ()
    detail: str = ""

    def as_cel(self) -> dict[str, Any]:
        """The value a policy sees as an item of ``weights``."""
        return {
            "model": self.model,
            "sensitivity": self.sensitivity,
            "volume": self.volume,
            "via": self.via,
            "readOnly": self.read_only,
            "containers": list(self.containers),
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True, order=True)
class DeviceUse:
    """One way the pod reaches an accelerator. ``via`` is ``resource``, ``claim``, ``env``, ``annotation``, …"""

    vendor: str
    resource: str
    count: int
    via: str
    container: str = ""
    detail: str = ""

    def as_cel(self) -> dict[str, Any]:
        """The value a policy sees as an item of ``devices``."""
        return {
            "vendor": self.vendor,
            "resource": self.resource,
            "count": self.count,
            "via": self.via,
            "container": self.container,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True, order=True)
class Escape:
    """One way out of the sandbox that would make the other facts worthless. ``path`` is where the pod asks for it."""

    kind: str
    path: str
    detail: str = ""

    def as_cel(self) -> dict[str, Any]:
        """The value a policy sees as an item of ``escapes``."""
        return {"kind": self.kind, "path": self.path, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything gathered about one template, each list sorted and free of repeats."""

    weights: tuple[WeightUse, ...] = ()
    devices: tuple[DeviceUse, ...] = ()
    escapes: tuple[Escape, ...] = ()

    def added_since(self, old: Facts) -> Facts:
        """What these facts hold that ``old`` did not: what an update adds."""
        return Facts(
            weights=tuple(use for use in self.weights if use not in old.weights),
            devices=tuple(use for use in self.devices if use not in old.devices),
            escapes=tuple(escape for escape in self.escapes if escape not in old.escapes),
        )
