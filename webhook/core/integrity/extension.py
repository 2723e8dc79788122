"""The part of a webhook configuration that depends on the cluster's CRDs: rules for detected workload kinds.

The chart renders the base rules. The controller appends one rule for each API group with detected kinds, and every
comparison with the expected configuration accepts such rules after the base. An appended rule adds requests and removes
none, so accepting it never weakens admission. A rule of any other form is drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from webhook.core.kube.fields import Document

VALIDATING = "ValidatingWebhookConfiguration.admissionregistration.k8s.io"
MAX_RULES = 500
_OPERATIONS = ["CREATE", "UPDATE"]


def extension(resources: Iterable[tuple[str, str]], base: Iterable[Document]) -> list[Document]:
    """The rules for detected kinds, given as (API group, plural), that the base rules do not cover already."""
    base = list(base)
    groups: dict[str, set[str]] = {}
    for group, plural in resources:
        if group and not any(_covers(rule, group, plural) for rule in base):
            groups.setdefault(group, set()).add(plural)
    return [_rule(group, sorted(plurals)) for group, plurals in sorted(groups.items())]


def extended(document: Document, resources: Iterable[tuple[str, str]]) -> Document:
    """A webhook configuration with the rules for detected kinds; only the first validating webhook has any."""
    webhooks = document.get("webhooks")
    if (
        document.get("kind") != "ValidatingWebhookConfiguration"
        or not isinstance(webhooks, list)
        or not webhooks
    ):
        return document
    first = webhooks[0]
    base = first.get("rules") or []
    return {**document, "webhooks": [{**first, "rules": [*base, *extension(resources, base)]}, *webhooks[1:]]}


def without_extension(expected: Any, live: Any) -> Any:
    """The live webhooks without well-formed rules after the expected ones; unchanged if there are none."""
    if not (isinstance(expected, list) and isinstance(live, list) and len(expected) == len(live)):
        return live
    return [_stripped(one, other) for one, other in zip(expected, live, strict=True)]


def is_extension_rule(rule: Any) -> bool:
    """Whether a rule has the form of an appended one: CREATE and UPDATE of plain resources of one named group."""
    if not isinstance(rule, dict) or rule.keys() - {
        "apiGroups",
        "apiVersions",
        "resources",
        "operations",
        "scope",
    }:
        return False
    groups, resources, operations = rule.get("apiGroups"), rule.get("resources"), rule.get("operations")
    return (
        isinstance(groups, list)
        and len(groups) == 1
        and isinstance(groups[0], str)
        and "." in groups[0]
        and rule.get("apiVersions") == ["*"]
        and rule.get("scope", "*") == "*"
        and isinstance(operations, list)
        and sorted(map(str, operations)) == _OPERATIONS
        and isinstance(resources, list)
        and bool(resources)
        and all(isinstance(name, str) and not set(name) & set("*/") for name in resources)
    )


def _rule(group: str, plurals: list[str]) -> Document:
    return {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "resources": plurals,
        "operations": list(_OPERATIONS),
        "scope": "*",
    }


def _covers(rule: Mapping[str, Any], group: str, plural: str) -> bool:
    operations = rule.get("operations") or []
    if "*" not in operations and not {"CREATE", "UPDATE"} <= set(operations):
        return False
    if rule.get("apiVersions") not in (None, ["*"]) or rule.get("scope", "*") != "*":
        return False
    groups, resources = rule.get("apiGroups") or [], rule.get("resources") or []
    return ("*" in groups or group in groups) and bool({"*", "*/*", plural} & set(resources))


def _stripped(expected: Any, live: Any) -> Any:
    if not (isinstance(expected, dict) and isinstance(live, dict)):
        return live
    base, rules = expected.get("rules"), live.get("rules")
    if not (isinstance(base, list) and isinstance(rules, list)) or len(rules) <= len(base):
        return live
    appended = rules[len(base) :]
    if len(appended) > MAX_RULES or not all(map(is_extension_rule, appended)):
        return live
    return {**live, "rules": rules[: len(base)]}
