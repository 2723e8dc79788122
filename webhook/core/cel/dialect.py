"""What Kubernetes refuses in an expression that is otherwise well typed, and what this engine must not be given.

The first kind are the validators of k8s.io/apiserver ``pkg/cel/environment/base.go``: literals of mixed types, durations,
timestamps and regular expressions that can never be valid. Nothing here changes an expression.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from webhook.core.cel import checked, engine, types
from webhook.core.cel.errors import CompileError, Issue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.core.cel.source import Source

_RELEVANT: Final = re.compile(r"[\[{]|duration|timestamp|matches|optional|\.\s*\?")
_LITERAL_CALLS: Final = {
    "duration": "duration(params)",
    "timestamp": "timestamp(params)",
    "matches": "''.matches(params)",
}


def validate(message: Any, source: Source) -> None:
    """Raise CompileError with every issue of the checked expression ``message``, in source order."""
    if not _RELEVANT.search(source.prepared):
        return
    table = {item.key: item.value for item in message.type_map}
    positions = {item.key: item.value for item in message.source_info.positions}
    found = sorted(
        (source.original(positions.get(identity, 0)), words)
        for node in checked.walk(message.expr)
        for identity, words in _issues(node, table)
    )
    if found:
        raise CompileError(tuple(Issue.at(source.text, offset, words) for offset, words in found))


def _issues(node: Any, table: dict[int, Any]) -> Iterator[tuple[int, str]]:
    kind = node.WhichOneof("kind")
    if kind == "call_expr":
        yield from _call(node, table)
    elif kind == "list_expr":
        elements = node.list_expr.elements
        optional = set(node.list_expr.optional_indices)
        yield from _uniform(
            (item.id, table.get(item.id), index in optional) for index, item in enumerate(elements)
        )
    elif kind == "struct_expr" and node.struct_expr.message_name:
        if not node.struct_expr.message_name.startswith("google.protobuf."):
            yield node.id, f"undeclared reference to '{node.struct_expr.message_name}' (in container '')"
    elif kind == "struct_expr":
        entries = node.struct_expr.entries
        yield from _uniform((item.map_key.id, table.get(item.map_key.id), False) for item in entries)
        yield from _uniform(
            (item.value.id, table.get(item.value.id), item.optional_entry) for item in entries
        )


def _uniform(elements: Iterator[tuple[int, Any, bool]]) -> Iterator[tuple[int, str]]:
    first: str | None = None
    for identity, type_, optional in elements:
        if type_ is None:
            continue
        words = types.describe(type_.abstract_type.parameter_types[0] if optional else type_)
        if first is None:
            first = words
        elif words != first:
            yield identity, f"expected type '{first}' but found '{words}'"
            return


def _call(node: Any, table: dict[int, Any]) -> Iterator[tuple[int, str]]:
    call = node.call_expr
    if call.function in _LITERAL_CALLS and call.args:
        literal = call.args[0]
        if literal.const_expr.WhichOneof("kind") == "string_value":
            if not _valid(call.function, literal.const_expr.string_value):
                yield literal.id, f"invalid {call.function} argument"
    elif call.function == "dyn" and call.args:
        type_ = table.get(call.args[0].id)
        if type_ is not None and _holds_optional(type_):
            yield node.id, "an optional must not become dynamic"


def _holds_optional(type_: Any) -> bool:
    return "optional_type" in types.describe(type_)


@cache
def _probe(function: str) -> Any:
    return engine.compile_source(engine.environment({"params": engine.STRING}), _LITERAL_CALLS[function])


def _valid(function: str, literal: str) -> bool:
    return engine.succeeds(_probe(function), {"params": literal})
