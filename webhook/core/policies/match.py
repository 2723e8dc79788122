"""Match requests with resource rules and selectors as the API server does.

Source: k8s.io/apiserver pkg/admission/plugin/webhook/predicates (rules, namespace, object) and
pkg/admission/plugin/policy/matching.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from webhook.core.kube.selectors import Selector, compile_selector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.api.base import LabelSelector
    from webhook.api.policy import MatchResources, ResourceRule
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest

NAMESPACE_NAME_LABEL = "kubernetes.io/metadata.name"


class RequestKind(NamedTuple):
    """The part of a request that resource rules read. It is the key of a memo."""

    group: str
    version: str
    resource: str
    subresource: str
    operation: str
    namespaced: bool

    @classmethod
    def of(cls, request: AdmissionRequest) -> RequestKind:
        """Return the kind of one request."""
        resource = request.resource
        namespaced = bool(request.namespace) and resource.name != "namespaces"
        return cls(
            resource.group,
            resource.version,
            resource.name,
            request.subresource,
            request.operation,
            namespaced,
        )


@dataclass(frozen=True, slots=True)
class Matcher:
    """Compiled match constraints."""

    rules: tuple[ResourceRule, ...]
    excluded: tuple[ResourceRule, ...]
    exact: bool
    namespaces: Selector | None
    objects: Selector | None

    @classmethod
    def compile(cls, resources: MatchResources | None) -> Matcher:
        """Compile. None matches everything, as a binding without matchResources does."""
        if resources is None:
            return cls((), (), exact=False, namespaces=None, objects=None)
        return cls(
            rules=tuple(resources.resource_rules),
            excluded=tuple(resources.exclude_resource_rules),
            exact=resources.match_policy == "Exact",
            namespaces=_selector(resources.namespace_selector),
            objects=_selector(resources.object_selector),
        )

    def may_match(self, kind: RequestKind) -> bool:
        """Whether the rules can match a request of this kind. Names and selectors are not checked here."""
        if any(
            not rule.resource_names and _rule_matches(rule, kind, exact=self.exact) for rule in self.excluded
        ):
            return False
        return not self.rules or any(_rule_matches(rule, kind, exact=self.exact) for rule in self.rules)

    def remainder(self, kind: RequestKind) -> Matcher | None:
        """Return the names and selectors that still decide for a kind that `may_match`; None if there are none."""
        rules = tuple(rule for rule in self.rules if _rule_matches(rule, kind, exact=self.exact))
        if any(not rule.resource_names for rule in rules):
            rules = ()
        excluded = tuple(rule for rule in self.excluded if _rule_matches(rule, kind, exact=self.exact))
        if not rules and not excluded and self.namespaces is None and self.objects is None:
            return None
        return replace(self, rules=rules, excluded=excluded)

    def matches(self, request: AdmissionRequest, kind: RequestKind, lookup: Lookup) -> bool:
        """Whether the whole of the constraints matches. Raises `MissingObjectError` for an unknown namespace."""
        if self.rules and not self._rules_match(self.rules, request, kind):
            return False
        if self.excluded and self._rules_match(self.excluded, request, kind):
            return False
        if self.namespaces is not None and not self._namespace_matches(self.namespaces, request, lookup):
            return False
        return self.objects is None or any(
            self.objects.matches(labels_of(document))
            for document in (request.object, request.old_object)
            # Objects without metadata, such as PodExecOptions, match no selector (object/matcher.go).
            if document is not None and "metadata" in document
        )

    def _rules_match(
        self, rules: Iterable[ResourceRule], request: AdmissionRequest, kind: RequestKind
    ) -> bool:
        return any(
            _rule_matches(rule, kind, exact=self.exact)
            and (not rule.resource_names or request.name in rule.resource_names)
            for rule in rules
        )

    @staticmethod
    def _namespace_matches(selector: Selector, request: AdmissionRequest, lookup: Lookup) -> bool:
        if request.resource.name == "namespaces" and not request.resource.group:
            if request.subresource == "" and request.operation in ("CREATE", "UPDATE"):
                return selector.matches(labels_of(request.object))
            return selector.matches(namespace_labels(request.name, lookup))
        if not request.namespace:
            return True
        return selector.matches(namespace_labels(request.namespace, lookup))


def namespace_object(name: str, lookup: Lookup) -> Document:
    """Return the namespace. One that a state directory lacks has the label that every namespace has."""
    document = lookup.get("Namespace", "", name)
    if document is not None:
        return document
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {NAMESPACE_NAME_LABEL: name}},
    }


def namespace_labels(name: str, lookup: Lookup) -> dict[str, str]:
    """Return the labels of a namespace. Raises `MissingObjectError`."""
    labels = labels_of(namespace_object(name, lookup))
    return labels if NAMESPACE_NAME_LABEL in labels else {**labels, NAMESPACE_NAME_LABEL: name}


def labels_of(document: Document | None) -> dict[str, str]:
    """Return metadata.labels; empty if they are absent or malformed."""
    metadata = document.get("metadata") if document else None
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return labels if isinstance(labels, dict) else {}


def _selector(selector: LabelSelector | None) -> Selector | None:
    """Return a compiled selector, or None if it matches everything."""
    compiled = compile_selector(selector) if selector is not None else Selector()
    return None if compiled == Selector() else compiled


def _rule_matches(rule: ResourceRule, kind: RequestKind, *, exact: bool) -> bool:
    return (
        _listed(kind.operation, rule.operations)
        and _listed(kind.group, rule.api_groups)
        and (not exact or _listed(kind.version, rule.api_versions))
        and any(_resource_matches(pattern, kind) for pattern in rule.resources)
        and (rule.scope == "*" or (rule.scope == "Namespaced") == kind.namespaced)
    )


def _listed(value: str, allowed: Iterable[str]) -> bool:
    return any(item in ("*", value) for item in allowed)


def _resource_matches(pattern: str, kind: RequestKind) -> bool:
    resource, slash, subresource = pattern.partition("/")
    if resource not in ("*", kind.resource):
        return False
    if not slash:
        return kind.subresource == ""
    return subresource in ("*", kind.subresource)
