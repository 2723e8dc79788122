"""Quantities in every spelling of Kubernetes, and their bounds."""

import pytest

from webhook.api.quantity import BitRate, ByteCount, whole
from webhook.cel.libraries.quantity import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("810Gi", 810 << 30),
        ("2M", 2_000_000),
        ("2e6", 2_000_000),
        ("2E6", 2_000_000),
        ("2000k", 2_000_000),
        ("1.5Ki", 1536),
        (".5Mi", 1 << 19),
        ("5.", 5),
        ("+7", 7),
        ("1500m", 2),
        ("1E", 10**18),
        ("1Ei", 1 << 60),
        ("100n", 1),
    ],
)
def test_a_spelling_means_the_same_as_to_the_api_server(text, value):
    """The independent implementation in the CEL library agrees, where it is an integer."""
    assert whole(text) == value
    exact = parse(text)
    assert exact.compare(parse(str(value))) in (0, -1)
    assert ByteCount(text).value == value


@pytest.mark.parametrize(
    "text",
    ["", "Gi", "1 G", "-1", "1KB", "0x10", "1e999", "1e", "1.2.3", "\u0661", "1Gi\n", "9" * 65, "nan", "1ki"],
)
def test_other_texts_are_rejected(text):
    with pytest.raises(ValueError, match="quantity"):
        whole(text)


def test_bounds():
    assert BitRate("1k").value == 1000
    assert BitRate(2_000_000) == "2000000"
    for text in ("999", "1001T", "0"):
        with pytest.raises(ValueError, match="out of bounds"):
            BitRate(text)
    with pytest.raises(ValueError, match="is not a quantity"):
        BitRate(True)
