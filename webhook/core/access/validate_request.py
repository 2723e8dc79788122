"""Rules for a new AccessRequest: its model and subject exist, its duration is bounded, and it has a reason."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from webhook.api import codes
from webhook.core.access.change import KEY_EXPORT
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
    """Return every rule that a new request violates."""
    spec = typed.spec
    username = review.request.user.username
    if is_machine(username) and username not in review.settings.service_account_requesters:
        # An approver could send the request through a service account they control, and then approve it.
        yield AccessProblem(
            codes.SERVICE_ACCOUNT_REQUEST,
            f"{username} is a service account or system identity; only users can request access",
            "request access as yourself, with that service account as the subject: weightlock access request",
        )
    if not spec.reason.strip():
        yield AccessProblem(codes.REASON, "spec.reason is blank", "write one sentence about the purpose")
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
            f"ModelWeights {spec.model!r} does not exist",
            _which(spec.model, tuple(review.index.models)),
        )
    if spec.subject is not None:
        yield from _subject(review, SubjectKey.of(spec.subject))
    if spec.break_glass:
        yield from _break_glass(review, typed)
    elif rules is not None:
        yield from _duration(spec.duration, rules.max_duration, f"model {spec.model}")


def _which(name: str, names: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, names, n=3) if len(names) <= _COMPARABLE else []
    return f"did you mean {' or '.join(close)}?" if close else "list the models: kubectl get modelweights"


def _subject(review: AccessReview, subject: SubjectKey) -> Iterator[AccessProblem]:
    """Every namespace gets a service account ``default``, but its controller may not have created it yet."""
    if subject.kind != "ServiceAccount" or review.lookup is None or subject.name == "default":
        return
    if review.lookup.get("ServiceAccount", subject.namespace, subject.name) is None:
        yield AccessProblem(
            codes.UNKNOWN_SUBJECT,
            f"{subject} does not exist",
            f"create it first, or list the others: kubectl get serviceaccounts -n {subject.namespace}",
        )


def _duration(duration: Duration, limit: Duration, scope: str) -> Iterator[AccessProblem]:
    if not duration.timedelta:
        yield AccessProblem(
            codes.DURATION, "spec.duration is zero", f"request more than 0 and at most {limit}"
        )
    elif duration.timedelta > limit.timedelta:
        yield AccessProblem(
            codes.DURATION,
            f"spec.duration {duration} is longer than {scope} allows",
            f"request at most {limit}; access can be requested again",
        )


def _break_glass(review: AccessReview, typed: AccessRequest) -> Iterator[AccessProblem]:
    user, settings = review.request.user, review.settings.break_glass
    if is_machine(user.username) or set(user.groups).isdisjoint(settings.groups):
        groups = " or ".join(settings.groups)
        yield AccessProblem(
            codes.BREAK_GLASS,
            f"{user.username} is not authorized to use break-glass access",
            f"only members of {groups} are: request access without breakGlass"
            if groups
            else "request access without breakGlass",
        )
    yield from _duration(typed.spec.duration, settings.max_duration, "break-glass access")


def _waiver(review: AccessReview, typed: AccessRequest, waiver: Waiver) -> Iterator[AccessProblem]:
    settings = review.settings.waivers
    if settings.rules is None or not PatternSet(settings.codes).matches(waiver.code):
        names = ", ".join(settings.codes)
        yield AccessProblem(
            codes.NOT_WAIVABLE,
            f"policy code {waiver.code} cannot be waived",
            "waivers are not configured in this cluster" if settings.rules is None else f"waivable: {names}",
        )
        return
    try:
        compile_selector(waiver.pod_selector)
    except SelectorError as error:
        yield AccessProblem(
            codes.INVALID_ACCESS_OBJECT,
            f"spec.waiver.podSelector: {error}",
            "use the form of a Deployment's spec.selector",
        )
    yield from _duration(typed.spec.duration, settings.rules.max_duration, "a waiver")


def _change(review: AccessReview, typed: AccessRequest, kind: str, name: str) -> Iterator[AccessProblem]:
    control = review.settings.change_control
    if kind == KEY_EXPORT:
        own = review.index.models.get(name)
        if own is None:
            yield AccessProblem(
                codes.NOT_UNDER_CHANGE_CONTROL,
                f"ModelWeights {name!r} does not exist",
                "name an existing model",
            )
            return
        yield from _duration(typed.spec.duration, own.max_duration, "an export of a key")
        return
    if not control.enabled or kind not in control.kinds:
        kinds = ", ".join(control.kinds) if control.enabled else "none"
        yield AccessProblem(
            codes.NOT_UNDER_CHANGE_CONTROL,
            f"changes of {kind} do not require approval",
            f"kinds under change control: {kinds}",
        )
        return
    own = review.index.models.get(name) if kind == "ModelWeights" else None
    yield from _duration(typed.spec.duration, (own or control.rules).max_duration, f"a change of {kind}")
