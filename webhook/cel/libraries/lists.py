"""The list libraries: Kubernetes' own and cel-go's, all of it evaluated by the engine itself.

Follows k8s.io/apiserver ``pkg/cel/library/lists.go`` and cel-go ``ext/lists.go`` (version 3). No list ever reaches a
Python callback, since cel-expr-python 0.1.3 crashes if one contains an optional and copies every element otherwise.
cel-cpp brings slice, flatten, distinct, reverse, sort, sortBy and range; the others are declared here without an
implementation and rewritten to comprehensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from webhook.cel.ast import checked
from webhook.cel.libraries import syntax
from webhook.cel.libraries.declarations import (
    ANY_TYPE,
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    UINT,
    Overload,
    list_of,
    method,
    optional_of,
)
from webhook.cel.libraries.syntax import INDEX, ITEM, RESULT

if TYPE_CHECKING:
    from collections.abc import Callable

_COMPARABLE: Final = (INT, UINT, DOUBLE, BOOL, DURATION, TIMESTAMP, STRING, BYTES)
_SUMMABLE: Final = (INT, UINT, DOUBLE, DURATION)
_LARGEST_RANGE: Final = 1_000_000
# cel-cpp compares each element with all before it unless they are of a simple type.
_LONGEST_DISTINCT: Final = 1000
_HASHED: Final = frozenset({"int", "uint", "bool", "string"})
_DURATION_TYPE: Final = "google.protobuf.Duration"


def _range_size(size: int) -> int:
    if size < 0:
        raise ValueError(f"lists.range: size must be non-negative, got {size}")
    if size > _LARGEST_RANGE:
        raise ValueError(f"lists.range: size {size} exceeds maximum allowed ({_LARGEST_RANGE})")
    return size


def _fail(words: str) -> Any:
    raise ValueError(words)


FAIL: Final = Overload("@fail", "@fail", (STRING,), DYN, _fail)
RANGE_SIZE: Final = Overload("@lists.rangeSize", "@lists_range_size", (INT,), INT, _range_size)

OVERLOADS: Final = (
    *(method("isSorted", f"list_{it.name}_is_sorted_bool", (list_of(it),), BOOL) for it in _COMPARABLE),
    *(method("sum", f"list_{it.name}_sum_{it.name}", (list_of(it),), it) for it in _SUMMABLE),
    *(method("min", f"list_{it.name}_min_{it.name}", (list_of(it),), it) for it in _COMPARABLE),
    *(method("max", f"list_{it.name}_max_{it.name}", (list_of(it),), it) for it in _COMPARABLE),
    method("includes", "list_includes_dyn_dyn", (DYN, DYN), BOOL),
    # cel-go ``cel/library.go``, optional types version 2.
    method("unwrapOpt", "optional_unwrapOpt", (list_of(optional_of(ANY_TYPE)),), list_of(ANY_TYPE)),
    Overload("optional.unwrap", "optional_unwrap", (list_of(optional_of(ANY_TYPE)),), list_of(ANY_TYPE)),
)
# These share their names with functions of strings, which only an extension can add to.
SEARCHES: Final = (
    method("indexOf", "list_a_index_of_int", (list_of(ANY_TYPE), ANY_TYPE), INT),
    method("lastIndexOf", "list_a_last_index_of_int", (list_of(ANY_TYPE), ANY_TYPE), INT),
)


def lower(function: str, receiver: bytes, arguments: list[bytes], list_type: str) -> bytes | None:
    """Return the expression that replaces a call of one of `FUNCTIONS`, or None when it can stay as it is.

    ``receiver`` and ``arguments`` are serialized; ``list_type`` is the type in words, such as ``list(int)``,
    ``list(dyn)`` or ``dyn``, of the receiver (of the keys, for a sort by keys).
    """
    return _LOWERINGS[function](_Call(function, receiver, arguments, list_type))


@dataclass(frozen=True, slots=True)
class _Call:
    function: str
    receiver: bytes
    arguments: list[bytes]
    list_type: str

    @property
    def element(self) -> str:
        return self.list_type[5:-1] if self.list_type.startswith("list(") else "dyn"

    def on_list(self, body: Callable[[bytes], bytes], otherwise: Callable[[bytes], bytes]) -> bytes:
        """Return ``body`` of the receiver where it is a list, ``otherwise`` where it is something else."""

        def guarded(receiver: bytes) -> bytes:
            if self.list_type.startswith("list("):
                return body(receiver)
            return syntax.choose(syntax.has_type(receiver, "list"), body(receiver), otherwise(receiver))

        return syntax.bound(self.receiver, "@list", guarded)


def _is_sorted(call: _Call) -> bytes:
    def body(items: bytes) -> bytes:
        # The first is compared with itself, so that a list of what cannot be compared is an error.
        at_first = syntax.equal(INDEX, syntax.constant(0))
        before = syntax.choose(at_first, INDEX, checked.call("_-_", INDEX, syntax.constant(1)))
        descends = checked.call("_>_", syntax.element(items, before), ITEM)
        return syntax.loop(items, syntax.constant(value=True), _not(descends), RESULT)

    return call.on_list(body, _no_overload)


def _extreme(call: _Call) -> bytes:
    operator = "_>_" if call.function == "min" else "_<_"

    def body(items: bytes) -> bytes:
        step = syntax.choose(checked.call(operator, RESULT, ITEM), ITEM, RESULT)
        match = syntax.loop(items, syntax.element(items, syntax.constant(0)), step)
        return syntax.choose(_is_empty(items), _failure(f"{call.function} called on empty list"), match)

    return call.on_list(body, _no_overload)


def _sum(call: _Call) -> bytes:
    step = checked.call("_+_", RESULT, ITEM)

    def body(items: bytes) -> bytes:
        if call.element in _ZEROS:
            return syntax.loop(items, _ZEROS[call.element], step)
        zero = syntax.bound(syntax.element(items, syntax.constant(0)), "@first", _zero_of)
        return syntax.choose(_is_empty(items), _ZEROS["int"], syntax.loop(items, zero, step))

    return call.on_list(body, _no_overload)


def unwrapped(optionals: bytes) -> bytes:
    """Return the values of a list of optionals, without the optionals that have none."""
    value = checked.Expr(list_expr={}).list_expr
    value.elements.add().ParseFromString(checked.call("value", target=ITEM))
    longer = checked.call("_+_", RESULT, bytes(checked.Expr(list_expr=value).SerializeToString()))
    step = syntax.choose(checked.call("hasValue", target=ITEM), longer, RESULT)
    return syntax.loop(optionals, bytes(checked.Expr(list_expr={}).SerializeToString()), step)


def _unwrap(call: _Call) -> bytes:
    return call.on_list(unwrapped, _no_overload)


def _search_from(call: _Call) -> bytes:
    """Search a text from an offset: one beyond its end is an error in cel-cpp, and no match in the API server."""
    expected, offset = call.arguments

    def body(text: bytes, part: bytes, start: bytes) -> bytes:
        is_beyond = checked.call("_>=_", start, syntax.size(text))
        # The empty text matches at the end.
        at_end = syntax.choose(
            syntax.equal(part, syntax.constant("")), syntax.size(text), syntax.constant(-1)
        )
        return syntax.choose(is_beyond, at_end, checked.call(call.function, part, start, target=text))

    return syntax.bound(
        call.receiver,
        "@text",
        lambda text: syntax.bound(
            expected,
            "@part",
            lambda part: syntax.bound(offset, "@start", lambda start: body(text, part, start)),
        ),
    )


def _search(call: _Call) -> bytes:
    if len(call.arguments) > 1:
        return _search_from(call)
    missing = syntax.constant(-1)
    going = syntax.equal(RESULT, missing) if call.function == "indexOf" else None

    def body(items: bytes) -> bytes:
        def search(value: bytes) -> bytes:
            step = syntax.choose(syntax.equal(ITEM, value), INDEX, RESULT)
            return syntax.loop(items, _after(value, missing), step, going)

        return syntax.bound(call.arguments[0], "@value", search)

    def in_text(text: bytes) -> bytes:
        return checked.call(call.function, *call.arguments, target=text)

    return call.on_list(body, in_text)


def _includes(call: _Call) -> bytes:
    expected = call.arguments[0]
    return call.on_list(
        lambda items: any_of(items, expected, syntax.equal), lambda value: syntax.equal(value, expected)
    )


def any_of(items: bytes, expected: bytes, matches: Callable[[bytes, bytes], bytes]) -> bytes:
    """Return whether ``matches`` is true for any element of ``items`` and the value ``expected``."""

    def search(value: bytes) -> bytes:
        start = _after(value, syntax.constant(value=False))
        return syntax.loop(items, start, matches(ITEM, value), _not(RESULT))

    return syntax.bound(expected, "@value", search)


def _sort(call: _Call) -> bytes | None:
    if call.element not in ("double", "dyn"):
        return None
    return syntax.bound(
        call.receiver, "@list", lambda items: _ordered(items, checked.call("sort", target=items))
    )


def _sort_by(call: _Call) -> bytes | None:
    if call.element not in ("double", "dyn"):
        return None

    def body(keys: bytes) -> bytes:
        return _ordered(keys, checked.call("@sortByAssociatedKeys", keys, target=call.receiver))

    return syntax.bound(call.arguments[0], "@keys", body)


def _distinct(call: _Call) -> bytes | None:
    if call.element in _HASHED:
        return None

    def body(items: bytes) -> bytes:
        too_long = checked.call("_>_", syntax.size(items), syntax.constant(_LONGEST_DISTINCT))
        failure = _failure(f"distinct: list is longer than {_LONGEST_DISTINCT}")
        return syntax.choose(too_long, failure, checked.call("distinct", target=items))

    return syntax.bound(call.receiver, "@list", body)


def lowered_range(size: bytes) -> bytes:
    """Return ``lists.range(size)`` for sizes the API server allows; cel-cpp reserves any size, and fails on none."""
    return checked.call("lists.range", checked.call(RANGE_SIZE.function, size))


def _after(value: bytes, result: bytes) -> bytes:
    """Return ``result``, or the error of ``value``, which a loop over no elements would never meet."""
    if checked.Expr.FromString(value).WhichOneof("kind") == "const_expr":
        return result
    return syntax.choose(syntax.equal(value, value), result, result)


def _ordered(values: bytes, result: bytes) -> bytes:
    """Return ``result`` unless one of ``values`` is NaN, which makes cel-cpp's sort run off the list."""
    different = checked.call("_!=_", ITEM, ITEM)
    match = syntax.loop(values, syntax.constant(value=False), different, _not(RESULT))
    return syntax.choose(match, _failure("NaN values cannot be ordered"), result)


def _zero_of(value: bytes) -> bytes:
    branch = _failure("no such overload: sum(list)")
    for name, zero in _ZEROS.items():
        branch = syntax.choose(syntax.has_type(value, name), zero, branch)
    return branch


def _not(value: bytes) -> bytes:
    return checked.call("!_", value)


def _is_empty(items: bytes) -> bytes:
    return syntax.equal(syntax.size(items), syntax.constant(0))


def _failure(words: str) -> bytes:
    return checked.call(FAIL.function, syntax.constant(words))


def _no_overload(_: bytes) -> bytes:
    return _failure("no such overload")


_ZEROS: Final = {
    "int": syntax.constant(0),
    "uint": bytes(checked.Expr(const_expr={"uint64_value": 0}).SerializeToString()),
    "double": syntax.constant(0.0),
    _DURATION_TYPE: checked.call("duration", syntax.constant("0s")),
}
_LOWERINGS: Final[dict[str, Callable[[_Call], bytes | None]]] = {
    "isSorted": _is_sorted,
    "min": _extreme,
    "max": _extreme,
    "sum": _sum,
    "indexOf": _search,
    "lastIndexOf": _search,
    "includes": _includes,
    "sort": _sort,
    "@sortByAssociatedKeys": _sort_by,
    "distinct": _distinct,
    "unwrapOpt": _unwrap,
}
FUNCTIONS: Final = frozenset(_LOWERINGS)
# cel-cpp's overloads that cannot stay as they are; a dynamic list is checked against all overloads of a function.
NATIVE: Final = frozenset(
    {"list_range", "list_distinct", "list_double_sort", "list_double_sortByAssociatedKeys"}
    | {"string_index_of_string_int", "string_last_index_of_string_int"}
)
