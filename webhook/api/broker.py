"""The key broker's part of the configuration file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from webhook.api.base import Schema
from webhook.api.config import Config


class BrokerSettings(Schema):
    """Settings of the broker's decisions and leases. Times are in seconds."""

    challenge_key: str = Field(
        default="", description="file of 32 random bytes or more that all replicas share"
    )
    webhooks: str = Field(
        default="", description="file or directory with the expected webhook configurations"
    )
    authorities: str = Field(
        default="",
        description="NAMESPACE/NAME of the Secret whose ca.crt lists the CAs that webhook configurations may contain; "
        "empty: the CAs in the manifests, or any CA if they contain none",
    )
    record: str = Field(
        default="",
        description="NAMESPACE/NAME of the Secret with the controller's record of access rules: no key is released for "
        "rules that became weaker than the recorded ones; empty: they are not compared",
    )
    production: bool = Field(default=True, description="reject KMS providers that are only for evaluation")
    lease_seconds: int = Field(
        default=900, ge=60, le=86400, description="how long keys may be kept without a renewal"
    )
    renew_seconds: int = Field(default=300, ge=10, le=43200)
    source_requests_per_minute: float = Field(
        default=600,
        gt=0,
        description="requests from one address, except those whose token proves that a sidecar sent them",
    )
    pod_requests_per_minute: float = Field(default=12, gt=0)
    model_requests_per_minute: float = Field(default=600, gt=0)
    unwrap_cache_seconds: float = Field(
        default=0, ge=0, le=60, description="how long an unwrapped key stays in memory; 0 turns the cache off"
    )
    unwrap_cache_scope: Literal["node", "model"] = Field(
        default="node",
        description="share a cached key among the pods of one node, or among all pods of a model",
    )
    request_timeout_seconds: float = Field(default=20, gt=0, le=120)
    max_concurrent_requests: int = Field(default=64, ge=1, le=4096)


class BrokerConfig(Config):
    """The whole file, as the broker reads it."""

    broker: BrokerSettings = Field(default_factory=BrokerSettings)
