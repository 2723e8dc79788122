"""Addresses to serve on: one parser for every command."""

import pytest

from webhook.app.errors import UsageError
from webhook.app.options import parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:8443", ("127.0.0.1", 8443)), (":9443", ("", 9443)), ("[::1]:0", ("::1", 0))],
)
def test_an_address(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "127.0.0.1", "host:", "host:x", "host:65536", "host:٣"])
def test_an_invalid_address_is_an_error(text):
    with pytest.raises(UsageError, match="not an address; use HOST:PORT"):
        parse_address(text)
