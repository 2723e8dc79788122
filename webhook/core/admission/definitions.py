"""Checks of Weightlock's own policies and assets at admission: an object that cannot be loaded is denied.

A policy that does not compile is denied when its author applies it, with the position of the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from webhook.api import codes
from webhook.api.base import GROUP
from webhook.api.faults import describe
from webhook.api.modelweights import ModelWeights
from webhook.api.policy import WeightPolicy
from webhook.core.policies.compiler import PolicyError, compile_policy
from webhook.core.policies.policy import Finding
from webhook.core.provenance.rules import RuleError, compile_rule

if TYPE_CHECKING:
    from webhook.core.kube.review import AdmissionRequest

_OURS = "weightlock"


def check_definition(request: AdmissionRequest) -> list[Finding]:
    """Return the reasons to deny a ModelWeights or WeightPolicy; empty for a valid one and for other kinds."""
    if (
        request.resource.group != GROUP
        or request.operation not in ("CREATE", "UPDATE")
        or request.subresource
    ):
        return []
    if request.resource.name == "modelweights":
        return _check_asset(request)
    return _check_policy(request) if request.resource.name == "weightpolicies" else []


def _check_asset(request: AdmissionRequest) -> list[Finding]:
    fix = "correct these fields: `kubectl explain modelweights.spec`"
    try:
        weights = ModelWeights.model_validate(request.object)
        if weights.spec.provenance is not None:
            compile_rule(weights.spec.provenance.rule)
    except ValidationError as error:
        message = f"this ModelWeights would protect nothing: {describe(error)}"
    except RuleError as error:
        message = f"spec.provenance.rule does not compile: {error}"
        fix = "correct the rule: its variables are object.signature and object.attestations"
    else:
        return []
    return [Finding(codes.INVALID_MODELWEIGHTS, _OURS, message, fix)]


def _check_policy(request: AdmissionRequest) -> list[Finding]:
    try:
        policy = WeightPolicy.model_validate(request.object)
        compile_policy(policy.metadata.name, policy.spec, policy.spec)
    except ValidationError as error:
        message = f"this WeightPolicy is invalid: {describe(error)}"
    except PolicyError as error:
        message = f"this WeightPolicy does not compile: {error}"
    else:
        constraints = policy.spec.match_constraints
        if constraints is not None and constraints.resource_rules:
            return []
        message = "this WeightPolicy would match nothing: spec.matchConstraints has no resourceRules"
    return [
        Finding(
            codes.INVALID_POLICY, _OURS, message, "correct it, and check it with `weightlock policy lint`"
        )
    ]
