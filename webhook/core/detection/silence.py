"""Silences: for a while, alerts of a rule are not sent to receivers. They stay in the log, with the reason."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field, ValidationError

from webhook.api.base import Schema
from webhook.core.kube.text import one_line
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.detection.alert import Alert

LONGEST = timedelta(days=7)
MAX_SILENCES = 64
MIN_REASON = 10


class SilenceBody(Schema):
    """A silence as stored. ``begins`` and ``ends`` are RFC 3339 UTC."""

    rule: str = Field(min_length=1, max_length=253)
    key: str = Field(default="", max_length=253)
    begins: str = Field(max_length=40)
    ends: str = Field(max_length=40)
    reason: str = Field(min_length=MIN_REASON, max_length=512)
    user: str = Field(default="", max_length=253)


class Silence(NamedTuple):
    """A valid silence."""

    name: str
    rule: str
    key: str
    begins: datetime
    ends: datetime
    reason: str
    user: str

    def covers(self, alert: Alert, now: datetime) -> bool:
        """Return whether the silence applies to an alert now."""
        return self.begins <= now < self.ends and self.rule == alert.rule and self.key in ("", alert.key)


def read_silences(data: Mapping[str, str]) -> tuple[list[Silence], list[str]]:
    """Return the valid silences of a ConfigMap, and the names of the invalid ones."""
    silences, invalid = [], []
    for name in sorted(data)[:MAX_SILENCES]:
        try:
            body = SilenceBody.model_validate_json(data[name])
        except ValidationError:
            invalid.append(name)
            continue
        begins, ends = parse_time(body.begins), parse_time(body.ends)
        if begins is None or ends is None or not begins < ends <= begins + LONGEST:
            invalid.append(name)
            continue
        silences.append(
            Silence(name, body.rule, body.key, begins, ends, one_line(body.reason), one_line(body.user))
        )
    return silences, [*invalid, *sorted(data)[MAX_SILENCES:]]
