import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cel import CompileError, EvaluationError

VALUES = [
    ("[1, 2, 3].isSorted()", True),
    ("['a', 'b', 'b', 'c'].isSorted()", True),
    ("[2.0, 1.0].isSorted()", False),
    ("[false, true].isSorted()", True),
    ("[b'b', b'a'].isSorted()", False),
    ("[2u, 3u].isSorted()", True),
    ("[duration('1s'), duration('1m')].isSorted()", True),
    ("[timestamp('2021-01-01T00:00:00Z'), timestamp('2020-01-01T00:00:00Z')].isSorted()", False),
    ("[1].isSorted()", True),
    ("[].isSorted()", True),
    ("[1, 3].sum()", 4),
    ("[1.0, 3.0].sum()", 4.0),
    ("[1u, 3u].sum() == 4u", True),
    ("[duration('1m'), duration('1s')].sum() == duration('61s')", True),
    ("[].sum()", 0),
    ("[1, 2].filter(x, x > 2).sum()", 0),
    ("[1.5].filter(x, x > 2.0).sum()", 0.0),
    ("[duration('1s')].filter(x, x > duration('1m')).sum() == duration('0s')", True),
    ("[3, 1, 2].min()", 1),
    ("[3, 1, 2].max()", 3),
    ("['b', 'a'].min()", "a"),
    ("[1.5, 2.5].max()", 2.5),
    ("[true, false].max()", True),
    ("[1].min()", 1),
    ("([0] + [3].filter(x, x > 5)).min()", 0),
    ("[1, 2, 2, 3].indexOf(2)", 1),
    ("[1, 2, 2, 3].lastIndexOf(2)", 2),
    ("['a', 'b', 'b', 'c'].lastIndexOf('b')", 2),
    ("[1.0].indexOf(1.1)", -1),
    ("[].indexOf('string')", -1),
    ("[].lastIndexOf('string')", -1),
    ("[[1], [2]].indexOf([2])", 1),
    ("[{'a': 1}, {'a': 2}].indexOf({'a': 2})", 1),
    ("[1, 2].indexOf([1, 2].max())", 1),
    ("'tacocat'.indexOf('ac')", 1),
    ("'tacocat'.indexOf('ac', 2)", -1),
    ("'tacocat'.lastIndexOf('t')", 6),
    ("[1, 2, 3].includes(2)", True),
    ("[1, 2, 3].includes(4)", False),
    ("[1, 2, 3].includes('a')", False),
    ("'model-a'.includes('model-a')", True),
    ("'model-a'.includes('model-b')", False),
    ("[1, 2, 3, 4].slice(1, 3)", [2, 3]),
    ("[1, 2, 3, 4].slice(4, 4)", []),
    ("[[1], [2, 3], []].flatten()", [1, 2, 3]),
    ("[[[1]], [[2, 3]]].flatten(2)", [1, 2, 3]),
    ("[[[1]], [[2, 3]]].flatten()", [[1], [2, 3]]),
    ("[[1], [2]].flatten(0)", [[1], [2]]),
    ("[1, 2, 2, 3, 3, 3].distinct()", [1, 2, 3]),
    ("['b', 'b', 'c', 'a', 'c'].distinct()", ["b", "c", "a"]),
    ("[{'a': 1}, {'a': 1}].distinct().size()", 1),
    ("[1.0, 1.0].distinct()", [1.0]),
    ("[5, 3, 1, 2].reverse()", [2, 1, 3, 5]),
    ("[3, 2, 1].sort()", [1, 2, 3]),
    ("['b', 'c', 'a'].sort()", ["a", "b", "c"]),
    ("[2.5, 1.5].sort()", [1.5, 2.5]),
    ("[].sort()", []),
    ("[3, 1, 2].sortBy(x, -x)", [3, 2, 1]),
    ("['ccc', 'a', 'bb'].sortBy(x, size(x))", ["a", "bb", "ccc"]),
    ("[1.5, 0.5].sortBy(x, -x)", [1.5, 0.5]),
    ("lists.range(5)", [0, 1, 2, 3, 4]),
    ("lists.range(0)", []),
    ("[[3, 1], [2]].map(l, l.sum()).sort().max()", 4),
]
ERRORS = [
    ("[].min()", "min called on empty list"),
    ("[].max()", "max called on empty list"),
    ("[1].filter(x, x > 1).max()", "max called on empty list"),
    ("[1, 2].slice(1, 3)", "cannot slice(1, 3), list is length 2"),
    ("[1, 2].slice(-1, 1)", "cannot slice(-1, 1), negative indexes not supported"),
    ("[1, 2].slice(2, 1)", "cannot slice(2, 1), start index must be less than or equal to end index"),
    ("lists.range(-1)", "lists.range: size must be non-negative, got -1"),
    ("lists.range(1000001)", "lists.range: size 1000001 exceeds maximum allowed (1000000)"),
]
# source, data, expected: what the checker knows nothing about
DYNAMIC = [
    ("data.isSorted()", [1, 2, 2], True),
    ("data.isSorted()", ["b", "a"], False),
    ("data.isSorted()", [], True),
    ("data.isSorted()", [1, 1.5, 2], True),
    ("data.sum()", [1, 2, 3], 6),
    ("data.sum()", [1.5, 2.5], 4.0),
    ("data.sum()", [], 0),
    ("data.map(x, x.n).sum()", [{"n": 1}, {"n": 2}], 3),
    ("data.min()", [3, 1.5, 2], 1.5),
    ("data.max()", ["a", "c", "b"], "c"),
    ("data.indexOf('b')", ["a", "b", "b"], 1),
    ("data.lastIndexOf('b')", ["a", "b", "b"], 2),
    ("data.indexOf('b')", "abb", 1),
    ("data.lastIndexOf('b')", "abb", 2),
    ("data.indexOf(null)", [1, None], 1),
    ("data.indexOf(2)", [1, 2.0], 1),
    ("data.indexOf({'a': [1]})", [{"a": [1]}], 0),
    ("data.includes('x')", ["x"], True),
    ("data.includes('x')", "x", True),
    ("data.includes('x')", None, False),
    ("data.sort()", [2, 1], [1, 2]),
    ("data.sortBy(x, x.n).map(x, x.n)", [{"n": 2}, {"n": 1}], [1, 2]),
    ("data.distinct().size()", [{"a": 1}, {"a": 1}, "x", None, None], 3),
    ("data.flatten()", [[1], 2, [[3]]], [1, 2, [3]]),
    ("data.reverse()", [1, "a", None], [None, "a", 1]),
    ("lists.range(data)", 3, [0, 1, 2]),
    ("data.exists(x, [x, x].isSorted() && data.indexOf(x) == 2)", [3, 1, 2], True),
]
DYNAMIC_ERRORS = [
    ("data.isSorted()", {"a": 1}, "no such overload"),
    ("data.isSorted()", "ab", "no such overload"),
    ("data.isSorted()", [{"a": 1}], "No matching overloads"),
    ("data.sum()", ["a"], "no such overload"),
    ("data.sum()", [None], "no such overload"),
    ("data.sum()", [1, "a"], "No matching overloads"),
    ("data.sum()", 5, "no such overload"),
    ("data.sum()", [2**63 - 1, 1], "overflow"),
    ("data.min()", [], "min called on empty list"),
    ("data.min()", [[1]], "No matching overloads"),
    ("data.max()", [1, "a"], "No matching overloads"),
    ("data.indexOf('a')", {"a": 1}, "No matching overloads"),
    ("data.indexOf('a')", 5, "No matching overloads"),
    ("data.indexOf(other)", "abc", "No matching overloads"),
    ("data.sort()", [1, "a"], "same type"),
    ("data.sort()", [{}], "unsupported type"),
    ("lists.range(data)", "3", "No matching overloads"),
    ("lists.range(data)", -1, "must be non-negative"),
    ("lists.range(data)", 10**12, "exceeds maximum"),
    # the value searched for must exist even where there is nothing to search
    ("data.list.indexOf(data.missing) == -1", {"list": []}, "missing"),
    ("data.list.includes(data.missing)", {"list": []}, "missing"),
]


@pytest.mark.parametrize(("source", "expected"), VALUES)
def test_values(evaluate, source, expected):
    assert evaluate(source) == expected


@pytest.mark.parametrize(("source", "message"), ERRORS)
def test_errors(evaluate, source, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate(source)


@pytest.mark.parametrize(("source", "data", "expected"), DYNAMIC)
def test_dynamic_lists(evaluate, source, data, expected):
    assert evaluate(source, data) == expected


@pytest.mark.parametrize(("source", "data", "message"), DYNAMIC_ERRORS)
def test_an_unsuitable_list_is_an_error(evaluate, source, data, message):
    with pytest.raises(ValueError, match=message):
        evaluate(source, data)


@pytest.mark.parametrize(
    "source",
    [
        "[dyn(optional.of(1)), dyn(1)].indexOf(1)",
        "[dyn(optional.of(1))].lastIndexOf(2)",
        "[dyn(optional.of(1))].includes(optional.of(1))",
        "[optional.of(1)].distinct().reverse().slice(0, 1).size()",
    ],
)
def test_lists_of_optionals_do_no_harm(evaluate, source):
    # cel-expr-python 0.1.3 crashes when a list that holds an optional is handed to a Python function.
    assert evaluate(source, {"a": 1}) in (1, -1, True)


@pytest.mark.parametrize(
    "source",
    [
        "[dyn(optional.of(1))].sum()",
        "[dyn(optional.of(1))].isSorted()",
        "[dyn(optional.of(1))].min()",
        "[dyn(optional.of(1))].sort()",
    ],
)
def test_optionals_have_no_order_and_no_sum(evaluate, source):
    with pytest.raises(ValueError, match=r"no such overload|No matching overloads|unsupported type"):
        evaluate(source)


@pytest.mark.parametrize(
    "source",
    [
        "[double('NaN'), 1.0, 2.0].sort()",
        "[1, 2].sortBy(x, double('NaN'))",
        "[dyn(double('NaN')), dyn(1.0)].sort()",
    ],
)
def test_values_without_an_order_are_not_sorted(evaluate, source):
    with pytest.raises(ValueError, match="NaN values cannot be ordered"):
        evaluate(source)


def test_distinct_of_many_things_that_must_be_compared_one_by_one(evaluate):
    assert evaluate("data.distinct().size()", [{"a": n} for n in range(1000)]) == 1000
    with pytest.raises(ValueError, match="longer than 1000"):
        evaluate("data.distinct().size()", [{"a": n} for n in range(1001)])
    assert evaluate("lists.range(5000).distinct().size()") == 5000


numbers = st.lists(st.integers(-(2**31), 2**31), max_size=20)
texts = st.lists(st.text(alphabet="ab\u00e9\U0001f600", max_size=3), max_size=20)


@given(numbers | texts)
def test_sorting(engine, items):
    ordered = engine.evaluate("data.sort()", items)
    assert ordered == sorted(items)
    assert engine.evaluate("data.sort()", ordered) == ordered
    assert engine.evaluate("data.isSorted()", items) == (items == ordered)
    if items:
        assert engine.evaluate("[data.min(), data.max()]", items) == [ordered[0], ordered[-1]]


@given(numbers, st.integers(-(2**31), 2**31))
def test_searching_and_summing(engine, items, expectation):
    items = [*items, expectation, *items]
    assert engine.evaluate("data.indexOf(other)", items, expectation) == items.index(expectation)
    assert engine.evaluate("data.lastIndexOf(other)", items, expectation) == len(items) - 1 - items[
        ::-1
    ].index(expectation)
    assert engine.evaluate("data.includes(other)", items, expectation)
    assert engine.evaluate("data.sum()", items) == sum(items)
    assert engine.evaluate("data.distinct()", items) == list(dict.fromkeys(items))


# cel-go ``ext/strings.go``, indexOfOffset and lastIndexOfOffset.
OFFSETS = [
    ("'text'.indexOf('t', 99)", -1),
    ("'text'.indexOf('t', 4)", -1),
    ("'text'.indexOf('t', 3)", 3),
    ("'text'.indexOf('t', 1)", 3),
    ("'text'.indexOf('', 99)", 4),
    ("'text'.indexOf('', 2)", 2),
    ("'text'.lastIndexOf('', 99)", 4),
    ("'text'.lastIndexOf('', 2)", 2),
    ("'text'.lastIndexOf('t', 99)", -1),
    ("'text'.lastIndexOf('t', 3)", 3),
    ("'text'.lastIndexOf('t', 2)", 0),
    ("'text'.lastIndexOf('xt', 3)", 2),
    ("'te'.lastIndexOf('text', 0)", -1),
    ("'été'.indexOf('é', 1)", 2),
    ("object.text.indexOf('t', 99)", -1),
    ("dyn('text').lastIndexOf('t', 99)", -1),
    ("('te' + 'xt').indexOf('x' + '', 1 + 1)", 2),
]


@pytest.mark.parametrize(("source", "expected"), OFFSETS)
def test_a_search_from_an_offset_beyond_the_end_has_no_match(value, source, expected):
    assert value(source, object={"text": "text"}) == expected


@pytest.mark.parametrize("source", ["'text'.indexOf('t', -1)", "'text'.lastIndexOf('t', -1)"])
def test_a_negative_offset_is_an_error(value, source):
    with pytest.raises(EvaluationError, match="index out of range: -1"):
        value(source)


UNWRAPPED = [
    ("[optional.of(1), optional.none()].unwrapOpt()", [1]),
    ("optional.unwrap([optional.of('a'), optional.none()])", ["a"]),
    ("['a', 'b'].map(key, object.?labels[?key]).unwrapOpt()", ["1"]),
    ("optional.unwrap([object.?gone])", []),
    ("[optional.of(1)].unwrapOpt().map(x, x + 1)", [2]),
    ("[optional.of(optional.of(2)), optional.none()].unwrapOpt().unwrapOpt()", [2]),
]


@pytest.mark.parametrize(("source", "expected"), UNWRAPPED)
def test_optionals_are_unwrapped(value, source, expected):
    assert value(source, object={"labels": {"a": "1"}}) == expected


def test_only_optionals_are_unwrapped(env, value):
    with pytest.raises(CompileError, match="no matching overload"):
        env.compile("[1].unwrapOpt()", expect="any")
    for source in ("object.labels.unwrapOpt()", "object.words.unwrapOpt()", "optional.unwrap(object.words)"):
        with pytest.raises(EvaluationError, match="no such overload"):
            value(source, object={"labels": {"a": "1"}, "words": ["x"]})
