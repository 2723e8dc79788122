"""AccessRequest and AccessApproval: who asks for what, and who says yes. A grant is derived from them,
never stored.

`AccessSettings` is the part of the configuration these rules depend on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from webhook.api.base import LabelSelector, Name, Pattern, Resource, Schema
from webhook.api.duration import Duration
from webhook.api.modelweights import AccessRules, Approvers

ChangeDigest = Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64}|delete)$")]

if TYPE_CHECKING:
    from collections.abc import Mapping


class Person(Schema):
    """An identity as the API server saw it (``userInfo``); stamped by admission, never taken from the
    writer.
    """

    username: Name
    uid: str = Field(default="", max_length=1024)
    groups: list[str] = Field(default_factory=list, max_length=4096)
    extra: dict[str, list[str]] = Field(default_factory=dict)


class Subject(Schema):
    """Who the access is for."""

    kind: Literal["ServiceAccount", "User"]
    namespace: str = Field(default="", max_length=63)
    name: Name

    @model_validator(mode="after")
    def _namespace_fits_kind(self) -> Self:
        if self.kind == "ServiceAccount" and not self.namespace:
            raise ValueError("a ServiceAccount subject needs its namespace")
        if self.kind == "User" and self.namespace:
            raise ValueError("a User subject has no namespace")
        return self


class Change(Schema):
    """One change of a covered object: this content (``digest``), or its deletion (``digest: delete``)."""

    kind: Name = Field(description="such as ModelWeights, ConfigMap or Role.rbac.authorization.k8s.io")
    namespace: str = Field(default="", max_length=63)
    name: Name
    digest: ChangeDigest = Field(
        description="of the object as it shall be: weightlock access digest FILE prints it"
    )


class Waiver(Schema):
    """An exception from one policy, for the pods of one namespace that the selector matches."""

    code: Name = Field(description="reason code of the policy, such as WL201")
    namespace: str = Field(min_length=1, max_length=63)
    pod_selector: LabelSelector


class AccessRequestSpec(Schema):
    """See `AccessRequest`. Exactly one of ``model``, ``change`` and ``waiver`` is asked for."""

    model: str = Field(default="", max_length=253)
    change: Change | None = None
    waiver: Waiver | None = None
    subject: Subject | None = Field(
        default=None, description="needed with model; a change is made by its requester"
    )
    namespaces: list[Name] = Field(default_factory=list, max_length=64)
    duration: Duration
    reason: str = Field(min_length=1, max_length=1024)
    break_glass: bool = Field(
        default=False, description="an emergency: granted at once to those whom the config names"
    )
    requester: Person | None = Field(default=None, description="stamped by admission")
    stamped_at: str = Field(default="", max_length=32, description="stamped by admission, RFC 3339")
    stamp: str = Field(
        default="", max_length=192, description="set by admission: authenticates the stamped object"
    )
    signature: str = Field(default="", max_length=1024, description="set by admission or the controller")

    @model_validator(mode="after")
    def _one_thing_asked_for(self) -> Self:
        if (bool(self.model), self.change is not None, self.waiver is not None).count(True) != 1:
            raise ValueError("ask for exactly one of model, change and waiver")
        if self.model and (self.subject is None or not self.namespaces):
            raise ValueError("a request for a model needs subject and at least one of namespaces")
        if not self.model and (self.subject is not None or self.namespaces or self.break_glass):
            raise ValueError("subject, namespaces and breakGlass go with model only")
        return self


class AccessRequest(Resource):
    """Time-bound access to one model for one subject, cluster-scoped, short name ``areq``."""

    kind: Literal["AccessRequest"]
    spec: AccessRequestSpec


class RequestReference(Schema):
    """The request an approval speaks of; the uid keeps it from applying to a later request of the same
    name.
    """

    name: Name
    uid: str = Field(min_length=1, max_length=128)


class AccessApprovalSpec(Schema):
    """See `AccessApproval`."""

    request: RequestReference
    decision: Literal["Approve", "Deny", "Revoke", "Suspend", "Confirm"] = Field(
        description="only the controller suspends a request; an approver then confirms or denies it"
    )
    comment: str = Field(default="", max_length=1024)
    confirmers: Approvers | None = Field(
        default=None, description="of a Suspend: who can confirm, in addition to the rules of the model"
    )
    approver: Person | None = Field(default=None, description="stamped by admission")
    stamped_at: str = Field(default="", max_length=32, description="stamped by admission, RFC 3339")
    stamp: str = Field(
        default="", max_length=192, description="set by admission: authenticates the stamped object"
    )
    signature: str = Field(default="", max_length=1024, description="set by admission or the controller")


class AccessApproval(Resource):
    """One person's decision on one request, cluster-scoped and immutable, short name ``aapp``."""

    kind: Literal["AccessApproval"]
    spec: AccessApprovalSpec


class ChangeControl(Schema):
    """Which changes need approval. Creating a covered object only adds protection and never does."""

    enabled: bool = False
    kinds: list[Name] = Field(default_factory=lambda: ["ModelWeights", "WeightPolicy"], max_length=64)
    rules: AccessRules = Field(
        default_factory=AccessRules,
        description="for kinds other than ModelWeights, which carry rules of their own",
    )
    exempt: list[Name] = Field(
        default_factory=list, description="usernames, such as a GitOps service account"
    )


class BreakGlass(Schema):
    """Who may bypass approvals, and for how long. No user, unless groups are named."""

    groups: list[Name] = Field(default_factory=list, max_length=16)
    max_duration: Duration = Duration("1h")


class Waivers(Schema):
    """Which policies can be waived, and who approves it. Without rules there are no waivers."""

    rules: AccessRules | None = None
    codes: list[Pattern] = Field(
        default_factory=lambda: ["WL2*", "WL5*"],
        description="reason codes of the policies that can be waived",
    )


class AccessSettings(Schema):
    """What requests, approvals and grants depend on in addition to the objects themselves."""

    renamed: ClassVar[Mapping[str, str]] = {
        "machineRequesters": "serviceAccountRequesters",
        "machineApprovers": "serviceAccountApprovers",
    }

    pending_lifetime: Duration = Field(
        default=Duration("7d"), description="how long a request may wait for its approvals"
    )
    clock_skew_seconds: int = Field(default=120, ge=0, le=600)
    members: dict[str, list[str]] = Field(
        default_factory=dict,
        description="members of approver groups: a group listed here counts only for those listed",
    )
    service_account_requesters: list[Name] = Field(
        default_factory=list,
        description="service accounts and other system identities that are allowed to request access",
    )
    service_account_approvers: list[Name] = Field(
        default_factory=list,
        description="service accounts and other system identities that are allowed to approve",
    )
    retention: list[Name] = Field(
        default_factory=lambda: ["system:serviceaccount:weightlock-system:weightlock-retention"],
        description="identities that may delete approvals",
    )
    controllers: list[Name] = Field(
        default_factory=lambda: ["system:serviceaccount:weightlock-system:weightlock-controller"],
        description="identities that may add a signature to what admission stamped",
    )
    impersonation_extra: list[Pattern] = Field(
        default_factory=lambda: ["*impersonat*"],
        description="userInfo.extra keys that mark an impersonated session: it may not ask or approve",
    )
    required_extra: list[Name] = Field(
        default_factory=list,
        description="userInfo.extra keys of every real session: authentication.kubernetes.io/credential-id",
    )
    change_control: ChangeControl = Field(default_factory=ChangeControl)
    waivers: Waivers = Field(default_factory=Waivers)
    break_glass: BreakGlass = Field(default_factory=BreakGlass)
