"""How a library function is declared: its name, its overloads and their types, as data.

One table serves three readers: the checker (through the engine's environment document), the runtime (through the
implementations) and the rewriting of checked expressions. Nothing here depends on what a function does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class CelType:
    """A CEL type as cel-cpp's environment document writes it; ``variable`` marks a type parameter."""

    name: str
    parameters: tuple[CelType, ...] = ()
    variable: bool = False

    def document(self) -> dict[str, Any]:
        """Return the ``type_name``/``params`` mapping of this type."""
        document: dict[str, Any] = {"type_name": self.name}
        if self.parameters:
            document["params"] = [parameter.document() for parameter in self.parameters]
        if self.variable:
            document["is_type_param"] = True
        return document

    @property
    def kind(self) -> str:
        """The kind by which the engine chooses an overload at run time: all messages are one kind."""
        if self.variable:
            return "dyn"
        return "message" if "." in self.name else self.name


DYN: Final = CelType("dyn")
BOOL: Final = CelType("bool")
INT: Final = CelType("int")
UINT: Final = CelType("uint")
DOUBLE: Final = CelType("double")
STRING: Final = CelType("string")
BYTES: Final = CelType("bytes")
DURATION: Final = CelType("duration")
TIMESTAMP: Final = CelType("timestamp")
ANY_TYPE: Final = CelType("A", variable=True)


def list_of(element: CelType) -> CelType:
    """Return the type of a list of ``element``."""
    return CelType("list", (element,))


def map_of(key: CelType, value: CelType) -> CelType:
    """Return the type of a map from ``key`` to ``value``."""
    return CelType("map", (key, value))


def optional_of(value: CelType) -> CelType:
    """Return the type of an optional ``value``."""
    return CelType("optional_type", (value,))


@dataclass(frozen=True, slots=True)
class Overload:
    """One overload of a function. A member's receiver is the first of ``parameters``.

    ``implementation`` takes and returns Python values (str, int, bool, float, the value classes of the libraries,
    lists and dicts of str) and raises ValueError with the words a reader should see. It never takes a list, a map or
    a dynamic value: cel-expr-python 0.1.3 crashes if one contains an optional. An overload without an
    implementation exists for the checker only and is replaced in every checked expression.
    ``pure`` means that equal arguments always give equal results.
    """

    function: str
    identity: str
    parameters: tuple[CelType, ...]
    result: CelType
    implementation: Callable[..., Any] | None = None
    member: bool = False
    pure: bool = True

    def document(self) -> dict[str, Any]:
        """Return this overload as cel-cpp's environment document writes it."""
        arguments = [parameter.document() for parameter in self.parameters]
        document: dict[str, Any] = {"id": self.identity, "return": self.result.document()}
        if self.member:
            document["target"] = arguments.pop(0)
        document["args"] = arguments
        return document

    @property
    def signature(self) -> tuple[str, bool, tuple[str, ...]]:
        """What the engine's runtime registers an implementation under; overloads may share it."""
        return self.function, self.member, tuple(parameter.kind for parameter in self.parameters)


def method(
    function: str,
    identity: str,
    parameters: tuple[CelType, ...],
    result: CelType,
    implementation: Callable[..., Any] | None = None,
) -> Overload:
    """Return a pure overload that is called on its first parameter."""
    return Overload(function, identity, parameters, result, implementation, member=True)
