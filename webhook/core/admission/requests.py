"""What a request is: the questions that mutation and validation share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from webhook.core.facts import TemplateFacts, gather_request
from webhook.core.injection import plan as inject
from webhook.core.injection.hiding import of_earlier_versions
from webhook.core.kube.fields import MalformedObjectError

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest


def is_exempt(request: AdmissionRequest, snapshot: Snapshot) -> bool:
    """Report whether the namespace of a request is exempt by configuration."""
    return bool(request.namespace) and request.namespace in snapshot.settings.exempt_namespaces


def creates_pod(request: AdmissionRequest) -> bool:
    """Report whether a request creates a pod."""
    resource = request.resource
    return (
        request.operation == "CREATE"
        and (resource.group, resource.name, request.subresource) == ("", "pods", "")
        and request.object is not None
    )


def updates_pod(request: AdmissionRequest) -> bool:
    """Whether a pod that exists is written; its status says nothing of its containers, and has no say over them."""
    resource = request.resource
    return (
        request.operation == "UPDATE"
        and (resource.group, resource.name) == ("", "pods")
        and request.subresource != "status"
        and request.kind.name == "Pod"
        and request.object is not None
    )


def debugs_pod(request: AdmissionRequest) -> bool:
    """Report whether a request adds ephemeral containers to a pod."""
    return (
        updates_pod(request)
        and request.subresource == "ephemeralcontainers"
        and request.old_object is not None
    )


def object_of(request: AdmissionRequest) -> dict[str, object]:
    """Return the object of a request. Raises `MalformedObjectError` if it is missing."""
    if request.object is None:
        raise MalformedObjectError("object", "is missing")
    return request.object


def gather(request: AdmissionRequest, snapshot: Snapshot, lookup: Lookup) -> tuple[TemplateFacts, ...]:
    """Return the facts of every pod template of a request."""
    return gather_request(request, lookup, snapshot.catalog, snapshot.settings, snapshot.workloads)


def injection_plan(
    request: AdmissionRequest, snapshot: Snapshot, facts: tuple[TemplateFacts, ...], now: datetime
) -> inject.Plan:
    """What a pod that is created must carry; it has one template, itself."""
    injection = snapshot.settings.injection
    wanted = inject.plan(object_of(request), facts[0].facts, snapshot.models, injection, now)
    if not request.running:
        return wanted
    hidden = of_earlier_versions(wanted.hidden)
    return replace(wanted, images=frozenset(injection.former_images), hidden=hidden)
