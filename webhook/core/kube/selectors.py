"""Kubernetes label selectors, in one place for all callers.

The rules are those of k8s.io/apimachinery/pkg/apis/meta/v1 ``LabelSelectorAsSelector`` and pkg/labels
``Requirement.Matches``. A selector that Kubernetes rejects raises `SelectorError`. It never matches silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.api.base import LabelSelector

if TYPE_CHECKING:
    from collections.abc import Mapping


class SelectorError(ValueError):
    """A label selector that Kubernetes would not accept."""


@dataclass(frozen=True, slots=True)
class Selector:
    """A compiled selector; one without requirements matches everything."""

    equal: tuple[tuple[str, str], ...] = ()
    among: tuple[tuple[str, frozenset[str]], ...] = ()
    not_among: tuple[tuple[str, frozenset[str]], ...] = ()
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, Any]) -> bool:
        """Whether the labels meet every requirement; ``NotIn`` is met where the key is absent."""
        return (
            all(labels.get(key) == value for key, value in self.equal)
            and all(key in labels and labels[key] in values for key, values in self.among)
            and all(key not in labels or labels[key] not in values for key, values in self.not_among)
            and all(key in labels for key in self.present)
            and not any(key in labels for key in self.absent)
        )


def compile_selector(selector: LabelSelector | Mapping[str, Any]) -> Selector:
    """Compile a ``LabelSelector``, typed or as a parsed document. Raises `SelectorError`."""
    if isinstance(selector, LabelSelector):
        selector = selector.model_dump(by_alias=True)
    labels = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise SelectorError("matchLabels must map keys to strings")
    if not isinstance(expressions, list):
        raise SelectorError("matchExpressions must be a list")
    among: list[tuple[str, frozenset[str]]] = []
    not_among: list[tuple[str, frozenset[str]]] = []
    present: list[str] = []
    absent: list[str] = []
    for expression in expressions:
        key, operator, values = _requirement(expression)
        if operator == "In":
            among.append((key, values))
        elif operator == "NotIn":
            not_among.append((key, values))
        else:
            (present if operator == "Exists" else absent).append(key)
    return Selector(tuple(labels.items()), tuple(among), tuple(not_among), tuple(present), tuple(absent))


def selector_matches(selector: LabelSelector | Mapping[str, Any] | None, labels: Mapping[str, Any]) -> bool:
    """Whether labels match; None matches nothing and an empty selector everything. Raises `SelectorError`."""
    return selector is not None and compile_selector(selector).matches(labels)


def _requirement(expression: Any) -> tuple[str, str, frozenset[str]]:
    if not isinstance(expression, dict):
        raise SelectorError("a matchExpressions entry must be an object")
    key, operator, values = expression.get("key"), expression.get("operator"), expression.get("values") or []
    if not isinstance(key, str) or not key:
        raise SelectorError("a matchExpressions entry needs a key")
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise SelectorError("values must be a list of strings")
    if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
        raise SelectorError("operator must be In, NotIn, Exists or DoesNotExist")
    if (operator in ("In", "NotIn")) != bool(values):
        raise SelectorError(f"operator {operator} {'needs' if not values else 'takes no'} values")
    return key, operator, frozenset(values)
