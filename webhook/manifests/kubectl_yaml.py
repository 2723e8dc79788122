"""YAML as kubectl reads it, from text to plain values.

kubectl parses with sigs.k8s.io/yaml, a fork of go-yaml v2. YAML 1.1 words (``yes``, ``on``, ``y``) are booleans, and
numbers follow Go's syntax. ``=`` and times stay text, unknown tags are ignored, keys become strings, and ``<<`` merges
in document order. A parser with other rules would evaluate another object than the cluster stores. Source of the rules:
sigs.k8s.io/yaml, goyaml.v2/resolve.go and decode.go, yaml.go (convertToJSONableObject).

Worked example: ``{on: 0o17, 1: &a {x: 1}, z: {<<: *a, =: !t v}}`` is
``{"true": 15, "1": {"x": 1}, "z": {"x": 1, "=": "v"}}``.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PREFIX = "tag:yaml.org,2002:"
_PLAIN = "plain"
_STR, _BINARY = f"{_PREFIX}str", f"{_PREFIX}binary"
_RESOLVED = frozenset(
    {_PLAIN, *(f"{_PREFIX}{name}" for name in ("bool", "float", "int", "null", "timestamp"))}
)
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_NUMERIC = frozenset("+-.0123456789")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
# strconv.ParseInt with base 0.
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_LEAST, _MOST = -(2**63), 2**64 - 1
_MAX_DIGITS = 64
# strconv writes larger exponents out.
_EXPONENT_FROM = 6


class YamlError(ValueError):
    """Text that is not YAML, or YAML that has no JSON form. ``line`` counts from 0."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes nodes only; scalars without a tag are marked as plain or as text."""

    def resolve(self, kind: Any, _value: Any, implicit: Any) -> str:
        """Return a marker instead of a type: `_scalar` applies Go's rules."""
        return _PLAIN if kind is yaml.ScalarNode and implicit[0] else _STR


def parse(text: str) -> Iterator[tuple[Any, int, tuple[str, ...]]]:
    """Yield the value, the first line (from 0) and the repeated keys of each document in a text. Raises `YamlError`."""
    with _composing(text) as loader:
        while loader.check_node():
            node = loader.get_node()
            builder = _Builder()
            yield builder.value(node), node.start_mark.line, tuple(builder.repeated)


@contextmanager
def _composing(text: str) -> Iterator[Any]:
    """A composer of a text. Raises `YamlError` for each fault of the text."""
    loader = _Loader(text)
    try:
        _check_depth(text)
        yield loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(mark.line if mark is not None else 0, error.problem or str(error)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) if isinstance(error.position, int) else 0
        raise YamlError(line, error.reason) from None
    except yaml.YAMLError as error:
        raise YamlError(0, " ".join(str(error).split())) from None
    except RecursionError:
        raise YamlError(0, "the document is nested too deep") from None
    finally:
        loader.dispose()


def field_lines(text: str, index: int, steps: Sequence[str | int]) -> list[int]:
    """Return the lines (from 0) of one document of a text and of each field on a path, as far as the path exists.

    It is empty where the text has no such document.
    """
    nodes = _nodes(text)
    if index >= len(nodes):
        return []
    node = nodes[index]
    lines = [node.start_mark.line]
    try:
        for step in steps:
            member = _item(node, step) if isinstance(step, int) else _field(node, step, set())
            if member is None:
                break
            node, line = member
            lines.append(line)
    except (YamlError, RecursionError):
        pass
    return lines


# The findings of one file follow one another.
@lru_cache(maxsize=1)
def _nodes(text: str) -> list[Any]:
    """The nodes of the documents of a text, up to the first fault."""
    nodes: list[Any] = []
    try:
        with _composing(text) as loader:
            while loader.check_node():
                nodes.append(loader.get_node())
    except YamlError:
        pass
    return nodes


def _item(node: Any, step: int) -> tuple[Any, int] | None:
    """An item of a sequence and its line."""
    if type(node) is not yaml.SequenceNode or step >= len(node.value):
        return None
    return node.value[step], node.value[step].start_mark.line


def _field(node: Any, key: str, visited: set[int]) -> tuple[Any, int] | None:
    """The value of a key and the line of the key; a key that is written later replaces an earlier or merged one."""
    if type(node) is not yaml.MappingNode or id(node) in visited:
        return None
    visited.add(id(node))
    for key_node, value_node in reversed(node.value):
        if _is_merge(key_node):
            sources = value_node.value if type(value_node) is yaml.SequenceNode else (value_node,)
            merged = (_field(source, key, visited) for source in sources)
            match = next((item for item in merged if item is not None), None)
            if match is not None:
                return match
        elif _key(key_node) == key:
            return value_node, key_node.start_mark.line
    return None


def _check_depth(text: str) -> None:
    """Raise `YamlError` for a text whose nesting exhausts the stack of libyaml's composer (PyYAML 6.0)."""
    if text.count("[") + text.count("{") < _MAY_BE_DEEP and _DEEP_LINE.search(text) is None:
        return
    events, depth = _Loader(text), 0
    try:
        while events.check_event():
            event = events.get_event()
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise YamlError(event.start_mark.line, "the document is nested too deep")
    finally:
        events.dispose()


_MAY_BE_DEEP = 10_000
_DEEP_LINE = re.compile(r"(?:[-?][ \t]+){1000}")
_MAX_DEPTH = 1_000


class _Builder:
    """Builds the values of one document. An alias shares the value of its anchor."""

    def __init__(self) -> None:
        self.repeated: list[str] = []
        self._values: dict[int, Any] = {}
        self._open: set[int] = set()

    def value(self, node: Any) -> Any:
        """The value of a node. Raises `YamlError`."""
        if type(node) is yaml.ScalarNode:
            return _scalar(node)
        key = id(node)
        if key in self._values:
            return self._values[key]
        if key in self._open:
            raise YamlError(node.start_mark.line, "an alias refers to itself")
        self._open.add(key)
        if type(node) is yaml.SequenceNode:
            result: Any = [self.value(item) for item in node.value]
        else:
            result = {}
            self._fill(result, node)
        self._open.discard(key)
        self._values[key] = result
        return result

    def _fill(self, target: dict[str, Any], node: Any) -> None:
        """Set the members in document order, merges included, as go-yaml v2 does."""
        own: set[str] = set()
        for key_node, value_node in node.value:
            if _is_merge(key_node):
                self._merge(target, value_node)
                continue
            key = _key(key_node)
            if key in own:
                self.repeated.append(f"line {key_node.start_mark.line + 1}: key {key!r:.80}")
            own.add(key)
            target[key] = self.value(value_node)

    def _merge(self, target: dict[str, Any], node: Any) -> None:
        sources = reversed(node.value) if type(node) is yaml.SequenceNode else (node,)
        for source in sources:
            if type(source) is not yaml.MappingNode:
                raise YamlError(node.start_mark.line, "a merge key needs a map, or a list of maps")
            target.update(self.value(source))


def _is_merge(node: Any) -> bool:
    return type(node) is yaml.ScalarNode and node.value == "<<" and node.tag in (_PLAIN, f"{_PREFIX}merge")


def _key(node: Any) -> str:
    """A key as text, in the spelling of sigs.k8s.io/yaml."""
    if type(node) is not yaml.ScalarNode:
        raise YamlError(node.start_mark.line, "a key must not be a list or a map")
    value = _resolved(node.value) if node.tag in _RESOLVED else _scalar(node)
    if type(value) is str:
        return value
    if value is None:
        raise YamlError(node.start_mark.line, "a key must not be null")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _short_float(value)


def _short_float(value: float) -> str:
    """A float as strconv.FormatFloat writes it with format 'g', the shortest precision and 32 bits."""
    try:
        single: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        single = math.copysign(math.inf, value)
    if not math.isfinite(single):
        return ".nan" if math.isnan(single) else ".inf" if single > 0 else "-.inf"
    for digits in range(9):
        text = f"{single:.{digits}e}"
        if struct.unpack("f", struct.pack("f", float(text)))[0] == single:
            break
    exponent = int(text.partition("e")[2])
    return f"{float(text):.{max(digits - exponent, 0)}f}" if -4 <= exponent < _EXPONENT_FROM else text


def _scalar(node: Any) -> Any:
    tag, text = node.tag, node.value
    if tag == _STR:
        return text
    if tag == _BINARY:
        try:
            return base64.b64decode("".join(text.split()), validate=True).decode(errors="replace")
        except (binascii.Error, ValueError):
            raise YamlError(node.start_mark.line, "!!binary needs base64") from None
    if tag not in _RESOLVED:
        # go-yaml ignores tags that it does not know.
        return text
    value = _resolved(text)
    if tag == f"{_PREFIX}float" and type(value) is int:
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            return value
        # encoding/json writes whole numbers without a fraction, and the API server reads them as integers.
        return int(value) if value.is_integer() and _LEAST <= value < _MOST else value
    return value


# Manifests repeat their keys and words.
@lru_cache(maxsize=4096)
def _resolved(text: str) -> Any:
    """A plain scalar by the rules of go-yaml v2; base 60 numbers and times stay text."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return text
    digits = text.replace("_", "") if text[0] != "." else text
    if len(digits) <= _MAX_DIGITS:
        match = _INTEGER.fullmatch(digits)
        if match is not None:
            number = _integer(match)
            if _LEAST <= number <= _MOST:
                return number
    if _FLOAT.fullmatch(digits) is not None:
        value = float(digits)
        return value if math.isfinite(value) else text
    return text


def _integer(match: re.Match[str]) -> int:
    sign, hexadecimal, binary, octal, decimal = match.groups()
    for digits, base in ((decimal, 10), (hexadecimal, 16), (binary, 2), (octal, 8)):
        if digits is not None:
            return int(digits, base) * (-1 if sign == "-" else 1)
    raise AssertionError(match)
