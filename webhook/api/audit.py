"""The audit log's part of the configuration file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from webhook.api.base import Schema

# The key name of a log is <cluster>/<component>/<instance>, so no part contains a slash, a space or a plus.
OriginPart = Annotated[str, Field(max_length=80, pattern=r"^[A-Za-z0-9._-]*$")]
OnFull = Literal["deny", "count"]


class Witness(Schema):
    """A witness (c2sp.org/tlog-witness) that cosigns checkpoints."""

    url: str = Field(max_length=1024, pattern=r"^https?://.+")
    key: str = Field(max_length=4096, description="verifier key: <name>+<id>+<base64>")


class FullQueue(Schema):
    """Rules for a full queue, by kind of event: deny the request, or count the lost entry."""

    verdicts: OnFull = "count"
    grants: OnFull = Field(default="deny", description="requests and approvals at admission")
    releases: OnFull = Field(default="deny", description="key releases and renewals")


class AuditSettings(Schema):
    """The tamper-evident audit log. Off while ``directory`` is empty."""

    directory: str = Field(
        default="",
        description="parent directory of the logs, or s3://BUCKET/PREFIX; the log is in COMPONENT/INSTANCE below it",
    )
    cluster: OriginPart = Field(default="cluster", description="first part of the log's origin")
    instance: OriginPart = Field(default="", description="last part of the origin (empty: the host name)")
    key: str = Field(
        default="",
        description="PEM file with the log's Ed25519 key and, optionally, its ML-DSA-44 key (empty: created beside "
        "the directory)",
    )
    queue_limit: int = Field(
        default=10_000, ge=1, le=1_000_000, description="entries that wait to be written"
    )
    on_full: FullQueue = Field(default_factory=FullQueue)
    interval_seconds: float = Field(
        default=1, gt=0, le=60, description="time between two checkpoints; a key release forces a checkpoint"
    )
    fsync: bool = Field(default=True, description="flush files to the disk before a checkpoint is signed")
    sample_allowed: float = Field(
        default=1, ge=0, le=1, description="share of the allowed verdicts to log; denials are always logged"
    )
    witnesses: list[Witness] = Field(default_factory=list, max_length=16)
    quorum: int = Field(
        default=0, ge=0, le=16, description="witnesses that must cosign before a key is released"
    )
    witness_timeout_seconds: float = Field(default=5, gt=0, le=60)
    compress: bool = Field(
        default=False,
        description="compress full entry bundles; `weightlock audit serve` decompresses them, and "
        "other file servers need a setting for it",
    )
    retention_days: int = Field(
        default=0, ge=0, le=36_500, description="days after which whole tiles are removed (0: never)"
    )
    heads_seconds: float = Field(
        default=30,
        ge=1,
        le=3600,
        description="how often the controller logs the checkpoints of the other logs",
    )
