"""The key broker's part of the configuration file."""

from __future__ import annotations

from pydantic import Field

from webhook.api.base import Schema
from webhook.api.config import Config


class BrokerSettings(Schema):
    """How the broker decides and how long its leases last, in seconds."""

    challenge_key: str = Field(
        default="", description="file of 32 random bytes or more that all replicas share"
    )
    webhooks: str = Field(
        default="", description="file or directory with the webhook configurations as they should be"
    )
    authorities: str = Field(
        default="",
        description="NAMESPACE/NAME of the Secret whose ca.crt lists the authorities that webhook configurations may "
        "hold; empty: what the manifests say, or any where they say nothing",
    )
    production: bool = Field(default=True, description="refuse key services that are for trying out")
    lease_seconds: int = Field(
        default=900, ge=60, le=86400, description="how long keys may be kept unrenewed"
    )
    renew_seconds: int = Field(default=300, ge=10, le=43200)
    source_requests_per_minute: float = Field(
        default=600,
        gt=0,
        description="requests from one address, but for those that a pod's token proved to be a sidecar's",
    )
    pod_requests_per_minute: float = Field(default=12, gt=0)
    model_requests_per_minute: float = Field(default=600, gt=0)
    request_timeout_seconds: float = Field(default=20, gt=0, le=120)
    max_concurrent_requests: int = Field(default=64, ge=1, le=4096)


class BrokerConfig(Config):
    """The whole file, as the broker reads it."""

    broker: BrokerSettings = Field(default_factory=BrokerSettings)
