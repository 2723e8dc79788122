"""The detection part of the configuration file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from webhook.api.base import Schema

ConfigMapName = Annotated[str, Field(max_length=253)]


class Triage(Schema):
    """A language model that summarizes alerts. Off while ``url`` is empty. It decides nothing."""

    url: str = Field(
        default="",
        max_length=2048,
        pattern=r"^(https?://.+)?$",
        description="OpenAI-compatible endpoint, such as http://llm.internal:8000/v1",
    )
    model: str = Field(default="", max_length=253, description="name of the language model")
    key_file: str = Field(default="", description="file with the API key")
    timeout_seconds: float = Field(default=60, gt=0, le=600)
    max_per_hour: int = Field(default=30, ge=1, le=3600, description="alerts to summarize in an hour")


class DetectionSettings(Schema):
    """Detection rules that the controller evaluates on the audit log."""

    enabled: bool = False
    rules: str = Field(default="", description="directory of rules; empty: the shipped rules")
    interval_seconds: float = Field(default=2, gt=0, le=60, description="time between two evaluations")
    settle_seconds: float = Field(
        default=5,
        ge=0,
        le=300,
        description="age of an entry before it is evaluated: orders entries of several logs",
    )
    state: ConfigMapName = Field(
        default="", description="ConfigMap with the state; empty: rebuilt from the log at each start"
    )
    silences: ConfigMapName = Field(default="", description="ConfigMap with the silences; empty: none")
    audit_files: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(
        default_factory=list, max_length=16, description="audit logs of the API server, one JSON event a line"
    )
    report_seconds: float = Field(
        default=3600, ge=60, le=86_400, description="how often an entry states that all rules were evaluated"
    )
    triage: Triage = Field(default_factory=Triage)
