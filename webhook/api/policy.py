"""Policies: Kubernetes' ValidatingAdmissionPolicy and its binding (v1), and WeightPolicy, which is both in one object.

Field names, defaults and limits are those of k8s.io/api/admissionregistration/v1 types.go, so that a policy written
for the API server loads here as it is.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from webhook.api.base import LabelSelector, Name, Resource, Schema

Expression = Annotated[str, Field(min_length=1, max_length=65536)]
Action = Literal["Deny", "Warn", "Audit"]
FailurePolicy = Literal["Fail", "Ignore"]
Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT", "*"]
Reason = Literal["Unauthorized", "Forbidden", "Invalid", "RequestEntityTooLarge"]


def _deny() -> list[Action]:
    return ["Deny"]


class ParamKind(Schema):
    """The kind of the objects that parameterise a policy."""

    api_version: Name
    kind: Name


class ParamRef(Schema):
    """Which objects of the policy's paramKind it is evaluated with: one by name, or many by selector."""

    name: str = ""
    namespace: str = ""
    selector: LabelSelector | None = None
    parameter_not_found_action: Literal["Allow", "Deny"] | None = None

    @model_validator(mode="after")
    def _name_or_selector(self) -> Self:
        if bool(self.name) == (self.selector is not None):
            raise ValueError("paramRef needs exactly one of name and selector")
        return self


class ResourceRule(Schema):
    """Which requests a rule speaks of; ``*`` stands for all, ``pods/*`` for all subresources."""

    api_groups: list[str] = Field(default_factory=list)
    api_versions: list[str] = Field(default_factory=list)
    resources: list[str] = Field(default_factory=list)
    operations: list[Operation] = Field(default_factory=list)
    scope: Literal["*", "Cluster", "Namespaced"] = "*"
    resource_names: list[str] = Field(default_factory=list)


class MatchResources(Schema):
    """matchConstraints of a policy, and matchResources of a binding."""

    namespace_selector: LabelSelector | None = None
    object_selector: LabelSelector | None = None
    resource_rules: list[ResourceRule] = Field(default_factory=list)
    exclude_resource_rules: list[ResourceRule] = Field(default_factory=list)
    match_policy: Literal["Exact", "Equivalent"] = "Equivalent"


class MatchCondition(Schema):
    """A named CEL condition; a false one means the policy does not apply."""

    name: Name
    expression: Expression


class Variable(Schema):
    """A named CEL expression, reachable as ``variables.name``, evaluated only where it is reached."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
    expression: Expression


class Validation(Schema):
    """One rule: ``expression`` must be true; ``fix`` (CEL, Weightlock only) says what the reader should do next."""

    expression: Expression
    message: str = Field(default="", max_length=5120)
    message_expression: str = Field(default="", max_length=65536)
    reason: Reason | None = None


class WeightValidation(Validation):
    """A rule of a WeightPolicy, which may have a code and a fix of its own."""

    code: str = Field(default="", pattern=r"^(WL[0-9]{3})?$")
    fix: str = Field(default="", max_length=65536, description="CEL string expression")


class AuditAnnotation(Schema):
    """A value to put into the API server's audit log; null means none."""

    key: Name
    value_expression: Expression


class PolicySpec(Schema):
    """Every field of ValidatingAdmissionPolicy's spec."""

    param_kind: ParamKind | None = None
    match_constraints: MatchResources | None = None
    validations: list[Validation] = Field(default_factory=list, max_length=256)
    failure_policy: FailurePolicy = "Fail"
    audit_annotations: list[AuditAnnotation] = Field(default_factory=list, max_length=20)
    match_conditions: list[MatchCondition] = Field(default_factory=list, max_length=64)
    variables: list[Variable] = Field(default_factory=list, max_length=256)


class ValidatingAdmissionPolicy(Resource):
    """admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy."""

    kind: Literal["ValidatingAdmissionPolicy"]
    spec: PolicySpec


class BindingSpec(Schema):
    """Every field of ValidatingAdmissionPolicyBinding's spec."""

    policy_name: Name
    param_ref: ParamRef | None = None
    match_resources: MatchResources | None = None
    validation_actions: list[Action] = Field(default_factory=_deny, min_length=1)


class ValidatingAdmissionPolicyBinding(Resource):
    """admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding."""

    kind: Literal["ValidatingAdmissionPolicyBinding"]
    spec: BindingSpec


class WeightPolicySpec(PolicySpec):
    """A policy and its binding in one, with a stable code, the next step for the reader, and the controls it serves."""

    validations: list[WeightValidation] = Field(default_factory=list, max_length=256)  # type: ignore[assignment]
    param_ref: ParamRef | None = None
    match_resources: MatchResources | None = None
    validation_actions: list[Action] = Field(default_factory=_deny, min_length=1)
    code: str = Field(default="WL500", pattern=r"^WL[0-9]{3}$")
    fix: str = Field(default="", max_length=65536, description="CEL string expression")
    controls: list[str] = Field(default_factory=list, max_length=64)

    @model_validator(mode="after")
    def _actions(self) -> Self:
        if "Deny" in self.validation_actions and "Warn" in self.validation_actions:
            raise ValueError("validationActions may not hold both Deny and Warn")
        return self


class WeightPolicy(Resource):
    """A policy of Weightlock, cluster-scoped, short name ``wpol``."""

    kind: Literal["WeightPolicy"]
    spec: WeightPolicySpec
