"""All policies that apply, indexed so that a request pays only for those whose rules can match it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.core.match import Matcher, RequestKind
    from webhook.core.objects import Lookup
    from webhook.core.policy import Policy
    from webhook.core.review import AdmissionRequest

_MAX_KINDS = 4096


class PolicySet:
    """Policies in a stable order. Immutable but for a bounded memo of which of them can match a kind of request.

    With each of those the memo holds what is left to look at: often nothing, for rules depend on the kind alone.
    """

    __slots__ = ("_candidates", "policies")

    def __init__(self, policies: Iterable[Policy]) -> None:
        self.policies = tuple(sorted(policies, key=lambda policy: (policy.code, policy.name)))
        self._candidates: dict[RequestKind, tuple[tuple[Policy, tuple[Matcher, ...]], ...]] = {}

    def matching(self, request: AdmissionRequest, kind: RequestKind, lookup: Lookup) -> Iterator[Policy]:
        """The policies that match a request. Raises `MissingObjectError` for a namespace that is not held."""
        candidates = self._candidates.get(kind)
        if candidates is None:
            if len(self._candidates) >= _MAX_KINDS:
                # The requester chooses the kind; a memo that only grows would be theirs to fill.
                self._candidates.clear()
            candidates = tuple(
                (policy, policy.remainder(kind)) for policy in self.policies if policy.may_match(kind)
            )
            self._candidates[kind] = candidates
        for policy, remainder in candidates:
            if not remainder or all(matcher.matches(request, kind, lookup) for matcher in remainder):
                yield policy

    def param_kinds(self) -> frozenset[str]:
        """The kinds, as ``Kind.group``, whose objects parameterise a policy: a provider must hold them."""
        return frozenset(policy.param_kind for policy in self.policies if policy.param_kind)

    def __len__(self) -> int:
        return len(self.policies)
