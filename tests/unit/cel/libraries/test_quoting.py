import pytest

from webhook.cel.libraries.quoting import quote


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", '""'),
        ("plain", '"plain"'),
        ("a\"b\\c'", '"a\\"b\\\\c\'"'),
        ("\a\b\f\n\r\t\v", '"\\a\\b\\f\\n\\r\\t\\v"'),
        ("\x00\x1f\x7f", '"\\x00\\x1f\\x7f"'),
        ("\u00e9\u4e16", '"\u00e9\u4e16"'),
        ("\u200b", '"\\u200b"'),
        ("\U000e0001", '"\\U000e0001"'),
        (b"\xff\xc3".decode("utf-8", "surrogateescape"), '"\\xff\\xc3"'),
    ],
)
def test_quotes_as_go_does(text, quoted):
    assert quote(text) == quoted
