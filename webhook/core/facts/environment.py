"""Variables by which a container's runtime gives it devices, written out or drawn from ConfigMaps and Secrets.

Values are compared and never reported: an environment may hold secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.facts.model import DeviceUse
from webhook.core.facts.vendors import DEVICE_VARIABLES, NO_DEVICES
from webhook.core.kube.fields import list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.facts.context import Context


def sets_no_device(env: Any) -> bool:
    """Whether a list of variables surely names none that gives devices; nearly every list is such a one."""
    try:
        return not env or DEVICE_VARIABLES.keys().isdisjoint([entry.get("name") for entry in env])
    except (AttributeError, TypeError):
        return False


def environment_devices(
    container: Mapping[str, Any], path: str, name: str, context: Context
) -> Iterator[DeviceUse]:
    """The devices that variables of one container give it. Raises `MalformedObjectError`.

    A variable whose value comes from elsewhere may have any value. A variable that is written out wins over one of a
    ConfigMap or Secret, as in the kubelet (pkg/kubelet/kubelet_pods.go, makeEnvironmentVariables).
    """
    explicit = set()
    for entry in list_at(container, "env", path):
        variable = entry.get("name")
        if not isinstance(variable, str) or variable not in DEVICE_VARIABLES:
            continue
        explicit.add(variable)
        if entry.get("valueFrom") is not None:
            yield _use(variable, name, "valueFrom")
        elif text_at(entry, "value", f"{path}.env") not in NO_DEVICES:
            yield _use(variable, name, "value")
    for source in list_at(container, "envFrom", path):
        prefix = text_at(source, "prefix", f"{path}.envFrom")
        for variable in DEVICE_VARIABLES:
            if variable.startswith(prefix) and variable not in explicit:
                key = variable.removeprefix(prefix)
                yield from _drawn(source, variable, key, f"{path}.envFrom", name, context)


def _drawn(
    source: Mapping[str, Any], variable: str, key: str, path: str, name: str, context: Context
) -> Iterator[DeviceUse]:
    """A variable that a ConfigMap or Secret may set.

    What cannot be read, or may yet be written, is a route only where injection does not hide devices: where it does,
    the pod carries the variable itself.
    """
    reference = object_at(source, "configMapRef", path)
    if reference:
        config_map = text_at(reference, "name", f"{path}.configMapRef")
        document = context.finder.get("ConfigMap", context.namespace, config_map)
        value = object_at(document, "data", "").get(key) if document is not None else None
        if value is not None and value not in NO_DEVICES:
            yield _use(variable, name, f"ConfigMap {config_map}")
            return
    if not context.settings.injection.hide_devices:
        yield _use(variable, name, "envFrom")


def _use(variable: str, container: str, detail: str) -> DeviceUse:
    return DeviceUse(DEVICE_VARIABLES[variable], variable, 1, "env", container, detail)
