"""Match one event with the detection items of a Sigma rule: fields, values and modifiers.

Sigma compares text without case, and ``*`` and ``?`` are wildcards (Sigma rules specification 2.1, "Value Modifiers").
A field that is a list matches if any of its items does. A field that is absent matches only ``null``.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import re2  # type: ignore[import-untyped]  # it has no types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Event = Mapping[str, Any]
    Predicate = Callable[[Event], bool]
    Test = Callable[[Any], bool]

MAX_PATTERN = 1024
MAX_ITEMS = 256
_SPECIAL = re.compile(r"\\[\\*?]|[*?]")


class RuleError(ValueError):
    """The rule cannot be evaluated. The message is one line."""


def reader(path: str) -> Callable[[Event], list[Any]]:
    """Return a function that reads a dotted path, such as ``data.pod.node``. Lists are flattened."""
    parts = tuple(path.split("."))
    if not all(parts):
        raise RuleError(f"invalid field {path!r:.80}")

    def read(event: Event) -> list[Any]:
        value: Any = event
        for position, part in enumerate(parts):
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list):
                return _read_each(value, parts[position:])
            else:
                return []
            if value is None:
                return []
        return value if isinstance(value, list) else [value]

    return read


def _read_each(items: list[Any], rest: Sequence[str]) -> list[Any]:
    values: list[Any] = items
    for part in rest:
        values = [item[part] for item in values if isinstance(item, dict) and item.get(part) is not None]
    return [inner for item in values for inner in (item if isinstance(item, list) else [item])]


def text_of(value: Any) -> str:
    """Return a value as text, as Sigma compares it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


def item(key: str, value: Any) -> Predicate:
    """Compile one ``field|modifiers: value`` of a selection.

    Raises:
        RuleError: a modifier or a value is not supported.
    """
    field, *modifiers = key.split("|")
    values = value if isinstance(value, list) else [value]
    if len(values) > MAX_ITEMS:
        raise RuleError(f"{key}: more than {MAX_ITEMS} values")
    match_all = "all" in modifiers
    modifiers = [name for name in modifiers if name != "all"]
    read = reader(field)
    if modifiers == ["exists"]:
        return _exists(read, values)
    if modifiers == ["fieldref"]:
        return _same_as(read, [reader(str(each)) for each in values])
    tests = [_test(key, modifiers, each) for each in values]
    wants_null = any(each is None for each in values)
    if match_all:
        return lambda event: all(any(map(test, read(event))) for test in tests)
    if len(tests) == 1 and not wants_null:
        only = tests[0]
        return lambda event: any(map(only, read(event)))

    def matches(event: Event) -> bool:
        present = read(event)
        if not present:
            return wants_null
        return any(test(each) for each in present for test in tests)

    return matches


def keywords(values: Iterable[Any]) -> Predicate:
    """Compile a list of keywords: any of them occurs in any text of the event."""
    tests = [_text_test(f"*{value}*", cased=False) for value in values]

    def matches(event: Event) -> bool:
        return any(test(text) for text in _texts(event) for test in tests)

    return matches


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _exists(read: Callable[[Event], list[Any]], values: list[Any]) -> Predicate:
    if values not in ([True], [False]):
        raise RuleError("exists needs true or false")
    expected = values[0]
    return lambda event: bool(read(event)) is expected


def _same_as(read: Callable[[Event], list[Any]], others: Sequence[Callable[[Event], list[Any]]]) -> Predicate:
    def matches(event: Event) -> bool:
        mine = {text_of(each).casefold() for each in read(event)}
        return any(text_of(each).casefold() in mine for other in others for each in other(event))

    return matches


def _test(key: str, modifiers: Sequence[str], value: Any) -> Test:
    cased = "cased" in modifiers
    rest = [name for name in modifiers if name != "cased"]
    if value is None:
        return lambda each: each is None
    if isinstance(value, dict | list | tuple | set):
        raise RuleError(f"{key:.80}: a value is not a scalar")
    if not rest:
        return _equal(value, cased=cased)
    name = rest[0]
    if name in _COMPARISONS:
        return _comparison(key, name, value)
    if name in _FRAMES and len(rest) == 1:
        before, after = _FRAMES[name]
        return _text_test(f"{before}{text_of(value)}{after}", cased=cased)
    if name == "re":
        return _expression(key, rest[1:], text_of(value))
    if name == "cidr" and len(rest) == 1:
        return _network(key, text_of(value))
    raise RuleError(f"{key}: modifier {name!r} is not supported")


_FRAMES = {"contains": ("*", "*"), "startswith": ("", "*"), "endswith": ("*", "")}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
}


def _equal(value: Any, *, cased: bool) -> Test:
    if isinstance(value, bool):
        return lambda each: each is value
    if isinstance(value, int | float):
        text = str(value)
        return lambda each: (each == value and not isinstance(each, bool)) or each == text
    return _text_test(text_of(value), cased=cased)


def _comparison(key: str, name: str, value: Any) -> Test:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RuleError(f"{key}: {name} needs a number")
    compare = _COMPARISONS[name]

    def test(each: Any) -> bool:
        return isinstance(each, int | float) and not isinstance(each, bool) and compare(each, value)

    return test


def _text_test(pattern: str, *, cased: bool) -> Test:
    if len(pattern) > MAX_PATTERN:
        raise RuleError(f"a value is longer than {MAX_PATTERN} characters")
    if not re.search(r"[*?]", pattern.replace("\\*", "").replace("\\?", "")):
        plain = _SPECIAL.sub(lambda match: match[0][-1], pattern)
        if cased:
            return lambda each: text_of(each) == plain
        folded = plain.casefold()
        return lambda each: each == plain or text_of(each).casefold() == folded
    expression = compile_linear(_wildcards(pattern), ignore_case=not cased)
    return lambda each: expression.fullmatch(text_of(each)) is not None


def _wildcards(pattern: str) -> str:
    parts, position = [], 0
    for match in _SPECIAL.finditer(pattern):
        parts.append(re2.escape(pattern[position : match.start()]))
        parts.append({"*": "(?s:.*)", "?": "(?s:.)"}.get(match[0]) or re2.escape(match[0][-1]))
        position = match.end()
    return "".join((*parts, str(re2.escape(pattern[position:]))))


def compile_linear(pattern: str, *, ignore_case: bool = False) -> Any:
    """Compile a regular expression that takes linear time. Raises `RuleError`."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeError) as error:
        raise RuleError(f"invalid pattern {pattern!r:.80}: {error}") from None


def _expression(key: str, flags: Sequence[str], pattern: str) -> Test:
    if not set(flags) <= {"i", "m", "s"}:
        raise RuleError(f"{key}: the flags {', '.join(flags)} are not supported")
    if len(pattern) > MAX_PATTERN:
        raise RuleError(f"{key}: the pattern is longer than {MAX_PATTERN} characters")
    prefix = "".join(flag for flag in flags if flag != "i")
    compiled = compile_linear(f"(?{prefix}){pattern}" if prefix else pattern, ignore_case="i" in flags)
    return lambda each: compiled.search(text_of(each)) is not None


def _network(key: str, value: str) -> Test:
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise RuleError(f"{key}: {value!r:.80} is not a network") from None

    def test(each: Any) -> bool:
        try:
            return ip_address(text_of(each)) in network
        except ValueError:
            return False

    return test
