import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cel.libraries import network

NOT_AN_IP = 'IP Address "{0}" parse error during conversion from string: ParseAddr("{0}"): {1}'
NOT_A_CIDR = (
    "network address parse error during conversion from string: "
    'network address parse error during conversion from string: netip.ParsePrefix("{0}"): {1}'
)
VALUES = [
    ("string(ip('127.0.0.1'))", "127.0.0.1"),
    ("string(ip('2001:DB8:0:0::1'))", "2001:db8::1"),
    ("string(ip('::'))", "::"),
    ("string(ip('1:2:3:4:5:6:1.2.3.4'))", "1:2:3:4:5:6:102:304"),
    ("ip('127.0.0.1').family()", 4),
    ("ip('::1').family()", 6),
    ("isIP('127.0.0.1')", True),
    ("isIP('::1')", True),
    ("isIP('127.0.0.01')", False),
    ("isIP('::ffff:1.2.3.4')", False),
    ("isIP('fe80::1%eth0')", False),
    ("isIP('10.0.0.0/8')", False),
    ("isIP('')", False),
    ("ip.isCanonical('127.0.0.1')", True),
    ("ip.isCanonical('2001:db8::abcd')", True),
    ("ip.isCanonical('2001:DB8::ABCD')", False),
    ("ip.isCanonical('2001:db8::0:0:0:abcd')", False),
    ("ip('0.0.0.0').isUnspecified()", True),
    ("ip('::').isUnspecified()", True),
    ("ip('0.0.0.1').isUnspecified()", False),
    ("ip('127.9.9.9').isLoopback()", True),
    ("ip('::1').isLoopback()", True),
    ("ip('::2').isLoopback()", False),
    ("ip('224.0.0.255').isLinkLocalMulticast()", True),
    ("ip('224.0.1.1').isLinkLocalMulticast()", False),
    ("ip('ff02::1').isLinkLocalMulticast()", True),
    ("ip('ff12::1').isLinkLocalMulticast()", True),
    ("ip('ff05::1').isLinkLocalMulticast()", False),
    ("ip('169.254.169.254').isLinkLocalUnicast()", True),
    ("ip('169.253.0.1').isLinkLocalUnicast()", False),
    ("ip('febf::1').isLinkLocalUnicast()", True),
    ("ip('fec0::1').isLinkLocalUnicast()", False),
    ("ip('192.168.0.1').isGlobalUnicast()", True),
    ("ip('255.255.255.255').isGlobalUnicast()", False),
    ("ip('0.0.0.0').isGlobalUnicast()", False),
    ("ip('239.1.1.1').isGlobalUnicast()", False),
    ("ip('2001:db8::abcd').isGlobalUnicast()", True),
    ("ip('ff00::1').isGlobalUnicast()", False),
    ("ip('fd00::1').isGlobalUnicast()", True),
    ("ip('::1') == ip('0:0:0:0:0:0:0:1')", True),
    ("ip('1.2.3.4') == ip('::102:304')", False),
    ("[ip('::1')] == [ip('0::1')]", True),
    ("type(ip('::1')) == net.IP", True),
    ("string(cidr('192.168.0.1/24'))", "192.168.0.1/24"),
    ("string(cidr('2001:DB8::/32'))", "2001:db8::/32"),
    ("string(cidr('192.168.0.1/24').masked())", "192.168.0.0/24"),
    ("string(cidr('2001:db8:ffff::1/33').masked())", "2001:db8:8000::/33"),
    ("string(cidr('192.168.0.1/24').ip())", "192.168.0.1"),
    ("cidr('10.0.0.0/8').prefixLength()", 8),
    ("cidr('::/0').prefixLength()", 0),
    ("cidr('10.0.0.0/8') == cidr('10.0.0.0/8').masked()", True),
    ("cidr('10.0.0.1/8') == cidr('10.0.0.1/8').masked()", False),
    ("type(cidr('::/0')) == net.CIDR", True),
    ("cidr('192.168.0.0/24').containsIP(ip('192.168.0.255'))", True),
    ("cidr('192.168.0.0/24').containsIP(ip('192.168.1.0'))", False),
    ("cidr('192.168.0.0/24').containsIP('192.168.0.1')", True),
    ("cidr('192.168.0.77/24').containsIP('192.168.0.1')", True),
    ("cidr('0.0.0.0/0').containsIP('::1')", False),
    ("cidr('::/0').containsIP('10.0.0.1')", False),
    ("cidr('2001:db8::/32').containsIP('2001:db8:ffff::')", True),
    ("cidr('192.168.0.0/16').containsCIDR(cidr('192.168.10.0/24'))", True),
    ("cidr('192.168.0.0/16').containsCIDR('192.168.0.0/16')", True),
    ("cidr('192.168.0.0/24').containsCIDR('192.168.0.0/16')", False),
    ("cidr('192.168.0.0/16').containsCIDR('192.169.0.0/24')", False),
    ("cidr('::/0').containsCIDR('10.0.0.0/8')", False),
    ("isCIDR('10.0.0.0/8')", True),
    ("isCIDR('10.0.0.1/8')", True),
    ("isCIDR('10.0.0.0')", False),
    ("isCIDR('10.0.0.0/33')", False),
    ("isCIDR('10.0.0.0/08')", False),
    ("isCIDR('::/129')", False),
    ("isCIDR('::ffff:1.2.3.4/96')", False),
    # the other overloads of string are still there
    ("string(1) + string(1u) + string(true) + string('a') + string(b'b') + string(1.5)", "11trueab1.5"),
    ("string(duration('61s')) + string(timestamp('2020-01-01T00:00:00Z'))", "61s2020-01-01T00:00:00Z"),
]
ERRORS = [
    ("ip('1.2.3')", NOT_AN_IP.format("1.2.3", "IPv4 address too short")),
    ("ip('1.2.3.4.5')", NOT_AN_IP.format("1.2.3.4.5", "IPv4 address too long")),
    ("ip('1.2.3.256')", NOT_AN_IP.format("1.2.3.256", "IPv4 field has value >255")),
    ("ip('1.2.3.04')", NOT_AN_IP.format("1.2.3.04", "IPv4 field has octet with leading zero")),
    ("ip('1..2.3')", NOT_AN_IP.format("1..2.3", 'IPv4 field must have at least one digit (at ".2.3")')),
    ("ip('a.b')", NOT_AN_IP.format("a.b", 'unexpected character (at "a.b")')),
    ("ip('nonsense')", NOT_AN_IP.format("nonsense", "unable to parse IP")),
    ("ip('%eth0')", NOT_AN_IP.format("%eth0", "missing IPv6 address")),
    ("ip('::1%')", NOT_AN_IP.format("::1%", "zone must be a non-empty string")),
    ("ip('12345::')", NOT_AN_IP.format("12345::", 'each group must have 4 or less digits (at "12345::")')),
    (
        "ip(':1')",
        NOT_AN_IP.format(":1", 'each colon-separated field must have at least one digit (at ":1")'),
    ),
    ("ip('1::2::3')", NOT_AN_IP.format("1::2::3", 'multiple :: in address (at ":3")')),
    ("ip('1:2')", NOT_AN_IP.format("1:2", "address string too short")),
    ("ip('1:')", NOT_AN_IP.format("1:", 'colon must be followed by more characters (at ":")')),
    (
        "ip('1:2:3:4:5:6:7:8:9')",
        NOT_AN_IP.format("1:2:3:4:5:6:7:8:9", 'trailing garbage after address (at "9")'),
    ),
    (
        "ip('1:2:3:4:5:6:7::8')",
        NOT_AN_IP.format("1:2:3:4:5:6:7::8", "the :: must expand to at least one field of zeros"),
    ),
    ("ip('fe80::1%eth0')", 'IP address "fe80::1%eth0" with zone value is not allowed'),
    ("ip('::ffff:1.2.3.4')", 'IPv4-mapped IPv6 address "::ffff:1.2.3.4" is not allowed'),
    ("ip.isCanonical('x')", NOT_AN_IP.format("x", "unable to parse IP")),
    ("cidr('10.0.0.0')", NOT_A_CIDR.format("10.0.0.0", "no '/'")),
    ("cidr('10.0.0.0/33')", NOT_A_CIDR.format("10.0.0.0/33", "prefix length out of range")),
    ("cidr('10.0.0.0/-1')", NOT_A_CIDR.format("10.0.0.0/-1", 'bad bits after slash: "-1"')),
    ("cidr('10.0.0.0/08')", NOT_A_CIDR.format("10.0.0.0/08", 'bad bits after slash: "08"')),
    ("cidr('fe80::1%a/64')", NOT_A_CIDR.format("fe80::1%a/64", "IPv6 zones cannot be present in a prefix")),
    ("cidr('10.0/8')", NOT_A_CIDR.format("10.0/8", 'ParseAddr("10.0"): IPv4 address too short')),
    (
        "cidr('::ffff:1.2.3.4/96')",
        (
            "network address parse error during conversion from string: "
            'IPv4-mapped IPv6 address "::ffff:1.2.3.4/96" is not allowed'
        ),
    ),
    ("cidr('10.0.0.0/8').containsIP('10.0.0')", "no such overload"),
    ("cidr('10.0.0.0/8').containsCIDR('10.0.0.0')", NOT_A_CIDR.format("10.0.0.0", "no '/'")),
]


@pytest.mark.parametrize(("source", "expected"), VALUES)
def test_values(evaluate, source, expected):
    assert evaluate(source) == expected


@pytest.mark.parametrize(("source", "message"), ERRORS)
def test_errors(evaluate, source, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate(source)


def test_an_endless_address_is_refused(evaluate):
    assert evaluate("isIP(data)", "1." * 100_000) is False
    assert evaluate("isCIDR(data)", "1." * 100_000) is False


addresses = st.ip_addresses().filter(lambda address: not getattr(address, "ipv4_mapped", None))
networks = st.builds(
    lambda address, share: f"{address}/{address.max_prefixlen * share // 100}", addresses, st.integers(0, 100)
)


@given(addresses)
def test_an_address_survives_text_and_message(address):
    ip = network.parse_ip(str(address))
    assert str(ip) == str(address)
    assert network.IP.of(*ip.parts()) == ip


@given(networks)
def test_a_network_contains_itself_and_its_mask(text):
    prefix = network.parse_cidr(text)
    assert network.CIDR.of(*prefix.parts()) == prefix
    assert prefix.within(prefix)
    assert prefix.masked().within(prefix)
    assert prefix.masked().masked() == prefix.masked()
    assert network.IP(prefix.address).within(prefix)


@pytest.mark.parametrize("parts", [("01",), ("zz",), ("7f000001", "8")])
def test_a_message_without_an_origin_is_not_an_address(parts):
    with pytest.raises((TypeError, ValueError)):
        network.IP.of(*parts)


@pytest.mark.parametrize("parts", [("7f000001", "33"), ("7f000001", "-1"), ("7f000001", "x")])
def test_a_message_without_an_origin_is_not_a_network(parts):
    with pytest.raises(ValueError, match=r"."):
        network.CIDR.of(*parts)
