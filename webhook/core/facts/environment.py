"""Find variables by which a container runtime adds devices, written out or taken from ConfigMaps and Secrets.

Values are compared and never reported: an environment may contain secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.facts.model import DeviceUse
from webhook.core.facts.vendors import (
    DEVICE_VARIABLE_HINTS,
    HIDDEN_VARIABLES,
    adds_devices,
    variable_vendor,
)
from webhook.core.kube.fields import list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.facts.context import Context

_VISIBLE, _NVIDIA = DEVICE_VARIABLE_HINTS
EXCEPTION = ("deviceVariable",)


def sets_no_device(env: Any) -> bool:
    """Whether a list of variables surely contains none that adds devices; nearly every list is such a one."""
    try:
        names = "\n".join([entry["name"] for entry in env]) if env else ""
    except (KeyError, TypeError):
        return False
    return _VISIBLE not in names and _NVIDIA not in names


def environment_devices(
    container: Mapping[str, Any], path: str, name: str, context: Context, *, fraction: bool = False
) -> Iterator[DeviceUse]:
    """The devices that variables of one container add. Raises `MalformedObjectError`.

    A variable whose value comes from another object may have any value. A variable that is written out takes
    precedence over one of a ConfigMap or Secret, as in the kubelet (pkg/kubelet/kubelet_pods.go,
    makeEnvironmentVariables). ``fraction``: the pod requests a part of a device by annotation, and the plugin that
    assigns it sets NVIDIA_VISIBLE_DEVICES from a ConfigMap.
    """
    explicit = set()
    for entry in list_at(container, "env", path):
        variable = entry.get("name")
        vendor = variable_vendor(variable) if isinstance(variable, str) else None
        if vendor is None or not isinstance(variable, str):
            continue
        explicit.add(variable)
        if entry.get("valueFrom") is not None:
            if not (fraction and _is_from_plugin(entry, variable, f"{path}.env")):
                yield _use(vendor, variable, name, "valueFrom")
        elif adds_devices(variable, text_at(entry, "value", f"{path}.env")):
            yield _use(vendor, variable, name, "value")
    for source in list_at(container, "envFrom", path):
        yield from _imported(source, explicit, f"{path}.envFrom", name, context)


def _is_from_plugin(entry: Mapping[str, Any], variable: str, path: str) -> bool:
    """Whether KAI or Run:ai adds the variable so (KAI-Scheduler pkg/binder/common/gpu_access.go)."""
    source = object_at(object_at(entry, "valueFrom", path), "configMapKeyRef", path)
    return variable == "NVIDIA_VISIBLE_DEVICES" and text_at(source, "key", path) == variable


def _imported(
    source: Mapping[str, Any], explicit: set[str], path: str, name: str, context: Context
) -> Iterator[DeviceUse]:
    """The device variables that a ConfigMap or Secret sets.

    One that cannot be read, or may change, is a route only where injection does not hide devices: where it does, the
    pod carries the variables itself.
    """
    prefix = text_at(source, "prefix", path)
    reference = object_at(source, "configMapRef", path)
    if reference:
        config_map = text_at(reference, "name", f"{path}.configMapRef")
        document = context.finder.get("ConfigMap", context.namespace, config_map)
        for key, value in object_at(document or {}, "data", "").items():
            vendor = variable_vendor(variable := f"{prefix}{key}")
            if vendor is not None and variable not in explicit and adds_devices(variable, str(value)):
                explicit.add(variable)
                yield _use(vendor, variable, name, f"ConfigMap {config_map}")
    if not context.settings.injection.hide_devices:
        for variable, _, vendor in HIDDEN_VARIABLES:
            if variable.startswith(prefix) and variable not in explicit:
                yield _use(vendor, variable, name, "envFrom")


def _use(vendor: str, variable: str, container: str, detail: str) -> DeviceUse:
    return DeviceUse(vendor, variable, 1, "env", container, detail, exceptions=EXCEPTION)
