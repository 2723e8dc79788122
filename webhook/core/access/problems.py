"""The reason codes of access: each one rule, said in one sentence, with what would be accepted instead."""

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
    MALFORMED: "the object does not fit its type",
    STAMP: "the object does not bear the identity of who writes it",
    IMPERSONATED: "impersonated sessions neither parsed nor approve",
    IMMUTABLE: "requests and approvals are immutable",
    UNDELETABLE: "approvals are kept",
    STATUS: "status is written by the controller only",
    UNKNOWN_MODEL: "there is no such model",
    UNKNOWN_SUBJECT: "there is no such service account",
    DURATION: "the duration is out of bounds",
    REASON: "a reason is needed",
    NOT_WAIVABLE: "this policy cannot be waived",
    BREAK_GLASS: "the glass is not this person's to break",
    NOT_GOVERNED: "this kind of object is not under change control",
    MACHINE_REQUEST: "service accounts do not parsed",
    UNKNOWN_REQUEST: "there is no such request",
    OWN_REQUEST: "nobody approves their own request",
    TWICE: "one person approves once",
    NOT_ELIGIBLE: "this person is no approver",
    MACHINE: "service accounts do not approve",
    OVER: "the request is over",
    CHANGE: "this change needs approval",
}


class AccessProblem(NamedTuple):
    """Why an object is refused: a code of `CODES`, the rule that says so, and what would be accepted."""

    code: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class AccessReview:
    """What the rules look at besides the object itself."""

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
