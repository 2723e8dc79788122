"""Dynamic resource allocation: from a pod's resource claims to the device classes they ask for.

The shapes are those of resource.k8s.io v1, v1beta2 and v1beta1. A claim, template or class that cannot be found may be
any device, and is reported as such.
"""

from __future__ import annotations

import re
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
CLASS = "DeviceClass.resource.k8s.io"
# The implicit extended resource of every class (k8s.io/api/resource/v1, ResourceDeviceClassPrefix).
_CLASS_RESOURCE = "deviceclass.resource.kubernetes.io/"

_DRIVER = re.compile(r"""device\s*\.\s*driver\s*==\s*["']([^"']{1,253})["']""")


class Asked(NamedTuple):
    """One device request: whose, of which class, how many, and whether with admin access."""

    vendor: str
    device_class: str
    number: int
    admin: bool
    path: str


def allotted_claims(pod: Document) -> dict[str, str]:
    """The claims made for a running pod (PodResourceClaimStatus), by their names in its spec.

    Templates may have been replaced since; what was made of them is what the pod gets.
    """
    found = {}
    for entry in list_at(object_at(pod, "status", ""), "resourceClaimStatuses", "status"):
        claim = text_at(entry, "resourceClaimName", "status.resourceClaimStatuses")
        if claim:
            found[text_at(entry, "name", "status.resourceClaimStatuses")] = claim
    return found


def claim_spec(reference: Mapping[str, Any], path: str, context: Context) -> Document | None:
    """The ResourceClaimSpec behind an entry of ``spec.resourceClaims``, or None where it is not to be found."""
    name = text_at(reference, "resourceClaimName", path)
    if name:
        claim = context.finder.get(CLAIM, context.namespace, name)
        return object_at(claim, "spec", "") if claim is not None else None
    name = text_at(reference, "resourceClaimTemplateName", path)
    template = context.finder.get(TEMPLATE, context.namespace, name) if name else None
    return object_at(object_at(template, "spec", ""), "spec", "spec") if template is not None else None


def asked(spec: Mapping[str, Any], path: str, context: Context) -> Iterator[Asked]:
    """Every device a ResourceClaimSpec asks for, each alternative included. Raises `MalformedObjectError`."""
    devices = object_at(spec, "devices", path)
    for index, request in enumerate(list_at(devices, "requests", f"{path}.devices")):
        place = f"{path}.devices.requests[{index}]"
        exactly = object_at(request, "exactly", place)
        for choice in (exactly, request, *list_at(request, "firstAvailable", place)):
            device_class = text_at(choice, "deviceClassName", place)
            if not device_class:
                continue
            count = choice.get("count")
            number = count if isinstance(count, int) and not isinstance(count, bool) else 1
            admin = choice.get("adminAccess") is True
            for vendor in class_vendors(device_class, context):
                yield Asked(vendor, device_class, number, admin, place)


def class_vendors(name: str, context: Context) -> tuple[str, ...]:
    """Whose devices a DeviceClass stands for; a driver nobody lists is named itself, and no driver at all is ``?``.

    Everything in a class that names a driver counts, so that a class cannot pass for another vendor's by its name.
    """
    vendors = context.vendors
    document = context.finder.get(CLASS, "", name)
    if document is None:
        return (vendors.of_domain(name) or UNKNOWN_VENDOR,)
    spec = object_at(document, "spec", "")
    drivers = set()
    for selector in list_at(spec, "selectors", "spec"):
        expression = text_at(object_at(selector, "cel", "spec.selectors"), "expression", "spec.selectors.cel")
        drivers.update(_DRIVER.findall(expression))
    for config in list_at(spec, "config", "spec"):
        drivers.add(text_at(object_at(config, "opaque", "spec.config"), "driver", "spec.config.opaque"))
    drivers.discard("")
    found: set[str | None] = {vendors.of_domain(driver) or driver for driver in drivers}
    found.add(vendors.of_resource(text_at(spec, "extendedResourceName", "spec")))
    found.add(vendors.of_domain(name))
    return tuple(sorted(vendor for vendor in found if vendor)) or (UNKNOWN_VENDOR,)


def classes_of_resource(name: str, finder: Finder) -> list[str]:
    """The DeviceClasses that stand behind an extended resource name; the scheduler may take any of them."""
    if name.startswith(_CLASS_RESOURCE):
        return [name.removeprefix(_CLASS_RESOURCE)]
    return [
        document["metadata"]["name"]
        for document in finder.lookup.each(CLASS)
        if isinstance(spec := document.get("spec"), dict) and spec.get("extendedResourceName") == name
    ]
