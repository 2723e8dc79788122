import re
from urllib.parse import quote, unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cel.libraries import url_parser

hosts = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
segments = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=10)


@given(hosts, st.integers(0, 65535), st.lists(segments, max_size=4))
def test_plain_urls_read_as_the_standard_library_reads_them(host, port, path):
    text = f"https://{host}:{port}/" + "/".join(quote(segment, safe="") for segment in path)
    location = url_parser.parse(text)
    split = urlsplit(text)
    assert location.scheme == split.scheme
    assert location.host.decode() == split.netloc
    assert location.path == unquote_to_bytes(split.path)
    assert [part.decode() for part in location.host_and_port()] == [host, str(port)]


@given(st.text(max_size=20))
def test_escaping_is_undone_by_parsing(text):
    path = b"/" + text.encode()
    assert url_parser.parse("/" + quote(text, safe="")).path == path


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("HTTP://U:p%40ss@Host/a b?q#f g", "http://U:p%40ss@Host/a%20b?q#f%20g"),
        ("http://host?", "http://host?"),
        ("http:///path", "http:///path"),
        ("http:/path", "http:/path"),
        ("mailto:a@b?c", "mailto:a@b?c"),
        ("a:", "a:"),
        ("x/y:z", "x/y:z"),
        ("http://u:@h/", "http://u:@h/"),
        ("http://u@/", "http://u@/"),
        ("/a%2Fb#%41", "/a%2Fb#%41"),
        ("/?a=b#", "/?a=b"),
        ("http://%E4%B8%96/", "http://%E4%B8%96/"),
        ("http://[fe80::1%25e%20x]:8/", "http://[fe80::1%25e%20x]:8/"),
    ],
)
def test_written_as_go_writes(text, output):
    assert bytes(url_parser.parse(text)).decode() == output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:b:c/d", None),
        ("1:b/c", 'parse "1:b/c": first path segment in URL cannot contain colon'),
        ("http://[::1%25%00]/", 'parse "http://[::1%25%00]/": invalid URL escape "%00"'),
        ("/#%", 'parse "/#%": invalid URL escape "%"'),
        ("/%\u00e9", 'parse "/%\u00e9": invalid URL escape "%\u00e9"'),
    ],
)
def test_relative_references_are_parsed_as_in_go(text, message):
    if message is None:
        assert url_parser.parse(text).scheme == "a"
        return
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        url_parser.parse(text)
