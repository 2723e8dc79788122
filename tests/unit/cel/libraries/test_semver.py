import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cel.libraries import semver

# The chain of semver.org, section 11.
ASCENDING = [
    "0.9.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "2.0.0",
]
VALUES = [
    ("semver('1.2.3').major()", 1),
    ("semver('1.2.3').minor()", 2),
    ("semver('1.2.3').patch()", 3),
    ("semver('1.2.3-rc.1+build.5').patch()", 3),
    ("semver('18446744073709551615.0.0').major()", -1),
    ("semver('1.2.3').isGreaterThan(semver('1.2.2'))", True),
    ("semver('1.2.3').isGreaterThan(semver('1.2.3'))", False),
    ("semver('1.2.3').isLessThan(semver('1.10.0'))", True),
    ("semver('1.2.3').compareTo(semver('1.2.3+other'))", 0),
    ("semver('1.2.3+one') == semver('1.2.3+two')", True),
    ("semver('1.2.3') == semver('1.2.3-rc.1')", False),
    ("semver('1.2.3') in [semver('1.2.3+x')]", True),
    ("semver('v1.0', true) == semver('1.0.0')", True),
    ("semver('1', true).compareTo(semver('1.0.0'))", 0),
    ("semver('01.002.0003', true) == semver('1.2.3')", True),
    ("semver('1.0.0', false).major()", 1),
    ("isSemver('1.0.0')", True),
    ("isSemver('1.0')", False),
    ("isSemver('v1.0')", False),
    ("isSemver('v1.0', true)", True),
    ("isSemver('v1.0', false)", False),
    ("isSemver('1.0.0-rc.1', true)", True),
    ("isSemver('1.0-rc.1', true)", False),
    ("isSemver('vv1', true)", False),
    ("isSemver(' 1.0.0', true)", False),
    ("isSemver('1.0.0-\u00e9')", False),
]
ERRORS = [
    ("semver('')", "Version string empty"),
    ("semver('1.0')", "No Major.Minor.Patch elements found"),
    ("semver('v1.0.0')", 'Invalid character(s) found in major number "v1"'),
    ("semver('1.x.0')", 'Invalid character(s) found in minor number "x"'),
    ("semver('1.0.x')", 'Invalid character(s) found in patch number "x"'),
    ("semver('01.0.0')", 'Major number must not contain leading zeroes "01"'),
    ("semver('1.0.00')", 'Patch number must not contain leading zeroes "00"'),
    ("semver('1.0.0-')", "Prerelease is empty"),
    ("semver('1.0.0-a..b')", "Prerelease is empty"),
    ("semver('1.0.0-01')", 'Numeric PreRelease version must not contain leading zeroes "01"'),
    ("semver('1.0.0-a_b')", 'Invalid character(s) found in prerelease "a_b"'),
    ("semver('1.0.0+')", "Build meta data is empty"),
    ("semver('1.0.0+a_b')", 'Invalid character(s) found in build meta data "a_b"'),
    ("semver('.0.0')", 'strconv.ParseUint: parsing "": invalid syntax'),
    (
        "semver('18446744073709551616.0.0')",
        'strconv.ParseUint: parsing "18446744073709551616": value out of range',
    ),
    ("semver('1-rc', true)", "short version cannot contain PreRelease/Build meta data"),
]


@pytest.mark.parametrize(("source", "expected"), VALUES)
def test_values(evaluate, source, expected):
    assert evaluate(source) == expected


@pytest.mark.parametrize(("source", "message"), ERRORS)
def test_errors(evaluate, source, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate(source)


@pytest.mark.parametrize(("lower", "higher"), list(pairwise(ASCENDING)))
def test_precedence(evaluate, lower, higher):
    assert evaluate("semver(data).isLessThan(semver(other))", lower, higher)
    assert evaluate("semver(other).isGreaterThan(semver(data))", lower, higher)


def test_an_endless_version_is_refused():
    with pytest.raises(ValueError, match="too long"):
        semver.parse("1.0.0-" + "a" * 5000)


identifiers = st.integers(0, 2**64 - 1) | st.from_regex(
    r"[0-9A-Za-z-]*[A-Za-z-][0-9A-Za-z-]*", fullmatch=True
)
versions = st.builds(
    semver.Semver,
    *[st.integers(0, 2**64 - 1)] * 3,
    st.lists(identifiers, max_size=4).map(tuple),
)


@given(versions, versions, versions)
def test_comparison_is_a_total_order(one, two, three):
    assert one.compare(two) == -two.compare(one)
    assert (one.compare(two) == 0) == (one == two)
    if one.compare(two) <= 0 and two.compare(three) <= 0:
        assert one.compare(three) <= 0


@given(versions)
def test_a_version_survives_text_and_message(version):
    text = f"{version.major}.{version.minor}.{version.patch}"
    if version.prerelease:
        text += "-" + ".".join(map(str, version.prerelease))
    assert semver.parse(text) == version
    assert semver.Semver.of(*version.parts()) == version
