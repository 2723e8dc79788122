"""Properties of a request that mutation and validation share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.core.access import pod_grants
from webhook.core.admission.subject import subject_of
from webhook.core.egress import stamp as egress_stamp
from webhook.core.egress.budget import Budget
from webhook.core.facts import TemplateFacts, gather_request
from webhook.core.injection import plan as inject
from webhook.core.injection.hiding import of_earlier_versions
from webhook.core.injection.resources import LIMIT_RANGE, RESOURCE_QUOTA, Bounds
from webhook.core.kube.fields import MalformedObjectError

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.core.access.model import Grant
    from webhook.core.admission.snapshot import Snapshot
    from webhook.core.facts.model import Facts
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest

_NO_BOUNDS = Bounds()


def is_exempt(request: AdmissionRequest, snapshot: Snapshot) -> bool:
    """Report whether the namespace of a request is exempt by configuration."""
    return bool(request.namespace) and request.namespace in snapshot.settings.exempt_namespaces


def creates_pod(request: AdmissionRequest) -> bool:
    """Report whether a request creates a pod."""
    resource = request.resource
    return (
        request.operation == "CREATE"
        and resource.name == "pods"
        and not resource.group
        and not request.subresource
        and request.object is not None
    )


def updates_pod(request: AdmissionRequest) -> bool:
    """Report whether a request writes an existing pod. Its status does not change its containers."""
    resource = request.resource
    return (
        request.operation == "UPDATE"
        and resource.name == "pods"
        and not resource.group
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
    request: AdmissionRequest,
    snapshot: Snapshot,
    facts: tuple[TemplateFacts, ...],
    now: datetime,
    *,
    hide: bool = True,
) -> inject.Plan:
    """Return the parts that a new pod must carry. Its only template is the pod itself."""
    injection = snapshot.settings.injection
    # The bounds apply when a pod is created; they may have changed since.
    pod_facts = facts[0].facts
    bounds = _NO_BOUNDS if request.running or not pod_facts.weights else bounds_of(request, snapshot)
    expected = inject.plan(object_of(request), pod_facts, snapshot.models, injection, now, bounds, hide=hide)
    if not request.running:
        return expected
    hidden = of_earlier_versions(expected.hidden)
    return expected._replace(images=frozenset(injection.previous_images), hidden=hidden, running=True)


def grant_stamp(
    request: AdmissionRequest,
    snapshot: Snapshot,
    facts: tuple[TemplateFacts, ...],
    lookup: Lookup,
    now: datetime,
) -> str:
    """Return the annotation that ties a new pod to the grants that cover its models; empty if it reads none."""
    models, grants, account = _covered(request, snapshot, facts, lookup, now)
    return pod_grants.render(pod_grants.covers(models, grants, account))


def is_stamped(
    request: AdmissionRequest,
    snapshot: Snapshot,
    facts: tuple[TemplateFacts, ...],
    lookup: Lookup,
    now: datetime,
) -> bool:
    """Whether a new pod carries a stamp as `grant_stamp` writes it."""
    models, grants, account = _covered(request, snapshot, facts, lookup, now)
    return pod_grants.is_valid(object_of(request), models, grants, account)


def _covered(
    request: AdmissionRequest,
    snapshot: Snapshot,
    facts: tuple[TemplateFacts, ...],
    lookup: Lookup,
    now: datetime,
) -> tuple[set[str], tuple[Grant, ...], tuple[str, str] | None]:
    """The protected models of a pod, and the grants that may cover them."""
    template = facts[0]
    models = {
        use.model
        for use in template.facts.weights
        if use.model in snapshot.models and use.sensitivity != "public"
    }
    if not models:
        return models, (), None
    subject = subject_of(request, template.pod, snapshot.settings, snapshot.workloads, lookup)
    grants = snapshot.access.for_subject(subject.username, subject.account_key, request.namespace, now)
    return models, grants, subject.account_key


def bounds_of(request: AdmissionRequest, snapshot: Snapshot) -> Bounds:
    """Return the LimitRanges and ResourceQuotas of a request's namespace."""
    objects, namespace = snapshot.objects, request.namespace
    return Bounds(tuple(objects.each(LIMIT_RANGE, namespace)), tuple(objects.each(RESOURCE_QUOTA, namespace)))


def budgets_of(facts: Facts, snapshot: Snapshot) -> list[Budget]:
    """Return the egress budgets of the models that a pod reads, by name of the model."""
    budgets = []
    for name in sorted({use.model for use in facts.weights}):
        model = snapshot.models.get(name)
        if model is not None and model.spec.egress is not None:
            budgets.append(Budget.of(name, model.spec.egress))
    return budgets


def stamp_entries(
    request: AdmissionRequest,
    snapshot: Snapshot,
    facts: tuple[TemplateFacts, ...],
    lookup: Lookup,
    now: datetime,
) -> dict[str, dict[str, str | None]]:
    """Return the labels and annotations that admission writes on a new pod, by field; empty for most pods."""
    pod = object_of(request)
    entries: dict[str, dict[str, str | None]] = {}
    if facts[0].facts.weights or egress_stamp.is_marked(pod):
        stamp = egress_stamp.expected(pod, budgets_of(facts[0].facts, snapshot))
        entries = egress_stamp.entries(pod, stamp)
    if facts[0].facts.weights or pod_grants.annotation(pod):
        value = grant_stamp(request, snapshot, facts, lookup, now)
        entries.setdefault("annotations", {})[pod_grants.ANNOTATION] = value or None
    return entries
