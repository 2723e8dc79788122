"""What a new AccessRequest must be: about something that exists, for somebody who exists, bounded, with a
reason.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from webhook.api import codes
from webhook.core.access.model import SubjectKey
from webhook.core.access.problems import AccessProblem
from webhook.core.access.rules import is_machine
from webhook.core.kube.names import PatternSet
from webhook.core.kube.selectors import SelectorError, compile_selector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.api.access import AccessRequest, Waiver
    from webhook.api.duration import Duration
    from webhook.core.access.problems import AccessReview

_COMPARABLE = 500


def request_problems(review: AccessReview, typed: AccessRequest) -> Iterator[AccessProblem]:
    """Every rule a new request breaks."""
    spec = typed.spec
    username = review.request.user.username
    if is_machine(username) and username not in review.settings.service_account_requesters:
        # An approver could parsed through a service account they control, and then approve it as themselves.
        yield AccessProblem(
            codes.SERVICE_ACCOUNT_REQUEST,
            f"{username} is no person, and only people ask",
            "ask as yourself, for that service account as the subject: weightlock access request",
        )
    if not spec.reason.strip():
        yield AccessProblem(codes.REASON, "spec.reason is blank", "say in a sentence what the access is for")
    if spec.model:
        yield from _model(review, typed)
    elif spec.waiver is not None:
        yield from _waiver(review, typed, spec.waiver)
    elif spec.change is not None:
        yield from _change(review, typed, spec.change.kind, spec.change.name)


def _model(review: AccessReview, typed: AccessRequest) -> Iterator[AccessProblem]:
    spec = typed.spec
    rules = review.index.models.get(spec.model)
    if rules is None:
        yield AccessProblem(
            codes.UNKNOWN_MODEL,
            f"there is no ModelWeights {spec.model!r}",
            _which(spec.model, tuple(review.index.models)),
        )
    if spec.subject is not None:
        yield from _subject(review, SubjectKey.of(spec.subject))
    if spec.break_glass:
        yield from _break_glass(review, typed)
    elif rules is not None:
        yield from _duration(spec.duration, rules.max_duration, f"model {spec.model}")


def _which(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=3) if len(known) <= _COMPARABLE else []
    return f"did you mean {' or '.join(close)}?" if close else "kubectl get modelweights lists them"


def _subject(review: AccessReview, subject: SubjectKey) -> Iterator[AccessProblem]:
    """Every namespace has a service account ``default``; its controller may only not have made it yet."""
    if subject.kind != "ServiceAccount" or review.lookup is None or subject.name == "default":
        return
    if review.lookup.get("ServiceAccount", subject.namespace, subject.name) is None:
        yield AccessProblem(
            codes.UNKNOWN_SUBJECT,
            f"there is no {subject}",
            f"kubectl get serviceaccounts -n {subject.namespace} lists them; create it first",
        )


def _duration(wanted: Duration, limit: Duration, what: str) -> Iterator[AccessProblem]:
    if not wanted.timedelta:
        yield AccessProblem(
            codes.DURATION, "spec.duration is zero", f"ask for more than 0 and at most {limit}"
        )
    elif wanted.timedelta > limit.timedelta:
        yield AccessProblem(
            codes.DURATION,
            f"spec.duration {wanted} is longer than {what} allows",
            f"parsed for at most {limit}; it can be asked for again",
        )


def _break_glass(review: AccessReview, typed: AccessRequest) -> Iterator[AccessProblem]:
    user, settings = review.request.user, review.settings.break_glass
    if is_machine(user.username) or set(user.groups).isdisjoint(settings.groups):
        groups = " or ".join(settings.groups)
        yield AccessProblem(
            codes.BREAK_GLASS,
            f"{user.username} may not break the glass",
            f"members of {groups} may; others parsed without breakGlass"
            if groups
            else "parsed without breakGlass",
        )
    yield from _duration(typed.spec.duration, settings.max_duration, "breaking the glass")


def _waiver(review: AccessReview, typed: AccessRequest, waiver: Waiver) -> Iterator[AccessProblem]:
    settings = review.settings.waivers
    if settings.rules is None or not PatternSet(settings.codes).matches(waiver.code):
        waivable = ", ".join(settings.codes)
        yield AccessProblem(
            codes.NOT_WAIVABLE,
            f"policy code {waiver.code} cannot be waived",
            "there are no waivers in this cluster" if settings.rules is None else f"these can be: {waivable}",
        )
        return
    try:
        compile_selector(waiver.pod_selector)
    except SelectorError as error:
        yield AccessProblem(
            codes.INVALID_ACCESS_OBJECT,
            f"spec.waiver.podSelector: {error}",
            "write it as in a Deployment's spec.selector",
        )
    yield from _duration(typed.spec.duration, settings.rules.max_duration, "a waiver")


def _change(review: AccessReview, typed: AccessRequest, kind: str, name: str) -> Iterator[AccessProblem]:
    control = review.settings.change_control
    if not control.enabled or kind not in control.kinds:
        kinds = ", ".join(control.kinds) if control.enabled else "none"
        yield AccessProblem(
            codes.NOT_UNDER_CHANGE_CONTROL,
            f"changes of {kind} need no approval here",
            f"kinds under change control: {kinds}",
        )
        return
    own = review.index.models.get(name) if kind == "ModelWeights" else None
    yield from _duration(typed.spec.duration, (own or control.rules).max_duration, f"a change of {kind}")
