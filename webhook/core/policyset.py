"""All policies that apply, indexed so that a request pays only for those whose rules can match it.

Those that can be are evaluated together. What that cannot settle is evaluated policy by policy, so it never changes a
verdict; and no request waits for more than one batch of policies to be combined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from webhook.core.cel import CompileError
from webhook.core.cel.batch import PASSED, SKIPPED, UNMATCHED, Batch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from webhook.core.cel import Bindings
    from webhook.core.cel.batch import Case
    from webhook.core.match import Matcher, RequestKind
    from webhook.core.objects import Lookup
    from webhook.core.policy import Policy
    from webhook.core.review import AdmissionRequest

    Timing = tuple[str, Literal["pass", "skipped"], None]

_MAX_KINDS = 4096
# Combining so many takes one or two milliseconds, and they share the engine's 10,000 iterations an evaluation.
_BATCH_SIZE = 24


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy whose rules can match. ``remainder`` must match too; ``switch`` is its key if there is any of it."""

    policy: Policy
    remainder: tuple[Matcher, ...]
    switch: str


class Together:
    """Some candidates that are evaluated at once; the expression is made at the first use."""

    __slots__ = ("_all_passed", "_batch", "_cases", "_passed", "members", "ready")

    def __init__(self, members: Sequence[Candidate], cases: Sequence[Case]) -> None:
        self.members = members
        self.ready = False
        self._cases = cases
        self._batch: Batch | None = None
        self._all_passed = PASSED * len(members)
        self._passed: list[Timing] = [(member.policy.name, "pass", None) for member in members]

    def prepare(self) -> None:
        """Make the expression; where the engine cannot hold it, its policies are evaluated one by one."""
        self.ready = True
        try:
            self._batch = Batch(self._cases)
        except CompileError:
            self._batch = None

    def settle(self, bindings: Bindings) -> tuple[Sequence[Timing], Sequence[Candidate]]:
        """What passed or was skipped, and which are to be evaluated by themselves."""
        outcomes = self._batch.outcomes(bindings) if self._batch else ""
        if outcomes == self._all_passed:
            return self._passed, ()
        if not outcomes:
            return (), self.members
        timings: list[Timing] = []
        left: list[Candidate] = []
        for member, outcome in zip(self.members, outcomes, strict=True):
            if outcome == PASSED:
                timings.append((member.policy.name, "pass", None))
            elif outcome == SKIPPED:
                timings.append((member.policy.name, "skipped", None))
            elif outcome != UNMATCHED:
                left.append(member)
        return timings, left


@dataclass(frozen=True, slots=True)
class Candidates:
    """The policies whose rules can match one kind of request, in a stable order."""

    all: tuple[Candidate, ...]
    selective: tuple[Candidate, ...]
    together: tuple[Together, ...]
    alone: tuple[Candidate, ...]

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

    def settle(self, bindings: Bindings, matching: Mapping[str, bool]) -> tuple[list[Timing], list[Policy]]:
        """Evaluate together what can be: what passed or was skipped, and what is to be evaluated by itself.

        ``bindings`` must have been given the same ``matching``.
        """
        timings: list[Timing] = []
        left = list(self.alone)
        combined = False
        for group in self.together:
            if not group.ready:
                if combined:
                    left += group.members
                    continue
                group.prepare()
                combined = True
            settled, open_ = group.settle(bindings)
            timings += settled
            left += open_
        return timings, [item.policy for item in left if not item.switch or item.switch in matching]


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
        )

    def _group(self, cases: Sequence[tuple[int, Candidate, Case]]) -> Together:
        """The group of these, shared by all kinds of request that have the same candidates."""
        key = tuple((index, candidate.switch) for index, candidate, _ in cases)
        if key not in self._groups:
            self._groups[key] = Together(
                [candidate for _, candidate, _ in cases], [case for *_, case in cases]
            )
        return self._groups[key]
