"""The ``status`` that the controller writes for users and tools. No decision depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.access.model import Phase
from webhook.core.kube.time import format_time

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.core.access.grant_index import GrantIndex
    from webhook.core.access.model import RequestState
    from webhook.core.kube.fields import Document


def request_status(index: GrantIndex, name: str, before: Document, now: datetime) -> Document:
    """Return the status of a request, with conditions as the Kubernetes API conventions define them.

    ``before`` is its present status: a condition that did not change keeps its transition time.
    """
    state = index.state(name, now)
    status: Document = {"state": str(state.phase)}
    if state.needed:
        status["approvals"] = f"{state.approvals}/{state.needed}"
    for field, moment in (("begins", state.begins), ("ends", state.ends)):
        if moment is not None:
            status[field] = format_time(moment)
    if state.approvers:
        status["approvers"] = list(state.approvers)
    if state.missing and state.phase is Phase.PENDING:
        status["missing"] = dict(state.missing)
    for field, text in (("by", state.by), ("reason", state.reason)):
        if text:
            status[field] = text
    status["conditions"] = [_condition("Active", state.phase is Phase.ACTIVE, state, before, now)]
    return status


def approval_status(index: GrantIndex, name: str) -> Document:
    """Return the status of an approval: admitted, or ignored with the reason."""
    invalid = index.invalid("AccessApproval", name)
    return {"state": "Ignored", "reason": invalid.reason} if invalid is not None else {"state": "Admitted"}


def _condition(
    kind: str, holds: bool, state: RequestState, before: Document, now: datetime
) -> dict[str, Any]:
    value = "True" if holds else "False"
    conditions: list[dict[str, Any]] = before.get("conditions") or []
    old = next((item for item in conditions if item.get("type") == kind), {})
    same = old.get("status") == value and old.get("lastTransitionTime")
    return {
        "type": kind,
        "status": value,
        "reason": str(state.phase),
        "message": state.reason or f"the request is {str(state.phase).lower()}",
        "lastTransitionTime": old["lastTransitionTime"] if same else format_time(now),
    }
