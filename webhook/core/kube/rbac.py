"""RBAC decisions from Role, ClusterRole and binding objects, for the authorizer queries of a state directory.

The meaning is that of k8s.io/kubernetes plugin/pkg/auth/authorizer/rbac and pkg/apis/rbac/v1 evaluation_helpers.go.
A cluster decides itself, because it may have other authorizers in addition to RBAC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.cel.authz import Decision
from webhook.core.kube.objects import ObjectKey
from webhook.core.kube.selectors import compile_selector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.cel.authz import AccessCheck
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import ObjectStore

_RBAC = "rbac.authorization.k8s.io"
CLUSTER_ROLES = f"ClusterRole.{_RBAC}"
ROLES = f"Role.{_RBAC}"
CLUSTER_BINDINGS = f"ClusterRoleBinding.{_RBAC}"
BINDINGS = f"RoleBinding.{_RBAC}"
_SUPERUSERS = "system:masters"


def decide(question: AccessCheck, objects: ObjectStore) -> Decision:
    """Report whether the RBAC objects allow an access. RBAC has no deny rules: access without a rule is not allowed."""
    if _SUPERUSERS in question.groups:
        return Decision(allowed=True)
    for source, rules in _rules(question, objects):
        if any(_rule_allows(rule, question) for rule in rules):
            return Decision(allowed=True, reason=f"RBAC: allowed by {source}")
    return Decision(allowed=False)


def _rules(question: AccessCheck, objects: ObjectStore) -> Iterator[tuple[str, list[Any]]]:
    """Yield the rules of each binding of the requester, with the API server's text for the binding."""
    for binding in objects.each(CLUSTER_BINDINGS):
        subject = _subject(binding, question, "")
        if subject:
            yield _source("ClusterRoleBinding", binding, "", subject), _role_rules(binding, "", objects)
    if not question.namespace:
        return
    for binding in objects.each(BINDINGS, question.namespace):
        subject = _subject(binding, question, question.namespace)
        if subject:
            source = _source("RoleBinding", binding, f"/{question.namespace}", subject)
            yield source, _role_rules(binding, question.namespace, objects)


def _source(kind: str, binding: Document, place: str, subject: str) -> str:
    """The binding as the API server names it in a reason (pkg/registry/rbac/validation/rule.go)."""
    role = binding.get("roleRef") or {}
    return f'{kind} "{_name(binding)}{place}" of {role.get("kind")} "{role.get("name")}" to {subject}'


def _subject(binding: Document, question: AccessCheck, namespace: str) -> str:
    """Return the binding's subject that matches the requester in the API server's text; "" for none."""
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name")
        if (kind == "User" and name == question.user) or (kind == "Group" and name in question.groups):
            return f'{kind} "{name}"'
        if kind == "ServiceAccount":
            place = subject.get("namespace") or namespace
            if question.user == f"system:serviceaccount:{place}:{name}":
                return f'{kind} "{name}/{place}"'
    return ""


def _role_rules(binding: Document, namespace: str, objects: ObjectStore) -> list[Any]:
    reference = binding.get("roleRef") or {}
    if reference.get("kind") == "Role":
        return _rules_of(objects.get(ObjectKey(ROLES, namespace, str(reference.get("name", "")))))
    role = objects.get(ObjectKey(CLUSTER_ROLES, "", str(reference.get("name", ""))))
    rules = _rules_of(role)
    for selector in ((role or {}).get("aggregationRule") or {}).get("clusterRoleSelectors") or ():
        compiled = compile_selector(selector)
        for other in objects.each(CLUSTER_ROLES):
            if compiled.matches((other.get("metadata") or {}).get("labels") or {}):
                rules = rules + _rules_of(other)
    return rules


def _rules_of(role: Document | None) -> list[Any]:
    return list((role or {}).get("rules") or ())


def _rule_allows(rule: Document, question: AccessCheck) -> bool:
    if not _has(rule, "verbs", question.verb):
        return False
    if question.path:
        return any(
            pattern in ("*", question.path)
            or (pattern.endswith("*") and question.path.startswith(pattern.rstrip("*")))
            for pattern in rule.get("nonResourceURLs") or ()
        )
    names = rule.get("resourceNames") or ()
    return (
        _has(rule, "apiGroups", question.group)
        and _resource_allowed(rule, question)
        and (not names or question.name in names)
    )


def _resource_allowed(rule: Document, question: AccessCheck) -> bool:
    resource = f"{question.resource}/{question.subresource}" if question.subresource else question.resource
    allowed = rule.get("resources") or ()
    return (
        resource in allowed
        or "*" in allowed
        or (bool(question.subresource) and f"*/{question.subresource}" in allowed)
    )


def _has(rule: Document, field: str, value: str) -> bool:
    allowed = rule.get(field) or ()
    return "*" in allowed or value in allowed


def _name(document: Document) -> str:
    return str((document.get("metadata") or {}).get("name", ""))
