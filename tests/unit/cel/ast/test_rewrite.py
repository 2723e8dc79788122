"""cel-go's meaning where the engine has another: presence tests, optionals, maps made of maps, mixed numbers."""

import pytest

from webhook.cel import EvaluationError

DOCUMENT = {"n": None, "s": "text", "i": 1, "l": [1, 2], "m": {"k": None, "v": "w"}, "spec": {"x": {"y": 1}}}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("has(object.n.f)", False),
        ("has(object.s.f)", False),
        ("has(object.i.f)", False),
        ("has(object.m.k)", True),
        ("has(object.m.k.deeper)", False),
        ("has(object.spec.x.y)", True),
        ("has(object.spec.x.z)", False),
        ("has(oldObject.metadata)", False),
        ("has(namespaceObject.metadata)", False),
        ("has(params.x)", False),
        ("has({'a': 1}.a)", True),
        ("object.l.exists(i, has(i.f))", False),
        ("object.?n.?f.hasValue()", False),
        ("object.?s.?f.orValue('none')", "none"),
        ("object.?n.f.orValue('none')", "none"),
        ("object.?zz.f.g.orValue('none')", "none"),
        ("object.?spec.?x.?y.orValue(0)", 1),
        ("object.?spec.x.y.orValue(0)", 1),
        ("object.?spec.?x.?z.orValue(0)", 0),
        ("object.?l[9].hasValue()", False),
        ("object.?l[1].orValue(0)", 2),
        ("object.?m['zz'].orValue('d')", "d"),
        ("object.n[?'a'].hasValue()", False),
        ("object.l[?0].orValue(9)", 1),
        ("object.l[?7].orValue(9)", 9),
        ("oldObject.?metadata.?labels.orValue({}).all(k, false)", True),
        ("object.?m.optMap(m, m.v).orValue('d')", "w"),
        ("[?object.?i, ?object.?zz]", [1]),
    ],
)
def test_field_tests_of_values_without_fields(value, source, expected):
    assert value(source, object=DOCUMENT) == expected


@pytest.mark.parametrize(
    "source",
    [
        "has(object.zz.f)",
        "has(object.l.f)",
        "object.?l.?f.hasValue()",
        "object.n.f == 1",
        "object.n[?object.zz].hasValue()",
    ],
)
def test_expressions_that_stay_errors(value, source):
    with pytest.raises(EvaluationError):
        value(source, object=DOCUMENT)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{}.transformMap(k, v, 1)", {}),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v + 1)", {"a": 2, "b": 3}),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, k)", {"b": "b"}),
        ("[5, 6].transformMap(i, v, v * 2)", {0: 10, 1: 12}),
        ("{'a': 1}.transformMapEntry(k, v, {v: k})", {1: "a"}),
        ("{'a': {'b': 1}}.transformMap(k, v, v.transformMap(kk, vv, vv + 1))", {"a": {"b": 2}}),
        ("object.m.transformMap(k, v, v == null)", {"k": True, "v": False}),
    ],
)
def test_maps_made_of_maps(value, source, expected):
    assert value(source, object=DOCUMENT) == expected


def test_two_entries_of_one_key_are_an_error(value):
    with pytest.raises(EvaluationError, match="key already exists"):
        value("{'a': 1, 'b': 2}.transformMapEntry(k, v, {'z': v})")
