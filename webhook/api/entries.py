"""The entries of the audit log: the envelope, and the data of each type. Their JSON schemas are generated from here.

Entries identify users by name and UID, pods by namespace, name and UID, and objects by SHA-256. They never contain an
object, a token or a key. All numbers are integers: RFC 8785 leaves no choice in their form.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from webhook.api.base import Schema

SCHEMA_VERSION = "v1"
SCHEMA_ROOT = "https://weightlock.dev/schemas/audit"
TYPE_PREFIX = "dev.weightlock."

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=1024)]
Short = Annotated[str, Field(max_length=253)]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")]
Count = Annotated[int, Field(ge=0, le=(1 << 53) - 1)]
Codes = Annotated[list[str], Field(max_length=64)]


class User(Schema):
    """The authenticated user of a request."""

    username: Text
    uid: Short = ""


class Pod(Schema):
    """A pod and where it runs."""

    namespace: Short
    name: Short
    uid: Short = ""
    node: Short = ""
    zone: Short = Field(default="", description="topology.kubernetes.io/zone of the pod (Kubernetes 1.35)")
    service_account: Short = ""


class Subject(Schema):
    """The subject of a grant."""

    kind: Literal["User", "ServiceAccount"]
    namespace: Short = ""
    name: Text


class Verdict(Schema):
    """One admission review."""

    decision: Literal["allowed", "denied", "error"]
    phase: Literal["mutate", "validate"]
    operation: Short
    resource: Short
    group: Short = ""
    namespace: Short = ""
    name: Short = ""
    user: User
    object: Digest | None = None
    codes: Codes = Field(default_factory=list)
    models: list[Short] = Field(
        default_factory=list, max_length=64, description="protected models that the object reads or copies"
    )
    routes: list[Short] = Field(
        default_factory=list,
        max_length=64,
        description="routes to these models, such as clone, snapshot or memoryImage",
    )
    escapes: list[Short] = Field(
        default_factory=list,
        max_length=64,
        description="sandbox escapes that an exception covers, or that deny",
    )
    injected: bool = False
    dry_run: bool = False
    microseconds: Count


class Request(Schema):
    """An AccessRequest that Weightlock accepted as valid."""

    name: Short
    uid: Short
    model: Short = ""
    subject: Subject
    requester: User
    namespaces: list[Short] = Field(default_factory=list)
    seconds: Count
    break_glass: bool = False


class Approval(Schema):
    """A valid AccessApproval."""

    name: Short
    uid: Short = ""
    request: Short
    request_uid: Short = ""
    decision: Literal["Approve", "Deny", "Revoke"]
    approver: User
    requester: User | None = None
    model: Short = ""
    seconds: Count = Field(default=0, description="time between the request and the vote")


class Grant(Schema):
    """A change of a grant's state. It has the same shape for a waiver and for break-glass access."""

    request: Short
    request_uid: Short = ""
    state: Literal["active", "ended"]
    model: Short = ""
    waiver: Short = ""
    subject: Subject
    requester: User | None = None
    namespaces: list[Short] = Field(default_factory=list)
    begins: Time
    expires: Time
    approvers: list[Text] = Field(default_factory=list)
    reason: Text = ""


class Release(Schema):
    """The broker's decision on a key request: a release or a renewal."""

    decision: Literal["released", "renewed", "denied"]
    model: Short
    pod: Pod | None = None
    images: list[Text] = Field(default_factory=list, max_length=64)
    keys: list[Short] = Field(default_factory=list, max_length=64)
    grant: Short = ""
    subject: Literal["", "User", "ServiceAccount"] = Field(
        default="", description="kind of the grant's subject"
    )
    credential: Short = Field(default="", description="id of the pod's token, never the token")
    code: Short = ""
    reason: Text = ""
    seconds: Count = 0


class Policy(Schema):
    """A policy that came into force, changed, or went out of force in one process."""

    name: Short
    change: Literal["added", "changed", "removed"]
    digest: Digest | None = None
    code: Short = ""
    actions: list[Short] = Field(default_factory=list)
    controls: list[Short] = Field(default_factory=list)
    weakened: list[Short] = Field(default_factory=list, description="parts of the change that protect less")


class Model(Schema):
    """A ModelWeights that was added, changed or removed. ``egress_seconds``: the minimum time of its egress budget."""

    name: Short
    change: Literal["added", "changed", "removed"]
    digest: Digest | None = None
    sensitivity: Short = ""
    approvals: Count = 0
    max_seconds: Count = Field(default=0, description="maximum duration of a grant")
    attested: bool = Field(default=False, description="whether keys need attestation")
    volumes: list[Short] = Field(
        default_factory=list, max_length=64, description="digests of the declared volumes"
    )
    weakened: list[Short] = Field(default_factory=list, description="parts of the change that protect less")
    egress_seconds: Count = 0


class Drift(Schema):
    """A drifted webhook configuration or CRD, or its restoration."""

    kind: Short
    name: Short
    detail: Text = ""
    writer: Text = ""
    pods: list[Text] = Field(
        default_factory=list,
        max_length=64,
        description="pods with weights, as namespace/name, that were created while the object differed",
    )


class Certificate(Schema):
    """An issued CA or certificate."""

    event: Literal["issued", "expired", "failed"]
    name: Short
    expires: Time | None = None


class Event(Schema):
    """An entry or an API server audit event that an alert refers to."""

    origin: Text
    entry: Count = 0
    id: Annotated[str, Field(max_length=300)] = ""
    type: Short = ""
    time: Time


class Detection(Schema):
    """An alert, or the detection's own events.

    ``found`` and ``silenced`` are alerts. ``passed`` states that the rules were evaluated on all entries of a period,
    ``failed`` that they were not. ``silence`` and ``triage`` are the start of a silence and a model's summary.
    """

    name: Short
    result: Literal["found", "silenced", "passed", "failed", "silence", "triage"]
    detail: Text = ""
    severity: Literal["", "informational", "low", "medium", "high", "critical"] = ""
    key: Short = Field(default="", description="the same for repetitions of an alert")
    group: dict[str, Text] = Field(default_factory=dict, max_length=16)
    events: list[Event] = Field(default_factory=list, max_length=16)
    baseline: Text = ""
    techniques: list[Short] = Field(default_factory=list, max_length=32)
    controls: list[Short] = Field(default_factory=list, max_length=32)
    runbook: Text = ""
    repeats: Count = Field(
        default=0, description="suppressed repetitions of the previous alert with this key"
    )
    reason: Text = Field(default="", description="reason of the silence")
    since: Time | None = Field(default=None, description="start of the evaluated period (passed)")
    entries: Count = Field(default=0, description="evaluated entries (passed)")
    rules: Count = Field(default=0, description="active rules (passed)")
    digest: Digest | None = Field(default=None, description="digest of the active rules (passed)")


class Drill(Schema):
    """The result of a drill (name ``drill``), or of one control in it (name: its code)."""

    name: Short
    result: Literal["passed", "failed", "incomplete"]
    detail: Text = ""
    attacks: Count = 0
    stopped: Count = 0


class Head(Schema):
    """A checkpoint of another log, or of this log's previous run."""

    origin: Text
    size: Count
    root: Digest


class KubernetesUser(Schema):
    """A user in an audit event of the API server."""

    username: Text = ""
    uid: Short = ""
    groups: list[Short] = Field(default_factory=list, max_length=32)


class ObjectReference(Schema):
    """The object of a request to the API server."""

    resource: Short = ""
    namespace: Short = ""
    name: Short = ""
    uid: Short = ""
    api_group: Short = ""
    api_version: Short = ""
    subresource: Short = ""


class ResponseStatus(Schema):
    """The API server's response."""

    code: Count = 0


class Kubernetes(Schema):
    """An audit event of the API server (``audit.k8s.io/v1``), with its field names and without bodies and queries."""

    audit_id: Short = Field(alias="auditID")
    stage: Short
    level: Short = ""
    verb: Short
    request_uri: Text = Field(default="", alias="requestURI")
    user: KubernetesUser | None = None
    impersonated_user: KubernetesUser | None = None
    object_ref: ObjectReference | None = None
    response_status: ResponseStatus | None = None
    source_ips: list[Short] = Field(default_factory=list, max_length=8, alias="sourceIPs")
    user_agent: Text = ""
    request_received_timestamp: Short = ""
    stage_timestamp: Short = ""


class Log(Schema):
    """The log's own events.

    ``start`` and ``stop`` frame a run. ``loss`` counts entries that a full queue lost. ``head`` records the checkpoint
    of another log, ``silent`` a log that stopped growing without a ``stop``. ``pruned`` states the entries that
    retention removed. ``gap`` states that a joined log misses events.
    """

    event: Literal["start", "stop", "loss", "head", "silent", "pruned", "gap"]
    version: Short = ""
    head: Head | None = None
    lost: dict[str, Count] = Field(default_factory=dict)
    unclean: bool = False
    first: Count = 0
    detail: Text = ""


DATA: dict[str, type[Schema]] = {
    "verdict": Verdict,
    "request": Request,
    "approval": Approval,
    "grant": Grant,
    "waiver": Grant,
    "breakglass": Grant,
    "release": Release,
    "renewal": Release,
    "policy": Policy,
    "model": Model,
    "drift": Drift,
    "restored": Drift,
    "certificate": Certificate,
    "detection": Detection,
    "drill": Drill,
    "kubernetes": Kubernetes,
    "log": Log,
}


class Envelope(Schema):
    """The CloudEvents 1.0 envelope of an entry."""

    specversion: Literal["1.0"]
    id: Annotated[str, Field(min_length=1, max_length=300)]
    source: Annotated[str, Field(min_length=1, max_length=300)]
    type: Annotated[str, Field(pattern=r"^dev\.weightlock\.[a-z]+$")]
    subject: Text = ""
    time: Time
    datacontenttype: Literal["application/json"]
    dataschema: Annotated[str, Field(max_length=300)]
    data: dict[str, Any]

    @classmethod
    def schema_url(cls, kind: str) -> str:
        """Return the URL of the data's schema."""
        return f"{SCHEMA_ROOT}/{SCHEMA_VERSION}/{kind}.json"


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each type's data, by type."""
    return {
        kind: {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": Envelope.schema_url(kind),
            **model.model_json_schema(by_alias=True),
        }
        for kind, model in DATA.items()
    }
