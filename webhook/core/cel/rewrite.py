"""Rewrites of a checked expression where cel-expr-python 0.1.3 and cel-go differ, so that cel-go's meaning holds.

- ``has(x.f)`` is false in cel-go where x is no map (``refQualify`` in interpreter/attributes.go), an error here.
- A field or element of an optional (``x.?f``, ``x.?f.g``, ``x.?f[i]``) is none in cel-go where the inner value
  cannot have it, and an error here; an element beyond the end is even taken to be present.
- ``transformMap`` and ``transformMapEntry`` have no run-time function here: the entries are collected in a list,
  and one Python function makes the map of them.
"""

from __future__ import annotations

import re
from itertools import count
from typing import Any, Final

from webhook.core.cel import checked
from webhook.core.cel.checked import Expr

MAP_OF_PAIRS: Final = "@mapOfPairs"
MAP_OF_MAPS: Final = "@mapOfMaps"
_RELEVANT: Final = re.compile(r"\bhas\b|\?|optional|transformMap")
_INSERT: Final = "cel.@mapInsert"
_OPTIONAL: Final = "optional_type"
_OPTIONAL_SELECT: Final = "_?._"
_OPTIONAL_INDEX: Final = "_[?_]"


def rewrite(message: Any, text: str) -> bool:
    """Rewrite the checked expression ``message`` of source ``text`` in place; tell whether anything changed."""
    return bool(_RELEVANT.search(text)) and _Rewriter(message).run()


class _Rewriter:
    def __init__(self, message: Any) -> None:
        self._root = message.expr
        self._types = {item.key: item.value for item in message.type_map}
        self._identities = count(checked.REWRITE_IDENTITY)
        self._changed = False

    def run(self) -> bool:
        # Children first: what replaces a node holds copies of its children as they have become.
        for node in reversed(list(checked.walk(self._root))):
            kind = node.WhichOneof("kind")
            if kind == "select_expr":
                self._select(node)
            elif kind == "call_expr":
                self._access(node)
            elif kind == "comprehension_expr":
                self._transform(node)
        return self._changed

    def _select(self, node: Any) -> None:
        select = node.select_expr
        kind, inner = self._kind(select.operand)
        if kind == _OPTIONAL and not select.test_only:
            key = Expr(id=next(self._identities))
            key.const_expr.string_value = select.field
            self._guard(node, select.operand, inner, _OPTIONAL_SELECT, key)
        elif select.test_only and self._may_be_no_map(select.operand, kind):
            self._replace(node, self._call("_&&_", self._container(select.operand), node))

    @staticmethod
    def _may_be_no_map(operand: Any, kind: str) -> bool:
        # Of the typed variables only whole ones can be null; their fields are as the API server made them.
        return kind == "dyn" or (kind == "message_type" and operand.WhichOneof("kind") == "ident_expr")

    def _access(self, node: Any) -> None:
        call = node.call_expr
        if call.function not in {_OPTIONAL_SELECT, _OPTIONAL_INDEX, "_[_]"}:
            return
        operand, key = call.args
        kind, inner = self._kind(operand)
        if kind == _OPTIONAL:
            function = _OPTIONAL_SELECT if call.function == _OPTIONAL_SELECT else _OPTIONAL_INDEX
            self._guard(node, operand, inner, function, key)
        elif call.function != "_[_]" and self._may_be_no_map(operand, kind):
            name, value = self._local()
            access = self._call(call.function, value, key)
            body = self._call("_?_:_", self._container(value), access, self._call("optional.none"))
            self._bind(node, name, operand, body)

    def _guard(self, node: Any, operand: Any, inner: str, function: str, key: Any) -> None:
        """Make ``node`` the access of ``key`` in the optional ``operand``, none where that cannot be."""
        if inner not in {"dyn", "message_type"}:
            self._replace(node, self._call(function, operand, key))
            return
        name, value = self._local()
        present = self._member(value, "hasValue")
        fit = self._call("_&&_", present, self._container(self._member(value, "value")))
        body = self._call("_?_:_", fit, self._call(function, value, key), self._call("optional.none"))
        self._bind(node, name, operand, body)

    def _transform(self, node: Any) -> None:
        loop = node.comprehension_expr
        step = loop.loop_step
        if step.call_expr.function == "_?_:_":
            step = step.call_expr.args[1]
        if step.call_expr.function != _INSERT:
            return
        accumulator, *entry = step.call_expr.args
        if len(entry) == 2:
            item, function = self._list(*entry), MAP_OF_PAIRS
        else:
            item, function = entry[0], MAP_OF_MAPS
        self._replace(step, self._call("_+_", accumulator, self._list(item)))
        self._replace(loop.accu_init, self._list())
        self._replace(loop.result, self._call(function, loop.result))

    def _kind(self, node: Any) -> tuple[str, str]:
        type_ = self._types.get(node.id)
        if type_ is None:
            return "dyn", "dyn"
        kind = type_.WhichOneof("kind") or "dyn"
        if kind != "abstract_type":
            return kind, "dyn"
        parameters = type_.abstract_type.parameter_types
        return type_.abstract_type.name, (parameters[0].WhichOneof("kind") or "dyn") if parameters else "dyn"

    def _replace(self, node: Any, replacement: Any) -> None:
        type_ = self._types.get(node.id)
        if type_ is not None:
            self._types[replacement.id] = type_
        node.CopyFrom(replacement)
        self._changed = True

    def _bind(self, node: Any, name: str, value: Any, body: Any) -> None:
        identity = next(self._identities)
        for _ in range(3):
            next(self._identities)
        bound = checked.bind(name, value.SerializeToString(), body.SerializeToString(), identity)
        self._replace(node, Expr.FromString(bound))

    def _local(self) -> tuple[str, Any]:
        value = Expr(id=next(self._identities))
        value.ident_expr.name = f"@{value.id}"
        return value.ident_expr.name, value

    def _container(self, node: Any) -> Any:
        """Return the test that ``node`` is a map or a list: what can be asked for a field without an error."""
        return self._call(
            "_||_", *(self._call("_==_", self._call("type", node), self._type(t)) for t in ("map", "list"))
        )

    def _type(self, name: str) -> Any:
        node = Expr(id=next(self._identities))
        node.ident_expr.name = name
        return node

    def _list(self, *elements: Any) -> Any:
        node = Expr(id=next(self._identities))
        node.list_expr.SetInParent()
        node.list_expr.elements.extend(elements)
        return node

    def _call(self, function: str, *arguments: Any) -> Any:
        node = Expr(id=next(self._identities))
        node.call_expr.function = function
        node.call_expr.args.extend(arguments)
        return node

    def _member(self, target: Any, function: str) -> Any:
        node = self._call(function)
        node.call_expr.target.CopyFrom(target)
        return node
