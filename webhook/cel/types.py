"""CEL types in words, as the checker reports them.

Words are also how types are declared: the engine's own ``Type`` of a parametrised abstract type, such as
``optional_type<int>``, repeats its parameters when it is declared again (cel-expr-python 0.1.3).
"""

from __future__ import annotations

import re
from functools import cache
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


# What variables of policies usually are. An environment is costly to make (5 ms), so one declares slots for all of
# these, and policies share it under any names of their variables.
_USUAL: Final = (
    *("dyn", "bool", "int", "uint", "double", "string", *TIMES),
    *(
        "list(dyn)",
        "list(string)",
        "list(int)",
        "list(bool)",
        "list(map(string, dyn))",
        "list(map(string, string))",
    ),
    *(
        "map(dyn, dyn)",
        "map(string, dyn)",
        "map(string, string)",
        "map(string, list(dyn))",
        "map(string, bool)",
        "map(string, int)",
    ),
    *("optional_type(dyn)", "optional_type(string)", "list(weightlock.Weight)", "list(weightlock.Device)"),
    *("list(weightlock.Escape)", "list(weightlock.Grant)", "kubernetes.authorization.ResourceCheck"),
)
_SLOTS: Final = 12
_SEPARATORS: Final = re.compile(r"\W+")


def slot(words: str, number: int) -> str:
    """Return the name under which the ``number``-th variable of type ``words`` in a policy is declared."""
    return f"{_SEPARATORS.sub('_', words)}_{number}"


@cache
def usual_slots() -> dict[str, str]:
    """Return the slots that every environment declares, and the type of each in words."""
    return {slot(words, number): words for words in _USUAL for number in range(_SLOTS)}
