"""Find mutating webhooks and MutatingAdmissionPolicies of others that can change access objects.

One that runs before Weightlock's webhook can replace a user's approval before it is stamped. Policies always run first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from webhook.api.base import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.core.kube.fields import Document

_RESOURCES = ("accessrequests", "accessapprovals")


class Mutator(NamedTuple):
    """``narrow``: a rule names weightlock.dev or a kind of access object, and not only ``*``."""

    kind: str
    name: str
    narrow: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def mutators(documents: Iterable[Document], own: str) -> tuple[Mutator, ...]:
    """Return the objects that match the creation of AccessRequests or AccessApprovals, narrow ones first.

    ``own`` is the name of Weightlock's configuration.
    """
    matches = []
    for document in documents:
        kind, name = str(document.get("kind")), str(document["metadata"].get("name"))
        if name == own and kind == "MutatingWebhookConfiguration":
            continue
        rules = [rule for rule in _rules(document) if _matches(rule)]
        if rules:
            matches.append(Mutator(kind, name, any(map(_is_narrow, rules))))
    return tuple(sorted(matches, key=lambda item: (not item.narrow, item)))


def _rules(document: Document) -> Iterator[dict[str, Any]]:
    spec = document.get("spec")
    if isinstance(spec, dict):
        yield from (spec.get("matchConstraints") or {}).get("resourceRules") or ()
    for hook in document.get("webhooks") or ():
        yield from hook.get("rules") or ()


def _is_narrow(rule: dict[str, Any]) -> bool:
    return GROUP in (rule.get("apiGroups") or ()) or not _resources(rule).isdisjoint(_RESOURCES)


def _resources(rule: dict[str, Any]) -> set[str]:
    """The resources of a rule without their subresources."""
    return {str(value).partition("/")[0] for value in rule.get("resources") or ()}


def _matches(rule: dict[str, Any]) -> bool:
    def listed(field: str, *values: str) -> bool:
        return any(value in ("*", *values) for value in rule.get(field) or ())

    return (
        listed("apiGroups", GROUP)
        and listed("operations", "CREATE")
        and bool(_resources(rule) & {"*", *_RESOURCES})
        and rule.get("scope", "*") in ("*", "Cluster")
    )
