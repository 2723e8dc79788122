"""Admission rules for AccessRequests and AccessApprovals. Every violation is reported.

These rules keep invalid objects out of the cluster and explain why. Grants do not depend on them: `derive` applies
the rules again to every stored object.
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
    """Return why a write of an access object is denied; empty if it is allowed, and for every other kind.

    With a ``lookup``, a service account must exist, and a request that is not in the index yet is looked up.

    Raises:
        MissingObjectError: an object is not in the cache.
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
            f"only the Weightlock controller writes the status of an {review.kind}",
            "do not change status: no decision depends on it",
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
    """Deny every change of a spec except the controller's signature; see `_frozen` for metadata."""
    old, new = review.request.old_object or {}, review.request.object or {}
    before, after = _spec(old), _spec(new)
    if before == after and not _frozen(review, old):
        return
    if _adds_signature(before, after) and review.request.user.username in review.settings.controllers:
        return
    yield AccessProblem(
        codes.IMMUTABLE,
        f"{review.kind} {review.request.name} is immutable: approvals apply to the request as submitted",
        "delete the request and create a new one"
        if review.kind == "AccessRequest"
        else "to withdraw it, create an AccessApproval with decision: Revoke",
    )


def _frozen(review: AccessReview, old: Document) -> bool:
    """Return whether metadata is immutable, too.

    The controller signs an object only as it arrived, so until then it does not change. An object that is being
    deleted is never signed: only the removal of its finalizers is allowed, and only as long as nothing else changes.
    """
    verifier = review.index.parser.verifier
    signed = bool(_spec(old).get("signature"))
    if verifier is None or signed or review.request.user.username in review.settings.controllers:
        return False
    if _metadata(old).get("deletionTimestamp") is None:
        return True
    return _without_finalizers(old) != _without_finalizers(review.request.object or {})


def _without_finalizers(document: Document) -> Document:
    """The metadata and spec that clients can write, without finalizers."""
    assigned = ("finalizers", "managedFields", "resourceVersion", "generation")
    metadata = {key: value for key, value in _metadata(document).items() if key not in assigned}
    return {"metadata": metadata, "spec": _spec(document)}


def _metadata(document: Document) -> Document:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _delete(review: AccessReview) -> Iterator[AccessProblem]:
    if review.kind == "AccessRequest":
        return
    if review.request.user.username not in review.settings.retention:
        yield AccessProblem(
            codes.UNDELETABLE,
            f"AccessApproval {review.request.name} is evidence and cannot be deleted",
            "to withdraw an approval, create an AccessApproval with decision: Revoke",
        )
    elif not may_delete(review, review.request.old_object or {}):
        yield AccessProblem(
            codes.UNDELETABLE,
            f"AccessApproval {review.request.name} refers to a request that still exists",
            "delete the AccessRequest first",
        )


def _impersonation(review: AccessReview) -> Iterator[AccessProblem]:
    user, settings = review.request.user, review.settings
    marks = [
        key
        for key in user.extra
        if any(compile_glob(mark.lower()).fullmatch(key.lower()) for mark in settings.impersonation_extra)
    ]
    missing = [key for key in settings.required_extra if not user.extra.get(key)]
    if marks or missing:
        verb, key = ("contains", marks[0]) if marks else ("lacks", missing[0])
        yield AccessProblem(
            codes.IMPERSONATED,
            f"{user.username} appears to be impersonated: userInfo.extra {verb} {key}",
            "sign in as yourself, without --as, and create the object again",
        )


def _malformed(kind: str, error: ValidationError) -> Iterator[AccessProblem]:
    for place, expected in faults(error)[:8]:
        yield AccessProblem(
            _PLACES.get(place, codes.INVALID_ACCESS_OBJECT),
            f"{place}: {expected}",
            f"read the schema: kubectl explain {kind.lower()}.spec",
        )


def _stamps(review: AccessReview, typed: AccessRequest | AccessApproval) -> Iterator[AccessProblem]:
    """The mutating webhook stamped this request. A missing or different stamp means that it did not run."""
    field = STAMPS[review.request.resource.name]
    identity = _spec(review.request.object or {}).get(field)
    at = parse_time(typed.spec.stamped_at)
    if identity != person(review.request.user) or at is None or abs(review.now - at) > STAMP_TOLERANCE:
        yield AccessProblem(
            codes.STAMP,
            f"spec.{field} does not match the authenticated user {_name(review.request.user)}",
            "the mutating webhook did not run or its clock is wrong: contact your cluster admin",
        )
    verifier = review.index.parser.verifier
    if verifier is None:
        return
    fault = verifier.mismatch(typed) if typed.spec.signature else ""
    if not fault and verifier.stamps is not None and not review.request.dry_run:
        fault = verifier.stamps.fault(typed)
    if fault:
        yield AccessProblem(
            codes.STAMP,
            f"the object is not as the mutating webhook stamped it: {fault}",
            "do not set spec.signature or spec.stamp; list the other mutating webhooks with weightlock doctor",
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
