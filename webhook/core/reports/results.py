"""Verdicts about running workloads, gathered into results that fit into a report.

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
# From the strongest to the weakest, in which order they are written, too.
ACTIONS = ("Deny", "Audit", "Warn")
_SEVERITIES = ("info", "low", "medium", "high", "critical")
_BY_SENSITIVITY = {
    "frontier": "critical",
    "restricted": "high",
    "internal": "medium",
    "public": "low",
    "?": "high",
}
# How serious the codes of a category are by themselves.
_SERIOUS = frozenset(
    {codes.Category.WEIGHTS, codes.Category.DEVICES, codes.Category.KEYS, codes.Category.BROKER}
)
_USER_DEFINED = "policy"


@dataclass(frozen=True, slots=True, order=True)
class Resource:
    """The evaluated object."""

    namespace: str
    name: str
    kind: str
    api_version: str = "v1"
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Result:
    """One rule that one resource breaks, or that could not be checked. ``waiver`` names the request that excuses it.

    ``would_deny`` says that admission lets it pass today and would not were the policy's action Deny.
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
        """See above."""
        return "Deny" not in self.actions and not self.waiver

    @property
    def category(self) -> str:
        """What the code is about, in a word."""
        reason = codes.REASONS.get(self.code)
        return reason.category.value if reason is not None else _USER_DEFINED


def results_of(resource: Resource, verdict: Verdict, sensitivities: Iterable[str] = ()) -> list[Result]:
    """The results of one resource: one for each policy, code and message, whatever the actions.

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
    """A report's ``warn`` is for what counts for less: policies at Warn, and what an approved waiver excuses."""
    if finding.unevaluable:
        return "error"
    return "warn" if actions == ("Warn",) else "fail"


@dataclass(slots=True)
class Counts:
    """How often what came of it, in results; ``broken`` counts resources by policy and its strongest action.

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
        """Count those, too."""
        self.resources += other.resources
        self.passed += other.passed
        self.skipped += other.skipped
        self.outcomes.update(other.outcomes)
        self.broken.update(other.broken)
        self.left_out += other.left_out
        self.newly += other.newly

    def would_deny(self) -> dict[str, int]:
        """By policy: how many resources admission lets pass and would not were the policy at Deny."""
        found: Counter[str] = Counter()
        for (policy, how), number in self.broken.items():
            if how in ("Audit", "Warn"):
                found[policy] += number
        return dict(found)


# What stands in `Counts.broken` beside the policy: how it is enforced.
WAIVED = "waived"


class Gathering:
    """The results of one namespace, or of a directory, as they come. Holds at most twice ``limit`` of them."""

    def __init__(self, limit: int = MAX_RESULTS) -> None:
        self.counts = Counts()
        self._limit = limit
        self._found: list[Result] = []

    def add(self, verdict: Verdict, results: list[Result]) -> None:
        """Take what came of one resource."""
        counts = self.counts
        counts.resources += 1
        ran = Counter(result for _, result, _ in verdict.timings)
        counts.passed += ran["pass"]
        counts.skipped += ran["skipped"]
        counts.outcomes.update(item.outcome for item in results)
        counts.broken.update(_by_policy(results).items())
        denied = any("Deny" in item.actions for item in results)
        counts.newly += not denied and any(item.would_deny for item in results)
        self._found += results
        if len(self._found) > 2 * self._limit:
            self._cut()

    def results(self) -> list[Result]:
        """The most serious, in the order of resources."""
        self._cut()
        return sorted(self._found, key=lambda item: (item.resource, item.code, item.policy, item.message))

    def _cut(self) -> None:
        self._found.sort(key=_seriousness)
        self.counts.left_out += len(self._found[self._limit :])
        del self._found[self._limit :]


def _by_policy(results: list[Result]) -> dict[str, str]:
    """The strongest way in which each policy stands against one resource."""
    order = (*ACTIONS, WAIVED)
    found: dict[str, str] = {}
    for item in results:
        how = WAIVED if item.waiver else item.actions[0]
        found[item.policy] = min(found.get(item.policy, how), how, key=order.index)
    return found


def _seriousness(item: Result) -> tuple[int, int, Resource, str, str, str]:
    """What comes first where not all can be listed: what denies, then what is most severe."""
    rank = 0 if "Deny" in item.actions else 1
    severity = -_SEVERITIES.index(item.severity)
    return rank, severity, item.resource, item.code, item.policy, item.message
