"""The facts about one pod or pod template, as policies see them. Plain values: comparable, hashable, ordered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class WeightUse:
    """One protected asset that the pod can read, and the route to it.

    ``model`` and ``sensitivity`` are ``"?"`` if a reference cannot be resolved: unknown means protected. ``volume`` is
    the pod's volume name, or a path in the object. ``via`` is the route, such as ``persistentVolumeClaim``, ``csi``,
    ``nfs``, ``image``, ``clone``, ``snapshot``, ``uri``, ``secret``, ``identity``, ``memoryImage``, ``unresolved`` (the
    reference cannot be resolved) or ``unproven`` (the storage is not provably other storage). ``containers`` are the
    names of those that mount it. ``forbidden`` means that the ModelWeights allows no memory image.
    """

    model: str
    sensitivity: str
    volume: str
    via: str
    read_only: bool = True
    containers: tuple[str, ...] = ()
    detail: str = ""
    forbidden: bool = False

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
            "forbidden": self.forbidden,
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
        """What these facts hold that ``old`` did not: what an update adds.

        A use of weights that more containers mount holds the new containers only; one that became writable is an
        addition, and so is a device of which there are more. Details and wording do not make an addition.
        """
        weights: dict[tuple[str, str, str], tuple[frozenset[str], bool]] = {}
        for use in old.weights:
            key = (use.model, use.volume, use.via)
            names, read_only = weights.get(key, (frozenset[str](), True))
            weights[key] = (names | frozenset(use.containers), read_only and use.read_only)
        devices: dict[tuple[str, ...], int] = {}
        for device in old.devices:
            place = (device.vendor, device.resource, device.via, device.container)
            devices[place] = max(device.count, devices.get(place, 0))
        return Facts(
            weights=tuple(
                added
                for use in self.weights
                if (added := _added(use, weights.get((use.model, use.volume, use.via)))) is not None
            ),
            devices=tuple(
                device
                for device in self.devices
                if device.count
                > devices.get((device.vendor, device.resource, device.via, device.container), 0)
            ),
            escapes=tuple(escape for escape in self.escapes if escape not in old.escapes),
        )


def _added(use: WeightUse, known: tuple[frozenset[str], bool] | None) -> WeightUse | None:
    """A use of weights without what was there before; None where nothing remains."""
    if known is None:
        return use
    names, read_only = known
    new = tuple(name for name in use.containers if name not in names)
    if new:
        return replace(use, containers=new)
    return use if read_only and not use.read_only else None


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """What is judged in one request about one pod template.

    ``pod`` is ``{metadata, spec}``, or None where the request concerns none; ``path`` is where it stands in the
    object. ``workload`` is what policies see under that name. ``unchanged`` says that an update left the template as
    it was, and then the facts are empty.
    """

    path: str
    pod: dict[str, Any] | None
    workload: dict[str, Any] | None
    facts: Facts = field(default_factory=Facts)
    unchanged: bool = False
