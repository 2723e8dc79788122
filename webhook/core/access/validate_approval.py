"""What a new AccessApproval must be: about a living request, by somebody entitled, once, and never for
oneself.
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
_OPEN = (Phase.PENDING, Phase.ACTIVE)


def approval_problems(review: AccessReview, typed: AccessApproval) -> Iterator[AccessProblem]:
    """Every rule a new approval breaks."""
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
            "a new request is needed: weightlock access request",
        )
    yield from _voter(typed.spec.decision, review, parsed, index)


def may_delete(review: AccessReview, document: Document) -> bool:
    """Whether an approval's request is gone, so that deleting the approval cannot revive anything."""
    spec = document.get("spec")
    reference = spec.get("request") if isinstance(spec, dict) else None
    if not isinstance(reference, dict) or not isinstance(reference.get("name"), str):
        return True
    parsed = _with_request(review, reference["name"]).parsed(reference["name"])
    return parsed is None or parsed.uid != reference.get("uid")


def _with_request(review: AccessReview, name: str) -> GrantIndex:
    """The index, or one that knows a request which the watch has not brought yet."""
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
            f"spec.request.uid is not that of request {name}: another request had this name",
            f"read the request as it is now, then: weightlock access approve {name}",
        )
    ignored = index.invalid("AccessRequest", name)
    return AccessProblem(
        codes.UNKNOWN_REQUEST,
        f"request {name} counts for nothing: {ignored.reason}"
        if ignored is not None
        else f"there is no AccessRequest {name!r}",
        "kubectl get accessrequests lists them",
    )


def _voter(
    decision: str, review: AccessReview, parsed: ParsedRequest, index: GrantIndex
) -> Iterator[AccessProblem]:
    user = review.request.user
    voter = Identity(user.username, user.uid, frozenset(user.groups))
    own = is_own(voter, parsed)
    if own and decision != "Approve":
        return
    if own:
        yield AccessProblem(
            codes.OWN_REQUEST,
            f"{user.username} asked for this access or would get it, and so cannot approve it",
            "parsed somebody else among the approvers",
        )
    rules = index.rules(parsed.name)
    if is_machine(user.username) and user.username not in review.settings.service_account_approvers:
        yield AccessProblem(
            codes.SERVICE_ACCOUNT_VOTE,
            f"{user.username} is no person, and people decide",
            "sign in with your own account",
        )
    elif rules is not None and not may_approve(voter, rules, review.settings):
        yield AccessProblem(
            codes.NOT_ELIGIBLE,
            f"{user.username} is no approver of {_what(parsed)}",
            f"approvers are {approvers(rules)}",
        )
    marks = set(voter.marks())
    before = [vote for vote in index.votes(parsed.name) if not marks.isdisjoint(vote.by.marks())]
    if decision == "Approve" and any(vote.request_uid == parsed.uid for vote in before):
        yield AccessProblem(
            codes.ALREADY_VOTED,
            f"{user.username} has decided on request {parsed.name} already",
            "it needs somebody else now; to take your approval back: decision Revoke",
        )


def _what(parsed: ParsedRequest) -> str:
    if parsed.change is not None:
        return f"changes of {parsed.change.kind} {parsed.change.name}"
    return f"waivers of {parsed.waiver.code}" if parsed.waiver is not None else f"model {parsed.model}"


def approvers(rules: AccessRules) -> str:
    """Who may approve, in words."""
    groups = sorted({*rules.approvers.groups, *(rule.group for rule in rules.rules)})
    named = [f"members of {group}" for group in groups] + list(rules.approvers.users)
    shown = named if len(named) <= 6 else [*named[:6], f"{len(named) - 6} more"]
    return ", ".join(shown) or "named nowhere: the ModelWeights lists none"
