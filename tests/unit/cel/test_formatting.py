"""Values in the words of cel-go's format; what is expected was printed by cel-go 0.29 itself."""

import pytest

from webhook.cel.formatting import formatted, nested, shortest


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("'%f %f %.2f'.format([1234567.5, 0.5, 1234.567])", "1,234,567.500000 0.500000 1,234.57"),
        ("'%s %s %s %s'.format([1234567.5, 1e20, 1e21, 0.1])", "1.2345675e+06 1e+20 1e+21 0.1"),
        ("'%s'.format([['a\\nb\"c', 'é\\u0001😀']])", '["a\\nb\\"c", "é\\x01😀"]'),
        ("'%s'.format([{'x': [1.0, 1e21, 2u]}])", '{"x":[1.000000, 1000000000000000000000.000000, 2]}'),
        ("'%d %x %X %b %o'.format([1234567, 'hi', 255, 5, 8])", "1234567 6869 FF 101 10"),
        ("'%s %s'.format([timestamp(0), duration('90m')])", "1970-01-01T00:00:00Z 5400s"),
        ("'%s'.format([[timestamp(0)]])", '[timestamp("1970-01-01T00:00:00Z")]'),
        ("'%s'.format([[duration('90m')]])", '[duration("5400s")]'),
        ("'%s'.format([object.l])", '["x", 1, null, true, {"b":1.500000}]'),
        ("'%s %s'.format([object.n, object.s])", "null plain"),
        ("'a%%b %s %s'.format([[], {}])", "a%b [] {}"),
        ("'%.6e'.format([1052.032911275])", "1.052033\u00d710⁰³"),
        ("'%e'.format([0.000123])", "1.230000\u00d710⁻⁰⁴"),
    ],
)
def test_format(value, source, expected):
    document = {"l": ["x", 1, None, True, {"b": 1.5}], "n": None, "s": "plain"}
    assert value(source, object=document) == expected


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0.0, "0"), (-0.0, "-0"), (1.0, "1"), (100000.0, "100000"), (1e6, "1e+06"), (123456789.0, "1.23456789e+08"),
        (1e-4, "0.0001"), (1e-5, "1e-05"), (-1.5e300, "-1.5e+300"), (float("inf"), "+Inf"), (float("-inf"), "-Inf"),
        (float("nan"), "NaN"), (4.2, "4.2"),
    ],
)  # fmt: skip
def test_shortest(number, expected):
    assert shortest(number) == expected


@pytest.mark.parametrize(
    ("number", "clause", "expected"),
    [
        (float("inf"), "f", "∞"),
        (float("-inf"), "f", "-∞"),
        (float("nan"), "f", "NaN"),
        (float("nan"), "e", "   NaN"),
    ],
)
def test_numbers_that_are_none(number, clause, expected):
    assert formatted(number, clause) == expected


def test_nested_special_numbers_are_quoted():
    assert nested([float("nan"), float("inf")]) == '["NaN", "+Inf"]'
    assert nested({"b": b"xyz", "a": 1, True: None}) == '{"a":1, "b":b"xyz", true:null}'


def test_values_without_a_text_form_are_errors():
    with pytest.raises(ValueError, match="no formatting function"):
        nested([object()])
