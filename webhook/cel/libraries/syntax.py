"""Pieces of checked expressions that rewriting needs, as serialized ``Expr`` messages.

Complements `webhook.cel.ast.checked`. Names that begin with "@" cannot be written in a source, so nothing built here
hides or captures what a source names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from webhook.cel.ast import checked
from webhook.cel.libraries import opaque

if TYPE_CHECKING:
    from collections.abc import Callable

ITEM: Final = checked.ident("@item")
INDEX: Final = checked.ident("@index")
RESULT: Final = checked.ident("@result")


def constant(value: bool | float | str) -> bytes:
    """Return the literal of a bool, int, float or str."""
    kind = {bool: "bool_value", int: "int64_value", float: "double_value", str: "string_value"}[type(value)]
    return _serialized(const_expr={kind: value})


def literal(value: opaque.Opaque) -> bytes:
    """Return an expression that makes the message of ``value`` without calling back into Python."""
    parts = [checked.Expr(const_expr={"string_value": part}) for part in value.parts()]
    entry = {"field_key": opaque.FIELD, "value": {"list_expr": {"elements": parts}}}
    return _serialized(struct_expr={"message_name": value.TYPE, "entries": [entry]})


def choose(condition: bytes, then: bytes, otherwise: bytes) -> bytes:
    """Return ``condition ? then : otherwise``."""
    return checked.call("_?_:_", condition, then, otherwise)


def equal(left: bytes, right: bytes) -> bytes:
    """Return ``left == right``."""
    return checked.call("_==_", left, right)


def element(sequence: bytes, index: bytes) -> bytes:
    """Return ``sequence[index]``."""
    return checked.call("_[_]", sequence, index)


def size(value: bytes) -> bytes:
    """Return ``size(value)``."""
    return checked.call("size", value)


def has_type(value: bytes, name: str) -> bytes:
    """Return ``type(value) == name``."""
    return equal(checked.call("type", value), checked.ident(name))


def loop(sequence: bytes, start: bytes, step: bytes, condition: bytes | None = None) -> bytes:
    """Return the fold of a list: ``step`` of `RESULT`, `INDEX` and `ITEM`, from ``start``, while ``condition``."""
    node = checked.Expr()
    fold = node.comprehension_expr
    fold.iter_var, fold.iter_var2, fold.accu_var = "@index", "@item", "@result"
    parts = {
        "iter_range": sequence,
        "accu_init": start,
        "loop_condition": constant(value=True) if condition is None else condition,
        "loop_step": step,
        "result": RESULT,
    }
    for name, part in parts.items():
        getattr(fold, name).ParseFromString(part)
    return bytes(node.SerializeToString())


def bound(value: bytes, name: str, body: Callable[[bytes], bytes]) -> bytes:
    """Return ``body`` of ``value``, evaluated once; a name or literal is passed on as it is."""
    if checked.Expr.FromString(value).WhichOneof("kind") in ("ident_expr", "const_expr"):
        return body(value)
    return checked.bind(name, value, body(checked.ident(name)), lazy=False)


def _serialized(**kind: Any) -> bytes:
    return bytes(checked.Expr(**kind).SerializeToString())
