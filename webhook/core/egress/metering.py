"""Whether a pod sent more than its egress limit allows: the bytes that its sidecar counted against the pod's age.

The sidecar counts in the pod's own network namespace, whose counters begin with the pod. The rate and the age come from
the live pod, so a sidecar that restarts cannot reset its budget.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.egress import stamp as egress_stamp
from webhook.core.egress.budget import rate_text, size_text
from webhook.core.kube.time import parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from webhook.api.config import EgressSettings


def allowance(rate: int, seconds: float, settings: EgressSettings) -> int:
    """Return the bytes that a pod may have sent after so many seconds at ``rate`` bits a second."""
    base = rate * max(int(seconds), 0) // 8
    return base * (100 + settings.tolerance_percent) // 100 + settings.burst_bytes


def excess(pod: Mapping[str, Any], sent: int | None, now: datetime, settings: EgressSettings) -> str:
    """Return why a pod with an egress limit is over its budget; empty if it is not.

    ``sent`` are the bytes that its sidecar counted, None from a sidecar that counts none.
    """
    stamp = egress_stamp.parse(pod)
    if stamp is None:
        return "its egress limit is missing"
    if sent is None:
        return "its key sidecar reports no egress: set settings.injection.image to the image of this version"
    status, metadata = pod.get("status") or {}, pod.get("metadata") or {}
    start = parse_time(status.get("startTime")) or parse_time(metadata.get("creationTimestamp"))
    if start is None:
        return "it has no start time"
    allowed = allowance(stamp.rate, (now - start).total_seconds(), settings)
    if sent <= allowed:
        return ""
    return f"it sent {size_text(sent)}, and its limit of {rate_text(stamp.rate)} allows {size_text(allowed)} until now"
