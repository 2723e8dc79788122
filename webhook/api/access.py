"""AccessRequest and AccessApproval: who asks for which weights, and who says yes. A grant is derived from them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from webhook.api.base import Name, Resource, Schema
from webhook.api.duration import Duration


class Person(Schema):
    """An identity as the API server saw it (``userInfo``); stamped by admission, never taken from the writer."""

    username: Name
    uid: str = ""
    groups: list[str] = Field(default_factory=list)
    extra: dict[str, list[str]] = Field(default_factory=dict)


class Subject(Schema):
    """Who the access is for."""

    kind: Literal["ServiceAccount", "User"]
    namespace: str = Field(default="", max_length=63)
    name: Name


class AccessRequestSpec(Schema):
    """See `AccessRequest`."""

    model: Name
    subject: Subject
    namespaces: list[Name] = Field(min_length=1, max_length=64)
    duration: Duration
    reason: str = Field(min_length=1, max_length=1024)
    requester: Person | None = None
    signature: str = Field(default="", max_length=1024)


class AccessRequest(Resource):
    """Time-bound access to one model for one subject, cluster-scoped, short name ``areq``."""

    kind: Literal["AccessRequest"]
    spec: AccessRequestSpec


class RequestReference(Schema):
    """The request an approval speaks of; the uid keeps it from applying to a later request of the same name."""

    name: Name
    uid: str = Field(min_length=1, max_length=128)


class AccessApprovalSpec(Schema):
    """See `AccessApproval`."""

    request: RequestReference
    decision: Literal["Approve", "Deny", "Revoke"]
    comment: str = Field(default="", max_length=1024)
    approver: Person | None = None
    signature: str = Field(default="", max_length=1024)


class AccessApproval(Resource):
    """One person's decision on one request, cluster-scoped and immutable, short name ``aapp``."""

    kind: Literal["AccessApproval"]
    spec: AccessApprovalSpec
