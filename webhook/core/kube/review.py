"""AdmissionReview in, AdmissionResponse out: the wire form of one request from the API server.

Parsing is strict and bounded. A document that is not an ``admission.k8s.io/v1`` review is the caller's error
(`BadReviewError`), never a verdict. Source of the shapes: k8s.io/api/admission/v1 types.go.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from webhook.core.kube.strict_json import DEFAULT_LIMITS, DocumentError, Limits, longest, parse

if TYPE_CHECKING:
    from webhook.core.kube.fields import Document

REVIEW_API_VERSION = "admission.k8s.io/v1"
MAX_REVIEW_BYTES = 4 * 1024 * 1024
_MAX_UID = 256
# Lists of any length: evaluating long ones is bounded in time, see `webhook.server.process.isolated`.
_LIMITS = Limits(length=MAX_REVIEW_BYTES)
_MAX_CAUSES = 64
_OPERATIONS = frozenset({"CREATE", "UPDATE", "DELETE", "CONNECT"})


class BadReviewError(ValueError):
    """The bytes are not an admission review. The message is one line for the caller."""


class UnsafeReviewError(ValueError):
    """A review whose object cannot be evaluated safely. The response is a denial, not an HTTP error."""

    def __init__(self, uid: str, reason: str) -> None:
        super().__init__(reason)
        self.uid = uid
        self.reason = reason


class GroupVersionName(NamedTuple):
    """A group, a version, and the kind or resource in it."""

    group: str
    version: str
    name: str


@dataclass(frozen=True, slots=True)
class UserInfo:
    """The requester, as authenticated by the API server."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)


class AdmissionRequest(NamedTuple):
    """One request. ``raw`` is the request document itself, for policies that read ``request``, ``size`` its bytes.

    ``oversized``: some list or map has more entries than `strict_json.DEFAULT_LIMITS`, so policies may take long.

    ``running``: no user sent the request. An object that was admitted earlier and runs is evaluated again.
    """

    uid: str
    kind: GroupVersionName
    resource: GroupVersionName
    subresource: str
    operation: str
    name: str
    namespace: str
    user: UserInfo
    object: Document | None
    old_object: Document | None
    dry_run: bool
    raw: Document
    running: bool = False
    size: int = 0
    oversized: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of ``status.details.causes``. Source: k8s.io/apimachinery ``meta/v1`` StatusCause.

    ``reason`` is a reason code, ``field`` the path of the part of the object, empty if the whole object is meant.
    """

    reason: str
    message: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class AdmissionResponse:
    """One response. ``patch`` is a JSON patch (RFC 6902), empty if nothing changes.

    ``retry_after_seconds`` is 0 if a retry of the same request cannot help.
    """

    uid: str
    allowed: bool
    message: str = ""
    code: int = 403
    reason: str = "Forbidden"
    causes: tuple[Cause, ...] = ()
    retry_after_seconds: int = 0
    warnings: tuple[str, ...] = ()
    audit_annotations: dict[str, str] = field(default_factory=dict)
    patch: tuple[Document, ...] = ()


def parse_review(body: bytes) -> AdmissionRequest:
    """Read one AdmissionReview.

    Raises `BadReviewError` if the bytes are not a review, and `UnsafeReviewError` if a review contains
    data that no policy can evaluate safely (a NUL, extreme nesting, a number beyond 64 bits).
    """
    if len(body) > MAX_REVIEW_BYTES:
        raise BadReviewError(f"the review is larger than {MAX_REVIEW_BYTES} bytes")
    try:
        document = parse(body, _LIMITS)
    except DocumentError as error:
        uid = uid_of(body)
        if uid is None:
            raise BadReviewError(str(error)) from None
        raise UnsafeReviewError(uid, str(error)) from None
    oversized = body.count(b",") >= DEFAULT_LIMITS.length and longest(document)[1] > DEFAULT_LIMITS.length
    return parse_request(document, size=len(body), oversized=oversized)


def parse_request(document: Any, *, size: int = 0, oversized: bool = False) -> AdmissionRequest:
    """Read an already parsed AdmissionReview of ``size`` bytes. Raises `BadReviewError`."""
    if not isinstance(document, dict):
        raise BadReviewError("the body is not a JSON object")
    if document.get("kind") != "AdmissionReview" or document.get("apiVersion") != REVIEW_API_VERSION:
        raise BadReviewError(f"the body is not an {REVIEW_API_VERSION} AdmissionReview")
    raw = document.get("request")
    if not isinstance(raw, dict):
        raise BadReviewError("the review has no request")
    uid = _text(raw, "uid")
    if not uid or len(uid) > _MAX_UID:
        raise BadReviewError(f"request.uid must be a string of 1 to {_MAX_UID} characters")
    operation = _text(raw, "operation")
    if operation not in _OPERATIONS:
        raise BadReviewError("request.operation must be CREATE, UPDATE, DELETE or CONNECT")
    return AdmissionRequest(
        uid=uid,
        kind=_gvk(raw, "kind", "kind"),
        resource=_gvk(raw, "resource", "resource"),
        subresource=_text(raw, "subResource"),
        operation=operation,
        name=_text(raw, "name"),
        namespace=_text(raw, "namespace"),
        user=_user(raw),
        object=_object(raw, "object"),
        old_object=_object(raw, "oldObject"),
        dry_run=raw.get("dryRun") is True,
        raw=raw,
        size=size,
        oversized=oversized,
    )


def render_review(response: AdmissionResponse) -> bytes:
    """Return the bytes of a response: ``status`` only on a denial, ``patch`` only if the object changes."""
    answer: Document = {"uid": response.uid, "allowed": response.allowed}
    if not response.allowed:
        answer["status"] = _status(response)
    if response.warnings:
        answer["warnings"] = response.warnings
    if response.audit_annotations:
        answer["auditAnnotations"] = response.audit_annotations
    if response.allowed and response.patch:
        answer["patchType"] = "JSONPatch"
        answer["patch"] = base64.b64encode(orjson.dumps(response.patch)).decode("ascii")
    return orjson.dumps({"apiVersion": REVIEW_API_VERSION, "kind": "AdmissionReview", "response": answer})


def _status(response: AdmissionResponse) -> Document:
    """The ``metav1.Status`` of a denial. The API server passes ``details`` through to the client."""
    details: Document = {}
    if response.causes:
        details["causes"] = [
            {"reason": cause.reason, "message": cause.message, "field": cause.field}
            for cause in response.causes
        ]
    if response.retry_after_seconds:
        details["retryAfterSeconds"] = response.retry_after_seconds
    status: Document = {
        "status": "Failure",
        "code": response.code,
        "reason": response.reason,
        "message": response.message,
    }
    return {**status, "details": details} if details else status


def causes_of(status: Document) -> tuple[Cause, ...]:
    """Return ``details.causes`` of a ``metav1.Status``, at most 64; entries of another shape are ignored."""
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return tuple(
        Cause(str(item.get("reason", "")), str(item.get("message", "")), str(item.get("field", "")))
        for item in (causes if isinstance(causes, list) else [])[:_MAX_CAUSES]
        if isinstance(item, dict)
    )


def uid_of(body: bytes) -> str | None:
    """Return the uid of a review that cannot be parsed as a whole, so that its denial can echo it."""
    try:
        document = orjson.loads(body)
        uid = document["request"]["uid"]
    except (ValueError, KeyError, TypeError):
        return None
    return uid if isinstance(uid, str) and 0 < len(uid) <= _MAX_UID else None


def _text(parent: Document, key: str) -> str:
    value = parent.get(key, "")
    if not isinstance(value, str):
        raise BadReviewError(f"request.{key} must be a string")
    return value


def _gvk(raw: Document, key: str, last: str) -> GroupVersionName:
    value = raw.get(key)
    if not isinstance(value, dict):
        raise BadReviewError(f"request.{key} is missing")
    group, version, name = value.get("group", ""), value.get("version", ""), value.get(last, "")
    are_texts = isinstance(group, str) and isinstance(version, str) and isinstance(name, str)
    if not are_texts or not version or not name:
        raise BadReviewError(f"request.{key} must name group, version and {last}")
    return GroupVersionName(group, version, name)


def _user(raw: Document) -> UserInfo:
    value = raw.get("userInfo", {})
    if not isinstance(value, dict):
        raise BadReviewError("request.userInfo must be an object")
    groups, extra = value.get("groups") or [], value.get("extra") or {}
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise BadReviewError("request.userInfo.groups must be a list of strings")
    if not isinstance(extra, dict) or not all(isinstance(values, list) for values in extra.values()):
        raise BadReviewError("request.userInfo.extra must map names to lists")
    return UserInfo(
        username=_text(value, "username"),
        uid=_text(value, "uid"),
        groups=tuple(groups),
        extra={name: tuple(str(item) for item in values) for name, values in extra.items()},
    )


def _object(raw: Document, key: str) -> Document | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, dict):
        raise BadReviewError(f"request.{key} must be an object")
    return value
