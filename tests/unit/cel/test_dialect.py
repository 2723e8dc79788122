"""What Kubernetes refuses in well-typed expressions."""

import pytest

from webhook.cel import CompileError


@pytest.mark.parametrize(
    ("source", "column", "message"),
    [
        ("[1, 'a'] == []", 5, "expected type 'int' but found 'string'"),
        ("[object.a, 'x'].size() == 2", 12, "expected type 'dyn' but found 'string'"),
        ("{'a': 1, 'b': 'c'} == {}", 15, "expected type 'int' but found 'string'"),
        ("{'a': 1, 2: 1} == {}", 10, "expected type 'string' but found 'int'"),
        ("object.a in [1, 2u]", 17, "expected type 'int' but found 'uint'"),
        ("duration('1x') == duration('1s')", 10, "invalid duration argument"),
        ("duration('10000000h') == duration('1s')", 10, "invalid duration argument"),
        ("timestamp('2020') == timestamp(0)", 11, "invalid timestamp argument"),
        ("timestamp(253402300800) == timestamp(0)", 11, "invalid timestamp argument"),
        ("object.a.matches('(')", 18, "invalid matches argument"),
        ("'%s %s'.format([1]) == ''", 15, "index 1 out of range"),
        ("'%s'.format([1, 2]) == ''", 12, "too many arguments supplied to string.format (expected 1, got 2)"),
        ("'%d'.format(['x']) == ''", 14, "decimal clause can only be used on integers, was given string"),
        ("'%q'.format([1]) == ''", 12, "unrecognized formatting clause"),
        ("'%s'.format([request]) == ''", 14, "was given kubernetes.AdmissionRequest"),
        ("weightlock.Weight{model: 'x'} == weights[0]", 1, "undeclared reference to 'weightlock.Weight'"),
    ],
)
def test_refusals(env, source, column, message):
    with pytest.raises(CompileError) as rejection:
        env.compile(source)
    assert message in rejection.value.message
    assert rejection.value.column == column


@pytest.mark.parametrize(
    "source",
    [
        "[1, 2] == [] || {'a': 1}['a'] == 1",
        "[dyn(1), dyn('a')].size() == 2",
        "'%s %d %s'.format(['a', 1, [1.5]]) == ''",
        "'%s'.format([[1, 'a', {'k': 1, 'l': 'm'}]]) == ''",
        "'100%% %s'.format(['x']) == ''",
        "[?object.?a, object.b].size() == 1",
        "{'a': object.b, ?'b': object.?c}.size() == 1",
        "duration('1h30m') > duration('-1.5s') && timestamp('2020-01-01T00:00:00Z') > timestamp(0)",
        "object.a.matches('^[a-z]+$') || object.a.matches(object.b)",
        "[1, 2].map(x, optional.of(x)).size() == 2",
        "google.protobuf.Duration{seconds: 1} == duration('1s')",
    ],
)
def test_acceptances(env, source):
    assert env.compile(source).return_type == "bool"
