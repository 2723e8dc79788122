"""The ``regex`` library: ``find`` and ``findAll``, on the RE2 engine.

Go's ``regexp`` and RE2 share syntax and leftmost-first matching, and neither backtracks, so no pattern or text can make
a match take exponential time. What differs is smoothed over here: the words of errors, ``\\C``, and which empty matches
count. Text is matched as UTF-8 bytes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import re2  # type: ignore[import-untyped]

from webhook.cel.libraries.declarations import INT, STRING, list_of, method

# More results than an expression can process.
_MOST_MATCHES: Final = 10_000
_CACHED_LENGTH: Final = 1024
_WORDS: Final = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "trailing \\": "trailing backslash at end of expression",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid repetition size": "invalid repeat count",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
    "pattern too large - compile failed": "expression too large",
}


def check(pattern: str) -> None:
    """Raise ValueError, in the words of Go's ``regexp.Compile``, unless ``pattern`` is a regular expression."""
    if len(pattern) <= _CACHED_LENGTH:
        _compiled(pattern)
    else:
        _compile(pattern)


def _compile(pattern: str) -> Any:
    if _matches_single_bytes(pattern):
        raise ValueError("error parsing regexp: invalid escape sequence: `\\C`")
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"error parsing regexp: {_reason(error, pattern)}") from None


_compiled = lru_cache(maxsize=256)(_compile)


def _reason(error: Exception, pattern: str) -> str:
    raw = error.args[0] if error.args else b""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    for words, ours in _WORDS.items():
        if text.startswith(words):
            rest = text[len(words) :].removeprefix(":").removeprefix(" ")
            return _argument(ours, rest, pattern)
    words, colon, rest = text.partition(": ")
    return _argument(words, rest if colon else "", pattern)


def _argument(words: str, argument: str, pattern: str) -> str:
    if words.startswith("trailing"):
        return f"{words}: ``"
    if words == "invalid repeat count":
        argument = argument.removesuffix("?")
    return f"{words}: `{argument or pattern}`"


def _matches_single_bytes(pattern: str) -> bool:
    r"""Return whether ``pattern`` uses ``\C``, which RE2 supports and Go does not."""
    at = pattern.find("\\C")
    while at >= 0:
        before = pattern[:at]
        if (len(before) - len(before.rstrip("\\"))) % 2 == 0 and not _is_quoted(before):
            return True
        at = pattern.find("\\C", at + 2)
    return False


def _is_quoted(before: str) -> bool:
    return before.rfind("\\Q") > before.rfind("\\E")


def _pattern(pattern: str) -> Any:
    try:
        return _compiled(pattern) if len(pattern) <= _CACHED_LENGTH else _compile(pattern)
    except ValueError as error:
        raise ValueError(f"Illegal regex: {error}") from None


def find(text: str, pattern: str) -> str:
    """Return the first match of ``pattern``, or the empty string; raises ValueError for an illegal pattern."""
    match = _pattern(pattern).search(text.encode())
    return str(match.group().decode()) if match else ""


def find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    """Return the matches of ``pattern``, at most ``limit`` of them unless that is negative.

    As in Go an empty match counts unless it touches the match before it. Raises ValueError for an illegal pattern
    and for more than 10,000 matches.
    """
    search = _pattern(pattern).search
    raw = text.encode()
    matches: list[str] = []
    position, previous_end = 0, -1
    while (limit < 0 or len(matches) < limit) and position <= len(raw):
        match = search(raw, position)
        if match is None:
            break
        start, end = match.span()
        if _is_inside_character(raw, start):
            # `\B` matches between the bytes of one character, which Go never sees.
            position = start + 1
            continue
        if end > position or start != previous_end:
            if len(matches) == _MOST_MATCHES:
                raise ValueError(f"findAll returned more than {_MOST_MATCHES} matches")
            matches.append(raw[start:end].decode())
        position = end if end > position else position + _width(raw, position)
        previous_end = end
    return matches


def _width(raw: bytes, position: int) -> int:
    """Return how many bytes the character at ``position`` has; 1 at the end."""
    following = position + 1
    while _is_inside_character(raw, following):
        following += 1
    return following - position


def _is_inside_character(raw: bytes, position: int) -> bool:
    return position < len(raw) and raw[position] & 0xC0 == 0x80


OVERLOADS: Final = (
    method("find", "string_find_string", (STRING, STRING), STRING, find),
    method("findAll", "string_find_all_string", (STRING, STRING), list_of(STRING), find_all),
    method("findAll", "string_find_all_string_int", (STRING, STRING, INT), list_of(STRING), find_all),
)
