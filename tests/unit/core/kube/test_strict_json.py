"""Documents that must not reach the engine, and those that must."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhook.core.kube.strict_json import DocumentError, Limits, check, check_parsed, parse

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
SCALARS = (
    st.none()
    | st.booleans()
    | TEXT
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=30,
)


@settings(deadline=None)
@given(JSON)
def test_sound_documents_pass_unchanged(document):
    check(document)
    check_parsed(document)
    assert parse(json.dumps(document).encode()) == document


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a": "\\u0000"}', "nul"),
        (b'{"a\\u0000": 1}', "nul"),
        (b'"\\\\\\u0000"', "nul"),
        (b'"\x00"', "json"),
        (b'"\\ud800"', "unicode"),
        (b'"\xff"', "unicode"),
        (b"{", "json"),
        (b"", "json"),
        (b"NaN", "json"),
        (b"1e999", "json"),
        (b"[" * 5000 + b"]" * 5000, "depth"),
        (b"[" + b"1," * 2000 + b"1]", "length"),
        (b"{" + b",".join(b'"%d":1' % number for number in range(2001)) + b"}", "length"),
        (b'{"a": {"b": [' + b"1," * 2000 + b"1]}}", "length"),
    ],
)
def test_invalid_documents_are_rejected_with_a_reason(body, reason):
    with pytest.raises(DocumentError) as rejection:
        parse(body)
    assert rejection.value.reason == reason


@pytest.mark.parametrize(
    "body",
    [
        b'"\\\\u0000"',
        b"[" + b"1," * 1999 + b"1]",
        b'"' + b"," * 5000 + b'"',
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
    ],
)
def test_harmless_documents_are_accepted(body):
    parse(body)


def test_size_is_limited_before_parsing():
    with pytest.raises(DocumentError) as rejection:
        parse(b"[1, 2]", Limits(size=5))
    assert rejection.value.reason == "size"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"a": "x\0y"}, "nul"),
        ({"a\0": 1}, "nul"),
        ({"a": "\ud800"}, "unicode"),
        ({"a": [2**64]}, "integer"),
        ({"a": -(2**63) - 1}, "integer"),
        ({"a": (1,)}, "type"),
        ({1: "a"}, "type"),
        ({"a": {1, 2}}, "type"),
        ({"a": type("Text", (str,), {})("x")}, "type"),
        ([0] * 2001, "length"),
    ],
)
def test_parsed_documents_are_checked_alike(document, reason):
    with pytest.raises(DocumentError) as rejection:
        check(document)
    assert rejection.value.reason == reason


def nested(levels):
    document = 1
    for _ in range(levels):
        document = [document]
    return document


@pytest.mark.parametrize(
    "document",
    [
        {"a": "x\0y"},
        {"a\0": 1},
        {"a": "\ud800"},
        {"a": [2**64]},
        {"a": -(2**63) - 1},
        {1: "a"},
        {"a": {1, 2}},
        [0] * 2001,
        nested(1001),
    ],
)
def test_the_fast_check_reports_the_same_faults(document):
    with pytest.raises(DocumentError) as slow:
        check(document)
    with pytest.raises(DocumentError) as fast:
        check_parsed(document)
    assert (fast.value.reason, str(fast.value)) == (slow.value.reason, str(slow.value))


@pytest.mark.parametrize("document", [nested(300), ["a,b"] * 1500, {"a": "\\u0000"}])
def test_the_fast_check_admits_documents_that_only_look_large(document):
    check_parsed(document)


def test_depth_of_a_parsed_document():
    document = 1
    for _ in range(50):
        document = [document]
    check(document, Limits(depth=50))
    with pytest.raises(DocumentError) as rejection:
        check(document, Limits(depth=49))
    assert rejection.value.reason == "depth"


def test_a_message_never_quotes_the_document():
    with pytest.raises(DocumentError) as rejection:
        check({"password": "hunter2\0"})
    assert "hunter2" not in str(rejection.value)
