"""The ``format`` library: named formats, and why a string does not match one.

Follows k8s.io/apiserver ``pkg/cel/library/format.go`` and k8s.io/kube-openapi ``pkg/validation/strfmt``. The public
functions return optionals, which a Python callback cannot make, so they are rewritten to the two internal ones here,
whose empty results the engine turns into ``optional.none()``.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Self

from webhook.cel.libraries import k8s_names, opaque, url_parser
from webhook.cel.libraries.declarations import STRING, CelType, Overload, list_of, method, optional_of

if TYPE_CHECKING:
    from collections.abc import Callable

_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]++={0,2}")
_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIME: Final = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:.[0-9]+)?(?:z|[+-][0-9]{2}:[0-9]{2})")


def _prefix(check: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
    """Return ``check`` for the prefix of a name: a dash at its end is allowed."""
    return lambda text: check(text[:-2] + "a" if len(text.encode()) > 1 and text.endswith("-") else text)


def _valid(test: Callable[[str], bool], problem: str) -> Callable[[str], list[str]]:
    return lambda text: [] if test(text) else [problem]


def _uri(text: str) -> list[str]:
    try:
        url_parser.check_request_uri(text)
    except ValueError as error:
        return [str(error)]
    return []


def _is_base64(text: str) -> bool:
    return len(text) % 4 == 0 and _BASE64.fullmatch(text) is not None


def _is_date(text: str) -> bool:
    match = _DATE.fullmatch(text)
    if match is None:
        return False
    year, month, day = (int(part) for part in match.groups())
    # Go has a year 0, which Python's calendar lacks; 400 years later the calendar is the same.
    return 1 <= month <= 12 and 1 <= day <= monthrange(year or 400, month)[1]


def _is_datetime(text: str) -> bool:
    parts = text.lower().split("t")
    if len(parts) < 2 or not _is_date(parts[0]):
        return False
    match = _TIME.fullmatch(parts[1])
    return match is not None and match[1] <= "23" and match[2] <= "59" and match[3] <= "59"


_FORMATS: Final[dict[str, Callable[[str], list[str]]]] = {
    "dns1123Label": k8s_names.dns_1123_label,
    "dns1123Subdomain": k8s_names.dns_1123_subdomain,
    "dns1035Label": k8s_names.dns_1035_label,
    "qualifiedName": k8s_names.label_key,
    "dns1123LabelPrefix": _prefix(k8s_names.dns_1123_label),
    "dns1123SubdomainPrefix": _prefix(k8s_names.dns_1123_subdomain),
    "dns1035LabelPrefix": _prefix(k8s_names.dns_1035_label),
    "labelValue": k8s_names.label_value,
    "uri": _uri,
    "uuid": _valid(lambda text: _UUID.fullmatch(text) is not None, "does not match the UUID format"),
    "byte": _valid(_is_base64, "invalid base64"),
    "date": _valid(_is_date, "invalid date"),
    "datetime": _valid(_is_datetime, "invalid datetime"),
}


@dataclass(frozen=True, slots=True)
class Format:
    """A format by its name; the empty name stands for a format that does not exist."""

    TYPE: ClassVar[str] = opaque.FORMAT

    name: str

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`."""
        return (self.name,) if self.name else ()

    @classmethod
    def of(cls, name: str) -> Self:
        """See `opaque.Opaque`."""
        if name not in _FORMATS:
            raise ValueError("unknown format")
        return cls(name)

    def problems(self, text: str) -> list[str]:
        """Return why ``text`` does not match this format, in the API server's words."""
        return _FORMATS[self.name](text)


def _named(name: str) -> Format:
    return Format(name if name in _FORMATS else "")


def _constant(name: str) -> Overload:
    return Overload(f"format.{name}", f"format.{name}", (), _FORMAT, lambda: Format(name))


_FORMAT: Final = CelType(opaque.FORMAT)
NAMED: Final = Overload("@format.named", "@format_named", (STRING,), _FORMAT, _named)
PROBLEMS: Final = method(
    "@format.problems", "@format_problems", (_FORMAT, STRING), list_of(STRING), Format.problems
)

OVERLOADS: Final = (
    *(_constant(name) for name in _FORMATS),
    Overload("format.named", "format-named", (STRING,), optional_of(_FORMAT)),
    method("validate", "format-validate", (_FORMAT, STRING), optional_of(list_of(STRING))),
)
