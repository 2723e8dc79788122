"""Find every route from a pod to an accelerator: requests, variables, annotations, runtime classes, mounts and paths.

The content of an image is not visible here. Injection therefore hides the devices of all vendors from containers that
request none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from webhook.cel.libraries import quantity as quantities
from webhook.core.facts.annotations import DEVICE_INJECTION
from webhook.core.facts.dra import (
    CLASS_RESOURCE,
    asked,
    claim_source,
    class_devices,
    class_exists,
    classes_of_resource,
    entitlements,
)
from webhook.core.facts.environment import environment_devices, sets_no_device
from webhook.core.facts.model import DeviceUse, Escape
from webhook.core.facts.vendors import RUNTIME_CLASSES, UNKNOWN_VENDOR, is_amount
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
_CDI_KIND = re.compile(r"([A-Za-z0-9.-]{1,253})/[A-Za-z0-9_.-]{1,253}=")
_RUNTIME_CLASS = "RuntimeClass.node.k8s.io"
_RUNTIME_CLASSES = tuple((compile_glob(pattern), vendor) for pattern, vendor in RUNTIME_CLASSES)
# Annotations by which a pod requests a part of a device (KAI-Scheduler, Run:ai).
_FRACTIONS = ("gpu-fraction", "gpu-memory", "gpu-fraction-num-devices")
_FRACTION_DEVICES = "gpu-fraction-num-devices"
_FRACTION_CONTAINER = "gpu-fraction-container-name"
_FRACTION_VENDOR = "nvidia.com"
# The scheduler of Koordinator notes here what it assigned for a request. The node agent sets NVIDIA_VISIBLE_DEVICES by
# the annotation alone (koordinator-sh/koordinator pkg/koordlet/runtimehooks/hooks/gpu/gpu.go).
_ALLOTMENT = "scheduling.koordinator.sh/device-allocated"
# Routes that no request covers, and the names of escapes.weightlock.dev that allow them.
_ANNOTATION = ("deviceAnnotation",)
_MOUNT = ("deviceMount",)
_RUNTIME = ("deviceRuntimeClass",)
_UNRESOLVED = ("unresolvedClaim",)
_MAX_COUNT = 10**9


def gather_devices(
    pod: PodView, context: Context, host_paths: tuple[HostPath, ...], runtime: list[tuple[str, str]]
) -> tuple[tuple[DeviceUse, ...], tuple[Escape, ...]]:
    """Every route to a device, sorted, and the escapes of device claims. Raises `MalformedObjectError`."""
    uses = set(_resources(pod.spec, pod.root, "", context))
    fraction = _fraction_container(pod) if pod.annotations else None
    if fraction is not None:
        uses.add(_fraction(pod, fraction))
    for path, name, container in pod.containers:
        if not _asks_only_plain(container.get("resources")):
            uses.update(_resources(container, path, name, context))
        if "envFrom" in container or not sets_no_device(container.get("env")):
            uses.update(environment_devices(container, path, name, context, fraction=name == fraction))
    uses.update(_device_mounts(pod))
    for kind, key in runtime:
        if kind == DEVICE_INJECTION:
            uses.update(_annotation(key, pod.annotations[key], context))
    if _ALLOTMENT in pod.annotations and not any(use.via == "resource" for use in uses):
        uses.add(DeviceUse(_FRACTION_VENDOR, _ALLOTMENT, 1, "annotation", exceptions=_ANNOTATION))
    uses.update(_runtime_class(pod, context))
    for item in host_paths:
        uses.update(
            DeviceUse(vendor, item.path, 1, "hostPath", "", item.where, exceptions=("hostPath",))
            for vendor in devices_at(item.path)
        )
    escapes: set[Escape] = set()
    if pod.spec.get("resourceClaims") is not None or "" in pod.template.allotted:
        devices, escapes = _claims(pod, context)
        uses.update(devices)
    return tuple(sorted(uses)), tuple(sorted(escapes))


def _asks_only_plain(resources: Any) -> bool:
    """Whether the usual case is given: nothing but processor and memory."""
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
    vendors = context.vendors
    requested = _requested(object_at(parent, "resources", path), path)
    counted = {vendors.of_resource(name) for name, _ in requested if not is_amount(name)}
    for name, quantity in requested:
        classes = classes_of_resource(name, context.finder) if "/" in name else []
        vendor = vendors.of_resource(name)
        if vendor == UNKNOWN_VENDOR and (name.startswith(CLASS_RESOURCE) or classes):
            # The scheduler takes the devices from a class, and classes are written by admins.
            vendor = None
        count, shared = quantity, vendors.is_shared(name)
        if is_amount(name):
            # Memory or cores of a device. The resource that counts devices states how many.
            count, shared = (0 if vendor in counted else 1), True
        if vendor is not None:
            owner = name.partition("/")[0]
            yield DeviceUse(
                vendor, name, count, "resource", container, "", shared, entitlements(vendor, owner)
            )
        for device_class in classes:
            yield from _class_resource(name, quantity, device_class, container, vendor, context)


def _class_resource(
    name: str, count: int, device_class: str, container: str, vendor_before: str | None, context: Context
) -> Iterator[DeviceUse]:
    """The devices of a DeviceClass that an extended resource stands for."""
    if not class_exists(device_class, context):
        detail = f"DeviceClass {device_class} does not exist"
        yield DeviceUse(UNKNOWN_VENDOR, name, count, "unresolved", container, detail, exceptions=_UNRESOLVED)
        return
    for devices in class_devices(device_class, context):
        if devices.vendor != vendor_before or devices.vendor == UNKNOWN_VENDOR:
            yield DeviceUse(
                devices.vendor,
                name,
                count,
                "resource",
                container,
                f"DeviceClass {device_class}",
                devices.shared,
                entitlements(devices.vendor, devices.driver),
            )


def _requested(resources: Mapping[str, Any], path: str) -> list[tuple[str, int]]:
    """The resources that limits or requests state beyond the plain ones, with the larger number of the two."""
    counts: dict[str, int] = {}
    for side in _SIDES:
        for name, quantity in object_at(resources, side, f"{path}.resources").items():
            if name not in _PLAIN:
                counts[name] = max(counts.get(name, 0), _count(quantity))
    return [(name, count) for name, count in counts.items() if count]


def _count(quantity: Any) -> int:
    """A quantity as a number of devices: fractions and quantities that cannot be read count as one, zero as none."""
    if isinstance(quantity, int) and not isinstance(quantity, bool):
        return min(max(quantity, 0), _MAX_COUNT)
    try:
        value = quantities.parse(quantity) if isinstance(quantity, str) else None
    except ValueError:
        return 1
    if value is None or value.unscaled == 0:
        return int(value is None)
    if value.unscaled < 0 or not -18 <= value.exponent <= 18:
        return 1 if value.exponent < 0 else _MAX_COUNT
    number = value.integer()
    if number is None:
        number, rest = divmod(value.unscaled, 10**-value.exponent) if value.exponent < 0 else (_MAX_COUNT, 0)
        number = 1 if rest else number
    return min(number, _MAX_COUNT)


def _device_mounts(pod: PodView) -> Iterator[DeviceUse]:
    """Mounts that NVIDIA's runtime takes for a list of devices (accept-nvidia-visible-devices-as-volume-mounts)."""
    for mounts in pod.mounts.values():
        for container, _, target in mounts:
            if "nvidia-container-devices" in target and path_within(normal_path(target), _DEVICE_MOUNTS):
                yield DeviceUse("nvidia.com", normal_path(target), 1, "mount", container, exceptions=_MOUNT)


def _claims(pod: PodView, context: Context) -> tuple[set[DeviceUse], set[Escape]]:
    users: dict[str, list[str]] = {}
    for path, name, container in pod.containers:
        for claim in list_at(object_at(container, "resources", path), "claims", f"{path}.resources"):
            users.setdefault(text_at(claim, "name", f"{path}.resources.claims"), []).append(name)
    devices: set[DeviceUse] = set()
    escapes: set[Escape] = set()
    allotted = dict(pod.template.allotted)
    for index, reference in enumerate(list_at(pod.spec, "resourceClaims", pod.root)):
        path = f"{pod.root}.resourceClaims[{index}]"
        name = text_at(reference, "name", path)
        sources = [claim_source(reference, path, context)]
        allotment = allotted.pop(name, "")
        if allotment:
            # A claim made from a template belongs to this pod.
            sources.append(
                claim_source({"resourceClaimName": allotment}, path, context)._replace(shared=False)
            )
        for source in sources:
            _claim(source, name, users.get(name) or [""], path, context, devices, escapes)
    for allotment in allotted.values():
        source = claim_source({"resourceClaimName": allotment}, "status", context)._replace(shared=False)
        _claim(source, allotment, [""], "status.extendedResourceClaimStatus", context, devices, escapes)
    return devices, escapes


def _claim(
    source: Any,
    name: str,
    containers: list[str],
    path: str,
    context: Context,
    devices: set[DeviceUse],
    escapes: set[Escape],
) -> None:
    """Add the devices that one claim gives to its containers; a container "" stands for none in particular."""
    if source.spec is None:
        detail = f"{source.missing} does not exist"
        devices.update(
            DeviceUse(UNKNOWN_VENDOR, name, 1, "unresolved", container, detail, True, _UNRESOLVED)
            for container in containers
        )
        return
    for request in asked(source.spec, "spec", context):
        if not class_exists(request.device_class, context):
            detail = f"DeviceClass {request.device_class} does not exist"
            use = (UNKNOWN_VENDOR, request.device_class, request.number, "unresolved")
            devices.update(DeviceUse(*use, container, detail, True, _UNRESOLVED) for container in containers)
        else:
            use = (request.devices.vendor, request.device_class, request.number, "claim")
            shared = source.shared or request.devices.shared
            devices.update(
                DeviceUse(*use, container, f"claim {name}", shared, request.exceptions)
                for container in containers
            )
        if request.admin:
            escapes.add(Escape("adminAccess", path, request.device_class))


def _fraction_container(pod: PodView) -> str | None:
    """The container that gets a part of a device by annotation; None where the pod requests none."""
    if not any(key in pod.annotations for key in _FRACTIONS):
        return None
    container_name = pod.annotations.get(_FRACTION_CONTAINER)
    if isinstance(container_name, str) and container_name:
        return container_name
    return next((name for path, name, _ in pod.containers if ".containers[" in path), "")


def _fraction(pod: PodView, container: str) -> DeviceUse:
    number = pod.annotations.get(_FRACTION_DEVICES)
    count = int(number) if isinstance(number, str) and number.isdecimal() and len(number) < 4 else 1
    key = next(key for key in _FRACTIONS if key in pod.annotations)
    names = entitlements(_FRACTION_VENDOR, "")
    return DeviceUse(_FRACTION_VENDOR, key, count, "resource", container, "annotation", True, names)


def _annotation(key: str, value: Any, context: Context) -> Iterator[DeviceUse]:
    if not isinstance(value, str):
        raise MalformedObjectError(f"metadata.annotations[{key}]", "must be a string")
    owners = {context.vendors.of_domain(domain) or domain for domain in _CDI_KIND.findall(value[:4096])}
    for vendor in owners or {UNKNOWN_VENDOR}:
        yield DeviceUse(vendor, key, 1, "annotation", "", value[:256], exceptions=_ANNOTATION)


def _runtime_class(pod: PodView, context: Context) -> Iterator[DeviceUse]:
    name = text_at(pod.spec, "runtimeClassName", pod.root)
    if not name:
        return
    names = {name}
    for runtime in context.finder.lookup.each(_RUNTIME_CLASS):
        if runtime["metadata"]["name"] == name:
            names.add(text_at(runtime, "handler", ""))
    for pattern, vendor in _RUNTIME_CLASSES:
        if any(pattern.fullmatch(item.lower()) is not None for item in names):
            yield DeviceUse(vendor, name, 1, "runtimeClass", exceptions=_RUNTIME)
