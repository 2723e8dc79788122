"""CustomResourceDefinitions, generated from the types, so that what the API server accepts is what the code reads.

Schemas are structural (KEP-1693): references resolved, no defaults (a default applied on reading would change
objects that were signed), no ``additionalProperties: false`` (the API server prunes unknown fields itself).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.api.access import AccessApproval, AccessRequest
from webhook.api.base import GROUP, VERSION
from webhook.api.images import ImageTrust, ImageVerification
from webhook.api.modelweights import ModelWeights
from webhook.api.policy import WeightPolicy

if TYPE_CHECKING:
    from pydantic import BaseModel

Json = dict[str, Any]

_KEPT = (
    "description",
    "enum",
    "format",
    "maximum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minimum",
    "minItems",
    "minLength",
    "minProperties",
    "pattern",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
)


@dataclass(frozen=True, slots=True)
class _Definition:
    model: type[BaseModel]
    plural: str
    short: str
    columns: tuple[tuple[str, str, str], ...]


_DEFINITIONS = (
    _Definition(
        ModelWeights,
        "modelweights",
        "mw",
        (
            ("Sensitivity", "string", ".spec.sensitivity"),
            ("Owner", "string", ".spec.owner"),
            ("Delivery", "string", ".spec.delivery"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
    ),
    _Definition(
        WeightPolicy,
        "weightpolicies",
        "wpol",
        (
            ("Code", "string", ".spec.code"),
            ("Actions", "string", ".spec.validationActions"),
            ("Failure", "string", ".spec.failurePolicy"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
    ),
    _Definition(
        AccessRequest,
        "accessrequests",
        "areq",
        (
            ("Model", "string", ".spec.model"),
            ("Subject", "string", ".spec.subject.name"),
            ("Approvals", "string", ".status.approvals"),
            ("State", "string", ".status.state"),
            ("Ends", "string", ".status.ends"),
        ),
    ),
    _Definition(
        AccessApproval,
        "accessapprovals",
        "aapp",
        (
            ("Request", "string", ".spec.request.name"),
            ("Decision", "string", ".spec.decision"),
            ("Approver", "string", ".spec.approver.username"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
    ),
    _Definition(
        ImageTrust,
        "imagetrusts",
        "itrust",
        (
            ("Images", "string", ".spec.images"),
            ("Verified", "integer", ".status.verified"),
            ("Problem", "string", ".status.problem"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
    ),
    _Definition(
        ImageVerification,
        "imageverifications",
        "iver",
        (
            ("Rule", "string", ".spec.rule"),
            ("Shard", "string", ".spec.shard"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ),
    ),
)


def definitions() -> list[Json]:
    """Every CustomResourceDefinition, in the order a chart should hold them."""
    return [_definition(entry) for entry in _DEFINITIONS]


def _definition(entry: _Definition) -> Json:
    whole = entry.model.model_json_schema(by_alias=True)
    shared = whole.get("$defs", {})
    spec = _structural(whole["properties"]["spec"], shared)
    schema = {
        "description": " ".join((entry.model.__doc__ or "").split()),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    kind = entry.model.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{entry.plural}.{GROUP}", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": entry.plural,
                "singular": kind.lower(),
                "shortNames": [entry.short],
                "categories": ["weightlock"],
            },
            "scope": "Cluster",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {"name": name, "type": kind_, "jsonPath": path} for name, kind_, path in entry.columns
                    ],
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def _structural(schema: Json, shared: Json) -> Json:
    """One JSON schema as the API server wants it; a nullable value is written as the value alone."""
    if "$ref" in schema:
        target = shared[schema["$ref"].rpartition("/")[2]]
        return _structural(
            {**target, **{key: value for key, value in schema.items() if key != "$ref"}}, shared
        )
    if "anyOf" in schema:
        (only,) = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
        return _structural(
            {**only, **{key: schema[key] for key in ("description",) if key in schema}}, shared
        )
    fields = {key: schema[key] for key in _KEPT if key in schema}
    if "description" in fields:
        fields["description"] = " ".join(fields["description"].split())
    if "const" in schema:
        fields.update({"type": "string", "enum": [schema["const"]]})
    if "items" in schema:
        fields["items"] = _structural(schema["items"], shared)
    if "properties" in schema:
        fields["properties"] = {
            name: _structural(value, shared) for name, value in schema["properties"].items()
        }
        if schema.get("required"):
            fields["required"] = schema["required"]
    elif isinstance(schema.get("additionalProperties"), dict):
        fields["additionalProperties"] = _structural(schema["additionalProperties"], shared)
    elif schema.get("additionalProperties") is True:
        fields["x-kubernetes-preserve-unknown-fields"] = True
    return fields
