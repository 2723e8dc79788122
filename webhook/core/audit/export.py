"""Convert entries to the formats of log systems: CloudEvents, OCSF, ECS, CEF and CSV. One line for each entry.

OCSF has no class for every entry. Verdicts, requests, approvals and releases are API Activity (6003). All other entries
are Entity Management (3004).
"""

from __future__ import annotations

import csv
import io
from datetime import datetime
from typing import TYPE_CHECKING, Any

from webhook.core.audit.entries import canonical, clip, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

_OCSF_VERSION = "1.5.0"
_API = frozenset({"verdict", "request", "approval", "release", "renewal"})
_FAILED = frozenset({"denied", "error", "failed"})
_ACTIVITIES = {"CREATE": 1, "CONNECT": 2, "UPDATE": 3, "DELETE": 4}
_OUTCOMES = {"added": 1, "changed": 3, "removed": 4, "active": 1, "ended": 4}
_COLUMNS = ("time", "log", "id", "type", "subject", "user", "decision", "codes", "model", "namespace", "name")
# CEF escapes (ArcSight Common Event Format, revision 26).
_CEF_HEADER = {ord("\\"): "\\\\", ord("|"): "\\|", ord("\n"): " ", ord("\r"): " "}
_CEF_VALUE = {ord("\\"): "\\\\", ord("="): "\\=", ord("\n"): "\\n", ord("\r"): "\\r"}

Entry = dict[str, Any]


def user_of(entry: Entry) -> str:
    """Return the user of an entry, or an empty text."""
    data = entry["data"]
    for key in ("user", "requester", "approver"):
        if isinstance(data.get(key), dict):
            return str(data[key].get("username", ""))
    pod = data.get("pod")
    if isinstance(pod, dict) and pod.get("serviceAccount"):
        return f"system:serviceaccount:{pod.get('namespace', '')}:{pod['serviceAccount']}"
    subject = data.get("subject")
    return str(subject.get("name", "")) if isinstance(subject, dict) else ""


def decision_of(entry: Entry) -> str:
    """Return the outcome of an entry in one word."""
    data = entry["data"]
    return str(
        next((data[key] for key in ("decision", "state", "change", "event", "result") if data.get(key)), "")
    )


def codes_of(entry: Entry) -> list[str]:
    """Return the reason codes of an entry."""
    data = entry["data"]
    return [str(code) for code in data.get("codes", ())] or ([str(data["code"])] if data.get("code") else [])


def severity_of(entry: Entry) -> int:
    """Return the severity on OCSF's scale: 1 informational, 3 medium, 4 high."""
    kind = kind_of(entry)
    if kind in ("drift", "breakglass") or entry["data"].get("event") == "loss":
        return 4
    return 3 if decision_of(entry) in _FAILED else 1


def cloudevents(entry: Entry) -> bytes:
    """Return the entry itself."""
    return canonical(entry)


def ocsf(entry: Entry) -> bytes:
    """Return an OCSF event."""
    kind, data = kind_of(entry), entry["data"]
    api = kind in _API
    activity = (
        _ACTIVITIES.get(str(data.get("operation")), 99) if api else _OUTCOMES.get(decision_of(entry), 99)
    )
    class_uid = 6003 if api else 3004
    event: Entry = {
        "activity_id": activity,
        "category_uid": 6 if api else 3,
        "class_uid": class_uid,
        "type_uid": class_uid * 100 + activity,
        "time": int(datetime.fromisoformat(entry["time"]).timestamp() * 1000),
        "severity_id": severity_of(entry),
        "status_id": 2 if decision_of(entry) in _FAILED else 1,
        "status_code": ",".join(codes_of(entry)),
        "message": f"{entry['type']} {decision_of(entry)}".strip(),
        "metadata": {
            "version": _OCSF_VERSION,
            "uid": entry["id"],
            "log_name": entry["source"],
            "product": {"name": "Weightlock", "vendor_name": "Weightlock"},
        },
        "unmapped": {"entry": entry},
    }
    actor = {"user": {"name": user_of(entry) or "system:weightlock"}}
    if api:
        event |= {
            "actor": actor,
            "api": {"operation": str(data.get("operation") or kind), "service": {"name": "kubernetes"}},
            "src_endpoint": {"name": "kube-apiserver"},
            "resources": [{"name": str(entry.get("subject", "")), "type": str(data.get("resource") or kind)}],
        }
    else:
        event |= {
            "actor": actor,
            "entity": {"name": str(entry.get("subject") or data.get("name") or kind), "type": kind},
        }
    return canonical(event)


def ecs(entry: Entry) -> bytes:
    """Return an Elastic Common Schema event."""
    failed = decision_of(entry) in _FAILED
    event: Entry = {
        "@timestamp": entry["time"],
        "ecs": {"version": "8.17.0"},
        "event": {
            "id": entry["id"],
            "kind": "event",
            "category": ["iam" if kind_of(entry) in ("request", "approval", "grant") else "configuration"],
            "type": ["denied" if failed else "allowed"],
            "action": kind_of(entry),
            "outcome": "failure" if failed else "success",
            "provider": "weightlock",
            "dataset": "weightlock.audit",
        },
        "log": {"logger": entry["source"]},
        "user": {"name": user_of(entry)},
        "orchestrator": {"type": "kubernetes", "resource": {"name": str(entry.get("subject", ""))}},
        "weightlock": entry["data"],
    }
    return canonical(event)


def cef(entry: Entry) -> bytes:
    """Return a CEF line."""
    header = "|".join(
        str(part).translate(_CEF_HEADER)
        for part in (
            "CEF:0",
            "Weightlock",
            "Weightlock",
            "1",
            ",".join(codes_of(entry)) or kind_of(entry),
            f"{kind_of(entry)} {decision_of(entry)}".strip(),
            severity_of(entry) * 2,
        )
    )
    fields = {
        "rt": int(datetime.fromisoformat(entry["time"]).timestamp() * 1000),
        "externalId": entry["id"],
        "suser": user_of(entry),
        "act": decision_of(entry),
        "outcome": "failure" if decision_of(entry) in _FAILED else "success",
        "cs1Label": "log",
        "cs1": entry["source"],
        "cs2Label": "subject",
        "cs2": entry.get("subject", ""),
    }
    pairs = (f"{key}={str(value).translate(_CEF_VALUE)}" for key, value in fields.items() if value != "")
    return f"{header}|{' '.join(pairs)}".encode()


def csv_line(entry: Entry) -> bytes:
    """Return a CSV row of `CSV_HEADER`. A value that a spreadsheet would evaluate as a formula gets an apostrophe."""
    data = entry["data"]
    pod = data.get("pod") if isinstance(data.get("pod"), dict) else {}
    values = {
        "time": entry["time"],
        "log": entry["source"],
        "id": entry["id"],
        "type": kind_of(entry),
        "subject": entry.get("subject", ""),
        "user": user_of(entry),
        "decision": decision_of(entry),
        "codes": " ".join(codes_of(entry)),
        "model": data.get("model", ""),
        "namespace": data.get("namespace") or pod.get("namespace", ""),
        "name": data.get("name") or pod.get("name", ""),
    }
    row = [_plain(str(values[column])) for column in _COLUMNS]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(row)
    return buffer.getvalue().encode()


def _plain(text: str) -> str:
    text = clip(text.replace("\n", " ").replace("\r", " "))
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


CSV_HEADER = ",".join(_COLUMNS).encode()
FORMATS: dict[str, Callable[[Entry], bytes]] = {
    "cloudevents": cloudevents,
    "ocsf": ocsf,
    "ecs": ecs,
    "cef": cef,
    "csv": csv_line,
}
