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
    from webhook.core.access.grant_index import AccessBook
    from webhook.core.access.model import Ask
    from webhook.core.access.problems import Case
    from webhook.core.kube.fields import Document

_REQUESTS = f"AccessRequest.{GROUP}"
_OPEN = (Phase.PENDING, Phase.ACTIVE)


def approval_problems(case: Case, typed: AccessApproval) -> Iterator[AccessProblem]:
    """Every rule a new approval breaks."""
    reference = typed.spec.request
    book = _with_request(case, reference.name)
    ask = book.ask(reference.name)
    if ask is None or ask.uid != reference.uid:
        yield _unknown(reference.name, ask, book)
        return
    state = book.state(ask.name, case.now)
    if state.phase not in _OPEN:
        why = f": {state.reason}" if state.reason else ""
        yield AccessProblem(
            codes.REQUEST_CLOSED,
            f"request {ask.name} is {state.phase.lower()}{why}",
            "a new request is needed: weightlock access request",
        )
    yield from _voter(typed.spec.decision, case, ask, book)


def may_delete(case: Case, document: Document) -> bool:
    """Whether an approval's request is gone, so that deleting the approval cannot revive anything."""
    spec = document.get("spec")
    reference = spec.get("request") if isinstance(spec, dict) else None
    if not isinstance(reference, dict) or not isinstance(reference.get("name"), str):
        return True
    ask = _with_request(case, reference["name"]).ask(reference["name"])
    return ask is None or ask.uid != reference.get("uid")


def _with_request(case: Case, name: str) -> AccessBook:
    """The book, or one that knows a request which the watch has not brought yet."""
    book = case.book
    if book.ask(name) is not None or case.lookup is None:
        return book
    document = case.lookup.get(_REQUESTS, "", name)
    if document is None:
        return book
    try:
        return book.with_changes([AccessRequest.model_validate(document)])
    except ValidationError:
        return book


def _unknown(name: str, ask: Ask | None, book: AccessBook) -> AccessProblem:
    if ask is not None:
        return AccessProblem(
            codes.UNKNOWN_REQUEST,
            f"spec.request.uid is not that of request {name}: another request had this name",
            f"read the request as it is now, then: weightlock access approve {name}",
        )
    ignored = book.ignored("AccessRequest", name)
    return AccessProblem(
        codes.UNKNOWN_REQUEST,
        f"request {name} counts for nothing: {ignored.reason}"
        if ignored is not None
        else f"there is no AccessRequest {name!r}",
        "kubectl get accessrequests lists them",
    )


def _voter(decision: str, case: Case, ask: Ask, book: AccessBook) -> Iterator[AccessProblem]:
    user = case.request.user
    voter = Identity(user.username, user.uid, frozenset(user.groups))
    own = is_own(voter, ask)
    if own and decision != "Approve":
        return
    if own:
        yield AccessProblem(
            codes.OWN_REQUEST,
            f"{user.username} asked for this access or would get it, and so cannot approve it",
            "ask somebody else among the approvers",
        )
    rules = book.rules(ask.name)
    if is_machine(user.username) and user.username not in case.settings.machine_approvers:
        yield AccessProblem(
            codes.SERVICE_ACCOUNT_VOTE,
            f"{user.username} is no person, and people decide",
            "sign in with your own account",
        )
    elif rules is not None and not may_approve(voter, rules, case.settings):
        yield AccessProblem(
            codes.NOT_ELIGIBLE,
            f"{user.username} is no approver of {_what(ask)}",
            f"approvers are {approvers(rules)}",
        )
    marks = set(voter.marks())
    before = [vote for vote in book.votes(ask.name) if not marks.isdisjoint(vote.by.marks())]
    if decision == "Approve" and any(vote.request_uid == ask.uid for vote in before):
        yield AccessProblem(
            codes.ALREADY_VOTED,
            f"{user.username} has decided on request {ask.name} already",
            "it needs somebody else now; to take your approval back: decision Revoke",
        )


def _what(ask: Ask) -> str:
    if ask.change is not None:
        return f"changes of {ask.change.kind} {ask.change.name}"
    return f"waivers of {ask.waiver.code}" if ask.waiver is not None else f"model {ask.model}"


def approvers(rules: AccessRules) -> str:
    """Who may approve, in words."""
    groups = sorted({*rules.approvers.groups, *(rule.group for rule in rules.rules)})
    named = [f"members of {group}" for group in groups] + list(rules.approvers.users)
    shown = named if len(named) <= 6 else [*named[:6], f"{len(named) - 6} more"]
    return ", ".join(shown) or "named nowhere: the ModelWeights lists none"
