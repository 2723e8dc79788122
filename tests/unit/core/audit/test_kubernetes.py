"""Audit events of the API server: what an entry keeps, what it never contains, and what is not an event."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.core.audit.entries import envelope, validate_entry
from webhook.core.audit.kubernetes import KIND, EventError, event_data, subject_of

EXEC = {
    "kind": "Event",
    "apiVersion": "audit.k8s.io/v1",
    "level": "RequestResponse",
    "auditID": "9c0fd3d1-2f5b-4a11-8a1b-6f0a4f0f7c55",
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/research/pods/train/exec?command=cat&command=%2Fkeys%2Fsecret",
    "verb": "get",
    "user": {
        "username": "mallory",
        "uid": "7",
        "groups": ["system:authenticated"],
        "extra": {"token": ["t0p"]},
    },
    "impersonatedUser": {"username": "alice"},
    "sourceIPs": ["192.0.2.7"],
    "userAgent": "kubectl/v1.37.2",
    "objectRef": {"resource": "pods", "namespace": "research", "name": "train", "subresource": "exec"},
    "responseStatus": {"metadata": {}, "code": 101},
    "requestObject": {"data": {"password": "hunter2"}},
    "responseObject": {"data": {"password": "hunter2"}},
    "requestReceivedTimestamp": "2026-11-29T08:00:00.000000Z",
    "stageTimestamp": "2026-11-29T08:00:01.000000Z",
    "annotations": {"authorization.k8s.io/decision": "allow"},
}


def entry(data):
    return envelope(KIND, "c/apiserver/a", "i", "2026-11-29T08:00:01.000000Z", data, subject_of(data))


def test_an_exec_without_its_command_and_bodies():
    """Bodies, queries and extra fields of users are absent: all of them can contain secrets."""
    data = event_data(EXEC)
    validate_entry(entry(data))
    assert data["requestURI"] == "/api/v1/namespaces/research/pods/train/exec"
    assert (data["verb"], data["user"]["username"], data["impersonatedUser"]) == (
        "get",
        "mallory",
        {"username": "alice"},
    )
    assert data["responseStatus"] == {"code": 101}
    assert subject_of(data) == "pods/research/train/exec"
    text = orjson.dumps(data)
    for secret in (b"hunter2", b"t0p", b"secret"):
        assert secret not in text


def test_earlier_stages_are_left_out():
    assert event_data({**EXEC, "stage": "RequestReceived"}) is None
    assert event_data({**EXEC, "stage": "ResponseStarted"}) is None
    assert event_data({**EXEC, "stage": "Panic"}) is not None


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "x",
        {},
        {**EXEC, "kind": "Pod"},
        {**EXEC, "apiVersion": "v1"},
        {**EXEC, "auditID": ""},
        {**EXEC, "verb": 1},
    ],
)
def test_documents_that_are_not_events_are_errors(document):
    with pytest.raises(EventError):
        event_data(document)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=2000),
    lambda inner: st.lists(inner, max_size=50) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from([*EXEC, "x"]), JSON), st.text(max_size=5000))
def test_no_event_makes_an_invalid_or_unbounded_entry(changes, name):
    """Whatever a client causes in its event, the entry is valid and bounded, or there is none."""
    document = {**EXEC, "objectRef": {"resource": name, "name": name}, "userAgent": name, **changes}
    try:
        data = event_data(document)
    except EventError:
        return
    if data is not None:
        validate_entry(entry(data))
        assert len(orjson.dumps(entry(data))) < 200_000
