"""Admission's rules for AccessRequests and AccessApprovals. Every violation is named; none of them hides
the others.

This keeps mistakes and attempts out of the cluster and explains them; it is not what a grant rests on.
`derive` applies the rules again to whatever was stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from webhook.api import codes
from webhook.api.access import AccessApproval, AccessRequest, AccessSettings
from webhook.api.faults import faults
from webhook.core.access.problems import AccessProblem, AccessReview
from webhook.core.access.signing import STAMP_TOLERANCE
from webhook.core.access.stamp import STAMPS, is_access, person
from webhook.core.access.validate_approval import approval_problems, may_delete
from webhook.core.access.validate_request import request_problems
from webhook.core.kube.names import compile_glob
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from webhook.api.modelweights import ModelWeights
    from webhook.core.access.grant_index import GrantIndex
    from webhook.core.kube.fields import Document
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest, UserInfo

_PLACES = {"spec.reason": codes.REASON, "spec.duration": codes.DURATION}


def validate_access(
    request: AdmissionRequest,
    index: GrantIndex,
    models: Mapping[str, ModelWeights],
    now: datetime,
    settings: AccessSettings,
    *,
    lookup: Lookup | None = None,
) -> tuple[AccessProblem, ...]:
    """Why a write of an access object is refused; empty where it may go through, and for every other kind.

    With a ``lookup`` a service account must exist, and a request the index has not seen yet is looked for.
    Raises `MissingObjectError` where the cache cannot tell.
    """
    if not is_access(request):
        return ()
    review = AccessReview(request, index, models, now, settings, lookup)
    if request.subresource:
        return tuple(_status(review))
    return tuple(_RULES.get(request.operation, _nothing)(review))


def _nothing(review: AccessReview) -> Iterator[AccessProblem]:  # noqa: ARG001 - one shape for all operations
    return iter(())


def _status(review: AccessReview) -> Iterator[AccessProblem]:
    if review.request.user.username not in review.settings.controllers:
        yield AccessProblem(
            codes.STATUS,
            f"the status of an {review.kind} is written by the Weightlock controller only",
            "leave status alone: it is for reading, and no decision rests on it",
        )


def _create(review: AccessReview) -> Iterator[AccessProblem]:
    yield from _impersonation(review)
    document = review.request.object or {}
    try:
        typed: AccessRequest | AccessApproval
        if review.kind == "AccessRequest":
            typed = AccessRequest.model_validate(document)
        else:
            typed = AccessApproval.model_validate(document)
    except ValidationError as error:
        yield from _malformed(review.kind, error)
        return
    yield from _stamps(review, typed)
    if isinstance(typed, AccessRequest):
        yield from request_problems(review, typed)
    else:
        yield from approval_problems(review, typed)


def _update(review: AccessReview) -> Iterator[AccessProblem]:
    """A spec never changes, but that the controller may add the signature; see `_frozen` for the rest."""
    old, new = review.request.old_object or {}, review.request.object or {}
    before, after = _spec(old), _spec(new)
    if before == after and not _frozen(review, old):
        return
    if _adds_signature(before, after) and review.request.user.username in review.settings.controllers:
        return
    yield AccessProblem(
        codes.IMMUTABLE,
        f"{review.kind} {review.request.name} cannot be changed: what was decided on is what was asked for",
        "delete the request and make another"
        if review.kind == "AccessRequest"
        else "to take it back: decision Revoke",
    )


def _frozen(review: AccessReview, old: Document) -> bool:
    """Whether even metadata must stand still.

    The controller signs what was written while the webhook configuration was intact, and reads that from the
    resource version. An edit would make an old object look new, so until it is signed there is none.
    """
    metadata = old.get("metadata")
    leaving = isinstance(metadata, dict) and metadata.get("deletionTimestamp") is not None
    signed = bool(_spec(old).get("signature"))
    by_controller = review.request.user.username in review.settings.controllers
    return review.index.parser.verifier is not None and not (signed or leaving or by_controller)


def _delete(review: AccessReview) -> Iterator[AccessProblem]:
    if review.kind == "AccessRequest":
        return
    if review.request.user.username not in review.settings.retention:
        yield AccessProblem(
            codes.UNDELETABLE,
            f"AccessApproval {review.request.name} is kept as evidence",
            "to take an approval back, write another with decision: Revoke",
        )
    elif not may_delete(review, review.request.old_object or {}):
        yield AccessProblem(
            codes.UNDELETABLE,
            f"AccessApproval {review.request.name} belongs to a request that still exists",
            "delete the AccessRequest first",
        )


def _impersonation(review: AccessReview) -> Iterator[AccessProblem]:
    user, settings = review.request.user, review.settings
    marks = [
        key
        for key in user.extra
        if any(compile_glob(mark.lower()).fullmatch(key.lower()) for mark in settings.impersonation_extra)
    ]
    lacking = [key for key in settings.required_extra if not user.extra.get(key)]
    if marks or lacking:
        what = f"carries {marks[0]}" if marks else f"lacks {lacking[0]}"
        yield AccessProblem(
            codes.IMPERSONATED,
            f"this session of {user.username} looks impersonated: it {what}",
            "sign in as yourself, without --as, and write it again",
        )


def _malformed(kind: str, error: ValidationError) -> Iterator[AccessProblem]:
    for place, expected in faults(error)[:8]:
        found = _PLACES.get(place, codes.INVALID_ACCESS_OBJECT)
        yield AccessProblem(
            found, f"{place}: {expected}", f"kubectl explain {kind.lower()}.spec shows the fields"
        )


def _stamps(review: AccessReview, typed: AccessRequest | AccessApproval) -> Iterator[AccessProblem]:
    """The mutating webhook stamped this same request; a missing or other stamp means that it was kept from
    it.
    """
    field = STAMPS[review.request.resource.name]
    stamped = _spec(review.request.object or {}).get(field)
    at = parse_time(typed.spec.stamped_at)
    if stamped != person(review.request.user) or at is None or abs(review.now - at) > STAMP_TOLERANCE:
        yield AccessProblem(
            codes.STAMP,
            f"spec.{field} is not the identity of {_name(review.request.user)} as admission stamps it",
            "Weightlock's mutating webhook did not run, or runs on another clock: tell your admin",
        )
    verifier = review.index.parser.verifier
    if verifier is not None and typed.spec.signature and verifier.mismatch(typed):
        yield AccessProblem(
            codes.STAMP,
            "spec.signature does not match the object",
            "leave spec.signature out; if you did, another webhook changes these objects after Weightlock",
        )


def _adds_signature(before: Document, after: Document) -> bool:
    rest = {key: value for key, value in after.items() if key != "signature"}
    old_rest = {key: value for key, value in before.items() if key != "signature"}
    return rest == old_rest and not before.get("signature") and bool(after.get("signature"))


def _spec(document: Document) -> Document:
    spec = document.get("spec")
    return spec if isinstance(spec, dict) else {}


def _name(user: UserInfo) -> str:
    return user.username or "the caller"


_RULES = {"CREATE": _create, "UPDATE": _update, "DELETE": _delete}
