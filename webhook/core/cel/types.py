"""CEL types as the checker reports them: back into types the engine can declare, and into words.

The engine's own ``Type`` of a parametrised abstract type (``optional_type<int>``, ``type(int)``) repeats its parameters
when it is declared again (cel-expr-python 0.1.3), so types are rebuilt from the checked expression instead.
"""

from __future__ import annotations

from typing import Any, Final

from cel_expr_python import cel

TIMES: Final = ("google.protobuf.Timestamp", "google.protobuf.Duration")
_PRIMITIVES: Final = ("dyn", "bool", "int", "uint", "double", "string", "bytes")
_WELL_KNOWN: Final = {1: "any", 2: TIMES[0], 3: TIMES[1]}
_DECLARED: Final = {
    "dyn": cel.Type.DYN,
    "any": cel.Type.DYN,
    "null_type": cel.Type.NULL,
    "bool": cel.Type.BOOL,
    "int": cel.Type.INT,
    "uint": cel.Type.UINT,
    "double": cel.Type.DOUBLE,
    "string": cel.Type.STRING,
    "bytes": cel.Type.BYTES,
    TIMES[0]: cel.Type.TIMESTAMP,
    TIMES[1]: cel.Type.DURATION,
}


def describe(type_: Any) -> str:
    """Return a checked ``Type`` as Kubernetes writes it: ``list(map(string, dyn))``, ``optional_type(int)``."""
    kind = type_.WhichOneof("kind")
    if kind == "list_type":
        return f"list({describe(type_.list_type.elem_type)})"
    if kind == "map_type":
        return f"map({describe(type_.map_type.key_type)}, {describe(type_.map_type.value_type)})"
    if kind == "abstract_type":
        parameters = ", ".join(describe(parameter) for parameter in type_.abstract_type.parameter_types)
        return f"{type_.abstract_type.name}({parameters})" if parameters else str(type_.abstract_type.name)
    if kind == "type":
        return f"type({describe(type_.type)})"
    if kind == "message_type":
        return str(type_.message_type)
    return _scalar(type_, kind)


def declare(type_: Any) -> Any:
    """Return the engine type with which a variable of the checked ``Type`` can be declared."""
    kind = type_.WhichOneof("kind")
    if kind == "list_type":
        return cel.Type.List(declare(type_.list_type.elem_type))
    if kind == "map_type":
        return cel.Type.Map(declare(type_.map_type.key_type), declare(type_.map_type.value_type))
    if kind == "abstract_type":
        abstract = type_.abstract_type
        return cel.Type.AbstractType(
            abstract.name, [declare(parameter) for parameter in abstract.parameter_types]
        )
    if kind == "message_type":
        return cel.Type(type_.message_type)
    return _DECLARED.get(_scalar(type_, kind), cel.Type.DYN)


def _scalar(type_: Any, kind: str | None) -> str:
    if kind in ("primitive", "wrapper"):
        name = _PRIMITIVES[getattr(type_, kind)]
        return name if kind == "primitive" else f"wrapper({name})"
    if kind == "well_known":
        return _WELL_KNOWN.get(type_.well_known, "dyn")
    return "null_type" if kind == "null" else "dyn"
