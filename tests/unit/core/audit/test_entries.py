"""Entries: their canonical form, their schemas, and the types."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
import rfc8785
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from webhook.api.entries import DATA, schemas
from webhook.core.audit.entries import (
    EntryError,
    canonical,
    digest,
    envelope,
    parse_entry,
    timestamp,
    validate_entry,
)

MOMENT = timestamp(datetime(2026, 11, 29, 8, 0, tzinfo=UTC))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="ascii"), max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_the_canonical_form_is_that_of_rfc_8785(value):
    """An independent implementation writes the same bytes."""
    assert canonical(value) == rfc8785.dumps(value)


def test_an_entry_is_a_cloudevent():
    """The reference implementation of CloudEvents reads an entry."""
    entry = envelope("log", "c/webhook/a", "1", MOMENT, {"event": "start"}, "x")
    event = JSONFormat().read(CloudEvent, canonical(entry))
    assert (event.get_type(), event.get_source(), event.get_data()) == (
        "dev.weightlock.log",
        "c/webhook/a",
        {"event": "start"},
    )
    validate_entry(entry)


def test_empty_values_are_dropped_and_zeros_are_not():
    """An entry is as short as it can be, and a number is always there."""
    data = envelope(
        "verdict", "s", "1", MOMENT, {"microseconds": 0, "codes": [], "name": "", "injected": False}
    )["data"]
    assert data == {"microseconds": 0}


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"a": 1}', b'{"b":1,"a":2}', b"\xff"])
def test_documents_that_are_not_entries_are_errors(raw):
    """Other JSON, and JSON in another form, is an error."""
    with pytest.raises(EntryError):
        parse_entry(raw)


def test_unknown_types():
    """An entry of an unknown type has no schema."""
    entry = envelope("verdict", "s", "1", MOMENT, {"event": "start"})
    with pytest.raises(EntryError, match="unknown type"):
        validate_entry({**entry, "type": "dev.weightlock.other"})
    with pytest.raises(EntryError, match="unknown type"):
        parse_entry(canonical({**entry, "type": "com.example.other"}))


def test_every_type_has_a_schema():
    """Each type of entry has its schema, and there is no schema without a type."""
    expected = (
        "verdict request approval grant waiver breakglass release renewal policy model drift restored certificate "
        "detection drill kubernetes log"
    )
    assert set(schemas()) == set(DATA) == set(expected.split())
    assert all(schema["additionalProperties"] is False for schema in schemas().values())


def test_digests():
    """The digest of an object does not depend on the order of its keys."""
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({}).startswith("sha256:")


def test_timestamps_have_one_form():
    """Six digits, also for whole seconds, and UTC for other zones: times of entries compare as texts."""
    moment = datetime(2026, 11, 29, 8, 0, tzinfo=UTC)
    assert timestamp(moment) == "2026-11-29T08:00:00.000000Z"
    assert timestamp(moment.astimezone(timezone(timedelta(hours=5, minutes=30)))) == timestamp(moment)
    assert timestamp(moment.replace(microsecond=7)) == "2026-11-29T08:00:00.000007Z"
    assert timestamp(datetime(7, 1, 2, tzinfo=UTC)).startswith("0007-01-02T")
