"""Hold the facts about one pod or pod template, as policies see them. Plain values: comparable, hashable, ordered."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

# So many access checks are asked for at once. Further names cost further rounds.
_MAX_NAMES = 64


@dataclass(frozen=True, slots=True, order=True)
class WeightUse:
    """One protected asset that the pod can read, and the route to it.

    ``model`` and ``sensitivity`` are ``"?"`` if a reference cannot be resolved: unknown means protected. ``volume`` is
    the pod's volume name, or a path in the object. ``via`` is the route, such as ``persistentVolumeClaim``, ``csi``,
    ``nfs``, ``image``, ``clone``, ``snapshot``, ``uri``, ``secret``, ``identity``, ``memoryImage``, ``unresolved`` (the
    reference cannot be resolved) or ``unproven`` (the storage is not provably other storage). ``containers`` are the
    names of those that mount it. ``exclusive_devices``: the model requires that its readers do not share their
    accelerators. ``forbidden``: the ModelWeights allows no memory image. ``missing``: a referenced object does not
    exist yet.
    """

    model: str
    sensitivity: str
    volume: str
    via: str
    read_only: bool = True
    containers: tuple[str, ...] = ()
    detail: str = ""
    exclusive_devices: bool = False
    forbidden: bool = False
    missing: bool = False

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
            "exclusiveDevices": self.exclusive_devices,
            "forbidden": self.forbidden,
        }


@dataclass(frozen=True, slots=True, order=True)
class DeviceUse:
    """One route from the pod to an accelerator. ``via`` is ``resource``, ``claim``, ``env``, ``annotation``, …

    ``shared`` says that other pods may use the same device at the same time. ``exceptions`` are the resource names of
    which RBAC ``use`` allows the route: of accelerators.weightlock.dev for a request (``resource``, ``claim``), of
    escapes.weightlock.dev for any other route.
    """

    vendor: str
    resource: str
    count: int
    via: str
    container: str = ""
    detail: str = ""
    shared: bool = False
    exceptions: tuple[str, ...] = ()

    def as_cel(self) -> dict[str, Any]:
        """The value a policy sees as an item of ``devices``."""
        return {
            "vendor": self.vendor,
            "resource": self.resource,
            "count": self.count,
            "via": self.via,
            "container": self.container,
            "detail": self.detail,
            "shared": self.shared,
            "exceptions": list(self.exceptions or (self.vendor,)),
        }


@dataclass(frozen=True, slots=True, order=True)
class Escape:
    """One sandbox escape that would invalidate the other facts. ``path`` is the field that requests it.

    ``exceptions`` are the resource names of escapes.weightlock.dev of which RBAC ``use`` allows it; empty: its kind.
    """

    kind: str
    path: str
    detail: str = ""
    exceptions: tuple[str, ...] = ()

    def as_cel(self) -> dict[str, Any]:
        """The value a policy sees as an item of ``escapes``."""
        return {
            "kind": self.kind,
            "path": self.path,
            "detail": self.detail,
            "exceptions": list(self.exceptions or (self.kind,)),
        }


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts about one template, each list sorted and without repeats."""

    weights: tuple[WeightUse, ...] = ()
    devices: tuple[DeviceUse, ...] = ()
    escapes: tuple[Escape, ...] = ()

    def exceptions(self) -> dict[str, frozenset[str]]:
        """The names that may allow something here, by virtual resource: what policies ask the authorizer about."""
        names: dict[str, set[str]] = {}
        for device in self.devices:
            resource = "accelerators" if device.via in ("resource", "claim") else "escapes"
            names.setdefault(resource, set()).update(device.exceptions or (device.vendor,))
        for escape in self.escapes:
            names.setdefault("escapes", set()).update(escape.exceptions or (escape.kind,))
        return {resource: frozenset(sorted(items)[:_MAX_NAMES]) for resource, items in names.items()}

    def added_since(self, old: Facts) -> Facts:
        """Return what an update adds to the ``old`` facts.

        A use of weights that more containers mount contains only the new containers. One that became writable is an
        addition, and so is a larger number of devices. Details and wording are not compared.
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


def _added(use: WeightUse, existing: tuple[frozenset[str], bool] | None) -> WeightUse | None:
    """A use of weights without its existing part; None if nothing remains."""
    if existing is None:
        return use
    names, read_only = existing
    new = tuple(name for name in use.containers if name not in names)
    if new:
        return replace(use, containers=new)
    return use if read_only and not use.read_only else None


@dataclass(frozen=True, slots=True, order=True)
class Deferred:
    """One decision that follows at the pod: the reason code of the warning, and its sentence."""

    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class TemplateFacts:
    """What one request states about one pod template.

    ``pod`` is ``{metadata, spec}``, or None if the request concerns no pod. ``path`` is its path in the object.
    ``workload`` is the CEL variable of that name. ``unchanged``: an update adds nothing to the template, and the facts
    are empty. ``deferred`` are the decisions that follow when its pods are created. Unless ``has_account``, the service
    account is one of them.
    """

    path: str
    pod: dict[str, Any] | None
    workload: dict[str, Any] | None
    facts: Facts = field(default_factory=Facts)
    unchanged: bool = False
    deferred: tuple[Deferred, ...] = ()
    has_account: bool = True
