"""Reject expressions that are well typed but invalid in Kubernetes or unsafe for this engine.

The first kind are the validators of k8s.io/apiserver ``pkg/cel/environment/base.go`` and of cel-go's strings library:
literals of mixed types, durations, timestamps, regular expressions and format strings that can never be valid.
Nothing here changes an expression.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from webhook.cel import engine, types
from webhook.cel.ast import checked
from webhook.cel.ast.rewrite import CLAUSE
from webhook.cel.errors import CompileError, EvaluationError, Issue

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.cel.source import Source

# A bracket after a name, a bracket or a quote is an index; every other begins a literal.
_RELEVANT: Final = re.compile(
    r"""\{|^\s*\[|\bin\s*\[|[^\s\w\])"'?]\s*\[|duration|timestamp|matches|format|optional|\?"""
)
_PROBES: Final = {
    "duration": "duration(params)",
    "timestamp": "timestamp(params)",
    "matches": "''.matches(params)",
}
_LONGEST: Final = timedelta(microseconds=2**63 // 1000)
# What the engine itself does with lists and maps of optionals is sound.
_OPTIONALS_ALLOWED: Final = frozenset(
    {
        "_==_",
        "_!=_",
        "_+_",
        "_[_]",
        "_[?_]",
        "_?._",
        "_?_:_",
        "@in",
        "size",
        "type",
        "optional.of",
        "optional.unwrap",
        "orValue",
        "or",
    }
)
# clause -> what it takes, and how cel-go complains (ext/formatting.go)
_CLAUSES: Final = {
    "s": (
        {
            "string",
            "bool",
            "bytes",
            "int",
            "uint",
            "double",
            "map",
            "list",
            "type",
            "null_type",
            *types.TIMES,
        },
        (
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, "
            "and timestamps"
        ),
    ),
    "d": ({"int", "uint"}, "decimal clause can only be used on integers"),
    "f": ({"double", "string"}, "fixed-point clause can only be used on doubles"),
    "e": ({"double", "string"}, "scientific clause can only be used on doubles"),
    "b": ({"int", "uint", "bool"}, "only integers and bools can be formatted as binary"),
    "x": (
        {"int", "uint", "string", "bytes"},
        "only integers, byte buffers, and strings can be formatted as hex",
    ),
    "X": (
        {"int", "uint", "string", "bytes"},
        "only integers, byte buffers, and strings can be formatted as hex",
    ),
    "o": ({"int", "uint"}, "octal clause can only be used on integers"),
}


def validate(message: Any, source: Source) -> None:
    """Raise CompileError with every issue of the checked expression ``message``, in source order."""
    if not _RELEVANT.search(source.prepared):
        return
    validator = _Validator(message)
    validator.visit(message.expr, in_format=False)
    reject(message, source, validator.issues)


def reject(message: Any, source: Source, issues: Iterable[tuple[int, str]]) -> None:
    """Raise CompileError where there are ``issues``: pairs of a node of ``message`` and what is wrong with it."""
    places = message.source_info.positions
    issues_in_order = sorted((source.original(places.get(node, 0)), words) for node, words in issues)
    if issues_in_order:
        raise CompileError(tuple(Issue.at(source.text, offset, words) for offset, words in issues_in_order))


class _Validator:
    def __init__(self, message: Any) -> None:
        self._message = message
        self.issues: list[tuple[int, str]] = []

    def visit(self, root: Any, *, in_format: bool) -> None:
        pending = [(root, in_format)]
        while pending:
            node, in_format = pending.pop()
            kind = node.WhichOneof("kind")
            if kind == "call_expr":
                self.issues += self._call(node)
                in_format = in_format or node.call_expr.function == "format"
            elif kind == "struct_expr" and node.struct_expr.message_name:
                self.issues += _message(node)
            elif not in_format and kind == "list_expr":
                optional = set(node.list_expr.optional_indices)
                self._uniform((item, index in optional) for index, item in enumerate(node.list_expr.elements))
            elif not in_format and kind == "struct_expr":
                entries = node.struct_expr.entries
                self._uniform((item.map_key, False) for item in entries)
                self._uniform((item.value, item.optional_entry) for item in entries)
            pending.extend((child, in_format) for child in checked.children(node))

    def _type(self, node: Any) -> str:
        return types.describe(checked.type_of(self._message, node))

    def _uniform(self, elements: Iterable[tuple[Any, bool]]) -> None:
        first: str | None = None
        for node, optional in elements:
            words = self._type(node)
            if optional:
                words = words.removeprefix("optional_type(").removesuffix(")")
            if first is None:
                first = words
            elif words != first:
                self.issues.append((node.id, f"expected type '{first}' but found '{words}'"))
                return

    def _call(self, node: Any) -> Iterator[tuple[int, str]]:
        call = node.call_expr
        if call.function in _PROBES and call.args:
            constant = call.args[0].const_expr
            text = call.function != "timestamp" or constant.WhichOneof("kind") == "string_value"
            literal = constant.string_value if text else constant.int64_value
            if constant.WhichOneof("kind") and not _valid(call.function, literal):
                yield call.args[0].id, f"invalid {call.function} argument"
        elif call.function == "format" and _text(call.target) is not None:
            yield from self._format(node, call.target.const_expr.string_value)
        if call.function not in _OPTIONALS_ALLOWED:
            # An optional that the checker has lost sight of may reach a Python function, and cel-expr-python 0.1.3
            # crashes when it converts one inside a list or map.
            for argument in call.args:
                if _hides_optional(self._type(argument), call.function):
                    yield argument.id, f"{call.function}() cannot take an optional inside another value"

    def _format(self, node: Any, template: str) -> Iterator[tuple[int, str]]:
        if not node.call_expr.args or node.call_expr.args[0].WhichOneof("kind") != "list_expr":
            return
        arguments = node.call_expr.args[0].list_expr.elements
        clauses = [match[1] for match in CLAUSE.finditer(template) if match[0] != "%%"]
        for index, clause in enumerate(clauses):
            if clause not in _CLAUSES:
                yield node.id, f'could not parse formatting clause: unrecognized formatting clause "{clause}"'
                return
            if index >= len(arguments):
                yield node.id, f"index {index} out of range"
                return
            allowed_types, complaint = _CLAUSES[clause]
            actual = self._type(arguments[index])
            if actual != "dyn" and actual.partition("(")[0] not in allowed_types:
                yield arguments[index].id, f"error during formatting: {complaint}, was given {actual}"
        if len(arguments) > len(clauses):
            expected = f"expected {len(clauses)}, got {len(arguments)}"
            yield node.id, f"too many arguments supplied to string.format ({expected})"


def _message(node: Any) -> Iterator[tuple[int, str]]:
    name = node.struct_expr.message_name
    if not name.startswith("google.protobuf."):
        yield node.id, f"undeclared reference to '{name}' (in container '')"


def _hides_optional(words: str, function: str) -> bool:
    return (
        "optional_type" in words
        if function == "dyn"
        else "(optional_type" in words or " optional_type" in words
    )


def _text(node: Any) -> str | None:
    constant = node.const_expr
    return constant.string_value if constant.WhichOneof("kind") == "string_value" else None


@lru_cache(4096)
def _valid(function: str, literal: str | int) -> bool:
    try:
        value = engine.evaluate(_PROBES[function], literal)
    except EvaluationError:
        return False
    # Go stores a duration in 64 bits of nanoseconds.
    return not isinstance(value, timedelta) or abs(value) < _LONGEST
