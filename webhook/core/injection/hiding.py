"""Hide accelerators from containers that request none.

An image may carry a variable such as NVIDIA_VISIBLE_DEVICES=all, which admission cannot see and a container runtime
obeys. The pod's own variable takes precedence, so every container gets the variables of all vendors whose devices it
does not request, with the value that adds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.facts.vendors import HIDDEN_VARIABLES, NO_DEVICES, UNKNOWN_VENDOR
from webhook.core.kube.fields import list_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.facts.model import Facts
    from webhook.core.kube.fields import Document

_REQUESTS = frozenset({"resource", "claim", "unresolved", "env", "mount"})
_ENTRIES = tuple(({"name": name, "value": value}, vendor) for name, value, vendor in HIDDEN_VARIABLES)
ALL: tuple[Document, ...] = tuple(entry for entry, _ in _ENTRIES)
NONE: tuple[Document, ...] = ()


def hidden_variables(facts: Facts) -> Mapping[str, tuple[Document, ...]]:
    """The variables to set, by container; containers that are not listed get `ALL`.

    A runtime class or an annotation is the whole pod's, and does not entitle each container to all devices. Nor does a
    claim that no container lists. Containers that request a device of an unknown vendor get no variable.
    """
    if not facts.devices:
        return {}
    vendors: dict[str, set[str]] = {}
    for use in facts.devices:
        if use.via in _REQUESTS and use.container:
            vendors.setdefault(use.container, set()).add(use.vendor)
    return {
        container: NONE
        if UNKNOWN_VENDOR in requested
        else tuple(entry for entry, vendor in _ENTRIES if vendor not in requested)
        for container, requested in vendors.items()
    }


def patch_variables(container: Document, path: str, variables: tuple[Document, ...]) -> list[Document]:
    """The JSON patch that sets the variables in a container; empty if they are set."""
    present = list_at(container, "env", path)
    if not present:
        return [{"op": "add", "path": f"{path}/env", "value": list(variables)}] if variables else []
    # The last entry of a name takes precedence (pkg/kubelet/kubelet_pods.go, makeEnvironmentVariables).
    last = {name: entry for entry in present if isinstance(name := entry.get("name"), str)}
    where = f"{path}/env/-"
    return [
        {"op": "add", "path": where, "value": variable}
        for variable in variables
        if (entry := last.get(variable["name"])) is None or not _hides(entry)
    ]


def _hides(entry: Mapping[str, Any]) -> bool:
    value = entry.get("value", "")
    return isinstance(value, str) and value.strip() in NO_DEVICES and "valueFrom" not in entry


def of_earlier_versions(hidden: Mapping[str, tuple[Document, ...]]) -> Mapping[str, tuple[Document, ...]]:
    """The variables that a pod admitted by an earlier version has: only NVIDIA's were hidden then."""
    first = ALL[0]
    return {container: (first,) for container, variables in hidden.items() if first in variables}
