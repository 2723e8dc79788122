"""Which driver a DeviceClass requires, by a scan that understands little and never too much."""

import pytest

from webhook.core.facts.dra import required_drivers


@pytest.mark.parametrize(
    "expression",
    [
        "device.driver == 'dra.net'",
        'device.driver == "dra.net"',
        "'dra.net' == device.driver",
        " ( device . driver=='dra.net' ) ",
        "device.driver == 'dra.net' && device.attributes['dra.net'].type == 'nic'",
        "(device.attributes['dra.net'].a || true) && (true && device.driver == 'dra.net')",
        "device.driver == 'dra.net'\n&& device.attributes['dra.net'].rdma",
        "device.driver == 'dra.net' && device.attributes['dra.net'].name.contains('a || b // c')",
    ],
)
def test_a_top_level_conjunct_fixes_the_driver(expression):
    assert required_drivers(expression) == ("dra.net",)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "true",
        "device.driver == 'dra.net' || true",
        "device.driver == 'dra.net' && true || true",
        "device.driver == 'dra.net' ? true : true",
        "!(device.driver == 'dra.net')",
        "device.driver != 'dra.net'",
        "true // && device.driver == 'dra.net'",
        "true //\n|| device.driver == 'dra.net' && device.driver == 'dra.net'",
        "'a' == 'b' || 'x && device.driver == \"dra.net\" && y' == ''",
        "[device.driver == 'dra.net'].size() > 0",
        "device.driver == 'dra.net'.lowerAscii()",
        "device.driver == 'dra.net' + ''",
        "device.driver == r'dra.net'",
        "device.driver == '''dra.net'''",
        "device.driver == '\\x64ra.net'",
        "['x'].exists(device, device.driver == 'dra.net')",
        "device.driver.startsWith('dra.net')",
        "(device.driver == 'dra.net') == false",
        "device.driver == 'dra.net' && (true",
        "device.driver == 'dra.net' && 'x",
        "!device.driver == 'dra.net'",
        "x.device.driver == 'dra.net'",
    ],
)
def test_nothing_else_does(expression):
    assert required_drivers(expression) == ()


def test_a_long_expression_costs_little_and_requires_nothing():
    assert required_drivers("(" * 30_000) == ()
    assert required_drivers("(" * 4000 + "device.driver == 'dra.net'" + ")" * 4000) == ()
    assert required_drivers("true && " * 1000 + "device.driver == 'dra.net'") == ("dra.net",)
