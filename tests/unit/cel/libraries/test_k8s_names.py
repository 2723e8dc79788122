import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.cel.libraries import k8s_names

# The patterns the API server decides by.
LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
PATTERNS = [
    (k8s_names.dns_1123_label, LABEL, 63),
    (k8s_names.dns_1123_subdomain, rf"{LABEL}(\.{LABEL})*", 253),
    (k8s_names.dns_1035_label, "[a-z]([-a-z0-9]*[a-z0-9])?", 63),
    (k8s_names.label_value, "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", 63),
]
candidates = st.text(alphabet="aZ0-_./\n\u00e9", max_size=12) | st.text(
    alphabet="a-.", min_size=60, max_size=70
)


@given(candidates)
@pytest.mark.parametrize(("check", "pattern", "longest"), PATTERNS)
def test_decides_as_the_quoted_pattern_does(check, pattern, longest, text):
    valid = re.fullmatch(pattern, text) is not None and len(text.encode()) <= longest
    assert (check(text) == []) == valid


@given(candidates)
def test_label_keys(text):
    prefix, slash, name = text.rpartition("/")
    valid = (
        k8s_names.label_value(name) == []
        and name != ""
        and (not slash or k8s_names.dns_1123_subdomain(prefix) == [])
    )
    assert (k8s_names.label_key(text) == []) == valid


@pytest.mark.parametrize("check", [check for check, *_ in PATTERNS])
def test_long_names_are_checked_in_linear_time(check):
    assert check("a-" * 500_000)
    assert check("a." * 500_000)


def test_length_counts_bytes():
    assert k8s_names.label_value("\u00e9" * 40)[0] == "must be no more than 63 bytes"
