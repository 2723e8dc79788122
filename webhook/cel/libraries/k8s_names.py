"""What Kubernetes calls a label, a subdomain, a qualified name: the checks and the words for what fails them.

Follows k8s.io/apimachinery ``pkg/util/validation`` and ``pkg/api/validate/content``. The patterns that messages quote
are the API server's; those that decide are written so that they never backtrack.
"""

from __future__ import annotations

import re
from typing import Final

_LABEL_FORMAT: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_FORMAT: Final = rf"{_LABEL_FORMAT}(\.{_LABEL_FORMAT})*"
_DNS_1035_FORMAT: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY_FORMAT: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"

_ONE_LABEL: Final = r"(?!-)[-a-z0-9]++(?<!-)"
_LABEL: Final = re.compile(_ONE_LABEL)
_SUBDOMAIN: Final = re.compile(rf"{_ONE_LABEL}(?:\.{_ONE_LABEL})*+")
_DNS_1035: Final = re.compile(r"[a-z][-a-z0-9]*+(?<!-)")
_KEY: Final = re.compile(r"(?![-_.])[-A-Za-z0-9_.]++(?<![-_.])")

_LABEL_RULE: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-',"
    " and must start and end with an alphanumeric character"
)
_SUBDOMAIN_RULE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.',"
    " and must start and end with an alphanumeric character"
)
_DNS_1035_RULE: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-',"
    " start with an alphabetic character, and end with an alphanumeric character"
)
_KEY_RULE: Final = (
    "must consist of alphanumeric characters, '-', '_' or '.',"
    " and must start and end with an alphanumeric character"
)
_VALUE_RULE: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.',"
    " and must start and end with an alphanumeric character"
)


def _explain(rule: str, pattern: str, *examples: str) -> str:
    quoted = " or ".join(f"'{example}', " for example in examples)
    return f"{rule} (e.g. {quoted}regex used for validation is '{pattern}')"


_OPTIONAL_PREFIX: Final = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
_KEY_PROBLEM: Final = _explain(_KEY_RULE, _KEY_FORMAT, "MyName", "my.name", "123-abc")


def dns_1123_label(text: str) -> list[str]:
    """Return why ``text`` is not an RFC 1123 label; empty if it is one."""
    problems = _too_long(text, 63, "characters")
    if not _LABEL.fullmatch(text):
        if _SUBDOMAIN.fullmatch(text):
            problems.append("must not contain dots")
        else:
            problems.append(_explain(_LABEL_RULE, _LABEL_FORMAT, "my-name", "123-abc"))
    return problems


def dns_1123_subdomain(text: str) -> list[str]:
    """Return why ``text`` is not an RFC 1123 subdomain."""
    problems = _too_long(text, 253, "characters")
    if not _SUBDOMAIN.fullmatch(text):
        problems.append(_explain(_SUBDOMAIN_RULE, _SUBDOMAIN_FORMAT, "example.com"))
    return problems


def dns_1035_label(text: str) -> list[str]:
    """Return why ``text`` is not an RFC 1035 label."""
    problems = _too_long(text, 63, "characters")
    if not _DNS_1035.fullmatch(text):
        problems.append(_explain(_DNS_1035_RULE, _DNS_1035_FORMAT, "my-name", "abc-123"))
    return problems


def label_key(text: str) -> list[str]:
    """Return why ``text`` is not a label key, which Kubernetes also calls a qualified name."""
    problems = []
    parts = text.split("/")
    if len(parts) > 2:
        return [f"a valid label key {_KEY_PROBLEM}{_OPTIONAL_PREFIX}"]
    name = parts[-1]
    if len(parts) == 2:
        prefix = dns_1123_subdomain(parts[0]) if parts[0] else ["must be non-empty"]
        problems += [f"prefix part {problem}" for problem in prefix]
    length = _too_long(name, 63) if name else ["must be non-empty"]
    problems += [f"name part {problem}" for problem in length]
    if not _KEY.fullmatch(name):
        problems.append(f"name part {_KEY_PROBLEM}")
    return problems


def label_value(text: str) -> list[str]:
    """Return why ``text`` is not a label value."""
    problems = _too_long(text, 63)
    if text and not _KEY.fullmatch(text):
        problems.append(_explain(_VALUE_RULE, f"({_KEY_FORMAT})?", "MyValue", "my_value", "12345"))
    return problems


def _too_long(text: str, limit: int, unit: str = "bytes") -> list[str]:
    return [f"must be no more than {limit} {unit}"] if len(text.encode("utf-8", "replace")) > limit else []
