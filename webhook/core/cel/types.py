"""CEL types in words, as the checker reports them.

Words are also how types are declared: the engine's own ``Type`` of a parametrised abstract type, such as
``optional_type<int>``, repeats its parameters when it is declared again (cel-expr-python 0.1.3).
"""

from __future__ import annotations

from typing import Any, Final

TIMES: Final = ("google.protobuf.Timestamp", "google.protobuf.Duration")
_PRIMITIVES: Final = ("dyn", "bool", "int", "uint", "double", "string", "bytes")
_WELL_KNOWN: Final = {2: TIMES[0], 3: TIMES[1]}


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
    return _simple(type_, kind)


def _simple(type_: Any, kind: str | None) -> str:
    if kind == "message_type":
        return str(type_.message_type)
    if kind == "primitive":
        return _PRIMITIVES[type_.primitive]
    if kind == "wrapper":
        return f"wrapper({_PRIMITIVES[type_.wrapper]})"
    if kind == "well_known":
        return _WELL_KNOWN.get(type_.well_known, "dyn")
    return "null_type" if kind == "null" else "dyn"


def signature(words: str) -> str:
    """Return what `describe` gave in the form in which the engine declares a variable; a wrapper is dynamic."""
    return "dyn" if "wrapper(" in words else words.replace("(", "<").replace(")", ">")
