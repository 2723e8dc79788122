"""Index the policies, so that a request pays only for those whose rules can match it.

Policies are evaluated in batches where possible. A policy that a batch cannot decide is evaluated alone, so batches
never change a verdict. No request waits for more than one batch to be combined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from webhook.cel import CompileError
from webhook.cel.batch import PASSED, SKIPPED, UNMATCHED, Batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from webhook.cel import Bindings
    from webhook.cel.batch import BatchEntry
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest
    from webhook.core.policies.match import Matcher, RequestKind
    from webhook.core.policies.policy import Policy

    Timing = tuple[str, Literal["pass", "skipped"], None]

_MAX_KINDS = 4096
_MAX_OUTCOMES = 256
# Combining so many takes one or two milliseconds, and they share the engine's 10,000 iterations an evaluation.
_BATCH_SIZE = 24


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy whose rules can match. ``remainder`` must match, too; ``match_flag`` is its key if it is not empty."""

    policy: Policy
    remainder: tuple[Matcher, ...]
    match_flag: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A policy to evaluate alone. ``condition_false``: one of its conditions is false."""

    policy: Policy
    condition_false: bool = False


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The policies that passed or were skipped, and those to evaluate alone."""

    timings: Sequence[Timing]
    remaining: Sequence[Pending]


class PolicyBatch:
    """Some candidates that are evaluated at once. The expression is compiled at the first use."""

    __slots__ = ("_batch", "_cases", "_seen", "members", "ready")

    def __init__(self, members: Sequence[Candidate], cases: Sequence[BatchEntry]) -> None:
        self.members = members
        self.ready = False
        self._cases = cases
        self._batch: Batch | None = None
        # Most requests have one of a few outcomes.
        self._seen: dict[str, BatchResult] = {}

    def prepare(self) -> None:
        """Compile the expression. If the engine rejects its size, the policies are evaluated alone."""
        self.ready = True
        try:
            self._batch = Batch(self._cases)
        except CompileError:
            self._batch = None

    def evaluate(self, bindings: Bindings) -> BatchResult | None:
        """Evaluate the batch. Return None where it has no value and each policy is to be evaluated alone."""
        outcomes = self._batch.outcomes(bindings) if self._batch else ""
        result = self._seen.get(outcomes)
        if result is None and outcomes:
            if len(self._seen) >= _MAX_OUTCOMES:
                self._seen.clear()
            result = self._seen[outcomes] = self._sort(outcomes)
        return result

    def _sort(self, outcomes: str) -> BatchResult:
        timings: list[Timing] = []
        remaining: list[Pending] = []
        for member, outcome in zip(self.members, outcomes, strict=True):
            policy = member.policy
            if outcome == PASSED:
                timings.append((policy.name, "pass", None))
            elif outcome == SKIPPED and policy.params is None:
                timings.append((policy.name, "skipped", None))
            elif outcome != UNMATCHED:
                remaining.append(Pending(policy, condition_false=outcome == SKIPPED))
        return BatchResult(timings, remaining)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The policies whose rules can match one kind of request, in a stable order.

    If no policy reads managed fields, bindings may omit them.
    """

    all: tuple[Candidate, ...]
    selective: tuple[Candidate, ...]
    batches: tuple[PolicyBatch, ...]
    alone: tuple[Candidate, ...]
    see_managed_fields: bool
    see_images: bool

    def matching(self, request: AdmissionRequest, kind: RequestKind, lookup: Lookup) -> dict[str, bool]:
        """Return the flags of the matching policies. Raises `MissingObjectError` for a namespace that is not cached."""
        return {
            candidate.match_flag: True
            for candidate in self.selective
            if all(matcher.matches(request, kind, lookup) for matcher in candidate.remainder)
        }

    def none(self, matching: Mapping[str, bool]) -> bool:
        """Whether no policy matches."""
        return not matching and len(self.selective) == len(self.all)

    def evaluate_batches(
        self, bindings: Bindings, matching: Mapping[str, bool]
    ) -> tuple[list[Timing], list[Pending]]:
        """Evaluate the batches. Return the policies that passed or were skipped, and those to evaluate alone.

        ``bindings`` must carry the same ``matching``.
        """
        timings: list[Timing] = []
        remaining: list[Pending] = []
        alone = list(self.alone)
        combined = False
        for group in self.batches:
            result = None
            if group.ready or not combined:
                if not group.ready:
                    group.prepare()
                    combined = True
                result = group.evaluate(bindings)
            if result is None:
                alone += group.members
            else:
                timings += result.timings
                remaining += result.remaining
        remaining += [
            Pending(item.policy) for item in alone if not item.match_flag or item.match_flag in matching
        ]
        return timings, remaining


class PolicySet:
    """Policies in a stable order. Immutable except for bounded memos of candidates and batches."""

    __slots__ = ("_candidates", "_groups", "policies")

    def __init__(self, policies: Iterable[Policy]) -> None:
        self.policies = tuple(sorted(policies, key=lambda policy: (policy.code, policy.name)))
        self._candidates: dict[RequestKind, Candidates] = {}
        self._groups: dict[tuple[tuple[int, str], ...], PolicyBatch] = {}

    def candidates(self, kind: RequestKind) -> Candidates:
        """Return the policies whose rules can match a request of this kind."""
        candidates = self._candidates.get(kind)
        if candidates is None:
            if len(self._candidates) >= _MAX_KINDS:
                # The requester chooses the kind, so the memo has a bound.
                self._candidates.clear()
                self._groups.clear()
            candidates = self._candidates[kind] = self._find(kind)
        return candidates

    def matching(self, request: AdmissionRequest, kind: RequestKind, lookup: Lookup) -> list[Policy]:
        """Return the policies that match a request. Raises `MissingObjectError` for a namespace that is not cached."""
        candidates = self.candidates(kind)
        matching = candidates.matching(request, kind, lookup)
        return [item.policy for item in candidates.all if not item.match_flag or item.match_flag in matching]

    def param_kinds(self) -> frozenset[str]:
        """Return the kinds, as ``Kind.group``, of all params. A provider must watch them."""
        return frozenset(policy.param_kind for policy in self.policies if policy.param_kind)

    def __len__(self) -> int:
        return len(self.policies)

    def _find(self, kind: RequestKind) -> Candidates:
        matches: list[Candidate] = []
        alone: list[Candidate] = []
        cases: list[tuple[int, Candidate, BatchEntry]] = []
        for index, policy in enumerate(self.policies):
            if not policy.may_match(kind):
                continue
            remainder = policy.remainder(kind)
            candidate = Candidate(policy, remainder, str(index) if remainder else "")
            matches.append(candidate)
            case = policy.case(candidate.match_flag)
            if case is None:
                alone.append(candidate)
            else:
                cases.append((index, candidate, case))
        # A batch of one would cost a second evaluation if that policy is violated.
        if len(cases) == 1:
            alone.append(cases.pop()[1])
        return Candidates(
            all=tuple(matches),
            selective=tuple(candidate for candidate in matches if candidate.match_flag),
            batches=tuple(
                self._group(cases[start : start + _BATCH_SIZE]) for start in range(0, len(cases), _BATCH_SIZE)
            ),
            alone=tuple(alone),
            see_managed_fields=any(candidate.policy.sees_managed_fields() for candidate in matches),
            see_images=any(candidate.policy.sees_images() for candidate in matches),
        )

    def _group(self, cases: Sequence[tuple[int, Candidate, BatchEntry]]) -> PolicyBatch:
        """Return the batch of these, shared by all kinds of request with the same candidates."""
        key = tuple((index, candidate.match_flag) for index, candidate, _ in cases)
        if key not in self._groups:
            self._groups[key] = PolicyBatch(
                [candidate for _, candidate, _ in cases], [case for *_, case in cases]
            )
        return self._groups[key]
