from datetime import timedelta

import pytest

from webhook.api.duration import Duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("8h", timedelta(hours=8)),
        ("2d", timedelta(days=2)),
        ("1h30m", timedelta(minutes=90)),
        ("0s", timedelta()),
    ],
)
def test_value(text, expected):
    assert Duration(text).timedelta == expected


@pytest.mark.parametrize("text", ["", "8", "h", "-1h", "1.5h", "8 h", "30m1h", "1w", "9999999h", "8h\n"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration"):
        Duration(text)
