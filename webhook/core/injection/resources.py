"""The resources of the sidecar in one pod: those of the settings, as far as the pod and its namespace permit.

Pod-level resources (KEP-2837) bound the sum of all containers, so the sidecar then has no resources of its own. A
LimitRange bounds each container or the sum of the pod, and a ResourceQuota that applies to the pod may require a
request or a limit on each container: the settings are adjusted to all of them. If no value fits, the reason goes to the
writer of the pod. Sources of the rules: Kubernetes plugin/pkg/admission/limitranger/admission.go and
pkg/quota/v1/evaluator/core/pods.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from webhook.cel.libraries.quantity import Quantity, parse
from webhook.core.injection.sidecar import AGENT
from webhook.core.kube.fields import list_at, object_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from webhook.core.kube.fields import Document

LIMIT_RANGE = "LimitRange"
RESOURCE_QUOTA = "ResourceQuota"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a namespace permits: its LimitRanges and ResourceQuotas."""

    ranges: tuple[Document, ...] = ()
    quotas: tuple[Document, ...] = ()


@dataclass(frozen=True, slots=True)
class Fit:
    """Resources of the sidecar, and the reasons why they cannot be admitted."""

    resources: Document
    problems: tuple[str, ...] = ()


def fit(
    spec: Document,
    requests: Mapping[str, str],
    limits: Mapping[str, str],
    quota_limits: Mapping[str, str],
    bounds: Bounds,
) -> Fit:
    """Adjust the sidecar's resources to one pod.

    ``quota_limits`` apply where a ResourceQuota needs a limit and the settings have none.
    """
    shared = _pod_level(spec)
    if not shared and not bounds.ranges and not bounds.quotas:
        return Fit({"requests": dict(requests), "limits": dict(limits)})
    own = {name: _Resource(requests.get(name), limits.get(name)) for name in {**requests, **limits}}
    quotas = [quota for quota in bounds.quotas if _applies(quota, spec)]
    needed = _needed(quotas, "limits")
    requested = _needed(quotas, "requests")
    for name in (*needed, *requested):
        own.setdefault(name, _Resource(None, None))
    problems: list[str] = []
    for name, resource in own.items():
        if name in shared:
            continue
        if name in needed and resource.limit is None and not _has_default(name, bounds.ranges):
            if name not in quota_limits:
                if name in _COUNTED:
                    problems.append(
                        f"ResourceQuota {needed[name]} requires a {name} limit on each container, "
                        "and this key sidecar cannot have one"
                    )
                continue
            resource.limit = quota_limits[name]
        if name in requested and resource.request is None and resource.limit is None:
            resource.request = quota_limits.get(name)
        problems += _bound(name, resource, bounds.ranges)
        problems += _bound_of_pod(name, resource, bounds.ranges, spec, is_needed=name in needed)
    left = {name: resource for name, resource in own.items() if name not in shared}
    sides = {
        "requests": {name: item.request for name, item in left.items() if item.request is not None},
        "limits": {name: item.limit for name, item in left.items() if item.limit is not None},
    }
    return Fit({side: values for side, values in sides.items() if values or not shared}, tuple(problems))


@dataclass(slots=True)
class _Resource:
    request: str | None
    limit: str | None


def _pod_level(spec: Document) -> frozenset[str]:
    resources = object_at(spec, "resources", "spec")
    return frozenset(
        name for side in ("requests", "limits") for name in object_at(resources, side, "spec.resources")
    )


def _needed(quotas: Iterable[Document], side: str) -> dict[str, str]:
    """The compute resources of which a quota needs a request or a limit, with the name of the quota."""
    needed: dict[str, str] = {}
    for quota in quotas:
        for name in object_at(object_at(quota, "spec", ""), "hard", "spec"):
            kind, dot, resource = name.partition(".")
            if not dot:
                kind, resource = "requests", name
            if kind == side and (resource in _COUNTED or side == "limits"):
                needed.setdefault(resource, str(quota["metadata"]["name"]))
    return needed


# The resources that a quota requires of each container; it only counts others.
_COUNTED = frozenset({"cpu", "memory"})


def _applies(quota: Document, spec: Document) -> bool:
    """Whether the scopes of a quota match a pod; scopes that depend on anything else do."""
    body = object_at(quota, "spec", "")
    selector = object_at(body, "scopeSelector", "spec")
    return all(_in_scope(scope, "Exists", [], spec) for scope in body.get("scopes") or ()) and all(
        _in_scope(item.get("scopeName"), item.get("operator"), item.get("values") or [], spec)
        for item in list_at(selector, "matchExpressions", "spec.scopeSelector")
    )


def _in_scope(scope: object, operator: object, values: list[object], spec: Document) -> bool:
    if scope in ("Terminating", "NotTerminating"):
        return (spec.get("activeDeadlineSeconds") is not None) == (scope == "Terminating")
    if scope == "BestEffort":
        # The sidecar has requests, so its pod is not of this class.
        return False
    if scope == "PriorityClass":
        name = spec.get("priorityClassName") or ""
        return {
            "In": name in values,
            "NotIn": name not in values,
            "Exists": bool(name),
            "DoesNotExist": not name,
        }.get(str(operator), True)
    return True


def _items(ranges: Iterable[Document], kind: str) -> Iterable[tuple[str, Document]]:
    """The bounds of each ``Container`` or ``Pod``, with the name of their LimitRange."""
    for document in ranges:
        for item in list_at(object_at(document, "spec", ""), "limits", "spec"):
            if item.get("type") == kind:
                yield str(document["metadata"]["name"]), item


def _has_default(name: str, ranges: Iterable[Document]) -> bool:
    """Whether a LimitRange gives each container a limit; its maximum is its default."""
    return any(
        name in object_at(item, field, "spec.limits")
        for _, item in _items(ranges, "Container")
        for field in ("default", "max")
    )


def _bound(name: str, resource: _Resource, ranges: tuple[Document, ...]) -> Iterable[str]:
    """Move one resource into the bounds of each LimitRange; yield the reasons where it does not fit."""
    for owner, item in _items(ranges, "Container"):
        least, most = _amount(item, "min", name), _amount(item, "max", name)
        ratio, default = _amount(item, "maxLimitRequestRatio", name), _amount(item, "default", name)
        if least is not None:
            resource.request = _larger(resource.request, least)
        if most is not None and resource.limit is not None:
            resource.limit = _smaller(resource.limit, most)
        effective = resource.limit or default or most
        if ratio is not None and effective is not None and resource.request is not None:
            resource.request = _within_ratio(resource.request, effective, ratio)
        if resource.request is not None and effective is not None and _is_less(effective, resource.request):
            if most is None or not _is_less(most, resource.request):
                resource.limit = resource.request
            else:
                yield (
                    f"LimitRange {owner} allows at most {most} {name} per container, "
                    f"and the key sidecar needs {resource.request}"
                )


def _bound_of_pod(
    name: str, resource: _Resource, ranges: tuple[Document, ...], spec: Document, *, is_needed: bool
) -> Iterable[str]:
    """Drop the limit of one resource where the pod has no room for it; yield the reasons if that is not enough."""
    for owner, item in _items(ranges, "Pod"):
        most = _amount(item, "max", name)
        bound = _parsed(most) if most is not None else None
        if most is None or bound is None:
            continue
        limits, requests = _sum(spec, "limits", name), _sum(spec, "requests", name)
        if resource.limit is not None and limits + _number(resource.limit) > _value(bound):
            if is_needed or _has_default(name, ranges):
                yield _no_room(owner, most, name, "limit", resource.limit)
                continue
            if resource.request is None:
                resource.request = resource.limit
            resource.limit = None
        if resource.request is not None and requests + _number(resource.request) > _value(bound):
            yield _no_room(owner, most, name, "request", resource.request)


def _no_room(owner: str, most: str, name: str, side: str, amount: str) -> str:
    return (
        f"LimitRange {owner} allows at most {most} {name} per pod, "
        f"and the containers leave no room for the key sidecar's {side} of {amount}"
    )


def _sum(spec: Document, side: str, name: str) -> Fraction:
    """What a pod has of a resource without the key sidecar (KEP-753): containers, or the largest init container."""
    running, largest = Fraction(0), Fraction(0)
    for container in list_at(spec, "initContainers", "spec"):
        amount = _of_container(container, side, name)
        if container.get("name") == AGENT:
            continue
        if container.get("restartPolicy") == "Always":
            running += amount
        largest = max(largest, running + (0 if container.get("restartPolicy") == "Always" else amount))
    total = running + sum(
        _of_container(container, side, name) for container in list_at(spec, "containers", "spec")
    )
    return max(total, largest) + _number(object_at(spec, "overhead", "spec").get(name, "0"))


def _of_container(container: Document, side: str, name: str) -> Fraction:
    resources = object_at(container, "resources", "spec.containers")
    value = object_at(resources, side, "resources").get(name)
    if value is None and side == "requests":
        value = object_at(resources, "limits", "resources").get(name)
    return _number(value) if value is not None else Fraction(0)


def _number(amount: object) -> Fraction:
    quantity = _parsed(str(amount))
    return _value(quantity) if quantity is not None else Fraction(0)


def _amount(item: Document, field: str, name: str) -> str | None:
    value = object_at(item, field, "spec.limits").get(name)
    return None if value is None else str(value)


def _parsed(text: str) -> Quantity | None:
    try:
        return parse(text)
    except ValueError:
        return None


def _is_less(text: str, other: str) -> bool:
    first, second = _parsed(text), _parsed(other)
    return first is not None and second is not None and first.compare(second) < 0


def _larger(text: str | None, least: str) -> str | None:
    return least if text is not None and _is_less(text, least) else text


def _smaller(text: str, most: str) -> str:
    return most if _is_less(most, text) else text


def _within_ratio(request: str, limit: str, ratio: str) -> str:
    """The smallest request that the ratio permits, at least the given one."""
    bound, factor, current = _parsed(limit), _parsed(ratio), _parsed(request)
    if bound is None or factor is None or current is None or _value(factor) <= 0:
        return request
    needed = _value(bound) / _value(factor)
    if _value(current) >= needed:
        return request
    thousandths = -((-needed * 1000) // 1)
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def _value(quantity: Quantity) -> Fraction:
    return Fraction(quantity.unscaled) * Fraction(10) ** quantity.exponent
