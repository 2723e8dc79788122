"""Export a WeightPolicy as a ValidatingAdmissionPolicy with its binding, if the API server can evaluate it.

Only Weightlock provides its own CEL variables, so a policy that reads one is not exported, and the reason names the
variable. Code and controls have no field in the native kinds and become annotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.cel.engine import FACT_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.api.policy import WeightPolicy
    from webhook.cel import Program
    from webhook.core.kube.fields import Document
    from webhook.core.policies.policy import LateText, Policy

_API_VERSION = "admissionregistration.k8s.io/v1"
_OURS = ("code", "fix", "controls", "validationActions", "paramRef", "matchResources")


@dataclass(frozen=True, slots=True)
class Export:
    """The native manifests of one policy, or the reason why there are none."""

    policy: str
    manifests: tuple[Document, ...] = ()
    reason: str = ""


def export(policy: WeightPolicy, compiled: Policy) -> Export:
    """Export one policy. ``compiled`` is the same policy, compiled."""
    name = policy.metadata.name
    read = sorted(
        {root for program in _programs(compiled) for root in program.references} & FACT_VARIABLES.keys()
    )
    if read:
        return Export(name, reason=f"it reads {', '.join(read)}, which only Weightlock provides")
    spec: dict[str, Any] = policy.model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"]
    own = {key: spec.pop(key) for key in _OURS if key in spec}
    for rule in spec.get("validations", ()):
        rule.pop("code", None)
        rule.pop("fix", None)
    annotations = {"weightlock.dev/code": policy.spec.code}
    if policy.spec.controls:
        annotations["weightlock.dev/controls"] = ", ".join(policy.spec.controls)
    binding: Document = {"policyName": name, "validationActions": own.get("validationActions", ["Deny"])}
    binding |= {key: own[key] for key in ("paramRef", "matchResources") if key in own}
    return Export(
        name,
        (
            _manifest("ValidatingAdmissionPolicy", name, annotations, spec),
            _manifest("ValidatingAdmissionPolicyBinding", name, {}, binding),
        ),
    )


def _programs(policy: Policy) -> Iterator[Program | LateText]:
    """Yield every program that the API server would evaluate. It does not evaluate ``fix``."""
    yield from (program for _, program in policy.conditions)
    for rule in policy.rules:
        yield rule.expression
        if rule.message_expression is not None:
            yield rule.message_expression
    yield from (program for _, program in policy.audit)


def _manifest(kind: str, name: str, annotations: dict[str, str], spec: Document) -> Document:
    metadata: Document = {"name": name}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": _API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
