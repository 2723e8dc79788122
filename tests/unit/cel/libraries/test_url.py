import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cel.libraries import url

PARSE = "URL parse error during conversion from string: parse "
VALUES = [
    ("url('https://user:pass@Example.com:80/path?query=val#fragment').getHost()", "Example.com:80"),
    ("url('HTTPS://example.com/').getScheme()", "https"),
    ("url('/path').getScheme()", ""),
    ("url('/path').getHost()", ""),
    ("url('/path').getHostname()", ""),
    ("url('/path').getPort()", ""),
    ("url('https://example.com:80/').getHostname()", "example.com"),
    ("url('https://127.0.0.1:80/').getHostname()", "127.0.0.1"),
    ("url('https://[::1]:80/').getHostname()", "::1"),
    ("url('https://[::1]:80/').getHost()", "[::1]:80"),
    ("url('https://[::1]/').getHost()", "[::1]"),
    ("url('https://[fe80::1%25eth0]/').getHostname()", "fe80::1%eth0"),
    ("url('https://example.com:80/').getPort()", "80"),
    ("url('https://example.com/').getPort()", ""),
    ("url('https://example.com:/').getPort()", ""),
    ("url('https://example.com:/').getHost()", "example.com:"),
    ("url('postgres://a:1,b:2/db').getHost()", "a:1,b:2"),
    ("url('https://b\u00fccher.example/').getHostname()", "b\u00fccher.example"),
    ("url('https://%C3%A9.example/').getHostname()", "\u00e9.example"),
    ("url('https://example.com/path with spaces/').getEscapedPath()", "/path%20with%20spaces/"),
    ("url('https://example.com').getEscapedPath()", ""),
    ("url('https://example.com/a%2Fb').getEscapedPath()", "/a%2Fb"),
    ("url('https://example.com/a/../b').getEscapedPath()", "/a/../b"),
    ("url('https://example.com/\u00e9?x').getEscapedPath()", "/%C3%A9"),
    ("url('mailto:someone@example.com').getEscapedPath()", ""),
    ("url('mailto:someone@example.com').getScheme()", "mailto"),
    ("url('*').getEscapedPath()", "*"),
    ("url('//host/path').getHost()", "host"),
    ("url('https://example.com/path?k1=a&k2=b&k2=c').getQuery()", {"k1": ["a"], "k2": ["b", "c"]}),
    (
        "url('https://example.com/path?key with spaces=value+with+plus').getQuery()",
        {"key with spaces": ["value with plus"]},
    ),
    ("url('https://example.com/path?').getQuery()", {}),
    ("url('https://example.com/path').getQuery()", {}),
    ("url('/?a=%zz&b=1&c;d=2&=3&e').getQuery()", {"b": ["1"], "": ["3"], "e": [""]}),
    ("url('/?a=1#b=2').getQuery()", {"a": ["1"]}),
    ("url('HTTP://example.com/') == url('http://example.com/')", True),
    ("url('http://example.com/a b') == url('http://example.com/a%20b')", True),
    ("url('http://example.com') == url('http://example.com/')", False),
    ("[url('HTTP://a/')] == [url('http://a/')]", True),
    # written by Go, the first of these would be another URL
    ("[url('/%2Fhost^/p')].map(u, u.getHost())[0]", ""),
    ("isURL('https://user:pass@example.com:80/path?query=val#fragment')", True),
    ("isURL('/absolute-path')", True),
    ("isURL('../relative-path')", False),
    ("isURL('https://a:b:c/')", False),
    ("isURL('https://example.com:80:90/')", False),
    ("isURL('')", False),
    ("isURL('https://exa mple.com/')", False),
    ("isURL('/a\\nb')", False),
    ("isURL('/%zz')", False),
    # only the parser that url() asks next knows fragments
    ("isURL('/#%zz')", False),
]
ERRORS = [
    ("url('../relative-path')", PARSE + '"../relative-path": invalid URI for request'),
    ("url('')", PARSE + '"": empty url'),
    ("url('https://a:b:c/')", PARSE + '"https://a:b:c/": invalid port ":b:c" after host'),
    ("url(':80')", PARSE + '":80": missing protocol scheme'),
    ("url('/%zz')", PARSE + '"/%zz": invalid URL escape "%zz"'),
    ("url('/%4')", PARSE + '"/%4": invalid URL escape "%4"'),
    ("url('http://a b/')", PARSE + '"http://a b/": invalid character " " in host name'),
    ("url('http://%41/')", PARSE + '"http://%41/": invalid URL escape "%41"'),
    ("url('http://[::1/')", PARSE + "\"http://[::1/\": missing ']' in host"),
    ("url('http://[::1]a/')", PARSE + '"http://[::1]a/": invalid port "a" after host'),
    ("url('http://[1.2.3.4]/')", PARSE + '"http://[1.2.3.4]/": invalid IP-literal'),
    ("url('http://a[::1]/')", PARSE + '"http://a[::1]/": invalid IP-literal'),
    (
        "url('http://[x]/')",
        PARSE + '"http://[x]/": invalid host: ParseAddr("x"): unable to parse IP',
    ),
    ("url('http://u\u00e9@a/')", PARSE + '"http://u\u00e9@a/": net/url: invalid userinfo'),
    ("url('/\\t')", PARSE + '"/\\t": net/url: invalid control character in URL'),
]


@pytest.mark.parametrize(("source", "expected"), VALUES)
def test_values(evaluate, source, expected):
    assert evaluate(source) == expected


@pytest.mark.parametrize(("source", "message"), ERRORS)
def test_errors(evaluate, source, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate(source)


def test_an_endless_url_is_refused(evaluate):
    assert evaluate("isURL(data)", "/" + "a" * 70_000) is False
    with pytest.raises(ValueError, match="longer than"):
        evaluate("url(data).getHost()", "/" + "a" * 70_000)


def test_a_nul_in_the_query_is_refused_rather_than_cut_off(evaluate):
    with pytest.raises(ValueError, match="NUL"):
        evaluate("url(data).getQuery()['a'][0] == ''", "/?a=%00b")


def test_more_parameters_than_go_reads_are_none():
    query = "/?" + "&".join(["a=1"] * 10_001)
    assert url.parse(query[:-4]).location.parameters() == {b"a": [b"1"] * 10_000}
    assert url.parse(query).location.parameters() == {}


pieces = st.sampled_from(
    [*"abAB019-._~:/?#[]@!$&'()*+,;=%^ |\"<>\u00e9", "%2F", "%41", "http://", "//", "a:"]
)
texts = st.lists(pieces, max_size=20).map("".join)


@given(texts)
def test_a_url_survives_its_message(text):
    try:
        before = url.parse(text)
    except ValueError:
        return
    after = url.URL.of(*before.parts())
    assert after == before
    assert hash(after) == hash(before)
    for overload in url.OVERLOADS[2:]:
        assert overload.implementation(after) == overload.implementation(before)
