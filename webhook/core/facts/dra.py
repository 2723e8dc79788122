"""Dynamic resource allocation: from a pod's resource claims to the device classes and drivers that they request.

The shapes are those of resource.k8s.io v1, v1beta2 and v1beta1. A claim, template or class that does not exist may
become any device. The vendor comes from the driver, never from a name that an author chooses.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.core.facts.vendors import UNKNOWN_VENDOR
from webhook.core.kube.fields import list_at, object_at, text_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.core.facts.context import Context
    from webhook.core.kube.fields import Document
    from webhook.core.storage.finder import Finder

CLAIM = "ResourceClaim.resource.k8s.io"
TEMPLATE = "ResourceClaimTemplate.resource.k8s.io"
CLUSTER_TEMPLATE = "ClusterResourceClaimTemplate.resource.k8s.io"
CLASS = "DeviceClass.resource.k8s.io"
# The implicit extended resource of every class (k8s.io/api/resource/v1, ResourceDeviceClassPrefix).
CLASS_RESOURCE = "deviceclass.resource.kubernetes.io/"
# A request with allocationMode All gets at most so many devices (AllocationResultsMaxSize).
_MAX_DEVICES = 32
_MAX_EXPRESSION = 10 * 1024
_MAX_DEPTH = 16

_IS_DRIVER = re.compile(r"""device\s*\.\s*driver\s*==\s*(?:"([^"]{1,253})"|'([^']{1,253})')""")
_DRIVER_IS = re.compile(r"""(?:"([^"]{1,253})"|'([^']{1,253})')\s*==\s*device\s*\.\s*driver""")
_MULTIPLE = "allowMultipleAllocations"


class ClassDevices(NamedTuple):
    """What a DeviceClass stands for: a vendor, or ``?``; and the driver, or "" where no selector fixes it."""

    vendor: str
    driver: str
    shared: bool


class Asked(NamedTuple):
    """One device request: the devices, their class, how many, and whether with admin access."""

    devices: ClassDevices
    device_class: str
    number: int
    admin: bool
    path: str

    @property
    def exceptions(self) -> tuple[str, ...]:
        """The names of accelerators.weightlock.dev that entitle to the request."""
        return entitlements(self.devices.vendor, self.devices.driver)


class ClaimSource(NamedTuple):
    """The ResourceClaimSpec behind a reference of a pod; None: ``missing`` does not exist.

    ``shared``: the claim outlives the pod, so other pods may use the same devices.
    """

    spec: Document | None
    missing: str
    shared: bool


def entitlements(vendor: str, owner: str) -> tuple[str, ...]:
    """The names of accelerators.weightlock.dev that entitle to a vendor, or to an unknown vendor's ``owner``."""
    return (vendor,) if vendor != UNKNOWN_VENDOR else tuple(name for name in (owner, UNKNOWN_VENDOR) if name)


def allotted_claims(pod: Document) -> dict[str, str]:
    """The claims made for a pod (PodResourceClaimStatus), by their names in its spec.

    Templates may have been replaced since. The claim made for extended resources has the name "".
    """
    status = object_at(pod, "status", "")
    claims = {}
    for entry in list_at(status, "resourceClaimStatuses", "status"):
        claim = text_at(entry, "resourceClaimName", "status.resourceClaimStatuses")
        if claim:
            claims[text_at(entry, "name", "status.resourceClaimStatuses")] = claim
    extended = object_at(status, "extendedResourceClaimStatus", "status")
    claim = text_at(extended, "resourceClaimName", "status.extendedResourceClaimStatus")
    if claim:
        claims[""] = claim
    return claims


def claim_source(reference: Mapping[str, Any], path: str, context: Context) -> ClaimSource:
    """The ResourceClaimSpec behind an entry of ``spec.resourceClaims``."""
    name = text_at(reference, "resourceClaimName", path)
    if name:
        claim = context.finder.get(CLAIM, context.namespace, name)
        spec = object_at(claim, "spec", "") if claim is not None else None
        return ClaimSource(spec, f"ResourceClaim {context.namespace}/{name}", shared=True)
    name = text_at(reference, "resourceClaimTemplateName", path)
    if name:
        template = context.finder.get(TEMPLATE, context.namespace, name)
        missing = f"ResourceClaimTemplate {context.namespace}/{name}"
    else:
        name = text_at(reference, "clusterResourceClaimTemplateName", path)
        template = context.finder.get(CLUSTER_TEMPLATE, "", name) if name else None
        missing = f"ClusterResourceClaimTemplate {name}" if name else "the claim's source"
    spec = object_at(object_at(template, "spec", ""), "spec", "spec") if template is not None else None
    return ClaimSource(spec, missing, shared=False)


def asked(spec: Mapping[str, Any], path: str, context: Context) -> Iterator[Asked]:
    """Every device that a ResourceClaimSpec requests, each alternative included. Raises `MalformedObjectError`."""
    devices = object_at(spec, "devices", path)
    shared = _shares_by_config(devices, f"{path}.devices")
    for index, request in enumerate(list_at(devices, "requests", f"{path}.devices")):
        place = f"{path}.devices.requests[{index}]"
        exactly = object_at(request, "exactly", place)
        for choice in (exactly, request, *list_at(request, "firstAvailable", place)):
            device_class = text_at(choice, "deviceClassName", place)
            if not device_class:
                continue
            admin = choice.get("adminAccess") is True
            several = shared or admin or choice.get("capacity") is not None or _selects_shared(choice, place)
            for device in class_devices(device_class, context):
                yield Asked(
                    device._replace(shared=device.shared or several),
                    device_class,
                    _number(choice),
                    admin,
                    place,
                )


def _number(choice: Mapping[str, Any]) -> int:
    if choice.get("allocationMode") == "All":
        return _MAX_DEVICES
    count = choice.get("count")
    return count if isinstance(count, int) and not isinstance(count, bool) else 1


def class_devices(name: str, context: Context) -> tuple[ClassDevices, ...]:
    """What a DeviceClass stands for; nothing where its driver's devices are no accelerators.

    A class that does not exist, or whose selectors do not fix the driver, may stand for any device.
    """
    document = context.finder.get(CLASS, "", name)
    if document is None:
        return (ClassDevices(UNKNOWN_VENDOR, "", shared=False),)
    spec = object_at(document, "spec", "")
    expressions = _expressions(spec, "spec")
    shared = any(_MULTIPLE in text for text in expressions) or _shares_by_config(spec, "spec")
    drivers = {driver for text in expressions for driver in required_drivers(text)}
    if len(drivers) != 1:
        return (ClassDevices(UNKNOWN_VENDOR, "", shared),)
    (driver,) = drivers
    vendor = context.vendors.of_driver(driver)
    return (ClassDevices(vendor, driver, shared),) if vendor is not None else ()


def class_exists(name: str, context: Context) -> bool:
    """Whether there is a DeviceClass of this name."""
    return context.finder.get(CLASS, "", name) is not None


def classes_of_resource(name: str, finder: Finder) -> list[str]:
    """The DeviceClasses behind an extended resource name; the scheduler may take any of them."""
    if name.startswith(CLASS_RESOURCE):
        return [name.removeprefix(CLASS_RESOURCE)]
    return [
        document["metadata"]["name"]
        for document in finder.lookup.each(CLASS)
        if isinstance(spec := document.get("spec"), dict) and spec.get("extendedResourceName") == name
    ]


@lru_cache(maxsize=512)
def required_drivers(expression: str) -> tuple[str, ...]:
    """The drivers that top-level conjuncts of a CEL expression require.

    Every conjunct must hold for a device to match, so one of the form ``device.driver == '…'`` fixes the driver
    whatever the others are. An expression that this simple scan does not understand requires nothing.
    """
    drivers = []
    for conjunct in _conjuncts(expression):
        match = _IS_DRIVER.fullmatch(conjunct) or _DRIVER_IS.fullmatch(conjunct)
        if match is not None:
            drivers.append(match[1] or match[2])
    return tuple(drivers)


def _conjuncts(expression: str, depth: int = 0) -> list[str]:
    """The operands of the outermost ``&&``; none where the outermost operator may be another one."""
    pieces = _split(expression)
    if pieces is None or depth > _MAX_DEPTH:
        return []
    if len(pieces) > 1:
        return [item for piece in pieces for item in _conjuncts(piece, depth + 1)]
    text = expression.strip()
    if text.startswith("(") and _closes(text) == len(text) - 1:
        return _conjuncts(text[1:-1], depth + 1)
    return [text]


def _split(expression: str) -> list[str] | None:
    """Split at each outermost ``&&``; None for comments, escapes, triple quotes and other outermost operators."""
    if len(expression) > _MAX_EXPRESSION or "\\" in expression or "//" in _without_strings(expression):
        return None
    pieces, start, depth, quote = [], 0, 0, ""
    for index, char in enumerate(expression):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            # Prefixes such as r and b, and triple quotes, give a string another end or another meaning.
            if expression[max(index - 1, 0) : index].isalnum() or expression[index : index + 3] == char * 3:
                return None
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth == 0 and (char == "?" or expression.startswith("||", index)):
            return None
        elif depth == 0 and expression.startswith("&&", index):
            pieces.append(expression[start:index])
            start = index + 2
    pieces.append(expression[start:])
    return None if depth or quote else pieces


def _without_strings(expression: str) -> str:
    return re.sub(r"\"[^\"]*\"|'[^']*'", "", expression)


def _closes(text: str) -> int:
    """Where the parenthesis that opens a text closes; -1 where it does not."""
    depth, quote = 0, ""
    for index, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth == 0:
                return index
    return -1


def _expressions(parent: Mapping[str, Any], path: str) -> list[str]:
    return [
        text_at(object_at(selector, "cel", f"{path}.selectors"), "expression", f"{path}.selectors.cel")
        for selector in list_at(parent, "selectors", path)
    ]


def _selects_shared(choice: Mapping[str, Any], path: str) -> bool:
    return any(_MULTIPLE in text for text in _expressions(choice, path))


def _shares_by_config(parent: Mapping[str, Any], path: str) -> bool:
    """Whether a driver's parameters ask for time slicing or MPS (github.com/kubernetes-sigs/dra-driver-nvidia-gpu)."""
    for config in list_at(parent, "config", path):
        parameters = object_at(
            object_at(config, "opaque", f"{path}.config"), "parameters", f"{path}.config.opaque"
        )
        if parameters.get("sharing") is not None:
            return True
    return False
