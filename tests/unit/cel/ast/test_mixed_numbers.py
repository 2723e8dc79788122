"""Comparisons of numbers of two types."""

import pytest

from webhook.cel import CompileError


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("1 < 1.5", True),
        ("1.5 > 2", False),
        ("1u <= 1", True),
        ("2 >= 1.5 && 1u < 2", True),
        ("(size(object.l) + 1) * 2 < (6.5)", True),
        ("object.l.all(i, int(i) < 1.5 + 1.0)", True),
        ("variables.n < 2.5 && has(variables.n)", True),
    ],
)
def test_numbers_compare_across_types(value, source, expected):
    variables = {"n": "size(object.l)"} if "variables" in source else {}
    assert value(source, variables=variables, object={"l": [1, 2]}) is expected


@pytest.mark.parametrize(("source", "column"), [("1 < 'x'", 3), ("1 < 1.5 && 1 == 'x'", 3), ("1 == 1.0", 3)])
def test_other_mismatches_stay_compile_errors(env, source, column):
    with pytest.raises(CompileError) as rejection:
        env.compile(source)
    assert rejection.value.column == column
