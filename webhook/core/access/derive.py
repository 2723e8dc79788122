"""Derive the outcome of one request from its votes: the only place that creates a grant.

The outcome consists of instants, not of a verdict, so it stays correct as time passes and is computed once. The
current rules apply: Kubernetes keeps no history of a ModelWeights, so a vote counts only while the current rules let
its voter approve, and a grant that the current rules would not give is not active. Stricter rules can end a grant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from webhook.core.access.change import KEY_EXPORT
from webhook.core.access.model import Grant, Identity, ParsedRequest, Phase, RequestState, Vote
from webhook.core.access.rules import groups_of, is_new, is_own, may_approve, missing, needed, suffices

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from webhook.api.access import AccessSettings
    from webhook.api.modelweights import AccessRules


# The decisions that end a request.
STOPS = ("Deny", "Revoke")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a request. ``begins`` is set when the count was complete, whatever happened later."""

    lapses: datetime
    needed: int = 0
    people: tuple[Identity, ...] = ()
    missing: tuple[tuple[str, int], ...] = ()
    begins: datetime | None = None
    expires: datetime | None = None
    stop: Vote | None = None
    suspension: Vote | None = None
    invalid: str = ""

    def grant(self, parsed: ParsedRequest) -> Grant | None:
        """Return the grant of this outcome, or None."""
        if self.invalid or self.stop is not None or self.suspension is not None:
            return None
        if self.begins is None or self.expires is None:
            return None
        return Grant(
            model=parsed.model,
            request=parsed.name,
            uid=parsed.uid,
            subject=parsed.subject,
            namespaces=parsed.namespaces,
            begins=self.begins,
            expires=self.expires,
            approvers=tuple(person.username for person in self.people),
            break_glass=parsed.break_glass,
            change=parsed.change,
            waiver=parsed.waiver,
        )


def rules_for(
    parsed: ParsedRequest, models: Mapping[str, AccessRules], settings: AccessSettings
) -> AccessRules | None:
    """Return the approver rules for a request, or None if there are none and the request cannot be approved."""
    if parsed.waiver is not None:
        return settings.waivers.rules
    if parsed.change is not None and parsed.change.kind == KEY_EXPORT:
        return models.get(parsed.change.name)
    if parsed.change is not None:
        own = models.get(parsed.change.name) if parsed.change.kind == "ModelWeights" else None
        return own or settings.change_control.rules
    return models.get(parsed.model)


def derive(
    parsed: ParsedRequest, votes: Iterable[Vote], rules: AccessRules | None, settings: AccessSettings
) -> Outcome:
    """Return the outcome of a request and its votes under the current rules."""
    lapses = parsed.time + settings.pending_lifetime.timedelta
    own_votes = sorted(
        (vote for vote in votes if _belongs(vote, parsed)), key=lambda vote: (vote.time, vote.name)
    )
    stop = next((vote for vote in own_votes if vote.decision in STOPS), None)
    reason = _invalid(parsed, rules, settings)
    if reason or rules is None:
        return Outcome(lapses, stop=stop, invalid=reason)
    suspension = _suspension(parsed, own_votes, rules, settings)
    if parsed.break_glass:
        expires = parsed.time + parsed.duration
        return Outcome(lapses, begins=parsed.time, expires=expires, stop=stop, suspension=suspension)
    empty = Outcome(lapses, needed=needed(rules), stop=stop, suspension=suspension)
    return _count(parsed, own_votes, rules, settings, empty)


def _suspension(
    parsed: ParsedRequest, votes: list[Vote], rules: AccessRules, settings: AccessSettings
) -> Vote | None:
    """Return the last suspension that no approver confirmed afterwards, or None."""
    suspensions = [
        vote for vote in votes if vote.decision == "Suspend" and vote.by.username in settings.controllers
    ]
    for suspension in reversed(suspensions):
        confirmed = any(
            vote.decision == "Confirm"
            and vote.time >= suspension.time
            and can_confirm(vote.by, parsed, suspension, rules, settings)
            for vote in votes
        )
        if not confirmed:
            return suspension
    return None


def can_confirm(
    person: Identity, parsed: ParsedRequest, suspension: Vote, rules: AccessRules, settings: AccessSettings
) -> bool:
    """Return whether a user can confirm a suspended request: an approver by the present and the recorded rules."""
    if is_own(person, parsed) or not may_approve(person, rules, settings):
        return False
    if suspension.confirmers is None:
        return True
    groups, users = suspension.confirmers
    return person.username in users or not groups.isdisjoint(groups_of(person, settings))


def state_at(outcome: Outcome, now: datetime, settings: AccessSettings) -> RequestState:
    """Return the state of an outcome at one moment, for users."""
    state = RequestState(
        Phase.INVALID,
        approvals=len(outcome.people),
        needed=outcome.needed,
        approvers=tuple(person.username for person in outcome.people),
        begins=outcome.begins,
        ends=outcome.expires,
        reason=outcome.invalid,
    )
    if outcome.invalid:
        return state
    stop, expires = outcome.stop, outcome.expires
    if stop is not None and (expires is None or min(stop.time, now) < expires):
        phase = Phase.DENIED if stop.decision == "Deny" else Phase.REVOKED
        return replace(state, phase=phase, ends=stop.time, by=stop.by.username)
    over = expires is not None and now >= expires
    if outcome.suspension is not None and not over and (expires is not None or now < outcome.lapses):
        return replace(
            state, phase=Phase.SUSPENDED, reason=outcome.suspension.comment, ends=expires or outcome.lapses
        )
    if outcome.begins is not None and expires is not None and not in_future(outcome.begins, now, settings):
        return replace(state, phase=Phase.ACTIVE if now < expires else Phase.EXPIRED)
    phase = Phase.PENDING if now < outcome.lapses else Phase.EXPIRED
    return replace(state, phase=phase, missing=outcome.missing, begins=None, ends=outcome.lapses)


def in_future(moment: datetime, now: datetime, settings: AccessSettings) -> bool:
    """Return whether a timestamp lies further ahead than clocks may differ."""
    return moment > now + timedelta(seconds=settings.clock_skew_seconds)


def _belongs(vote: Vote, parsed: ParsedRequest) -> bool:
    """Approvals older than the request are ignored; a Deny or Revoke counts by its uid alone."""
    same = vote.request == parsed.name and vote.request_uid == parsed.uid
    return same and (vote.time >= parsed.time or vote.decision != "Approve")


def _invalid(parsed: ParsedRequest, rules: AccessRules | None, settings: AccessSettings) -> str:
    if rules is None:
        return (
            "waivers are not configured"
            if parsed.waiver is not None
            else f"ModelWeights {parsed.model!r} does not exist"
        )
    limit = settings.break_glass.max_duration if parsed.break_glass else rules.max_duration
    if not timedelta(0) < parsed.duration <= limit.timedelta:
        return f"the duration must be positive and at most {limit}"
    if parsed.break_glass and groups_of(parsed.by, settings).isdisjoint(settings.break_glass.groups):
        return f"{parsed.by.username} is not in a group that is authorized for break-glass access"
    return ""


def _count(
    parsed: ParsedRequest, votes: list[Vote], rules: AccessRules, settings: AccessSettings, empty: Outcome
) -> Outcome:
    """Count the approvals in time order until they suffice."""
    people: list[Identity] = []
    voters: set[str] = set()
    begins = parsed.time if suffices((), rules, settings) else None
    for vote in votes if begins is None else ():
        if vote.decision != "Approve" or vote.time > empty.lapses:
            continue
        if is_own(vote.by, parsed) or not may_approve(vote.by, rules, settings):
            continue
        if is_new(vote.by, voters):
            people.append(vote.by)
        if suffices(people, rules, settings):
            begins = vote.time
            break
    return Outcome(
        empty.lapses,
        needed=empty.needed,
        people=tuple(people),
        missing=missing(people, rules, settings),
        begins=begins,
        expires=begins + parsed.duration if begins is not None else None,
        stop=empty.stop,
        suspension=empty.suspension,
    )
