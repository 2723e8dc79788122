"""RBAC checks of a policy, and their decisions.

Core never queries a cluster. An evaluation that lacks a decision records the check in
``Answers.open`` and stops; the shell finds the answer (a SubjectAccessReview, or RBAC objects read offline) and
the evaluation runs again from the start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class UnansweredError(Exception):
    """An evaluation lacks a decision; the check is in ``Answers.open``."""


@dataclass(frozen=True, slots=True)
class SelectorRequirement:
    """One requirement of a field or label selector, as SubjectAccessReview spells it."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessCheck:
    """One SubjectAccessReview, hashable so that an answer can be looked up by its question.

    ``path`` is set for non-resource questions and then the resource fields are empty.
    """

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    verb: str = ""
    group: str = ""
    version: str = "*"
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    field_selector: tuple[SelectorRequirement, ...] = ()
    label_selector: tuple[SelectorRequirement, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision of the authorizer. ``error`` is set when it could not decide, and then ``allowed`` is False."""

    allowed: bool
    reason: str = ""
    error: str = ""


@dataclass(slots=True)
class Answers:
    """The decisions that an evaluation may use, and the access checks that have no decision yet.

    ``related`` are the names of virtual resources that the request may need, by API group and resource.
    """

    decisions: Mapping[AccessCheck, Decision] = field(default_factory=dict)
    open: set[AccessCheck] = field(default_factory=set)
    related: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def check(self, question: AccessCheck) -> Decision:
        """Return the recorded decision, or record the question and raise `UnansweredError`."""
        decision = self.decisions.get(question)
        if decision is None:
            self.open.add(question)
            # Policies try these names one after another, and each miss would cost a round.
            names = self.related.get((question.group, question.resource), frozenset())
            self.open.update(replace(question, name=name) for name in names)
            raise UnansweredError(f"no answer yet for {question.verb} {question.resource or question.path}")
        return decision
