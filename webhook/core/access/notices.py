"""Notifications about a request: requested, approved, granted, denied, revoked, ended. The controller sends them.

They contain text from users, so they stay on one line, and Slack's markup in them is escaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.core.access.model import Phase
from webhook.core.kube.text import one_line
from webhook.core.kube.time import format_time

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.core.access.model import ParsedRequest
    from webhook.core.kube.fields import Document

_VERBS = {
    Phase.ACTIVE: ("granted", "may now use"),
    Phase.EXPIRED: ("ended", "may no longer use"),
    Phase.DENIED: ("denied", "was denied"),
    Phase.REVOKED: ("revoked", "has lost"),
}
_MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Notice:
    """One notification. ``event`` is requested, approved, granted, break-glass, denied, revoked or ended."""

    event: str
    message: str
    request: str
    what: str
    requester: str
    approvals: str
    ends: str

    def as_json(self, now: datetime) -> dict[str, Any]:
        """Return the generic form, version 1: fields are added, never renamed."""
        return {
            "version": 1,
            "time": format_time(now),
            "event": self.event,
            "request": self.request,
            "for": self.what,
            "requester": self.requester,
            "approvals": self.approvals,
            "ends": self.ends,
            "message": self.message,
        }

    def as_slack(self) -> dict[str, Any]:
        """Return Slack's form (api.slack.com/reference/surfaces/formatting, "Escaping text"); Mattermost reads it."""
        text = self.message
        for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(character, escape)
        return {"text": text}


def notice(parsed: ParsedRequest, reason: str, before: Document, after: Document) -> Notice | None:
    """Return the notification for a change of status; None if users do not wait for this change."""
    who, what = one_line(parsed.subject.username), _what(parsed)
    was, now = before.get("state"), after.get("state")
    command = f"weightlock access approve {parsed.name}"
    event, words = "", ""
    if now == Phase.PENDING and was is None:
        text = one_line(reason)[:_MAX_REASON]
        event, words = (
            "requested",
            f'{one_line(parsed.by.username)} asks for {what} for {who}: "{text}". To approve: {command}',
        )
    elif now == Phase.PENDING and after.get("approvals") != before.get("approvals"):
        event, words = "approved", f"{parsed.name}: {after.get('approvals')} approvals for {what} for {who}"
    elif now != was and now in _VERBS:
        event, verb = _VERBS[Phase(str(now))]
        words = f"{who} {verb} {what} ({parsed.name})" + (
            f" until {after['ends']}" if now == Phase.ACTIVE else ""
        )
        words += f", by {one_line(str(after['by']))}" if after.get("by") else ""
        if now == Phase.ACTIVE and parsed.break_glass:
            event, words = (
                "break-glass",
                f"BREAK-GLASS by {one_line(parsed.by.username)}: {words}. Reason: {one_line(reason)}",
            )
    if not event:
        return None
    return Notice(
        event,
        words,
        parsed.name,
        what,
        parsed.by.username,
        str(after.get("approvals", "")),
        str(after.get("ends", "")),
    )


def _what(parsed: ParsedRequest) -> str:
    if parsed.change is not None:
        return f"a change of {parsed.change.kind} {parsed.change.name}"
    return f"a waiver of {parsed.waiver.code}" if parsed.waiver is not None else f"model {parsed.model}"
