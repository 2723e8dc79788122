"""Hostile rules and events: each document is a rule or a RuleError, and no event hides another or stops the engine."""

from __future__ import annotations

import contextlib
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webhook.api.entries import TYPE_PREFIX
from webhook.core.detection import engine as module
from webhook.core.detection.engine import Engine, StateError
from webhook.core.detection.match import RuleError, compile_linear
from webhook.core.detection.rule import read_rules
from webhook.manifests.detections import read_documents
from webhook.manifests.reader import ManifestError

DAY = 86_400


def document(name="r", detection=None, source=("weightlock", "request"), **fields):
    logsource = {"product": source[0], "service": source[1]}
    return {
        "title": name, "id": f"id-{name}", "name": name, "logsource": logsource,
        "detection": detection or {"all": {"id|exists": True}, "condition": "all"}, **fields,
    }  # fmt: skip


def correlation(name, *rules, **fields):
    body = {"type": "temporal", "rules": list(rules), "timespan": "1h", "generate": True, **fields}
    return {"title": name, "id": f"id-{name}", "name": name, "correlation": body}


def event(number=0, kind="request", time="2026-11-29T08:00:00Z", **data):
    return {"type": f"{TYPE_PREFIX}{kind}", "id": f"e{number}", "time": time, "data": data}


def request(identifier="a", uri="/api/v1/pods", received="2026-11-29T08:00:00.000001Z", **fields):
    return {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": identifier, "stage": "ResponseComplete",
        "verb": "get", "requestURI": uri, "requestReceivedTimestamp": received, "user": {"username": "eve"}, **fields,
    }  # fmt: skip


EXEC = document(
    "exec", {"uri": {"requestURI|endswith": "/exec"}, "condition": "uri"}, ("kubernetes", "audit")
)


# Rules


@pytest.mark.parametrize(
    "change",
    [
        {"weightlock": {"key": ["a..b"]}},
        {"weightlock": {"statistic": {"type": "first_seen", "value": ["a."]}}},
        {"weightlock": {"statistic": {"type": "rate", "groupBy": [".a"]}}},
        {"weightlock": {"statistic": {"type": "rate", "bucket": "0s"}}},
        {"weightlock": {"statistic": {"type": "pairs", "left": "a..b", "right": "c"}}},
        {"detection": {"a": {"b|re": "\ud800"}, "condition": "a"}},
        {"detection": {"a": {"b": "\ud800*"}, "condition": "a"}},
        {"detection": {"a": {"b|re": "(?=a)"}, "condition": "a"}},
        {"detection": {"a": {"b|re": "((a{1,1000}){1,1000}){1,1000}"}, "condition": "a"}},
        {"detection": {"a": {"b": {"c": "d"}}, "condition": "a"}},
        {"detection": {"a": {"b": [["d"]]}, "condition": "a"}},
        {"detection": {"a": {"b": "c"}, "condition": "(" * 2000}},
        {"detection": {"a": {"b": "c"}, "condition": "not " * 400 + "a"}},
    ],
)
def test_a_faulty_rule_is_rejected_when_it_is_read(change):
    with pytest.raises(RuleError):
        read_rules([document() | change])


@pytest.mark.parametrize("part", [{"group-by": ["a..b"]}, {"group-by": ["a."]}])
def test_the_fields_of_a_correlation_are_checked(part):
    documents = [document(), correlation("c", "r", **part)]
    with pytest.raises(RuleError):
        read_rules(documents)


def test_correlations_that_share_rules_are_read_in_linear_time():
    """A diamond of n levels has 2^n paths."""
    documents = [document("l0-0"), document("l0-1")]
    for level in range(1, 8):
        documents += [
            correlation(f"l{level}-{side}", f"l{level - 1}-0", f"l{level - 1}-1") for side in (0, 1)
        ]
    begun = time.process_time()
    rules = read_rules(documents)
    assert len(rules.correlations) == 14
    assert Engine(rules).feed(event(), "o", 0)
    assert time.process_time() - begun < 2


def test_correlations_do_not_nest_without_end():
    chain = [document("c0"), *(correlation(f"c{n}", f"c{n - 1}") for n in range(1, 1500))]
    with pytest.raises(RuleError, match="nest deeper"):
        read_rules(chain)
    with pytest.raises(RuleError, match="refers to itself"):
        read_rules([correlation("a", "b"), correlation("b", "a")])


def test_aliases_do_not_expand_without_end(tmp_path):
    path = tmp_path / "bomb.yml"
    levels = "".join(f"  - &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 40))
    path.write_text(
        f"title: t\nid: i\nlevels:\n  - &l0 [x]\n{levels}level: *l39\ndetection: {{a: *l39, condition: a}}\n"
    )
    begun = time.process_time()
    with pytest.raises(RuleError, match="values"):
        read_rules(read_documents(path))
    path.write_text("title: t\nid: &loop [*loop]\n")
    with pytest.raises(RuleError, match="deeper"):
        read_rules(read_documents(path))
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    "text",
    [
        "a: !!timestamp x", "a: 2024-99-99", "a: !!bool maybe", "a: !!int ''", "a: !!float ''", f"a: {'1' * 5000}",
        "? [a]\n: b", "a: !!python/object:os.system x", "- [", "\x00", "[" * 5000, "a: &b", "!!set x",
    ],
)  # fmt: skip
def test_each_file_is_read_or_rejected(tmp_path, text):
    path = tmp_path / "r.yml"
    path.write_text(text)
    with contextlib.suppress(ManifestError, RuleError):
        read_rules(read_documents(path))


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["all of them", "1 of a*", "a and not b", "r", "request", "1h", "weightlock", "event_count"]),
)  # fmt: skip
KEYS = st.sampled_from(
    [
        "a",
        "b",
        "condition",
        "a|re",
        "b|contains|all",
        "a|cidr",
        "a|gt",
        "a|exists",
        "a..b",
        "",
        "|",
        "a|re|i",
        "a|fieldref",
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["title", "id", "name", "level", "tags", "logsource", "detection", "weightlock", "correlation"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(changes=st.dictionaries(FIELDS, VALUES, max_size=3), values=VALUES)
def test_any_document_is_a_rule_or_an_error(changes, values):
    changed = [document() | changes, document("s", {"a": values, "condition": "a"})]
    for each in changed:
        try:
            rules = read_rules([each])
        except RuleError:
            continue
        engine = Engine(rules)
        engine.feed(event(a=values), "o", 0)
        Engine(rules).load(engine.dump())


def test_a_pattern_takes_linear_time():
    begun = time.process_time()
    for pattern in ("(a+)+$", "(a|aa)+$", "(.*)*x", "a?" * 200 + "a" * 200):
        assert compile_linear(pattern).search("a" * 20_000 + "b") is None or "a?" in pattern
    assert time.process_time() - begun < 2


# Events


@pytest.mark.parametrize("kind", ["kubernetes", "detection", "request"])
@pytest.mark.parametrize("data", [None, [], "x", 7, {"key": [], "result": "found"}, {"user": 3, "verb": {}}])
def test_an_event_of_any_form_is_ignored_or_read(kind, data):
    engine = Engine(read_rules([document(), EXEC]))
    for time_ in (
        None,
        5,
        "x",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-12:00",
        "2026-11-29T08:00:00",
    ):
        for alert in engine.feed(event(kind=kind, time=time_) | {"data": data}, "o", 0):
            alert.data()
    Engine(engine.rules).load(engine.dump())


def test_a_chosen_audit_id_does_not_hide_a_request():
    """A client chooses its audit ID by a header (k8s.io/apiserver, WithAuditInit)."""
    engine = Engine(read_rules([EXEC]))
    assert engine.feed(request(), "o", 0) == []
    (alert,) = engine.feed(
        request(uri="/api/v1/namespaces/n/pods/p/exec", received="2026-11-29T08:00:01.000001Z"), "o", 1
    )
    assert alert.rule == "exec"


def test_a_long_request_is_one_event():
    engine = Engine(read_rules([EXEC]))
    first = request(uri="/p/exec", stage="ResponseStarted")
    assert len(engine.feed(first, "o", 0)) == 1
    evaluated = engine.evaluated
    assert engine.feed(first | {"stage": "ResponseComplete"}, "o", 1) == []
    assert engine.evaluated == evaluated


def test_an_expected_event_does_not_suppress_an_unexpected_one():
    rule = document(weightlock={"key": ["data.user"], "expected": {"data.tool": "ci"}})
    engine = Engine(read_rules([rule]))
    (expected,) = engine.feed(event(1, user="eve", tool="ci"), "o", 0)
    (other,) = engine.feed(event(2, user="eve", tool="curl"), "o", 1)
    assert (expected.level, other.level) == ("informational", "medium")
    assert expected.key != other.key
    assert engine.feed(event(3, user="eve", tool="curl"), "o", 2) == []


def test_an_entry_of_the_future_does_not_suppress_later_alerts():
    engine = Engine(read_rules([document(weightlock={"key": ["data.user"]})]))
    assert engine.feed(event(1, time="9999-12-30T00:00:00Z", user="eve"), "o", 0)
    assert engine.feed(event(2, user="eve"), "o", 1)


@pytest.mark.parametrize("kind", ["pairs", "ring"])
def test_a_separator_in_a_user_name_does_not_stop_the_engine(kind):
    fields = {"pairs": ("left", "right"), "ring": ("source", "target")}[kind]
    statistic = {"type": kind, fields[0]: "data.a", fields[1]: "data.b", "minimum": 1}
    engine = Engine(read_rules([document(weightlock={"statistic": statistic})]))
    for number in range(20):
        engine.feed(event(number, a=f"x\x1fy{number % 3}", b="\x1f" * 9), "o", number)
        engine.feed(event(number, b=f"x\x1fy{number % 3}", a="z" * 5000), "o", number)
    assert len(engine.dump()) < 10_000


def test_a_long_value_counts_once():
    values = correlation(
        "v", "r", type="value_count", condition={"gte": 2, "field": "data.v"}, **{"group-by": ["data.u"]}
    )
    engine = Engine(read_rules([document(), values]))
    for number in range(5):
        alerts = engine.feed(event(number, u="u", v="x" * 500), "o", number)
        assert [alert.rule for alert in alerts if alert.rule == "v"] == []


# State


def test_the_state_is_bounded_for_all_events(monkeypatch):
    statistics = [
        {"type": "first_seen", "value": ["data.v"], "groupBy": ["data.g"]},
        {"type": "missing", "key": "data.g", "seen": {"r0": "data.g"}},
        {"type": "pairs", "left": "data.g", "right": "data.v"},
    ]
    rules = read_rules(
        [document(f"r{n}", weightlock={"statistic": each}) for n, each in enumerate(statistics)]
        + [correlation("c", "r0", type="event_count", condition={"gte": 100}, **{"group-by": ["data.g"]})]
        + [EXEC]
    )
    engine, source = Engine(rules), random.Random(7)
    for number in range(400):
        group = source.randbytes(100).hex()
        engine.feed(event(number, g=group, v=[source.randbytes(16).hex() for _ in range(40)]), "o", number)
        engine.feed(request(source.randbytes(5000).hex(), received=f"{number}"), "o", number)
    limit = 20_000
    assert len(engine.dump(limit)) <= limit
    other = Engine(rules)
    assert other.load(engine.dump(limit, {"o": 3})) == {"o": 3}
    assert len(other.dump()) <= limit
    monkeypatch.setattr(module, "_MAX_UNPACKED", 30_000)
    other.load(other.dump())


def test_a_damaged_state_is_rejected():
    engine = Engine(read_rules([document()]))
    packed = engine.dump()
    for content in (b"", packed[:-5], b"x" + packed, packed[::-1]):
        with pytest.raises(StateError):
            Engine(engine.rules).load(content)
