"""Find match rules that can never match or have no effect.

Only the rules are read, never a request. The verbs of each subresource are those of k8s.io/apiserver
pkg/endpoints/installer.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.api.policy import MatchResources, PolicySpec, ResourceRule, WeightPolicySpec

_EVERYTHING = "*"
_CONNECTED = frozenset(
    {"pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy", "nodes/proxy"}
)
_CREATED = frozenset({"pods/binding", "pods/eviction", "serviceaccounts/token"})
_CLUSTER_SCOPED = frozenset(
    {
        "namespaces",
        "nodes",
        "persistentvolumes",
        "modelweights",
        "weightpolicies",
        "accessrequests",
        "accessapprovals",
        "imagetrusts",
        "imageverifications",
    }
)
_NAMESPACED = frozenset(
    {"pods", "services", "configmaps", "secrets", "serviceaccounts", "persistentvolumeclaims"}
)
_PLAIN_LISTS = ("api_groups", "api_versions", "operations")
_LISTS = (*_PLAIN_LISTS, "resources")


def unreachable(spec: PolicySpec | WeightPolicySpec) -> Iterator[tuple[str, str]]:
    """Yield (field, problem) in the order of the fields."""
    constraints = spec.match_constraints
    if constraints is None or not constraints.resource_rules:
        yield "spec.matchConstraints.resourceRules", "there are no rules, so the policy never applies"
    else:
        yield from _rules("spec.matchConstraints", constraints)
    binding = getattr(spec, "match_resources", None)
    if binding is not None:
        yield from _rules("spec.matchResources", binding)
    for index, condition in enumerate(spec.match_conditions):
        if condition.expression.strip() == "false":
            yield f"spec.matchConditions[{index}]", "always false, so the policy never applies"
    if not spec.validations and not spec.audit_annotations:
        yield "spec.validations", "there are no validations, so the policy has no effect"


def _rules(field: str, resources: MatchResources) -> Iterator[tuple[str, str]]:
    rules = resources.resource_rules
    for index, rule in enumerate(rules):
        place = f"{field}.resourceRules[{index}]"
        yield from _impossible(place, rule)
        covering = next((other for other in rules[:index] if _covers(other, rule)), None)
        if covering is not None:
            yield place, f"rule {rules.index(covering)} already matches the same requests"
        elif any(_covers(excluded, rule) for excluded in resources.exclude_resource_rules):
            yield place, "excludeResourceRules excludes all of it"


def _impossible(place: str, rule: ResourceRule) -> Iterator[tuple[str, str]]:
    for name in _LISTS:
        if not getattr(rule, name):
            camel = name.replace("_g", "G").replace("_v", "V")
            yield f"{place}.{camel}", "empty, so the rule never matches"
    operations = set(rule.operations)
    if rule.resources and set(rule.resources) <= _CONNECTED and not operations & {"CONNECT", _EVERYTHING}:
        yield f"{place}.operations", "these resources support only the operation CONNECT"
    if rule.resources and operations == {"CONNECT"} and not any(map(_may_be_connected, rule.resources)):
        yield f"{place}.operations", "none of these resources supports CONNECT"
    if rule.resources and set(rule.resources) <= _CREATED and not operations & {"CREATE", _EVERYTHING}:
        yield f"{place}.operations", "these resources support only the operation CREATE"
    plain = {resource.partition("/")[0] for resource in rule.resources}
    wrong = {"Cluster": _NAMESPACED, "Namespaced": _CLUSTER_SCOPED}.get(rule.scope, frozenset())
    if plain and plain <= wrong:
        yield f"{place}.scope", f"{', '.join(sorted(plain))} are not {rule.scope.lower()}"


def _may_be_connected(resource: str) -> bool:
    return resource in _CONNECTED or (_EVERYTHING in resource and "/" in resource)


def _covers(wide: ResourceRule, narrow: ResourceRule) -> bool:
    """Whether the wide rule matches every request that the narrow rule matches."""
    return (
        all(
            _listed(getattr(wide, name), getattr(narrow, name))
            for name in ("api_groups", "api_versions", "operations")
        )
        and all(any(_resource_covers(one, other) for one in wide.resources) for other in narrow.resources)
        and wide.scope in (_EVERYTHING, narrow.scope)
        and (not wide.resource_names or (bool(set(narrow.resource_names)) and _named(wide, narrow)))
    )


def _named(wide: ResourceRule, narrow: ResourceRule) -> bool:
    return set(narrow.resource_names) <= set(wide.resource_names)


def _listed(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    return _EVERYTHING in wide or set(narrow) <= set(wide)


def _resource_covers(wide: str, narrow: str) -> bool:
    resource, slash, subresource = wide.partition("/")
    other, other_slash, other_subresource = narrow.partition("/")
    return (
        resource in (_EVERYTHING, other)
        and slash == other_slash
        and subresource in (other_subresource, _EVERYTHING if slash else "")
    )
