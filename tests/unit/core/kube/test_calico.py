"""Selectors of Calico: the grammar, labels that are missing or unknown, and texts that are no selector."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.core.kube.calico import CalicoSelectorError, matches

LABELS = {"team": "atlas", "projectcalico.org/name": "vault"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("all()", True),
        ("global()", False),
        ("team == 'atlas'", True),
        ('team == "photos"', False),
        ("team != 'photos'", True),
        ("missing != 'x'", True),
        ("missing == 'x'", False),
        ("team in {'a', \"atlas\"}", True),
        ("team not in {'atlas'}", False),
        ("missing not in {'x'}", True),
        ("has(team) && !has(missing)", True),
        ("team == 'x' || projectcalico.org/name == 'vault'", True),
        ("team == 'x' || team == 'y' && all()", False),
        ("!(team == 'atlas' || has(missing))", False),
        ("team contains 'tla'", True),
        ("team starts with 'at' && team ends with 'as'", True),
        ("  team=='atlas'&&all( )  ", True),
    ],
)
def test_labels_that_a_selector_matches(selector, expected):
    assert matches(selector, LABELS) is expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("app == 'x'", None),
        ("app == 'x' && team == 'photos'", False),
        ("app == 'x' && team == 'atlas'", None),
        ("app == 'x' || team == 'atlas'", True),
        ("!has(app)", None),
        ("!has(app) || all()", True),
    ],
)
def test_an_unknown_label_decides_nothing(selector, expected):
    assert matches(selector, LABELS, lambda label: label == "team") is expected


@pytest.mark.parametrize(
    "selector",
    [
        "team = 'a'",
        "team ==",
        "team == atlas",
        "team in {}",
        "has('team')",
        "all(",
        "(all()",
        "all())",
        "none()",
        "'x'",
        "team ~ 'x'",
        "(" * 64 + "all()" + ")" * 64,
        "all()" + " " * 4096 + "x",
    ],
)
def test_malformed_selectors(selector):
    with pytest.raises(CalicoSelectorError):
        matches(selector, LABELS)


@given(st.text(alphabet="ab'\"=!&|(){}, hasinotl", max_size=200))
def test_no_text_raises_anything_else(text):
    with contextlib.suppress(CalicoSelectorError):
        assert matches(text, LABELS) in (True, False, None)
