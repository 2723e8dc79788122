"""What the libraries make of a checked expression before it is evaluated.

Functions that Python must not implement (lists, optionals) become what the engine evaluates itself, chains of calls
become one, and literals that the API server rejects are reported. The meaning never changes.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from webhook.cel import types
from webhook.cel.ast import checked
from webhook.cel.libraries import formats, lists, opaque, regex, syntax
from webhook.cel.libraries.authorizer import Authorizer, RequestResource
from webhook.cel.libraries.fusion import Fuser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from webhook.cel.libraries.declarations import Overload

    Rule = Callable[["_Expression", Any], bytes | None]

_OF_NON_ZERO: Final = "optional.ofNonZeroValue"
_SEARCHES: Final = frozenset(overload.function for overload in lists.SEARCHES)
_SEARCH_IDENTITIES: Final = frozenset(overload.identity for overload in lists.SEARCHES)
_REGEX_IDENTITIES: Final = frozenset(overload.identity for overload in regex.OVERLOADS)
# The macros on optionals and sortBy bind a variable, and so do rewritten accesses of optionals.
_MAY_BIND: Final = re.compile("opt|sortBy")
_EXAMINED: Final = _SEARCH_IDENTITIES | _REGEX_IDENTITIES | {"list_flatten"}
_REGEX: Final = frozenset(overload.function for overload in regex.OVERLOADS)
# What the API server calls some types in a message.
_SPOKEN: Final = {"google.protobuf.Timestamp": "timestamp", "google.protobuf.Duration": "duration"}
_AUTHORIZER: Final = "authorizer"
# Both are the same in every request, so an expression can make them itself and nothing needs to be bound to them.
_VARIABLES: Final = {
    _AUTHORIZER: syntax.literal(Authorizer()),
    f"{_AUTHORIZER}.requestResource": syntax.literal(RequestResource()),
}


class Lowering:
    """Rewrites checked expressions that use overloads of the libraries."""

    def __init__(self, overloads: Mapping[str, Overload]) -> None:
        self._overloads = overloads
        self._relevant = frozenset({*overloads, *_SEARCH_IDENTITIES, *lists.NATIVE})

    def concerns(self, message: Any) -> bool:
        """Return whether the checked expression ``message`` names anything of the libraries."""
        for reference in message.reference_map.values():
            if reference.name in _VARIABLES or not self._relevant.isdisjoint(reference.overload_id):
                return True
            if any(_MAY_BIND.search(identity) for identity in reference.overload_id):
                return True
        return any(type_.message_type == opaque.QUANTITY for type_ in message.type_map.values())

    def apply(self, message: Any, *, fuse: bool) -> None:
        """Rewrite ``message`` in place; nodes that are replaced keep their id, by which their type is recorded."""
        expression = _Expression(message)
        nodes = list(checked.walk(message.expr))
        shadowed = any(_takes_name(node) for node in nodes)
        for node in nodes:
            checked.make_eager(node)
        expression.rewrite(nodes, _FORMAT_RULES)
        if fuse and not shadowed:
            Fuser(message, self._overloads).fuse()
        expression.rewrite(list(checked.walk(message.expr)), _RULES, {} if shadowed else _VARIABLES)


class _Expression:
    def __init__(self, message: Any) -> None:
        self._message = message

    def rewrite(
        self,
        nodes: list[Any],
        rules: Mapping[str, Rule],
        variables: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        # Children first: the replacement of a node contains its rewritten children.
        for node in reversed(nodes):
            kind = node.WhichOneof("kind")
            if kind == "call_expr":
                rule = rules.get(node.call_expr.function)
                replacement = rule(self, node) if rule is not None else None
            elif kind == "ident_expr":
                replacement = variables.get(node.ident_expr.name)
            else:
                continue
            if replacement is not None:
                _replace(node, replacement)

    def named_format(self, node: Any) -> bytes:
        name = node.call_expr.args[0].SerializeToString()
        return checked.call(_OF_NON_ZERO, checked.call(formats.NAMED.function, name))

    def validate(self, node: Any) -> bytes:
        target, text = node.call_expr.target.SerializeToString(), node.call_expr.args[0].SerializeToString()
        return checked.call(_OF_NON_ZERO, checked.call(formats.PROBLEMS.function, text, target=target))

    def list_range(self, node: Any) -> bytes:
        return lists.lowered_range(node.call_expr.args[0].SerializeToString())

    def unwrap(self, node: Any) -> bytes:
        return lists.unwrapped(node.call_expr.args[0].SerializeToString())

    def list_call(self, node: Any) -> bytes | None:
        call = node.call_expr
        if not call.HasField("target"):
            return None
        if call.function in _SEARCHES and len(call.args) == 1 and not self._may_search_list(node):
            return None
        keys = call.args[0] if call.function == "@sortByAssociatedKeys" else call.target
        arguments = [argument.SerializeToString() for argument in call.args]
        return lists.lower(call.function, call.target.SerializeToString(), arguments, self._words(keys))

    def equality(self, node: Any) -> bytes | None:
        """Compare quantities by value: their messages differ where ``1000m`` and ``1`` do."""
        left, right = node.call_expr.args
        if self._words(left) != opaque.QUANTITY or self._words(right) != opaque.QUANTITY:
            return None
        difference = _compare(left.SerializeToString(), right.SerializeToString())
        return checked.call(node.call_expr.function, difference, syntax.constant(0))

    def membership(self, node: Any) -> bytes | None:
        """Look for a quantity in a list by value."""
        value, container = node.call_expr.args
        if self._words(value) != opaque.QUANTITY or not self._words(container).startswith("list("):
            return None
        return lists.any_of(container.SerializeToString(), value.SerializeToString(), _is_as_much)

    def issues(self) -> Iterator[tuple[int, str]]:
        for node in checked.walk(self._message.expr):
            kind = node.WhichOneof("kind")
            if kind == "call_expr" and node.call_expr.HasField("target"):
                yield from self._call_issues(node)
            elif kind == "comprehension_expr" and _takes_name(node):
                yield node.id, f"the name '{_AUTHORIZER}' cannot be given to an element"

    def _call_issues(self, node: Any) -> Iterator[tuple[int, str]]:
        call = node.call_expr
        if call.function in _SEARCHES and self._may_search_list(node):
            yield from self._mismatch(node)
        elif call.function == "flatten" and not call.args:
            yield from self._flat(node)
        elif call.function in _REGEX and not _REGEX_IDENTITIES.isdisjoint(self._identities(node)):
            yield from _bad_pattern(call.args[0])

    def _mismatch(self, node: Any) -> Iterator[tuple[int, str]]:
        """Report a search for a value that the list cannot contain, which the engine's checker accepts."""
        receiver, expected = self._words(node.call_expr.target), self._words(node.call_expr.args[0])
        element = _element(receiver)
        if expected not in (element, "null_type") and "dyn" not in element + expected:
            yield node.id, _no_match(node, f"{receiver}.({expected})")

    def _flat(self, node: Any) -> Iterator[tuple[int, str]]:
        """Report a list that is flat already: cel-cpp takes any list, cel-go a list of lists."""
        receiver = self._words(node.call_expr.target)
        if not _element(receiver).startswith(("list(", "dyn")):
            yield node.id, _no_match(node, f"{receiver}.()")

    def _may_search_list(self, node: Any) -> bool:
        return not _SEARCH_IDENTITIES.isdisjoint(self._identities(node))

    def _identities(self, node: Any) -> Any:
        references = self._message.reference_map
        return references[node.id].overload_id if node.id in references else ()

    def _words(self, node: Any) -> str:
        return types.describe(checked.type_of(self._message, node))


_FORMAT_RULES: Final[dict[str, Rule]] = {
    "format.named": _Expression.named_format,
    "validate": _Expression.validate,
}
_RULES: Final[dict[str, Rule]] = {
    "lists.range": _Expression.list_range,
    "optional.unwrap": _Expression.unwrap,
    "_==_": _Expression.equality,
    "_!=_": _Expression.equality,
    "@in": _Expression.membership,
    **dict.fromkeys(lists.FUNCTIONS, _Expression.list_call),
}


def issues(message: Any) -> list[tuple[int, str]]:
    """Return what the API server rejects in the checked expression ``message``: node ids with the reason."""
    references = message.reference_map.values()
    if any(item.name in _VARIABLES or not _EXAMINED.isdisjoint(item.overload_id) for item in references):
        return list(_Expression(message).issues())
    return []


def _takes_name(node: Any) -> bool:
    """Return whether a comprehension gives the name of a library variable to another value."""
    if node.WhichOneof("kind") != "comprehension_expr":
        return False
    loop = node.comprehension_expr
    return _AUTHORIZER in (loop.iter_var, loop.iter_var2, loop.accu_var)


def _element(list_type: str) -> str:
    return list_type[5:-1] if list_type.startswith("list(") else "dyn"


def _no_match(node: Any, types: str) -> str:
    for name, text in _SPOKEN.items():
        types = types.replace(name, text)
    return f"found no matching overload for '{node.call_expr.function}' applied to '{types}'"


def _bad_pattern(node: Any) -> Iterator[tuple[int, str]]:
    if node.const_expr.WhichOneof("kind") == "string_value":
        try:
            regex.check(node.const_expr.string_value)
        except ValueError as error:
            yield node.id, str(error)


def _compare(left: bytes, right: bytes) -> bytes:
    return checked.call("compareTo", right, target=left)


def _is_as_much(left: bytes, right: bytes) -> bytes:
    return syntax.equal(_compare(left, right), syntax.constant(0))


def _replace(node: Any, replacement: bytes) -> None:
    identity = node.id
    node.ParseFromString(replacement)
    node.id = identity
