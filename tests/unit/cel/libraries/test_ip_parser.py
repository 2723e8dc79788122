from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cel.libraries import ip_parser

text = st.text(alphabet="0123456789abcdefABCDEFg.:/%", max_size=45)


@given(st.ip_addresses())
def test_addresses_of_the_standard_library_are_parsed(address):
    assert ip_parser.parse_address(str(address)) == (address.packed, "")
    assert ip_parser.parse_address(address.exploded) == (address.packed, "")


@given(text)
def test_accepts_nothing_the_standard_library_refuses(text):
    try:
        packed, zone = ip_parser.parse_address(text)
    except ValueError:
        return
    # What a zone may hold is for the system to say: Go takes any text, the standard library does not.
    assert ip_address(text.partition("%")[0]).packed == packed
    assert zone == text.partition("%")[2]


@given(st.ip_addresses(), st.integers(0, 128))
def test_prefixes(address, length):
    if length <= address.max_prefixlen:
        assert ip_parser.parse_prefix(f"{address}/{length}") == (address.packed, length)
    else:
        with pytest.raises(ValueError, match="out of range"):
            ip_parser.parse_prefix(f"{address}/{length}")


@pytest.mark.parametrize("length", ["", "+8", "-8", "08", "8 ", "\u0668", "1" * 5000])
def test_only_plain_numbers_are_lengths(length):
    with pytest.raises(ValueError, match="bad bits after slash"):
        ip_parser.parse_prefix(f"10.0.0.0/{length}")


def test_mapped_addresses_are_recognized():
    assert ip_parser.is_mapped(ip_address("::ffff:1.2.3.4").packed)
    assert not ip_parser.is_mapped(ip_address("::1.2.3.4").packed)
    assert not ip_parser.is_mapped(ip_address("1.2.3.4").packed)
