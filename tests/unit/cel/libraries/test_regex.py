import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cel.libraries import regex

VALUES = [
    ("'abc 123'.find('[0-9]+')", "123"),
    # the leftmost match is the empty one
    ("'abc 123'.find('[0-9]*')", ""),
    ("'abc 123'.find('xyz')", ""),
    ("'abc'.find('')", ""),
    ("'aXbXc'.find('X.')", "Xb"),
    ("'abcd'.find('a|ab|abc')", "a"),
    ("'Gr\u00fc\u00dfe'.find('\u00fc.')", "\u00fc\u00df"),
    ("'ABC'.find('(?i)b')", "B"),
    ("'a\\nb'.find('(?s)a.b')", "a\nb"),
    ("'key: value'.find('(?P<name>v[a-z]+)')", "value"),
    ("'123 abc 456'.findAll('[0-9]+')", ["123", "456"]),
    ("'123 abc 456'.findAll('[0-9]+', 1)", ["123"]),
    ("'123 abc 456'.findAll('[0-9]+', 0)", []),
    ("'123 abc 456'.findAll('[0-9]+', -1)", ["123", "456"]),
    ("'123 abc 456'.findAll('xyz')", []),
    ("'baaab'.findAll('a*')", ["", "aaa", ""]),
    ("'abc'.findAll('')", ["", "", "", ""]),
    ("'\u00e9\u00e9'.findAll('')", ["", "", ""]),
    ("'\u00e9\u00e9'.findAll('\\\\B')", ["", "", ""]),
    ("'aaa'.findAll('^a')", ["a"]),
    ("'ab ab'.findAll('\\\\bab\\\\b')", ["ab", "ab"]),
    ("'\\\\Cx'.find('\\\\Q\\\\C\\\\E')", "\\C"),
    ("'\\\\C'.find('\\\\\\\\C')", "\\C"),
]
ERRORS = [
    ("'a'.find('(' + '')", "Illegal regex: error parsing regexp: missing closing ): `(`"),
    ("'a'.findAll('[' + '')", "Illegal regex: error parsing regexp: missing closing ]: `[`"),
    ("'a'.findAll(')' + '', 1)", "Illegal regex: error parsing regexp: unexpected ): `)`"),
    (
        "'a'.find('\\\\' + '')",
        "Illegal regex: error parsing regexp: trailing backslash at end of expression: ``",
    ),
    (
        "'a'.find('*' + '')",
        "Illegal regex: error parsing regexp: missing argument to repetition operator: `*`",
    ),
    ("'a'.find('a**' + '')", "Illegal regex: error parsing regexp: invalid nested repetition operator: `**`"),
    ("'a'.find('a{1001}' + '')", "Illegal regex: error parsing regexp: invalid repeat count: `{1001}`"),
    ("'a'.find('a{1001}?' + '')", "Illegal regex: error parsing regexp: invalid repeat count: `{1001}`"),
    (
        "'a'.find('(?=a)' + '')",
        "Illegal regex: error parsing regexp: invalid or unsupported Perl syntax: `(?=`",
    ),
    ("'a'.find('[b-a]' + '')", "Illegal regex: error parsing regexp: invalid character class range: `b-a`"),
    ("'a'.find('\\\\1' + '')", "Illegal regex: error parsing regexp: invalid escape sequence: `\\1`"),
    ("'a'.find('\\\\C' + '')", "Illegal regex: error parsing regexp: invalid escape sequence: `\\C`"),
    ("'a'.find('(?P<n' + '')", "Illegal regex: error parsing regexp: invalid named capture: `(?P<n`"),
]


@pytest.mark.parametrize(("source", "expected"), VALUES)
def test_values(evaluate, source, expected):
    assert evaluate(source) == expected


@pytest.mark.parametrize(("source", "message"), ERRORS)
def test_errors(evaluate, source, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate(source)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(a*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_no_pattern_backtracks(pattern):
    # An engine that backtracks would not come back from any of these.
    assert regex.find("a" * 50_000 + "!", pattern) == ""


def test_patterns_of_the_request_are_as_safe(evaluate):
    assert evaluate("data.text.find(data.pattern)", {"text": "a1", "pattern": r"\d"}) == "1"
    assert evaluate(
        "data.text.findAll(data.pattern, data.most)", {"text": "a12", "pattern": r"\d", "most": 1}
    ) == ["1"]


def test_more_matches_than_anyone_can_use_are_an_error(evaluate):
    assert len(evaluate("data.findAll('a')", "a" * 10_000)) == 10_000
    with pytest.raises(ValueError, match="more than 10000 matches"):
        evaluate("data.findAll('a')", "a" * 10_001)


def test_long_patterns_are_not_kept():
    pattern = "a" * 2000
    regex.check(pattern)
    assert regex.find(pattern, pattern) == pattern
    with pytest.raises(ValueError, match="missing closing"):
        regex.check(pattern + "(")


@given(st.text(max_size=20), st.integers(-1, 5))
def test_the_matches_of_anything_make_up_the_text(text, limit):
    matches = regex.find_all(text, "(?s).", limit)
    assert matches == list(text if limit < 0 else text[:limit])
