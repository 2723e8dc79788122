"""How does this pod reach an accelerator? By every route, and not only by asking for one.

What the image itself carries cannot be seen here; injection answers that by hiding devices from containers that ask
for none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from webhook.core.facts.dra import asked, claim_spec, class_of_resource, class_vendors
from webhook.core.facts.model import DeviceUse, Escape
from webhook.core.facts.vendors import (
    DEVICE_VARIABLES,
    NO_DEVICES,
    RUNTIME_CLASSES,
    UNKNOWN_VENDOR,
    vendors_of,
)
from webhook.core.nodepaths import devices_at
from webhook.core.patterns import compile_glob, normal_path, path_within
from webhook.core.workload import MalformedObjectError, list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.api.config import Settings
    from webhook.core.claims import Finder
    from webhook.core.facts.pod import Container, PodView
    from webhook.core.facts.vendors import Vendors

_PLAIN = frozenset({"cpu", "memory", "ephemeral-storage"})
_DEVICE_MOUNTS = normal_path("/var/run/nvidia-container-devices")
_ANNOTATIONS = re.compile(
    r"(?:cdi|nvidia\.cdi)\.k8s\.io/|cdi-devices\.(?:nri\.io|noderesource\.dev)(?:/|$)|"
    r"devices\.(?:nri\.io|noderesource\.dev)(?:/|$)|io\.kubernetes\.cri-o\.Devices"
)
_CDI_KIND = re.compile(r"([A-Za-z0-9.-]{1,253})/[A-Za-z0-9_.-]+=")
_RUNTIME_CLASSES = tuple((compile_glob(pattern), vendor) for pattern, vendor in RUNTIME_CLASSES)
_RUNTIME_CLASS = "RuntimeClass.node.k8s.io"


def gather_devices(
    pod: PodView, namespace: str, finder: Finder, settings: Settings, host_paths: tuple[tuple[str, str], ...]
) -> tuple[tuple[DeviceUse, ...], tuple[Escape, ...]]:
    """Every way to a device, sorted, and the escapes that come with them. Raises `MalformedObjectError`."""
    vendors = vendors_of(settings)
    found: set[DeviceUse] = set()
    escapes: set[Escape] = set()
    _resources(found, pod.spec, pod.root, "", finder, vendors)
    for container in pod.containers:
        _resources(found, container.document, container.path, container.name, finder, vendors)
        found.update(_environment(container, namespace, finder, settings))
        found.update(_device_mounts(container))
    _claims(found, escapes, pod, namespace, finder, vendors)
    found.update(_annotations(pod, vendors))
    found.update(_runtime_class(pod, finder))
    for where, path in host_paths:
        found.update(DeviceUse(vendor, path, 1, "hostPath", "", where) for vendor in devices_at(path))
    return tuple(sorted(found)), tuple(sorted(escapes))


def _resources(
    found: set[DeviceUse],
    parent: Mapping[str, Any],
    path: str,
    container: str,
    finder: Finder,
    vendors: Vendors,
) -> None:
    resources = parent.get("resources")
    if not resources:
        return
    resources = object_at(parent, "resources", path)
    names: dict[str, int] = {}
    for side in ("limits", "requests"):
        for name, quantity in object_at(resources, side, f"{path}.resources").items():
            if name not in _PLAIN:
                names[name] = max(names.get(name, 0), _count(quantity))
    for name, count in names.items():
        if not count:
            continue
        vendor = vendors.of_resource(name)
        if vendor is not None:
            found.add(DeviceUse(vendor, name, count, "resource", container))
        device_class = class_of_resource(name, finder) if "/" in name else None
        if device_class is not None:
            for owner in class_vendors(device_class, finder, vendors):
                found.add(DeviceUse(owner, name, count, "resource", container, f"DeviceClass {device_class}"))


_SUFFIXES = {"k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_QUANTITY = re.compile(r"\+?(\d{1,18})(?:\.0*)?(k|M|G|Ki|Mi|Gi)?")


def _count(quantity: Any) -> int:
    """A quantity as a number of devices; zero is none, and what is no whole number counts as one."""
    if isinstance(quantity, int) and not isinstance(quantity, bool):
        return max(quantity, 0)
    match = _QUANTITY.fullmatch(quantity) if isinstance(quantity, str) else None
    return int(match[1]) * _SUFFIXES.get(match[2], 1) if match is not None else 1


def _environment(
    container: Container, namespace: str, finder: Finder, settings: Settings
) -> Iterator[DeviceUse]:
    explicit = set()
    if container.document.get("env") is not None:
        for entry in list_at(container.document, "env", container.path):
            name = entry.get("name")
            vendor = DEVICE_VARIABLES.get(name) if isinstance(name, str) else None
            if vendor is None or not isinstance(name, str):
                continue
            explicit.add(name)
            if entry.get("valueFrom") is not None:
                yield DeviceUse(vendor, name, 1, "env", container.name, "valueFrom")
            elif (value := text_at(entry, "value", f"{container.path}.env")) not in NO_DEVICES:
                yield DeviceUse(vendor, name, 1, "env", container.name, value[:64])
    if container.document.get("envFrom") is not None:
        for source in list_at(container.document, "envFrom", container.path):
            yield from _environment_from(container, source, explicit, namespace, finder, settings)


def _environment_from(
    container: Container,
    source: Mapping[str, Any],
    explicit: set[str],
    namespace: str,
    finder: Finder,
    settings: Settings,
) -> Iterator[DeviceUse]:
    """Variables a ConfigMap or Secret may set; an explicit variable of the same name wins over them.

    What cannot be read is a route only where injection does not hide the devices.
    """
    path = f"{container.path}.envFrom"
    prefix = text_at(source, "prefix", path)
    names = [name for name in DEVICE_VARIABLES if name.startswith(prefix) and name not in explicit]
    if not names:
        return
    reference = object_at(source, "configMapRef", path)
    if reference:
        config_map = finder.get("ConfigMap", namespace, text_at(reference, "name", path))
        if config_map is not None:
            data = object_at(config_map, "data", "")
            for name in names:
                value = data.get(name.removeprefix(prefix))
                if value is not None and value not in NO_DEVICES:
                    detail = f"ConfigMap {reference.get('name')}"
                    yield DeviceUse(DEVICE_VARIABLES[name], name, 1, "env", container.name, detail)
            return
    if not settings.injection.hide_devices:
        for name in names:
            yield DeviceUse(DEVICE_VARIABLES[name], name, 1, "env", container.name, "envFrom")


def _device_mounts(container: Container) -> Iterator[DeviceUse]:
    for key, member in (("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")):
        if container.document.get(key) is None:
            continue
        for mount in list_at(container.document, key, container.path):
            path = mount.get(member)
            if isinstance(path, str) and path_within(normal_path(path), _DEVICE_MOUNTS):
                yield DeviceUse("nvidia.com", path, 1, "mount", container.name)


def _claims(
    found: set[DeviceUse],
    escapes: set[Escape],
    pod: PodView,
    namespace: str,
    finder: Finder,
    vendors: Vendors,
) -> None:
    if pod.spec.get("resourceClaims") is None:
        return
    for index, reference in enumerate(list_at(pod.spec, "resourceClaims", pod.root)):
        path = f"{pod.root}.resourceClaims[{index}]"
        spec = claim_spec(reference, namespace, path, finder)
        name = text_at(reference, "name", path)
        if spec is None:
            found.add(DeviceUse(UNKNOWN_VENDOR, name, 1, "claim", "", "unresolved"))
            continue
        for request in asked(spec, "spec", finder, vendors):
            found.add(
                DeviceUse(request.vendor, request.device_class, request.number, "claim", "", f"claim {name}")
            )
            if request.admin:
                escapes.add(Escape("adminAccess", path, request.device_class))


def _annotations(pod: PodView, vendors: Vendors) -> Iterator[DeviceUse]:
    annotations = object_at(pod.metadata, "annotations", "metadata")
    for key, value in annotations.items():
        if _ANNOTATIONS.match(key) is None:
            continue
        if not isinstance(value, str):
            raise MalformedObjectError(f"metadata.annotations[{key}]", "must be a string")
        owners = {vendors.of_domain(domain) or domain for domain in _CDI_KIND.findall(value)}
        for vendor in owners or {UNKNOWN_VENDOR}:
            yield DeviceUse(vendor, key, 1, "annotation", "", value[:64])


def _runtime_class(pod: PodView, finder: Finder) -> Iterator[DeviceUse]:
    name = text_at(pod.spec, "runtimeClassName", pod.root)
    if not name:
        return
    names = {name}
    for runtime in finder.lookup.each(_RUNTIME_CLASS):
        if runtime["metadata"]["name"] == name:
            names.add(text_at(runtime, "handler", ""))
    for pattern, vendor in _RUNTIME_CLASSES:
        if any(pattern.fullmatch(item) for item in names):
            yield DeviceUse(vendor, name, 1, "runtimeClass")
