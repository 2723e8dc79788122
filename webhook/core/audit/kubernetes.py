"""Reduce audit events of the API server (``audit.k8s.io/v1``) to the data of log entries.

An entry has the event's own field names, so that rules for the API server's audit log apply to both. It never contains
request or response bodies, or the query of a URI: ``exec`` has its command there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from webhook.core.audit.entries import clip

if TYPE_CHECKING:
    from collections.abc import Sequence

KIND = "kubernetes"
# An event of the start of a request says nothing that the event of its end does not.
_SKIPPED_STAGES = frozenset({"RequestReceived", "ResponseStarted"})
_MAX_GROUPS, _MAX_ADDRESSES, _SHORT = 32, 8, 253
_REFERENCE = ("resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "subresource")


class EventError(ValueError):
    """The document is not an audit event. The message is one line."""


def event_data(document: Any) -> dict[str, Any] | None:
    """Return the data of an entry, or None for an event of an earlier stage of a request.

    Raises:
        EventError: the document is not an audit event.
    """
    if not isinstance(document, Mapping) or document.get("kind", "Event") != "Event":
        raise EventError("not an audit event")
    if not str(document.get("apiVersion", "audit.k8s.io/v1")).startswith("audit.k8s.io/"):
        raise EventError(f"unknown version {clip(str(document['apiVersion']), 80)!r}")
    stage, identifier = _text(document, "stage"), _text(document, "auditID")
    if not stage or not identifier or not _text(document, "verb"):
        raise EventError("an audit event needs auditID, stage and verb")
    if stage in _SKIPPED_STAGES:
        return None
    status = document.get("responseStatus")
    code = status.get("code") if isinstance(status, Mapping) else None
    data: dict[str, Any] = {
        "auditID": clip(identifier, _SHORT),
        "stage": clip(stage, _SHORT),
        "level": clip(_text(document, "level"), _SHORT),
        "verb": clip(_text(document, "verb"), _SHORT),
        "requestURI": clip(_text(document, "requestURI").partition("?")[0]),
        "user": _user(document.get("user")),
        "impersonatedUser": _user(document.get("impersonatedUser")),
        "objectRef": _reference(document.get("objectRef")),
        "sourceIPs": [clip(text, _SHORT) for text in _texts(document.get("sourceIPs"), _MAX_ADDRESSES)],
        "userAgent": clip(_text(document, "userAgent")),
        "requestReceivedTimestamp": clip(_text(document, "requestReceivedTimestamp"), _SHORT),
        "stageTimestamp": clip(_text(document, "stageTimestamp"), _SHORT),
    }
    if isinstance(code, int) and not isinstance(code, bool) and 0 <= code < 1000:
        data["responseStatus"] = {"code": code}
    return {key: value for key, value in data.items() if value}


def subject_of(data: Mapping[str, Any]) -> str:
    """Return the subject of the entry: the object of the request, or its path."""
    reference = data.get("objectRef")
    if not isinstance(reference, Mapping):
        return str(data.get("requestURI", ""))
    parts = (reference.get(key, "") for key in ("resource", "namespace", "name", "subresource"))
    return "/".join(part for part in parts if part)


def _user(document: Any) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        return {}
    groups = [clip(text, _SHORT) for text in _texts(document.get("groups"), _MAX_GROUPS)]
    user = {
        "username": clip(_text(document, "username")),
        "uid": clip(_text(document, "uid"), _SHORT),
        "groups": groups,
    }
    return {key: value for key, value in user.items() if value}


def _reference(document: Any) -> dict[str, str]:
    if not isinstance(document, Mapping):
        return {}
    return {key: clip(text, _SHORT) for key in _REFERENCE if (text := _text(document, key))}


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""


def _texts(value: Any, limit: int) -> Sequence[str]:
    return [text for text in value if isinstance(text, str)][:limit] if isinstance(value, list) else ()
