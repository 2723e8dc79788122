"""The reason codes of access: one code per rule, with a sentence and a fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from webhook.api.access import AccessSettings
    from webhook.api.modelweights import ModelWeights
    from webhook.core.access.grant_index import GrantIndex
    from webhook.core.kube.objects import Lookup
    from webhook.core.kube.review import AdmissionRequest

MALFORMED = "WL401"
STAMP = "WL402"
IMPERSONATED = "WL403"
IMMUTABLE = "WL404"
UNDELETABLE = "WL405"
STATUS = "WL406"
UNKNOWN_MODEL = "WL411"
UNKNOWN_SUBJECT = "WL412"
DURATION = "WL413"
REASON = "WL414"
NOT_WAIVABLE = "WL415"
BREAK_GLASS = "WL416"
NOT_GOVERNED = "WL417"
MACHINE_REQUEST = "WL418"
UNKNOWN_REQUEST = "WL421"
OWN_REQUEST = "WL422"
TWICE = "WL423"
NOT_ELIGIBLE = "WL424"
MACHINE = "WL425"
OVER = "WL426"
CHANGE = "WL431"

CODES: dict[str, str] = {
    MALFORMED: "the object does not match its schema",
    STAMP: "the object is not stamped with the identity of its author",
    IMPERSONATED: "impersonated sessions can neither request nor approve access",
    IMMUTABLE: "requests and approvals are immutable",
    UNDELETABLE: "approvals cannot be deleted",
    STATUS: "only the controller writes status",
    UNKNOWN_MODEL: "the model does not exist",
    UNKNOWN_SUBJECT: "the service account does not exist",
    DURATION: "the duration is out of bounds",
    REASON: "a reason is required",
    NOT_WAIVABLE: "this policy cannot be waived",
    BREAK_GLASS: "the user is not authorized for break-glass access",
    NOT_GOVERNED: "this kind is not under change control",
    MACHINE_REQUEST: "service accounts cannot request access",
    UNKNOWN_REQUEST: "the request does not exist",
    OWN_REQUEST: "users cannot approve their own request",
    TWICE: "a user approves a request once",
    NOT_ELIGIBLE: "the user is not an approver",
    MACHINE: "service accounts cannot approve",
    OVER: "the request is closed",
    CHANGE: "this change requires approval",
}


class AccessProblem(NamedTuple):
    """One violation: a code from `CODES`, the violated rule, and the fix."""

    code: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class AccessReview:
    """The input of the rules in addition to the object itself."""

    request: AdmissionRequest
    index: GrantIndex
    models: Mapping[str, ModelWeights]
    now: datetime
    settings: AccessSettings
    lookup: Lookup | None

    @property
    def kind(self) -> str:
        """``AccessRequest`` or ``AccessApproval``."""
        return "AccessRequest" if self.request.resource.name == "accessrequests" else "AccessApproval"
