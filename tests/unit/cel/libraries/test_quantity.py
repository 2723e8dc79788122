import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cel.libraries import quantity

WRONG_SHAPE = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
NOT_INTEGER = "cannot convert value to integer"

VALUES = [
    # every suffix, and the forms between them
    ("quantity('1n').asApproximateFloat()", 1e-9),
    ("quantity('1u').asApproximateFloat()", 1e-6),
    ("quantity('1500m').asApproximateFloat()", 1.5),
    ("quantity('12').asInteger()", 12),
    ("quantity('12k').asInteger()", 12_000),
    ("quantity('12M').asInteger()", 12_000_000),
    ("quantity('12G').asInteger()", 12_000_000_000),
    ("quantity('12T').asInteger()", 12 * 10**12),
    ("quantity('3P').asInteger()", 3 * 10**15),
    ("quantity('9E').asInteger()", 9 * 10**18),
    ("quantity('2Ki').asInteger()", 2 * 2**10),
    ("quantity('2Mi').asInteger()", 2 * 2**20),
    ("quantity('2Gi').asInteger()", 2 * 2**30),
    ("quantity('2Ti').asInteger()", 2 * 2**40),
    ("quantity('1e3').asInteger()", 1000),
    ("quantity('1E+3').asInteger()", 1000),
    ("quantity('15e-1').asApproximateFloat()", 1.5),
    ("quantity('-2Ki').asInteger()", -2048),
    ("quantity('+7').asInteger()", 7),
    ("quantity('007').asInteger()", 7),
    ("quantity('.5').asApproximateFloat()", 0.5),
    ("quantity('1.').asInteger()", 1),
    # what looks odd and is accepted all the same
    ("quantity('+').asInteger()", 0),
    ("quantity('Mi').asInteger()", 0),
    ("isQuantity('.')", True),
    # too little becomes the least there is, too much is capped
    ("quantity('0.1n') == quantity('1n')", True),
    ("quantity('-0.1n') == quantity('-1n')", True),
    ("quantity('9Ei') == quantity('9223372036854775807')", True),
    # approximate: a rounded number of nanos times a rounded power of ten
    ("quantity('12345678901234567890').asApproximateFloat()", float(12345678901234567890 * 10**9) * 1e-9),
    ("quantity('1e400').asApproximateFloat() > 1.7e308", True),
    # an integer is what is held in an int64 without a fraction, not every whole number
    ("quantity('1000m').isInteger()", False),
    ("quantity('1.0').isInteger()", False),
    ("quantity('100Ti').isInteger()", False),
    ("quantity('50000000G').isInteger()", True),
    ("quantity('9999999999999999999999999999999999999G').isInteger()", False),
    ("quantity('10E').isInteger()", False),
    ("quantity('0').isInteger()", True),
    # arithmetic
    ("quantity('50k').add(quantity('20k')) == quantity('70k')", True),
    ("quantity('50k').add(20).asInteger()", 50_020),
    ("quantity('50k').sub(quantity('20k')).asInteger()", 30_000),
    ("quantity('50k').sub(20000).asApproximateFloat()", 30_000.0),
    ("quantity('50k').add(20).sub(quantity('100k')).sub(-50000).asInteger()", 20),
    ("quantity('1').add(quantity('1m')).asApproximateFloat()", 1001 * 0.001),
    ("quantity('9223372036854775807').add(1).isInteger()", False),
    ("quantity('9223372036854775807').add(1).compareTo(quantity('9223372036854775807'))", 1),
    ("quantity('0').add(quantity('5Gi')) == quantity('5Gi')", True),
    ("quantity('0').sub(quantity('5')).asInteger()", -5),
    ("quantity('1e1000').add(1).isGreaterThan(quantity('1e1000'))", True),
    # comparison
    ("quantity('200M').compareTo(quantity('0.2G'))", 0),
    ("quantity('50M').compareTo(quantity('50Mi'))", -1),
    ("quantity('50Mi').compareTo(quantity('50M'))", 1),
    ("quantity('150Mi').isGreaterThan(quantity('100Mi'))", True),
    ("quantity('50Mi').isGreaterThan(quantity('50Mi'))", False),
    ("quantity('50M').isLessThan(quantity('100M'))", True),
    ("quantity('-1').isLessThan(quantity('-2'))", False),
    ("quantity('1e2000000000').isGreaterThan(quantity('1e1999999999'))", True),
    ("quantity('1') == quantity('1000m')", True),
    ("quantity('1') != quantity('1001m')", True),
    ("quantity('1') in [quantity('2'), quantity('1000m')]", True),
    ("quantity('1') in [quantity('2')]", False),
    ("sign(quantity('5'))", 1),
    ("sign(quantity('-5'))", -1),
    ("sign(quantity('0'))", 0),
    # tests of a string
    ("isQuantity('1.3Gi')", True),
    ("isQuantity('1,3G')", False),
    ("isQuantity('200K')", False),
    ("isQuantity('Three')", False),
    ("isQuantity('')", False),
    ("isQuantity(' 1')", False),
    ("isQuantity('1\u0661')", False),
]
ERRORS = [
    ("quantity('Three')", WRONG_SHAPE),
    ("quantity('')", WRONG_SHAPE),
    ("quantity('1 ')", WRONG_SHAPE),
    ("quantity('0x1')", WRONG_SHAPE),
    ("quantity('200K')", "unable to parse quantity's suffix"),
    ("quantity('1ee3')", "unable to parse quantity's suffix"),
    ("quantity('1e99999999999999999999')", "unable to parse quantity's suffix"),
    ("quantity('Ei')", "unable to parse numeric part of quantity"),
    ("quantity('1.5').asInteger()", NOT_INTEGER),
    ("quantity('9999999999999999999999999999999999999G').asInteger()", NOT_INTEGER),
]
BEYOND = [
    # where the API server would compute with millions of digits
    ("quantity('1e2000000000').add(1)", "quantity out of range"),
    ("quantity('1234567890123456789e100000')", "unable to parse numeric part of quantity"),
    ("quantity(data)", "unable to parse numeric part of quantity"),
]


@pytest.mark.parametrize(("source", "expected"), VALUES)
def test_values(evaluate, source, expected):
    assert evaluate(source) == expected


@pytest.mark.parametrize(("source", "message"), ERRORS)
def test_errors(evaluate, source, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate(source)


@pytest.mark.parametrize(("source", "message"), BEYOND)
def test_numbers_too_large_to_compute_with_are_refused(evaluate, source, message):
    with pytest.raises(ValueError, match=message):
        evaluate(source, "9" * 100_000)


def test_strings_of_the_request_are_quantities_too(evaluate):
    assert evaluate("quantity(data.limit).isLessThan(quantity(data.most))", {"limit": "1Gi", "most": "2G"})


@pytest.mark.parametrize("value", [5, 1.5, True, None, ["1Gi"], {"a": 1}])
def test_nothing_but_a_string_is_a_quantity(evaluate, value):
    with pytest.raises(ValueError, match="No matching overloads"):
        evaluate("quantity(data).isInteger()", value)


def test_values_pass_through_comprehensions_and_dynamic_types(evaluate):
    source = (
        "[quantity('1Gi'), quantity('2Gi')].filter(q, q.isLessThan(quantity('1.5Gi'))).map(q, q.asInteger())"
    )
    assert evaluate(source) == [2**30]
    assert evaluate("dyn(quantity('1')).compareTo(dyn(quantity('2')))") == -1


quantities = st.builds(
    str.__add__,
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**25), max_value=10**25, places=5).map(
        lambda number: f"{number:f}"
    ),
    st.sampled_from(
        ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e5", "E-7"]
    ),
).map(quantity.parse)


@given(quantities, quantities, quantities)
def test_comparison_is_a_total_order(one, two, three):
    assert one.compare(two) == -two.compare(one)
    assert (one.compare(two) == 0) == (one == two)
    if one.compare(two) <= 0 and two.compare(three) <= 0:
        assert one.compare(three) <= 0


@given(quantities, quantities)
def test_subtraction_takes_back_an_addition(one, two):
    assert one.add(two).subtract(two) == one
    assert one.add(two) == two.add(one)


@given(quantities)
def test_a_quantity_survives_its_message(value):
    again = quantity.Quantity.of(*value.parts())
    assert again == value
    assert again.integer() == value.integer()
    assert hash(again) == hash(value)
