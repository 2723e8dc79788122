"""The explanation of a verdict: the rules that were evaluated, and the part of each expression that decided.

It evaluates the request again with the data of the verdict, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from webhook.cel import EvaluationError
from webhook.cel.tools.explain import explain
from webhook.core.admission.validate import evaluations, invalid_review
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import Lookup
from webhook.core.kube.review import UnsafeReviewError
from webhook.offline.review import evaluate, label_of, request_of, store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.cel import Bindings, Program
    from webhook.cel.tools.explain import Node
    from webhook.core.admission.verdict import Verdict
    from webhook.core.facts.model import WeightUse
    from webhook.core.kube.review import AdmissionRequest
    from webhook.core.policies.policy import Policy
    from webhook.manifests.reader import Manifest
    from webhook.offline.provider import ManifestProvider
    from webhook.offline.review import Requester


@dataclass(frozen=True, slots=True)
class RuleExplained:
    """One expression of a policy on one template, its outcome and the tree of its parts.

    ``outcome`` is ``holds``, ``broken``, ``error``, or ``skips`` for a matchCondition that excludes the policy.
    """

    policy: str
    field: str
    path: str
    code: str
    outcome: str
    tree: Node


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict on one request, each rule that was evaluated, and the weights that the object reaches."""

    resource: str
    verdict: Verdict
    rules: tuple[RuleExplained, ...]
    weights: tuple[WeightUse, ...] = ()


def explain_review(
    manifest: Manifest,
    requester: Requester,
    provider: ManifestProvider,
    now: datetime | None = None,
    *,
    apply: bool = False,
) -> Explanation:
    """Explain the result of `review`; with ``apply``, store an allowed object. Raises `ManifestError`."""
    try:
        request = request_of(manifest, requester, provider)
    except UnsafeReviewError as error:
        return Explanation(label_of(manifest, error.uid), invalid_review(error), ())
    moment = now or datetime.now(UTC)
    evaluated = evaluate(request, provider, moment)
    snapshot = provider.snapshot()
    lookup = Lookup(snapshot.objects, evaluated.fetched.objects)
    rules: list[RuleExplained] = []
    weights: set[WeightUse] = set()
    try:
        for policy, facts, bindings in evaluations(evaluated.request, snapshot, evaluated.fetched, moment):
            weights.update(facts.facts.weights)
            rules += _of_policy(policy, facts.path, evaluated.request, bindings, lookup)
    except MalformedObjectError:
        # The verdict reports it, and no policy was evaluated.
        rules.clear()
    if apply:
        store(evaluated, provider)
    return Explanation(
        label_of(manifest, request.uid), evaluated.verdict, tuple(rules), tuple(sorted(weights))
    )


def _of_policy(
    policy: Policy, path: str, request: AdmissionRequest, bindings: Bindings, lookup: Lookup
) -> Iterator[RuleExplained]:
    all_params: list[Any] | None = [None] if policy.params is None else policy.params.find(request, lookup)
    for params in all_params or ():
        conditions = [
            (name, program, _outcome(program, bindings, params)) for name, program in policy.conditions
        ]
        skipping = next((item for item in conditions if item[2] == "broken"), None)
        if skipping is not None:
            name, program, _ = skipping
            tree = explain(program, bindings, params)
            yield RuleExplained(policy.name, f"matchCondition {name}", path, policy.code, "skips", tree)
            continue
        for rule in policy.rules:
            outcome = _outcome(rule.expression, bindings, params)
            tree = explain(rule.expression, bindings, params)
            yield RuleExplained(policy.name, rule.field, path, rule.code, outcome, tree)


def _outcome(program: Program, bindings: Bindings, params: Any) -> str:
    try:
        return "holds" if program.evaluate(bindings, params) is True else "broken"
    except EvaluationError:
        return "error"
