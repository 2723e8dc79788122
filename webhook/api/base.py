"""What every Weightlock type shares: strict, frozen, camelCase on the wire, and the small Kubernetes types they use.

Unknown fields are refused, so a misspelt field is an error where it is written and never a silent default.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

log = logging.getLogger(__name__)

GROUP = "weightlock.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Name = Annotated[str, Field(min_length=1, max_length=253)]
Pattern = Annotated[str, Field(min_length=1, max_length=1024)]


class Schema(BaseModel):
    """Base of all types: camelCase names on the wire, unknown fields rejected, instances immutable.

    ``renamed`` maps each former name of a field to its current name. A former name is accepted for one release, with a
    warning in the log. Both names together are an error.
    """

    renamed: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe the former names as deprecated, so that a schema check accepts them as well."""
        described = handler(schema)
        properties = handler.resolve_ref_schema(described).get("properties", {})
        for former, name in cls.renamed.items():
            properties[former] = {
                **properties[name],
                "deprecated": True,
                "description": f"former name of {name}",
            }
        return described

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, data: Any) -> Any:
        if not cls.renamed or not isinstance(data, dict) or cls.renamed.keys().isdisjoint(data):
            return data
        current = dict(data)
        for former, name in cls.renamed.items():
            if former not in current:
                continue
            if name in current:
                raise ValueError(f"{former} is the former name of {name}: set {name} only")
            log.warning("%s is the former name of %s and will be rejected by the next release", former, name)
            current[name] = current.pop(former)
        return current


class ObjectMeta(BaseModel):
    """The part of Kubernetes' ObjectMeta that Weightlock reads; the API server owns the rest."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )

    name: Name
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class LabelSelectorRequirement(Schema):
    """One ``matchExpressions`` entry of a label selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = Field(default_factory=list)


class LabelSelector(Schema):
    """A Kubernetes label selector; an empty one matches everything."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: list[LabelSelectorRequirement] = Field(default_factory=list)


class Resource(BaseModel):
    """A whole object: ``metadata``, ``spec``, and a ``status`` that is for reading and never trusted."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )

    api_version: str
    kind: str
    metadata: ObjectMeta
    status: dict[str, Any] | None = None
