"""The ``semver`` library: semantic versions, strict or normalized first.

Follows github.com/blang/semver/v4 and k8s.io/apiserver ``pkg/cel/library/semverlib.go``. Build metadata is checked and
then dropped, since no function distinguishes two builds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Final, Self

from webhook.cel.libraries import opaque
from webhook.cel.libraries.declarations import BOOL, INT, STRING, CelType, Overload, method
from webhook.cel.libraries.quoting import quote

_UINT64_MAX: Final = 2**64 - 1
_NUMBER: Final = re.compile(r"[0-9]*")
_IDENTIFIER: Final = re.compile(r"[0-9A-Za-z-]*")
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True)
class Semver:
    """A version. ``prerelease`` contains ints and strings; ints sort first, as the standard requires."""

    TYPE: ClassVar[str] = opaque.SEMVER

    major: int
    minor: int
    patch: int
    prerelease: tuple[int | str, ...] = ()

    def parts(self) -> tuple[str, ...]:
        """See `opaque.Opaque`."""
        return str(self.major), str(self.minor), str(self.patch), *map(str, self.prerelease)

    @classmethod
    def of(cls, major: str, minor: str, patch: str, *prerelease: str) -> Self:
        """See `opaque.Opaque`."""
        identifiers = tuple(int(text) if _is_number(text) else text for text in prerelease)
        return cls(int(major), int(minor), int(patch), identifiers)

    def compare(self, other: Semver) -> int:
        """Return -1, 0 or 1 by the precedence of semver.org, section 11."""
        mine, theirs = self._precedence(), other._precedence()
        return (mine > theirs) - (mine < theirs)

    def _precedence(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        identifiers = tuple(
            (False, item, "") if isinstance(item, int) else (True, 0, item) for item in self.prerelease
        )
        return self.major, self.minor, self.patch, not identifiers, identifiers


@lru_cache(maxsize=1024)
def parse(text: str) -> Semver:
    """Return the version ``text`` denotes; raises ValueError with the words of blang/semver."""
    if not text:
        raise ValueError("Version string empty")
    if len(text) > _LONGEST:
        raise ValueError("Version string too long")
    parts = text.split(".", 2)
    if len(parts) != 3:
        raise ValueError("No Major.Minor.Patch elements found")
    rest, plus, build = parts[2].partition("+")
    patch, dash, prerelease = rest.partition("-")
    version = Semver(
        _component(parts[0], "Major"),
        _component(parts[1], "Minor"),
        _component(patch, "Patch"),
        tuple(_identifier(item) for item in prerelease.split(".")) if dash else (),
    )
    for item in build.split(".") if plus else ():
        if not item:
            raise ValueError("Build meta data is empty")
        if not _IDENTIFIER.fullmatch(item):
            raise ValueError(f"Invalid character(s) found in build meta data {quote(item)}")
    return version


def normalized(text: str, normalize: bool) -> Semver:
    """Parse ``text``, when ``normalize`` without "v" and leading zeros and with missing components taken as 0."""
    if not normalize:
        return parse(text)
    parts = [_without_zeros(part) for part in text.removeprefix("v").split(".", 2)]
    if len(parts) < 3:
        if "+" in parts[-1] or "-" in parts[-1]:
            raise ValueError("short version cannot contain PreRelease/Build meta data")
        parts += ["0"] * (3 - len(parts))
    return parse(".".join(parts))


def _without_zeros(part: str) -> str:
    if len(part) < 2:
        return part
    stripped = part.lstrip("0")
    return stripped if stripped and stripped[0] in "0123456789" else "0" + stripped


def _component(text: str, name: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"Invalid character(s) found in {name.lower()} number {quote(text)}")
    if len(text) > 1 and text[0] == "0":
        raise ValueError(f"{name} number must not contain leading zeroes {quote(text)}")
    return _uint64(text)


def _identifier(text: str) -> int | str:
    if not text:
        raise ValueError("Prerelease is empty")
    if _is_number(text):
        if len(text) > 1 and text[0] == "0":
            raise ValueError(f"Numeric PreRelease version must not contain leading zeroes {quote(text)}")
        return _uint64(text)
    if not _IDENTIFIER.fullmatch(text):
        raise ValueError(f"Invalid character(s) found in prerelease {quote(text)}")
    return text


def _is_number(text: str) -> bool:
    return bool(text) and _NUMBER.fullmatch(text) is not None


def _uint64(text: str) -> int:
    if not text:
        raise ValueError('strconv.ParseUint: parsing "": invalid syntax')
    if len(text) > 20 or int(text) > _UINT64_MAX:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return int(text)


def _is_semver(text: str, normalize: bool = False) -> bool:
    try:
        normalized(text, normalize)
    except ValueError:
        return False
    return True


def _int64(number: int) -> int:
    """Return ``number`` as the API server converts a uint64 to a CEL int: the upper half turns negative."""
    return number - 2**64 if number > 2**63 - 1 else number


_SEMVER: Final = CelType(opaque.SEMVER)
_TWO: Final = (_SEMVER, _SEMVER)

OVERLOADS: Final = (
    Overload("semver", "string_to_semver", (STRING,), _SEMVER, parse),
    Overload("semver", "string_bool_to_semver", (STRING, BOOL), _SEMVER, normalized),
    Overload("isSemver", "is_semver_string", (STRING,), BOOL, _is_semver),
    Overload("isSemver", "is_semver_string_bool", (STRING, BOOL), BOOL, _is_semver),
    method("isGreaterThan", "semver_is_greater_than", _TWO, BOOL, lambda it, other: it.compare(other) == 1),
    method("isLessThan", "semver_is_less_than", _TWO, BOOL, lambda it, other: it.compare(other) == -1),
    method("compareTo", "semver_compare_to", _TWO, INT, Semver.compare),
    method("major", "semver_major", (_SEMVER,), INT, lambda it: _int64(it.major)),
    method("minor", "semver_minor", (_SEMVER,), INT, lambda it: _int64(it.minor)),
    method("patch", "semver_patch", (_SEMVER,), INT, lambda it: _int64(it.patch)),
)
