"""How does this pod reach an accelerator? By every route, and not only by asking for one.

What the image itself carries cannot be seen here; injection answers that by hiding devices from containers that ask
for none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from webhook.core.facts.dra import asked, claim_spec, class_vendors, classes_of_resource
from webhook.core.facts.environment import environment_devices, sets_no_device
from webhook.core.facts.model import DeviceUse, Escape
from webhook.core.facts.vendors import RUNTIME_CLASSES, UNKNOWN_VENDOR
from webhook.core.kube.fields import MalformedObjectError, list_at, object_at, text_at
from webhook.core.kube.names import compile_glob, normal_path, path_within
from webhook.core.storage.nodepaths import devices_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.facts.context import Context
    from webhook.core.facts.pod import HostPath, PodView

_PLAIN = frozenset({"cpu", "memory", "ephemeral-storage"})
_SIDES = ("limits", "requests")
_PLAIN_SIDES = frozenset(_SIDES)
_NOTHING: dict[str, Any] = {}
_DEVICE_MOUNTS = normal_path("/var/run/nvidia-container-devices")
# CDI (container-device-interface, pkg/cdi/annotations.go), NVIDIA's runtime, NRI device plugins, CRI-O.
_ANNOTATION_PREFIXES = (
    "cdi.k8s.io/",
    "nvidia.cdi.k8s.io/",
    "cdi-devices.nri.io",
    "cdi-devices.noderesource.dev",
    "devices.nri.io",
    "devices.noderesource.dev",
    "io.kubernetes.cri-o.Devices",
)
_CDI_KIND = re.compile(r"([A-Za-z0-9.-]{1,253})/[A-Za-z0-9_.-]{1,253}=")
_RUNTIME_CLASS = "RuntimeClass.node.k8s.io"
_RUNTIME_CLASSES = tuple((compile_glob(pattern), vendor) for pattern, vendor in RUNTIME_CLASSES)


def gather_devices(
    pod: PodView, context: Context, host_paths: tuple[HostPath, ...]
) -> tuple[tuple[DeviceUse, ...], tuple[Escape, ...]]:
    """Every way to a device, sorted, and the escapes that come with device claims. Raises `MalformedObjectError`."""
    found = set(_resources(pod.spec, pod.root, "", context))
    for path, name, container in pod.containers:
        if not _asks_only_plain(container.get("resources")):
            found.update(_resources(container, path, name, context))
        if "envFrom" in container or not sets_no_device(container.get("env")):
            found.update(environment_devices(container, path, name, context))
    found.update(_device_mounts(pod))
    found.update(_annotations(pod, context))
    found.update(_runtime_class(pod, context))
    for where, path, _, _ in host_paths:
        found.update(DeviceUse(vendor, path, 1, "hostPath", "", where) for vendor in devices_at(path))
    escapes: set[Escape] = set()
    if pod.spec.get("resourceClaims") is not None:
        devices, escapes = _claims(pod, context)
        found.update(devices)
    return tuple(sorted(found)), tuple(sorted(escapes))


def _asks_only_plain(resources: Any) -> bool:
    """Whether nearly every container's case is given: nothing but processor and memory."""
    if not resources:
        return resources is None or resources == {}
    if not isinstance(resources, dict) or not _PLAIN_SIDES.issuperset(resources):
        return False
    limits, requests = resources.get("limits", _NOTHING), resources.get("requests", _NOTHING)
    return (
        isinstance(limits, dict)
        and isinstance(requests, dict)
        and _PLAIN.issuperset(limits)
        and _PLAIN.issuperset(requests)
    )


def _resources(parent: Mapping[str, Any], path: str, container: str, context: Context) -> Iterator[DeviceUse]:
    if not parent.get("resources"):
        return
    for name, count in _asked_for(object_at(parent, "resources", path), path):
        vendor = context.vendors.of_resource(name)
        if vendor is not None:
            yield DeviceUse(vendor, name, count, "resource", container)
        for device_class in classes_of_resource(name, context.finder) if "/" in name else ():
            for owner in class_vendors(device_class, context):
                if owner != vendor:
                    yield DeviceUse(owner, name, count, "resource", container, f"DeviceClass {device_class}")


def _asked_for(resources: Mapping[str, Any], path: str) -> list[tuple[str, int]]:
    """The resources besides the plain ones that limits or requests ask for, and the larger number of the two."""
    counts: dict[str, int] = {}
    for side in _SIDES:
        for name, quantity in object_at(resources, side, f"{path}.resources").items():
            if name not in _PLAIN:
                counts[name] = max(counts.get(name, 0), _count(quantity))
    return [(name, count) for name, count in counts.items() if count]


_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_QUANTITY = re.compile(r"\+?(\d{1,18})(?:\.0*)?(k|M|G|Ki|Mi|Gi|)")


def _count(quantity: Any) -> int:
    """A quantity as a number of devices; what is written as no whole number counts as one, and only zero as none."""
    if isinstance(quantity, int) and not isinstance(quantity, bool):
        return max(quantity, 0)
    match = _QUANTITY.fullmatch(quantity) if isinstance(quantity, str) else None
    return int(match[1]) * _SUFFIXES[match[2]] if match is not None else 1


def _device_mounts(pod: PodView) -> Iterator[DeviceUse]:
    """Mounts that NVIDIA's runtime takes for a list of devices (accept-nvidia-visible-devices-as-volume-mounts)."""
    for mounts in pod.mounts.values():
        for container, _, target in mounts:
            if "nvidia-container-devices" in target and path_within(normal_path(target), _DEVICE_MOUNTS):
                yield DeviceUse("nvidia.com", normal_path(target), 1, "mount", container)


def _claims(pod: PodView, context: Context) -> tuple[set[DeviceUse], set[Escape]]:
    users: dict[str, list[str]] = {}
    for path, name, container in pod.containers:
        for claim in list_at(object_at(container, "resources", path), "claims", f"{path}.resources"):
            users.setdefault(text_at(claim, "name", f"{path}.resources.claims"), []).append(name)
    devices: set[DeviceUse] = set()
    escapes: set[Escape] = set()
    for index, reference in enumerate(list_at(pod.spec, "resourceClaims", pod.root)):
        path = f"{pod.root}.resourceClaims[{index}]"
        name = text_at(reference, "name", path)
        containers = users.get(name) or [""]
        specs = [claim_spec(reference, path, context)]
        made = pod.template.allotted.get(name)
        if made:
            specs.append(claim_spec({"resourceClaimName": made}, path, context))
        for spec in specs:
            for request in asked(spec, "spec", context) if spec is not None else ():
                use = (request.vendor, request.device_class, request.number, "claim")
                devices.update(DeviceUse(*use, container, f"claim {name}") for container in containers)
                if request.admin:
                    escapes.add(Escape("adminAccess", path, request.device_class))
        if None in specs:
            devices.update(
                DeviceUse(UNKNOWN_VENDOR, name, 1, "claim", container, "unresolved")
                for container in containers
            )
    return devices, escapes


def _annotations(pod: PodView, context: Context) -> Iterator[DeviceUse]:
    for key, value in pod.annotations.items():
        if not key.startswith(_ANNOTATION_PREFIXES):
            continue
        if not isinstance(value, str):
            raise MalformedObjectError(f"metadata.annotations[{key}]", "must be a string")
        owners = {context.vendors.of_domain(domain) or domain for domain in _CDI_KIND.findall(value)}
        for vendor in owners or {UNKNOWN_VENDOR}:
            yield DeviceUse(vendor, key, 1, "annotation", "", value[:256])


def _runtime_class(pod: PodView, context: Context) -> Iterator[DeviceUse]:
    name = text_at(pod.spec, "runtimeClassName", pod.root)
    if not name:
        return
    names = {name}
    for runtime in context.finder.lookup.each(_RUNTIME_CLASS):
        if runtime["metadata"]["name"] == name:
            names.add(text_at(runtime, "handler", ""))
    for pattern, vendor in _RUNTIME_CLASSES:
        if any(pattern.fullmatch(item) is not None for item in names):
            yield DeviceUse(vendor, name, 1, "runtimeClass")
