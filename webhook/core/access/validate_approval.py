"""Rules for a new AccessApproval: the request is open, the voter is an eligible approver, has not voted yet, and
is not the requester.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from webhook.api import codes
from webhook.api.access import AccessRequest
from webhook.api.base import GROUP
from webhook.core.access.model import Identity, Phase
from webhook.core.access.problems import AccessProblem
from webhook.core.access.rules import is_machine, is_own, may_approve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.api.access import AccessApproval
    from webhook.api.modelweights import AccessRules
    from webhook.core.access.grant_index import GrantIndex
    from webhook.core.access.model import ParsedRequest
    from webhook.core.access.problems import AccessReview
    from webhook.core.kube.fields import Document

_REQUESTS = f"AccessRequest.{GROUP}"
_YES = ("Approve", "Confirm")
_OPEN = (Phase.PENDING, Phase.ACTIVE, Phase.SUSPENDED)


def approval_problems(review: AccessReview, typed: AccessApproval) -> Iterator[AccessProblem]:
    """Return every rule that a new approval violates."""
    if typed.spec.decision == "Suspend":
        # In any state: an invalid request may become valid again.
        yield from _controller(review)
        return
    reference = typed.spec.request
    index = _with_request(review, reference.name)
    parsed = index.parsed(reference.name)
    if parsed is None or parsed.uid != reference.uid:
        yield _unknown(reference.name, parsed, index)
        return
    state = index.state(parsed.name, review.now)
    if state.phase not in _OPEN:
        why = f": {state.reason}" if state.reason else ""
        yield AccessProblem(
            codes.REQUEST_CLOSED,
            f"request {parsed.name} is {state.phase.lower()}{why}",
            "request access again: weightlock access request",
        )
    if (typed.spec.decision == "Confirm") != (state.phase is Phase.SUSPENDED) and typed.spec.decision in _YES:
        yield AccessProblem(
            codes.REQUEST_CLOSED,
            f"request {parsed.name} is {state.phase.lower()}",
            f"run: weightlock access confirm {parsed.name}"
            if state.phase is Phase.SUSPENDED
            else f"run: weightlock access approve {parsed.name}",
        )
    yield from _voter(typed.spec.decision, review, parsed, index)


def _controller(review: AccessReview) -> Iterator[AccessProblem]:
    user = review.request.user.username
    if user not in review.settings.controllers:
        yield AccessProblem(
            codes.NOT_ELIGIBLE,
            f"{user} is not allowed to suspend requests",
            "to end access, create an AccessApproval with decision: Revoke",
        )


def may_delete(review: AccessReview, document: Document) -> bool:
    """Return whether the approval's request is deleted, so that deleting the approval cannot revive a grant."""
    spec = document.get("spec")
    reference = spec.get("request") if isinstance(spec, dict) else None
    if not isinstance(reference, dict) or not isinstance(reference.get("name"), str):
        return True
    parsed = _with_request(review, reference["name"]).parsed(reference["name"])
    return parsed is None or parsed.uid != reference.get("uid")


def _with_request(review: AccessReview, name: str) -> GrantIndex:
    """Return the index, or one with a request that the watch has not delivered yet."""
    index = review.index
    if index.parsed(name) is not None or review.lookup is None:
        return index
    document = review.lookup.get(_REQUESTS, "", name)
    if document is None:
        return index
    try:
        return index.with_changes([AccessRequest.model_validate(document)])
    except ValidationError:
        return index


def _unknown(name: str, parsed: ParsedRequest | None, index: GrantIndex) -> AccessProblem:
    if parsed is not None:
        return AccessProblem(
            codes.UNKNOWN_REQUEST,
            f"spec.request.uid does not match request {name}: an earlier request had this name",
            f"read the current request, then run: weightlock access approve {name}",
        )
    invalid = index.invalid("AccessRequest", name)
    if invalid is not None and invalid.unsigned:
        return AccessProblem(
            codes.UNKNOWN_REQUEST,
            f"request {name} is not signed yet",
            f"retry in a few seconds, or let the command wait: weightlock access approve {name}",
        )
    return AccessProblem(
        codes.UNKNOWN_REQUEST,
        f"request {name} is invalid: {invalid.reason}"
        if invalid is not None
        else f"AccessRequest {name!r} does not exist",
        "list the requests: weightlock access list",
    )


def _voter(
    decision: str, review: AccessReview, parsed: ParsedRequest, index: GrantIndex
) -> Iterator[AccessProblem]:
    user = review.request.user
    voter = Identity(user.username, user.uid, frozenset(user.groups))
    own = is_own(voter, parsed)
    if own and decision not in _YES:
        return
    if own:
        yield AccessProblem(
            codes.OWN_REQUEST,
            f"{user.username} is the requester or the subject of this request and cannot approve it",
            "another approver must approve it",
        )
    rules = index.rules(parsed.name)
    if is_machine(user.username) and user.username not in review.settings.service_account_approvers:
        yield AccessProblem(
            codes.SERVICE_ACCOUNT_VOTE,
            f"{user.username} is a service account or system identity; only users can approve",
            "sign in with your own account",
        )
    elif rules is not None and not may_approve(voter, rules, review.settings):
        yield AccessProblem(
            codes.NOT_ELIGIBLE,
            f"{user.username} is not an approver for {_what(parsed)}",
            f"approvers: {approvers(rules)}",
        )
    marks = set(voter.marks())
    earlier = [vote for vote in index.votes(parsed.name) if not marks.isdisjoint(vote.by.marks())]
    if decision == "Approve" and any(vote.request_uid == parsed.uid for vote in earlier):
        yield AccessProblem(
            codes.ALREADY_VOTED,
            f"{user.username} has already voted on request {parsed.name}",
            "another approver is needed; to withdraw your approval, create an AccessApproval with decision: Revoke",
        )


def _what(parsed: ParsedRequest) -> str:
    if parsed.change is not None:
        return f"changes of {parsed.change.kind} {parsed.change.name}"
    return f"waivers of {parsed.waiver.code}" if parsed.waiver is not None else f"model {parsed.model}"


def approvers(rules: AccessRules) -> str:
    """Return the eligible approvers as a short text."""
    groups = sorted({*rules.approvers.groups, *(rule.group for rule in rules.rules)})
    names = [f"members of {group}" for group in groups] + list(rules.approvers.users)
    short = names if len(names) <= 6 else [*names[:6], f"{len(names) - 6} more"]
    return ", ".join(short) or "none: the ModelWeights names no approvers"
