"""Verdicts on running workloads, collected into results that fit into a report.

Pure, and bounded: however many resources a namespace has, the most serious results are listed and all are counted.
A result never holds anything of an object but its name, and what the policies say of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from webhook.api import codes
from webhook.core.admission.messages import fix_of, sentence
from webhook.core.kube.text import clip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.core.admission.verdict import Verdict
    from webhook.core.policies.policy import Finding

Outcome = Literal["fail", "error", "warn"]

OUTCOMES: tuple[Outcome, ...] = ("fail", "error", "warn")
MAX_RESULTS = 500
MAX_POLICIES = 500
_MAX_MESSAGE_BYTES = 512
_MAX_FIX_BYTES = 200
# From the strongest to the weakest; they are written in this order, too.
ACTIONS = ("Deny", "Audit", "Warn")
_SEVERITIES = ("info", "low", "medium", "high", "critical")
_BY_SENSITIVITY = {
    "frontier": "critical",
    "restricted": "high",
    "internal": "medium",
    "public": "low",
    "?": "high",
}
# The severity of a category's codes.
_SERIOUS = frozenset(
    {codes.Category.WEIGHTS, codes.Category.DEVICES, codes.Category.KEYS, codes.Category.BROKER}
)
_USER_DEFINED = "policy"


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """The object that was evaluated."""

    namespace: str
    name: str
    kind: str
    api_version: str = "v1"
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Result:
    """One policy that one resource violates, or that could not be evaluated. ``waiver`` is the request that waives it.

    ``would_deny``: admission allows the resource today and would deny it with the action Deny.
    """

    resource: Resource
    policy: str
    code: str
    outcome: Outcome
    message: str
    fix: str = ""
    actions: tuple[str, ...] = ("Deny",)
    severity: str = "medium"
    controls: tuple[str, ...] = ()
    waiver: str = ""

    @property
    def would_deny(self) -> bool:
        """Whether admission would deny it with the action Deny."""
        return "Deny" not in self.actions and not self.waiver

    @property
    def category(self) -> str:
        """The category of the code, in a word."""
        reason = codes.REASONS.get(self.code)
        return reason.category.value if reason is not None else _USER_DEFINED


def results_of(resource: Resource, verdict: Verdict, sensitivities: Iterable[str] = ()) -> list[Result]:
    """Return the results of one resource: one for each policy, code and message, for all actions.

    ``sensitivities`` are those of the weights it can read; they raise the severity.
    """
    grouped: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in (*verdict.denials, *verdict.audits, *verdict.warnings):
        grouped.setdefault((finding.policy, finding.code, finding.message), []).append(finding)
    reads = [_BY_SENSITIVITY.get(item, "high") for item in sensitivities]
    return [_result(resource, findings, reads) for findings in grouped.values()]


def _result(resource: Resource, findings: list[Finding], reads: list[str]) -> Result:
    first = findings[0]
    actions = tuple(action for action in ACTIONS if any(item.action == action for item in findings))
    reason = codes.REASONS.get(first.code)
    own = "high" if reason is not None and reason.category in _SERIOUS else "medium"
    return Result(
        resource=resource,
        policy=first.policy,
        code=first.code,
        outcome=_outcome(first, actions),
        message=clip(sentence(first), _MAX_MESSAGE_BYTES),
        fix=clip(fix_of(first), _MAX_FIX_BYTES),
        actions=actions,
        severity=max([own, *reads], key=_SEVERITIES.index),
        controls=first.controls,
        waiver=first.waiver,
    )


def _outcome(finding: Finding, actions: tuple[str, ...]) -> Outcome:
    """Return a report's ``warn`` for policies at Warn, and for violations that an approved waiver covers."""
    if finding.unevaluable:
        return "error"
    return "warn" if actions == ("Warn",) else "fail"


@dataclass(slots=True)
class Counts:
    """Numbers of results by outcome; ``broken`` counts resources by policy and its strongest action.

    ``left_out`` are results that are counted and not listed; ``newly`` are resources that admission lets pass and would
    not were every policy at Deny.
    """

    resources: int = 0
    passed: int = 0
    skipped: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    broken: Counter[tuple[str, str]] = field(default_factory=Counter)
    left_out: int = 0
    newly: int = 0

    def add(self, other: Counts) -> None:
        """Add other counts."""
        self.resources += other.resources
        self.passed += other.passed
        self.skipped += other.skipped
        self.outcomes.update(other.outcomes)
        self.broken.update(other.broken)
        self.left_out += other.left_out
        self.newly += other.newly

    def would_deny(self) -> dict[str, int]:
        """Return by policy the number of resources that admission allows today and would deny with the action Deny."""
        numbers: Counter[str] = Counter()
        for (policy, how), number in self.broken.items():
            if how in ("Audit", "Warn"):
                numbers[policy] += number
        return dict(numbers)


# The second part of a key of `Counts.broken`: how the policy is enforced.
WAIVED = "waived"


class Gathering:
    """Collects the results of one namespace or directory. Holds at most twice ``limit`` of them."""

    def __init__(self, limit: int = MAX_RESULTS) -> None:
        self.counts = Counts()
        self._limit = limit
        self._results: list[Result] = []

    def add(self, verdict: Verdict, results: list[Result]) -> None:
        """Add the results of one resource."""
        counts = self.counts
        counts.resources += 1
        ran = Counter(result for _, result, _ in verdict.timings)
        counts.passed += ran["pass"]
        counts.skipped += ran["skipped"]
        counts.outcomes.update(item.outcome for item in results)
        counts.broken.update(_by_policy(results).items())
        denied = any("Deny" in item.actions for item in results)
        counts.newly += not denied and any(item.would_deny for item in results)
        self._results += results
        if len(self._results) > 2 * self._limit:
            self._cut()

    def results(self) -> list[Result]:
        """Return the most severe results, in the order of resources."""
        self._cut()
        return sorted(self._results, key=lambda item: (item.resource, item.code, item.policy, item.message))

    def _cut(self) -> None:
        self._results.sort(key=_seriousness)
        self.counts.left_out += len(self._results[self._limit :])
        del self._results[self._limit :]


def _by_policy(results: list[Result]) -> dict[str, str]:
    """Return the strongest action of each policy that one resource violates."""
    order = (*ACTIONS, WAIVED)
    strongest: dict[str, str] = {}
    for item in results:
        how = WAIVED if item.waiver else item.actions[0]
        strongest[item.policy] = min(strongest.get(item.policy, how), how, key=order.index)
    return strongest


def _seriousness(item: Result) -> tuple[int, int, Resource, str, str, str]:
    """Return the sort key for a list that is cut: denials first, then by severity."""
    rank = 0 if "Deny" in item.actions else 1
    severity = -_SEVERITIES.index(item.severity)
    return rank, severity, item.resource, item.code, item.policy, item.message
