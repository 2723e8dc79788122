"""All policies that apply, indexed so that a request pays only for those whose rules can match it.

Those that can be are evaluated together. What that cannot settle is evaluated policy by policy, so it never changes a
verdict; and no request waits for more than one batch of policies to be combined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from webhook.cel import CompileError
from webhook.cel.batch import PASSED, SKIPPED, UNMATCHED, Batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from webhook.cel import Bindings
    from webhook.cel.batch import Case
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
    """A policy whose rules can match. ``remainder`` must match too; ``switch`` is its key if there is any of it."""

    policy: Policy
    remainder: tuple[Matcher, ...]
    switch: str


@dataclass(frozen=True, slots=True)
class Open:
    """A policy to be evaluated by itself. ``skips``: one of its conditions is known to be false."""

    policy: Policy
    skips: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """What passed or was skipped, and what is to be evaluated by itself."""

    timings: Sequence[Timing]
    left: Sequence[Open]


class Together:
    """Some candidates that are evaluated at once; the expression is made at the first use."""

    __slots__ = ("_batch", "_cases", "_seen", "members", "ready")

    def __init__(self, members: Sequence[Candidate], cases: Sequence[Case]) -> None:
        self.members = members
        self.ready = False
        self._cases = cases
        self._batch: Batch | None = None
        # Most requests have one of a few outcomes.
        self._seen: dict[str, Settled] = {}

    def prepare(self) -> None:
        """Make the expression; where the engine cannot hold it, its policies are evaluated one by one."""
        self.ready = True
        try:
            self._batch = Batch(self._cases)
        except CompileError:
            self._batch = None

    def settle(self, bindings: Bindings) -> Settled | None:
        """Evaluate them; None where that has no value, and each is to be evaluated by itself."""
        outcomes = self._batch.outcomes(bindings) if self._batch else ""
        found = self._seen.get(outcomes)
        if found is None and outcomes:
            if len(self._seen) >= _MAX_OUTCOMES:
                self._seen.clear()
            found = self._seen[outcomes] = self._sort(outcomes)
        return found

    def _sort(self, outcomes: str) -> Settled:
        timings: list[Timing] = []
        left: list[Open] = []
        for member, outcome in zip(self.members, outcomes, strict=True):
            policy = member.policy
            if outcome == PASSED:
                timings.append((policy.name, "pass", None))
            elif outcome == SKIPPED and policy.params is None:
                timings.append((policy.name, "skipped", None))
            elif outcome != UNMATCHED:
                left.append(Open(policy, skips=outcome == SKIPPED))
        return Settled(timings, left)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The policies whose rules can match one kind of request, in a stable order.

    Where none of them could see managed fields, bindings may be given documents without.
    """

    all: tuple[Candidate, ...]
    selective: tuple[Candidate, ...]
    together: tuple[Together, ...]
    alone: tuple[Candidate, ...]
    see_managed_fields: bool

    def matching(self, request: AdmissionRequest, kind: RequestKind, lookup: Lookup) -> dict[str, bool]:
        """The switches of what matches. Raises `MissingObjectError` for a namespace that is not held."""
        return {
            candidate.switch: True
            for candidate in self.selective
            if all(matcher.matches(request, kind, lookup) for matcher in candidate.remainder)
        }

    def none(self, matching: Mapping[str, bool]) -> bool:
        """Whether no policy matches."""
        return not matching and len(self.selective) == len(self.all)

    def settle(self, bindings: Bindings, matching: Mapping[str, bool]) -> tuple[list[Timing], list[Open]]:
        """Evaluate together what can be: what passed or was skipped, and what is to be evaluated by itself.

        ``bindings`` must have been given the same ``matching``.
        """
        timings: list[Timing] = []
        left: list[Open] = []
        alone = list(self.alone)
        combined = False
        for group in self.together:
            settled = None
            if group.ready or not combined:
                if not group.ready:
                    group.prepare()
                    combined = True
                settled = group.settle(bindings)
            if settled is None:
                alone += group.members
            else:
                timings += settled.timings
                left += settled.left
        left += [Open(item.policy) for item in alone if not item.switch or item.switch in matching]
        return timings, left


class PolicySet:
    """Policies in a stable order. Immutable but for bounded memos: what can match a kind, and what is combined."""

    __slots__ = ("_candidates", "_groups", "policies")

    def __init__(self, policies: Iterable[Policy]) -> None:
        self.policies = tuple(sorted(policies, key=lambda policy: (policy.code, policy.name)))
        self._candidates: dict[RequestKind, Candidates] = {}
        self._groups: dict[tuple[tuple[int, str], ...], Together] = {}

    def candidates(self, kind: RequestKind) -> Candidates:
        """The policies whose rules can match a request of this kind."""
        found = self._candidates.get(kind)
        if found is None:
            if len(self._candidates) >= _MAX_KINDS:
                # The requester chooses the kind; a memo that only grows would be theirs to fill.
                self._candidates.clear()
                self._groups.clear()
            found = self._candidates[kind] = self._find(kind)
        return found

    def matching(self, request: AdmissionRequest, kind: RequestKind, lookup: Lookup) -> list[Policy]:
        """The policies that match a request. Raises `MissingObjectError` for a namespace that is not held."""
        candidates = self.candidates(kind)
        matching = candidates.matching(request, kind, lookup)
        return [item.policy for item in candidates.all if not item.switch or item.switch in matching]

    def param_kinds(self) -> frozenset[str]:
        """The kinds, as ``Kind.group``, whose objects parameterise a policy: a provider must hold them."""
        return frozenset(policy.param_kind for policy in self.policies if policy.param_kind)

    def __len__(self) -> int:
        return len(self.policies)

    def _find(self, kind: RequestKind) -> Candidates:
        found: list[Candidate] = []
        alone: list[Candidate] = []
        cases: list[tuple[int, Candidate, Case]] = []
        for index, policy in enumerate(self.policies):
            if not policy.may_match(kind):
                continue
            remainder = policy.remainder(kind)
            candidate = Candidate(policy, remainder, str(index) if remainder else "")
            found.append(candidate)
            case = policy.case(candidate.switch)
            if case is None:
                alone.append(candidate)
            else:
                cases.append((index, candidate, case))
        # A batch for one would be an evaluation more where that one is broken.
        if len(cases) == 1:
            alone.append(cases.pop()[1])
        return Candidates(
            all=tuple(found),
            selective=tuple(candidate for candidate in found if candidate.switch),
            together=tuple(
                self._group(cases[start : start + _BATCH_SIZE]) for start in range(0, len(cases), _BATCH_SIZE)
            ),
            alone=tuple(alone),
            see_managed_fields=any(candidate.policy.sees_managed_fields() for candidate in found),
        )

    def _group(self, cases: Sequence[tuple[int, Candidate, Case]]) -> Together:
        """The group of these, shared by all kinds of request that have the same candidates."""
        key = tuple((index, candidate.switch) for index, candidate, _ in cases)
        if key not in self._groups:
            self._groups[key] = Together(
                [candidate for _, candidate, _ in cases], [case for *_, case in cases]
            )
        return self._groups[key]
