"""Times and tables in words."""

from datetime import UTC, datetime, timedelta

import pytest

from webhook.cli.format import people, span, table, when
from webhook.core.kube.text import one_line

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=-5), "0 s"),
        (timedelta(seconds=40.9), "40 s"),
        (timedelta(seconds=60), "1 min"),
        (timedelta(minutes=3, seconds=20), "3 min"),
        (timedelta(hours=8), "8 h"),
        (timedelta(hours=1, minutes=30, seconds=59), "1 h 30 min"),
        (timedelta(hours=1, seconds=59), "1 h"),
        (timedelta(days=2, hours=4, minutes=5), "2 d 4 h"),
        (timedelta(days=2, minutes=5), "2 d 5 min"),
    ],
)
def test_spans(length, text):
    assert span(length) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "just now"), (0.9, "just now"), (3 * 3600, "in 3 h"), (-1200, "20 min ago")]
)
def test_moments(seconds, text):
    assert when(NOW + timedelta(seconds=seconds), NOW) == text


def test_a_table_is_aligned_without_trailing_spaces():
    assert (
        table(["A", "LONG"], [["long cell", ""], ["x", "y"]]) == "A           LONG\nlong cell\nx           y"
    )


@pytest.mark.parametrize(
    ("names", "text"),
    [([], "nobody"), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_names(names, text):
    assert people(names) == text


def test_text_of_other_users_cannot_move_the_cursor():
    assert one_line("fine\x1b[2J\nApproved\u202e by\troot") == "fine [2J Approved by root"
