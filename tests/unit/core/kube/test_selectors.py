"""Label selectors, by the tables of apimachinery's own tests and by comparison with a plain reading of the rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.api.base import LabelSelector
from webhook.core.kube.selectors import SelectorError, compile_selector, selector_matches


def expression(key, operator, *values):
    return {
        "matchExpressions": [
            {"key": key, "operator": operator, **({"values": list(values)} if values else {})}
        ]
    }


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({}, {}, True),
        ({}, {"a": "b"}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "b", "c": "d"}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "x"}, False),
        ({"matchLabels": {"a": ""}}, {}, False),
        ({"matchLabels": {"a": ""}}, {"a": ""}, True),
        (expression("a", "In", "b", "c"), {"a": "c"}, True),
        (expression("a", "In", "b", "c"), {}, False),
        (expression("a", "In", ""), {}, False),
        (expression("a", "NotIn", "b"), {"a": "b"}, False),
        (expression("a", "NotIn", "b"), {"a": "c"}, True),
        (expression("a", "NotIn", "b"), {}, True),
        (expression("a", "Exists"), {"a": ""}, True),
        (expression("a", "Exists"), {}, False),
        (expression("a", "DoesNotExist"), {"a": ""}, False),
        (expression("a", "DoesNotExist"), {"b": ""}, True),
        ({"matchLabels": {"a": "b"}, **expression("a", "NotIn", "b")}, {"a": "b"}, False),
        ({"matchLabels": None, "matchExpressions": None}, {"a": "b"}, True),
    ],
)
def test_matching(selector, labels, expected):
    assert selector_matches(selector, labels) is expected


def test_no_selector_matches_nothing():
    assert not selector_matches(None, {})


def test_a_typed_selector_is_the_same_as_its_document():
    typed = LabelSelector.model_validate(expression("a", "NotIn", "b"))
    assert compile_selector(typed) == compile_selector(expression("a", "NotIn", "b"))


@pytest.mark.parametrize(
    "selector",
    [
        expression("a", "In"),
        expression("a", "NotIn"),
        expression("a", "Exists", "b"),
        expression("a", "DoesNotExist", "b"),
        expression("a", "Gt", "1"),
        expression("", "Exists"),
        {"matchExpressions": [{"operator": "Exists"}]},
        {"matchExpressions": [{"key": "a", "operator": "In", "values": [1]}]},
        {"matchExpressions": ["a"]},
        {"matchExpressions": {"a": "b"}},
        {"matchLabels": {"a": 1}},
        {"matchLabels": ["a"]},
    ],
)
def test_a_selector_that_kubernetes_would_reject_is_an_error(selector):
    with pytest.raises(SelectorError):
        compile_selector(selector)


names = st.sampled_from(["a", "b", "c"])
requirements = st.one_of(
    st.tuples(names, st.sampled_from(["In", "NotIn"]), st.sets(names, min_size=1)),
    st.tuples(names, st.sampled_from(["Exists", "DoesNotExist"]), st.just(set())),
)
MEANING = {
    "In": lambda labels, key, values: key in labels and labels[key] in values,
    "NotIn": lambda labels, key, values: key not in labels or labels[key] not in values,
    "Exists": lambda labels, key, values: key in labels,
    "DoesNotExist": lambda labels, key, values: key not in labels,
}


@given(st.dictionaries(names, names), st.lists(requirements), st.dictionaries(names, names))
def test_every_requirement_must_be_met(equal, expressions, labels):
    selector = {
        "matchLabels": equal,
        "matchExpressions": [
            {"key": key, "operator": operator, "values": sorted(values)}
            for key, operator, values in expressions
        ],
    }
    expected = equal.items() <= labels.items() and all(
        MEANING[operator](labels, key, values) for key, operator, values in expressions
    )
    assert selector_matches(selector, labels) is expected
