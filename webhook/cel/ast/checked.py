"""Message classes of the checked expressions that the engine serializes, in a descriptor pool of our own.

Only the fields Weightlock reads are declared; the others remain as unknown fields and are written back. The
numbers are those of cel-spec's ``cel/expr/syntax.proto`` and ``checked.proto``. Nothing here evaluates anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPE_URL: Final = b"type.googleapis.com/cel.expr.CheckedExpr"
_FIELD = descriptor_pb2.FieldDescriptorProto
_BOOL, _INT32, _INT64, _UINT64, _DOUBLE, _STRING, _BYTES, _MESSAGE = (
    _FIELD.TYPE_BOOL,
    _FIELD.TYPE_INT32,
    _FIELD.TYPE_INT64,
    _FIELD.TYPE_UINT64,
    _FIELD.TYPE_DOUBLE,
    _FIELD.TYPE_STRING,
    _FIELD.TYPE_BYTES,
    _FIELD.TYPE_MESSAGE,
)
# message -> fields: (name, number, scalar type or message name, "many", "map" by id, or "one" of a oneof)
_MESSAGES: Final[dict[str, tuple[tuple[str, int, int | str, str], ...]]] = {
    "Any": (("type_url", 1, _STRING, ""), ("value", 2, _BYTES, "")),
    "Constant": (
        ("null_value", 1, _INT32, "one"),
        ("bool_value", 2, _BOOL, "one"),
        ("int64_value", 3, _INT64, "one"),
        ("uint64_value", 4, _UINT64, "one"),
        ("double_value", 5, _DOUBLE, "one"),
        ("string_value", 6, _STRING, "one"),
        ("bytes_value", 7, _BYTES, "one"),
    ),
    "Ident": (("name", 1, _STRING, ""),),
    "Select": (("operand", 1, "Expr", ""), ("field", 2, _STRING, ""), ("test_only", 3, _BOOL, "")),
    "Call": (("target", 1, "Expr", ""), ("function", 2, _STRING, ""), ("args", 3, "Expr", "many")),
    "CreateList": (("elements", 1, "Expr", "many"), ("optional_indices", 2, _INT32, "many")),
    "Entry": (
        ("id", 1, _INT64, ""),
        ("field_key", 2, _STRING, "one"),
        ("map_key", 3, "Expr", "one"),
        ("value", 4, "Expr", ""),
        ("optional_entry", 5, _BOOL, ""),
    ),
    "CreateStruct": (("message_name", 1, _STRING, ""), ("entries", 2, "Entry", "many")),
    "Comprehension": (
        ("iter_var", 1, _STRING, ""),
        ("iter_range", 2, "Expr", ""),
        ("accu_var", 3, _STRING, ""),
        ("accu_init", 4, "Expr", ""),
        ("loop_condition", 5, "Expr", ""),
        ("loop_step", 6, "Expr", ""),
        ("result", 7, "Expr", ""),
        ("iter_var2", 8, _STRING, ""),
    ),
    "Expr": (
        ("id", 2, _INT64, ""),
        ("const_expr", 3, "Constant", "one"),
        ("ident_expr", 4, "Ident", "one"),
        ("select_expr", 5, "Select", "one"),
        ("call_expr", 6, "Call", "one"),
        ("list_expr", 7, "CreateList", "one"),
        ("struct_expr", 8, "CreateStruct", "one"),
        ("comprehension_expr", 9, "Comprehension", "one"),
    ),
    "Reference": (
        ("name", 1, _STRING, ""),
        ("overload_id", 3, _STRING, "many"),
        ("value", 4, "Constant", ""),
    ),
    "ListType": (("elem_type", 1, "Type", ""),),
    "MapType": (("key_type", 1, "Type", ""), ("value_type", 2, "Type", "")),
    "AbstractType": (("name", 1, _STRING, ""), ("parameter_types", 2, "Type", "many")),
    "Empty": (),
    "Type": (
        ("dyn", 1, "Empty", "one"),
        ("null", 2, _INT32, "one"),
        ("primitive", 3, _INT32, "one"),
        ("wrapper", 4, _INT32, "one"),
        ("well_known", 5, _INT32, "one"),
        ("list_type", 6, "ListType", "one"),
        ("map_type", 7, "MapType", "one"),
        ("message_type", 9, _STRING, "one"),
        ("type_param", 10, _STRING, "one"),
        ("type", 11, "Type", "one"),
        ("error", 12, "Empty", "one"),
        ("abstract_type", 14, "AbstractType", "one"),
    ),
    "SourceInfo": (
        ("location", 2, _STRING, ""),
        ("line_offsets", 3, _INT32, "many"),
        ("positions", 4, _INT32, "map"),
    ),
    "ParsedExpr": (("expr", 2, "Expr", ""), ("source_info", 3, "SourceInfo", "")),
    "CheckedExpr": (
        ("reference_map", 2, "Reference", "map"),
        ("type_map", 3, "Type", "map"),
        ("expr", 4, "Expr", ""),
        ("source_info", 5, "SourceInfo", ""),
    ),
}


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="weightlock/checked.proto", package="weightlock.ast", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if any(group == "one" for *_, group in fields):
            message.oneof_decl.add(name="kind")
        for field_name, number, kind, group in fields:
            if group == "map":
                entry = message.nested_type.add(name=f"{field_name.title().replace('_', '')}Entry")
                entry.options.map_entry = True
                _add(entry, "key", 1, _INT64, "")
                _add(entry, "value", 2, kind, "")
                _add(message, field_name, number, f"{name}.{entry.name}", "many")
            else:
                _add(message, field_name, number, kind, group)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"weightlock.ast.{name}"))
        for name in _MESSAGES
    }


def _add(message: Any, name: str, number: int, kind: int | str, group: str) -> None:
    field = message.field.add(
        name=name,
        number=number,
        type=_MESSAGE if isinstance(kind, str) else kind,
        label=_FIELD.LABEL_REPEATED if group == "many" else _FIELD.LABEL_OPTIONAL,
    )
    if isinstance(kind, str):
        field.type_name = f".weightlock.ast.{kind}"
    if group == "one":
        field.oneof_index = 0


_CLASSES: Final = _build()
CheckedExpr: Final[Any] = _CLASSES["CheckedExpr"]
Expr: Final[Any] = _CLASSES["Expr"]
_DYNAMIC: Final[Any] = _CLASSES["Type"](dyn={})
_Any: Final[Any] = _CLASSES["Any"]


def load(serialized: bytes) -> Any:
    """Parse what ``Expression.serialize()`` gave into a `CheckedExpr` message."""
    return CheckedExpr.FromString(_Any.FromString(serialized).value)


def load_parsed(serialized: bytes) -> Any:
    """Do the same for an expression that was not checked; the message has ``expr`` and ``source_info`` only."""
    return _CLASSES["ParsedExpr"].FromString(_Any.FromString(serialized).value)


def dump(expr: bytes) -> bytes:
    """Wrap the bytes of an `Expr` the way ``Env.deserialize()`` expects them.

    The reference and type maps are left out: the checker has already put resolved names into the expression, and
    the engine evaluates by those. So ids need not be unique either, and expressions can be put into each other.
    """
    return _delimited(1, _TYPE_URL) + _delimited(2, _delimited(4, expr))


def type_of(checked: Any, node: Any) -> Any:
    """Return the checked ``Type`` of ``node``, dynamic where the checker recorded none."""
    return checked.type_map.get(node.id, _DYNAMIC)


def children(expr: Any) -> Iterator[Any]:
    """Yield the direct subexpressions of ``expr`` in the order they are written in the message."""
    kind = expr.WhichOneof("kind")
    if kind == "select_expr":
        yield expr.select_expr.operand
    elif kind == "call_expr":
        if expr.call_expr.HasField("target"):
            yield expr.call_expr.target
        yield from expr.call_expr.args
    elif kind == "list_expr":
        yield from expr.list_expr.elements
    elif kind == "struct_expr":
        for entry in expr.struct_expr.entries:
            if entry.HasField("map_key"):
                yield entry.map_key
            yield entry.value
    elif kind == "comprehension_expr":
        loop = expr.comprehension_expr
        yield from (loop.iter_range, loop.accu_init, loop.loop_condition, loop.loop_step, loop.result)


def walk(expr: Any) -> Iterator[Any]:
    """Yield ``expr`` and everything below it, parents first."""
    pending = [expr]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(children(node))


def bind(name: str, value: bytes, body: bytes, *, lazy: bool) -> bytes:
    """Return an `Expr` that evaluates ``body`` with ``name`` standing for ``value``.

    The shape is that of cel-spec's ``cel.bind`` macro: a comprehension over an empty list whose accumulator is the
    variable. A ``lazy`` value is evaluated on first use, once, and never when ``body`` does not reach it. Only what
    stands around a whole expression may be lazy: see `make_eager`.
    """
    variable = name.encode()
    return _delimited(
        9,
        b"".join(
            (
                _UNUSED_LOOP,
                _delimited(3, variable),
                _delimited(4, value),
                _NEVER if lazy else _ALWAYS,
                _delimited(6, _delimited(4, _delimited(1, variable))),
                _delimited(7, body),
            )
        ),
    )


def make_eager(node: Any) -> bool:
    """Have the value of ``node`` evaluated at once if it is a lazy binding; return whether it was one.

    cel-expr-python 0.1.3 evaluates a lazy value when it first finds the slot of the variable empty. But a loop that
    stops early, as ``exists`` does, leaves its last element in its slot, and a binding after it may get that slot:
    ``[1].exists(x, true) && cel.bind(y, 2, y == 2)`` is false. A condition that is true makes an ordinary loop of
    the binding, which fills the slot itself.
    """
    loop = node.comprehension_expr
    if loop.iter_var != "#unused" or loop.loop_condition.const_expr.bool_value:
        return False
    loop.loop_condition.const_expr.bool_value = True
    return True


def call(function: str, *arguments: bytes, target: bytes | None = None) -> bytes:
    """Return an `Expr` that calls ``function``."""
    parts = [] if target is None else [_delimited(1, target)]
    parts.append(_delimited(2, function.encode()))
    parts += (_delimited(3, argument) for argument in arguments)
    return _delimited(6, b"".join(parts))


def any_of(first: bytes, *others: bytes) -> bytes:
    """Return an `Expr` that is true when one of several is."""
    for other in others:
        first = call("_||_", first, other)
    return first


def ident(name: str) -> bytes:
    """Return an `Expr` that names a variable, or a type."""
    return _delimited(4, _delimited(1, name.encode()))


def select(operand: bytes, field: str) -> bytes:
    """Return an `Expr` that selects a field."""
    return _delimited(5, _delimited(1, operand) + _delimited(2, field.encode()))


def text(value: str) -> bytes:
    """Return an `Expr` that is a string literal."""
    return _delimited(3, _delimited(6, value.encode()))


def constant(value: str | int | bool | None) -> bytes:
    """Return an `Expr` that is a literal, as a key of a map or an index of a list, or null."""
    if isinstance(value, str):
        return text(value)
    expr = Expr()
    if value is None:
        expr.const_expr.null_value = 0
    elif isinstance(value, bool):
        expr.const_expr.bool_value = value
    else:
        expr.const_expr.int64_value = value
    return bytes(expr.SerializeToString())


def sequence(*elements: bytes) -> bytes:
    """Return an `Expr` that is a list literal."""
    return _delimited(7, b"".join(_delimited(1, element) for element in elements))


def _delimited(field: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes((field << 3 | 2, size)) + content
    head = bytearray((field << 3 | 2,))
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    head.append(size)
    return bytes(head) + content


_UNUSED_LOOP: Final = _delimited(1, b"#unused") + _delimited(2, sequence())
_ALWAYS: Final = _delimited(5, _delimited(3, b"\x10\x01"))  # the literal true
_NEVER: Final = _delimited(5, _delimited(3, b"\x10\x00"))  # the literal false
