"""Message classes of the checked expressions that the engine serializes, in a descriptor pool of our own.

Only the fields Weightlock reads are declared; the others are kept as unknown fields and written back. The
numbers are those of cel-spec's ``cel/expr/syntax.proto`` and ``checked.proto``. Nothing here evaluates anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Iterator

# Ids that no source uses: the engine numbers from 1 and a source has at most 100,000 characters. Each variable
# takes a stride of its own.
STRIDE: Final = 1_000_000
REWRITE_IDENTITY: Final = 600_000
BIND_IDENTITY: Final = 900_000
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
# message -> fields: (name, number, scalar type or message name, "many" if repeated, "one" if of the oneof)
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
    "ReferenceEntry": (("key", 1, _INT64, ""), ("value", 2, "Reference", "")),
    "TypeEntry": (("key", 1, _INT64, ""), ("value", 2, "Type", "")),
    "PositionEntry": (("key", 1, _INT64, ""), ("value", 2, _INT32, "")),
    "SourceInfo": (
        ("location", 2, _STRING, ""),
        ("line_offsets", 3, _INT32, "many"),
        ("positions", 4, "PositionEntry", "many"),
    ),
    "CheckedExpr": (
        ("reference_map", 2, "ReferenceEntry", "many"),
        ("type_map", 3, "TypeEntry", "many"),
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
            field = message.field.add(
                name=field_name,
                number=number,
                type=_MESSAGE if isinstance(kind, str) else kind,
                label=_FIELD.LABEL_REPEATED if group == "many" else _FIELD.LABEL_OPTIONAL,
            )
            if isinstance(kind, str):
                field.type_name = f".weightlock.ast.{kind}"
            if group == "one":
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"weightlock.ast.{name}"))
        for name in _MESSAGES
    }


_CLASSES: Final = _build()
CheckedExpr: Final[Any] = _CLASSES["CheckedExpr"]
Expr: Final[Any] = _CLASSES["Expr"]
Type: Final[Any] = _CLASSES["Type"]
_Any: Final[Any] = _CLASSES["Any"]


def load(serialized: bytes) -> Any:
    """Parse what ``Expression.serialize()`` gave into a `CheckedExpr` message."""
    return CheckedExpr.FromString(_Any.FromString(serialized).value)


def tables(checked: Any) -> bytes:
    """Return the bytes of a `CheckedExpr` with the reference and type maps of ``checked`` only."""
    part = CheckedExpr()
    part.reference_map.extend(checked.reference_map)
    part.type_map.extend(checked.type_map)
    return bytes(part.SerializeToString())


def type_of(checked: Any) -> Any:
    """Return the checked type of the whole expression."""
    root = checked.expr.id
    return next((item.value for item in checked.type_map if item.key == root), Type(dyn={}))


def dump(checked: bytes) -> bytes:
    """Wrap the bytes of a `CheckedExpr` the way ``Env.deserialize()`` expects them."""
    return _delimited(1, _TYPE_URL) + _delimited(2, checked)


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


def shift(checked: Any, offset: int) -> None:
    """Add ``offset`` to every id of ``checked``, in place, so that it can live beside another expression."""
    for node in walk(checked.expr):
        node.id += offset
        if node.WhichOneof("kind") == "struct_expr":
            for entry in node.struct_expr.entries:
                entry.id += offset
    for table in (checked.reference_map, checked.type_map):
        for item in table:
            item.key += offset


def bind(name: str, value: bytes, body: bytes, identity: int) -> bytes:
    """Return the bytes of an `Expr` that evaluates ``body`` with ``name`` standing for ``value``.

    The shape is that of cel-spec's ``cel.bind`` macro: a comprehension over an empty list whose accumulator
    is the variable. The engine evaluates ``value`` on first use, once, and never when ``body`` does not reach
    it. ``identity`` and the three numbers after it must be free among the ids of ``value`` and ``body``.
    """
    variable = name.encode()
    loop = b"".join(
        (
            _delimited(1, b"#unused"),
            _delimited(2, _identity(identity + 1) + _delimited(7, b"")),
            _delimited(3, variable),
            _delimited(4, value),
            _delimited(5, _identity(identity + 2) + _delimited(3, b"\x10\x00")),
            _delimited(6, _identity(identity + 3) + _delimited(4, _delimited(1, variable))),
            _delimited(7, body),
        )
    )
    return _identity(identity) + _delimited(9, loop)


def call(function: str, identity: int) -> bytes:
    """Return the bytes of an `Expr` that calls ``function`` without arguments."""
    return _identity(identity) + _delimited(6, _delimited(2, function.encode()))


def expression(expr: bytes) -> bytes:
    """Return the bytes of a `CheckedExpr` that holds ``expr`` and nothing else.

    Messages that are joined end to end merge, so this can be added to the maps of several other expressions.
    """
    return _delimited(4, expr)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _delimited(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _identity(identity: int) -> bytes:
    return b"\x10" + _varint(identity)
