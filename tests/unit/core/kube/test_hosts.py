"""Addresses in one spelling."""

import pytest

from webhook.core.kube.hosts import hosts, normal_host


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.9",
        " 10.0.0.9 ",
        "10.0.0.9.",
        "10.0.0.9..",
        "[10.0.0.9]",
        "10.9",
        "10.0.9",
        "167772169",
        "0xA000009",
        "0x0a.0.0.9",
        "012.0.0.011",
        "0xa.0x0.0x0.0x9",
        "::ffff:10.0.0.9",
        "[::ffff:a00:9]",
        "0:0:0:0:0:ffff:a00:9",
        "64:ff9b::10.0.0.9",
    ],
)
def test_one_address_in_many_spellings(text):
    """inet_aton(3) reads one to four parts in three bases; IPv6 can carry IPv4."""
    assert normal_host(text) == "10.0.0.9"


@pytest.mark.parametrize(
    "text", ["10.0.0.10", "0x0b000009", "files.example.com", "10.0.0.9.example.com", "256.0.0.9"]
)
def test_other_addresses(text):
    assert normal_host(text) != "10.0.0.9"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Files.Example.COM.", {"files.example.com"}),
        ("10.0.0.9:2049", {"10.0.0.9"}),
        ("[::ffff:10.0.0.9]:02049", {"10.0.0.9"}),
        ("fd00::1", {"fd00::1"}),
        ("fd00::1%eth0", {"fd00::1"}),
        ("nfs://user@10.9:2049/export", {"10.0.0.9"}),
        ("a.example.com, 10.9;b", {"a.example.com", "10.0.0.9", "b"}),
        ("", set()),
        ("010.0.0.9", {"8.0.0.9", "10.0.0.9"}),
    ],
)
def test_server_fields(text, expected):
    assert hosts(text) == expected
