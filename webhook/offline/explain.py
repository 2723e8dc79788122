"""Why a request was judged as it was: the rules it met, and which part of an expression decided each.

It evaluates again what the verdict rests on, with the same answers, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from webhook.cel import EvaluationError
from webhook.cel.tools.explain import explain
from webhook.core.admission.validate import evaluations, invalid_review
from webhook.core.kube.objects import Lookup
from webhook.core.kube.review import RefusedReviewError
from webhook.core.workloads.templates import MalformedObjectError
from webhook.offline.review import judge, label_of, request_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.cel import Bindings, Program
    from webhook.cel.tools.explain import Node
    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.review import AdmissionRequest
    from webhook.core.policies.policy import Policy
    from webhook.manifests.reader import Manifest
    from webhook.offline.provider import ManifestProvider
    from webhook.offline.review import Requester


@dataclass(frozen=True, slots=True)
class RuleExplained:
    """One expression of a policy on one template: whether it held, and the tree that shows why.

    ``outcome`` is ``holds``, ``broken``, ``error``, or ``skips`` for a matchCondition that took the policy out.
    """

    policy: str
    field: str
    path: str
    code: str
    outcome: str
    tree: Node


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict on one request, and every rule it met."""

    resource: str
    verdict: Verdict
    rules: tuple[RuleExplained, ...]


def explain_review(
    manifest: Manifest, asker: Requester, source: ManifestProvider, now: datetime | None = None
) -> Explanation:
    """Explain what `review` would say. Raises `ManifestError`."""
    try:
        request = request_of(manifest, asker, source)
    except RefusedReviewError as error:
        return Explanation(label_of(manifest, error.uid), invalid_review(error), ())
    moment = now or datetime.now(UTC)
    judged = judge(request, source, moment)
    snapshot = source.snapshot()
    lookup = Lookup(snapshot.objects, judged.fetched.objects)
    rules: list[RuleExplained] = []
    try:
        for policy, facts, bindings in evaluations(judged.request, snapshot, judged.fetched, moment):
            rules += _of_policy(policy, facts.path, judged.request, bindings, lookup)
    except MalformedObjectError:
        # The verdict says so, and then no policy was asked.
        rules.clear()
    return Explanation(label_of(manifest, request.uid), judged.verdict, tuple(rules))


def _of_policy(
    policy: Policy, path: str, request: AdmissionRequest, bindings: Bindings, lookup: Lookup
) -> Iterator[RuleExplained]:
    found: list[Any] | None = [None] if policy.params is None else policy.params.find(request, lookup)
    for params in found or ():
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
