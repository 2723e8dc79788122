"""Rewrites of a checked expression to the semantics of cel-go, where cel-expr-python 0.1.3 differs.

- ``has(x.f)`` is false in cel-go where x is not a map (``refQualify`` in interpreter/attributes.go), an error here.
- A field or element of an optional (``x.?f``, ``x.?f.g``, ``x.?f[i]``) is none in cel-go where the inner value
  cannot have it, and an error here; an element beyond the end is even taken to be present.
- ``string.format`` writes lists, maps and doubles in another way; those are put into words by a Python function.
- The bindings inside ``optMap``, ``optFlatMap`` and ``sortBy`` are evaluated at once: see `checked.make_eager`.
- ``transformMap`` and ``transformMapEntry`` have no run-time function here: the entries are collected in a list,
  and one Python function makes the map of them.
"""

from __future__ import annotations

import re
from itertools import count
from typing import Any, Final

from webhook.cel import types
from webhook.cel.ast import checked

FORMATTED: Final = "@formatted"
MAP_OF_PAIRS: Final = "@mapOfPairs"
MAP_OF_MAPS: Final = "@mapOfMaps"
_RELEVANT: Final = re.compile(r"\bhas\b|\?|opt|sortBy|transformMap|format")
_INSERT: Final = "cel.@mapInsert"
_OPTIONAL: Final = "optional_type"
_OPTIONAL_SELECT: Final = "_?._"
_OPTIONAL_INDEX: Final = "_[?_]"
_ACCESSES: Final = frozenset({_OPTIONAL_SELECT, _OPTIONAL_INDEX, "_[_]"})
_NONE: Final = checked.call("optional.none")
_MAP: Final = checked.ident("map")
_LIST: Final = checked.ident("list")
_DOUBLE: Final = checked.ident("double")
# One clause of a format string, or an escaped percent sign; the group is the letter.
CLAUSE: Final = re.compile(r"%(?:%|(?:\.\d+)?(.?))", re.DOTALL)


def rewrite(message: Any, text: str) -> bool:
    """Rewrite the checked expression ``message`` of source ``text`` in place; return whether anything changed."""
    return bool(_RELEVANT.search(text)) and _Rewriter(message).run()


class _Rewriter:
    def __init__(self, message: Any) -> None:
        self._message = message
        self._locals = count()
        self._changed = False

    def run(self) -> bool:
        # Children first: the replacement of a node contains its rewritten children.
        for node in reversed(list(checked.walk(self._message.expr))):
            kind = node.WhichOneof("kind")
            if kind == "select_expr":
                self._select(node)
            elif kind == "call_expr":
                self._access(node)
                self._format(node)
            elif kind == "comprehension_expr":
                self._changed |= checked.make_eager(node)
                self._transform(node)
        return self._changed

    def _select(self, node: Any) -> None:
        select = node.select_expr
        kind, inner = self._kind(select.operand)
        if kind == _OPTIONAL and not select.test_only:
            self._guard(node, select.operand, inner, _OPTIONAL_SELECT, checked.text(select.field))
        elif select.test_only and _may_be_no_map(select.operand, kind):
            fit = _container(select.operand.SerializeToString())
            self._replace(node, checked.call("_&&_", fit, node.SerializeToString()))

    def _access(self, node: Any) -> None:
        call = node.call_expr
        if call.function not in _ACCESSES:
            return
        operand, key = call.args
        kind, inner = self._kind(operand)
        if kind == _OPTIONAL:
            function = _OPTIONAL_SELECT if call.function == _OPTIONAL_SELECT else _OPTIONAL_INDEX
            self._guard(node, operand, inner, function, key.SerializeToString())
        elif call.function != "_[_]" and _may_be_no_map(operand, kind):
            name, value = self._local()
            at = key.SerializeToString()
            # A key that fails is an error for any operand.
            absent = (
                _NONE
                if key.const_expr.WhichOneof("kind")
                else _choose(checked.call("_==_", at, at), _NONE, _NONE)
            )
            body = _choose(_container(value), checked.call(call.function, value, at), absent)
            self._replace(node, checked.bind(name, operand.SerializeToString(), body, lazy=False))

    def _guard(self, node: Any, operand: Any, inner: str, function: str, key: bytes) -> None:
        """Make ``node`` the access of ``key`` in the optional ``operand``, none where that cannot be."""
        if inner not in {"dyn", "message_type"}:
            self._replace(node, checked.call(function, operand.SerializeToString(), key))
            return
        name, value = self._local()
        present = checked.call("hasValue", target=value)
        fit = checked.call("_&&_", present, _container(checked.call("value", target=value)))
        body = _choose(fit, checked.call(function, value, key), _NONE)
        self._replace(node, checked.bind(name, operand.SerializeToString(), body, lazy=False))

    def _format(self, node: Any) -> None:
        call = node.call_expr
        template = call.target.const_expr.string_value
        if call.function != "format" or not template or call.args[0].WhichOneof("kind") != "list_expr":
            return
        arguments = iter(call.args[0].list_expr.elements)

        def clause(match: re.Match[str]) -> str:
            argument = None if match[0] == "%%" else next(arguments, None)
            verb = match[0][1:]
            if argument is None or verb[-1:] not in {"s", "f", "e"}:
                return match[0]
            kind = self._shape(argument)
            value = argument.SerializeToString()
            words = checked.call(FORMATTED, value, checked.text(verb))
            if verb == "s" and kind == "dyn":
                odd = checked.any_of(*(_is_type(value, name) for name in (_LIST, _MAP, _DOUBLE)))
                words = _choose(odd, words, value)
            elif kind not in {"list", "map", "double", "dyn"}:
                return match[0]
            self._replace(argument, words)
            return "%s"

        call.target.const_expr.string_value = CLAUSE.sub(clause, template)

    def _shape(self, node: Any) -> str:
        """Return list, map, double or dyn; for every other type another word."""
        type_ = checked.type_of(self._message, node)
        if "optional_type" in types.describe(type_):
            return ""
        return types.describe(type_).partition("(")[0]

    def _transform(self, node: Any) -> None:
        loop = node.comprehension_expr
        step = loop.loop_step
        if step.call_expr.function == "_?_:_":
            step = step.call_expr.args[1]
        if step.call_expr.function != _INSERT:
            return
        accumulator, *entry = (argument.SerializeToString() for argument in step.call_expr.args)
        item, function = (
            (checked.sequence(*entry), MAP_OF_PAIRS) if len(entry) == 2 else (entry[0], MAP_OF_MAPS)
        )
        self._replace(step, checked.call("_+_", accumulator, checked.sequence(item)))
        self._replace(loop.accu_init, checked.sequence())
        self._replace(loop.result, checked.call(function, loop.result.SerializeToString()))

    def _kind(self, node: Any) -> tuple[str, str]:
        type_ = checked.type_of(self._message, node)
        kind = type_.WhichOneof("kind") or "dyn"
        if kind != "abstract_type":
            return kind, "dyn"
        parameters = type_.abstract_type.parameter_types
        return type_.abstract_type.name, (parameters[0].WhichOneof("kind") or "dyn") if parameters else "dyn"

    def _replace(self, node: Any, replacement: bytes) -> None:
        identity = node.id
        node.ParseFromString(replacement)
        node.id = identity  # by which the nodes above find its type
        self._changed = True

    def _local(self) -> tuple[str, bytes]:
        name = f"@{next(self._locals)}"
        return name, checked.ident(name)


def _choose(condition: bytes, when_true: bytes, when_false: bytes) -> bytes:
    return checked.call("_?_:_", condition, when_true, when_false)


def _may_be_no_map(operand: Any, kind: str) -> bool:
    # Of the typed variables only whole ones can be null; their fields are as the API server sets them.
    return kind == "dyn" or (kind == "message_type" and operand.WhichOneof("kind") == "ident_expr")


def _container(value: bytes) -> bytes:
    """Return the test that ``value`` is a map or a list: a value that supports a field test without an error."""
    return checked.any_of(_is_type(value, _MAP), _is_type(value, _LIST))


def _is_type(value: bytes, type_: bytes) -> bytes:
    return checked.call("_==_", checked.call("type", value), type_)
