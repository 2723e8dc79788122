"""Exports: each format is valid, and no value breaks out of its field."""

from __future__ import annotations

import csv
import io
import json

import pytest
from py_ocsf_models.events.base_event import BaseEvent

from webhook.core.audit.entries import envelope
from webhook.core.audit.export import CSV_HEADER, FORMATS, user_of

NASTY = 'a|b=c\\d\n"e,=1+1'
ENTRIES = [
    envelope(
        "verdict",
        "c/webhook/a",
        "1",
        "2026-11-29T08:00:00.000000Z",
        {
            "decision": "denied",
            "operation": "CREATE",
            "resource": "pods",
            "user": {"username": NASTY},
            "codes": ["WL101"],
            "microseconds": 1,
        },
        f"pods/{NASTY}",
    ),
    envelope(
        "grant", "c/controller/a", "2", "2026-11-29T08:00:01.000000Z", {"state": "active", "request": "r"}
    ),
    envelope("drift", "c/controller/a", "3", "2026-11-29T08:00:02.000000Z", {"kind": "K", "name": "n"}),
    envelope(
        "release",
        "c/broker/a",
        "4",
        "2026-11-29T08:00:03.000000Z",
        {"decision": "released", "model": "m", "pod": {"namespace": "n", "name": "p", "serviceAccount": "s"}},
    ),
    envelope("log", "c/broker/a", "5", "2026-11-29T08:00:04.000000Z", {"event": "start"}),
]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("form", sorted(FORMATS))
def test_an_entry_is_one_line(entry, form):
    """Every format gives one line for each entry."""
    assert b"\n" not in FORMATS[form](entry)


@pytest.mark.parametrize("entry", ENTRIES)
def test_ocsf_is_valid(entry):
    """The base event of OCSF accepts every entry, and the type follows from class and activity."""
    event = json.loads(FORMATS["ocsf"](entry))
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    existing = {name: event[name] for name in BaseEvent.model_fields if name in event}
    BaseEvent.model_validate(existing)


def test_csv_has_no_formulas():
    """A spreadsheet evaluates no value, and quotes keep a row together."""
    entry = {**ENTRIES[0], "subject": "=1+1"}
    rows = list(csv.reader(io.StringIO(f"{CSV_HEADER.decode()}\n{FORMATS['csv'](entry).decode()}")))
    assert len(rows) == 2
    assert len(rows[0]) == len(rows[1])
    assert rows[1][rows[0].index("subject")] == "'=1+1"


def test_cef_escapes():
    """A value cannot start another field of a CEF line."""
    line = FORMATS["cef"](ENTRIES[0]).decode()
    assert line.startswith("CEF:0|Weightlock|Weightlock|1|WL101|verdict denied|6|")
    assert "suser=a|b\\=c\\\\d\\n" in line


def test_users():
    """The user of an entry is its author, its service account or its subject."""
    assert [user_of(entry) for entry in ENTRIES[1:4]] == ["", "", "system:serviceaccount:n:s"]
