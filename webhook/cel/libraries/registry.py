"""Puts the libraries together into what cel-expr-python 0.1.3 takes.

Declarations travel in an environment document, since only there can they have type parameters and optional results;
implementations are bound to them by overload id. The runtime tells overloads apart by kinds only, and all messages
are one kind, so overloads that share a signature share a callback, which inspects its arguments.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from cel_expr_python import cel

from webhook.cel.libraries import (
    authorizer,
    formats,
    fusion,
    lists,
    lowering,
    network,
    opaque,
    quantity,
    regex,
    semver,
    url,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from webhook.cel.libraries.declarations import Overload

_NUL: Final = "\0"
_LIBRARIES: Final = (authorizer, formats, lists, network, quantity, regex, semver, url)
_OVERLOADS: Final[tuple[Overload, ...]] = tuple(
    overload for library in _LIBRARIES for overload in library.OVERLOADS
)
_INTERNAL: Final = (formats.NAMED, formats.PROBLEMS, lists.FAIL, lists.RANGE_SIZE)
# cel-cpp's own overloads of `string`; a function of the standard library cannot be added to, only redeclared.
_STRING: Final = {
    "bool": "bool_to_string",
    "bytes": "bytes_to_string",
    "double": "double_to_string",
    "duration": "duration_to_string",
    "int": "int64_to_string",
    "string": "string_to_string",
    "timestamp": "timestamp_to_string",
    "uint": "uint64_to_string",
}
_ENGINE_TYPES: Final = {
    "bool": cel.Type.BOOL,
    "dyn": cel.Type.DYN,
    "int": cel.Type.INT,
    "list": cel.Type.LIST,
    "string": cel.Type.STRING,
}

opaque.register(
    (
        authorizer.Authorizer,
        authorizer.PathCheck,
        authorizer.GroupCheck,
        authorizer.ResourceCheck,
        authorizer.Decision,
        formats.Format,
        network.IP,
        network.CIDR,
        quantity.Quantity,
        semver.Semver,
        url.URL,
    )
)
_LOWERING: Final = lowering.Lowering(
    {overload.identity: overload for overload in _OVERLOADS}
    | {overload.function: overload for overload in _INTERNAL}
)


def configuration() -> dict[str, Any]:
    """Return the environment document (for ``cel.NewEnvConfigFromYaml``, as JSON) that declares the libraries.

    ``extensions`` names what cel-cpp must bring itself; an adapter adds its own to that list.
    """
    functions: dict[str, list[dict[str, Any]]] = {
        "string": [
            {"id": identity, "args": [{"type_name": name}], "return": {"type_name": "string"}}
            for name, identity in _STRING.items()
        ]
    }
    for overload in _OVERLOADS:
        functions.setdefault(overload.function, []).append(overload.document())
    return {
        "stdlib": {"exclude_functions": [{"name": "string"}]},
        "extensions": [{"name": "lists"}, {"name": "optional"}],
        "functions": [{"name": name, "overloads": overloads} for name, overloads in functions.items()],
    }


@cache
def implementations() -> Mapping[str, Callable[..., Any]]:
    """Return the callbacks by overload id, for the ``function_impls`` of an environment."""
    sharing: dict[Any, list[Overload]] = {}
    for overload in _OVERLOADS:
        if overload.implementation is not None:
            sharing.setdefault(overload.signature, []).append(overload)
    return {overloads[0].identity: _callback(overloads) for overloads in sharing.values()}


def functions() -> Sequence[Any]:
    """Return the declarations of the functions that only rewritten expressions call."""
    plans = cel.FunctionDecl(
        fusion.FUNCTION,
        [
            cel.Overload(
                f"{fusion.FUNCTION}_{leaves}",
                cel.Type.DYN,
                [cel.Type.INT] + [cel.Type.STRING] * leaves,
                is_member=False,
                impl=_run,
            )
            for leaves in range(fusion.MOST_LEAVES + 1)
        ],
    )
    return plans, *(_declared(overload, _callback([overload])) for overload in _INTERNAL)


@cache
def function_names() -> frozenset[str]:
    """Return the names of the functions that call back into Python, whose arguments are copied and leak.

    ``string`` is left out: it does so for addresses only.
    """
    own_functions = {overload.function for overload in _OVERLOADS if overload.implementation is not None}
    return frozenset(own_functions - {"string"})


@cache
def extensions() -> Sequence[Any]:
    """Return the extension that adds to functions of cel-cpp's strings library.

    Its overloads need an implementation, though `lower` leaves no call of one: in cel-expr-python 0.1.3 an overload
    without any hides all others of the same name and number of arguments.
    """
    return (cel.CelExtension("weightlock.lists", [_declared(it, _not_lowered) for it in lists.SEARCHES]),)


def variables() -> Mapping[str, Any]:
    """Return the variables of the libraries and their types; no value need ever be bound to them."""
    return {
        "authorizer": cel.Type(opaque.AUTHORIZER),
        "authorizer.requestResource": cel.Type(opaque.RESOURCE_CHECK),
    }


def issues(message: Any) -> list[tuple[int, str]]:
    """Return what the API server would reject in a checked expression: pairs of a node id and the reason."""
    return lowering.issues(message)


def lower(message: Any, *, fuse: bool = True) -> bool:
    """Rewrite a checked expression, in place, to what the engine can evaluate; return whether anything changed.

    Without ``fuse`` each call of a library remains a separate call: slower, but with a value to display.
    """
    if not _LOWERING.concerns(message):
        return False
    _LOWERING.apply(message, fuse=fuse)
    return True


def _not_lowered(*_: Any) -> Any:
    raise ValueError("no such overload")


def _declared(overload: Overload, callback: Callable[..., Any]) -> Any:
    parameters = [
        _ENGINE_TYPES.get(parameter.kind) or cel.Type(parameter.name) for parameter in overload.parameters
    ]
    result = _ENGINE_TYPES.get(overload.result.kind) or cel.Type(overload.result.name)
    return cel.FunctionDecl(
        overload.function,
        [cel.Overload(overload.identity, result, parameters, is_member=overload.member, impl=callback)],
    )


def _callback(overloads: Sequence[Overload]) -> Callable[..., Any]:
    """Return the function that the engine calls for ``overloads``, which differ in the types of messages only."""
    if len(overloads) == 1:
        return _adapted(overloads[0])
    by_type = {overload.parameters[0].name: _adapted(overload) for overload in overloads}

    def choose(*arguments: Any) -> Any:
        callback = by_type.get(arguments[0].DESCRIPTOR.full_name)
        if callback is None:
            raise ValueError("no such overload")
        return callback(*arguments)

    return choose


def _adapted(overload: Overload) -> Callable[..., Any]:
    implementation: Any = overload.implementation
    expected = [parameter.name if parameter.kind == "message" else "" for parameter in overload.parameters]

    def call(*arguments: Any) -> Any:
        values = (
            _unpacked(argument, name) if name else argument
            for argument, name in zip(arguments, expected, strict=True)
        )
        return _outgoing(implementation(*values))

    return call


def _unpacked(message: Any, expected: str) -> Any:
    value = opaque.unpack(message)
    if expected != value.TYPE:
        raise ValueError("no such overload")
    return value


def _run(number: int, *leaves: str) -> Any:
    return _outgoing(fusion.run(number, *leaves))


def _outgoing(value: Any) -> Any:
    """Return ``value`` as the engine takes it.

    Raises ValueError for text that contains NUL, where cel-expr-python 0.1.3 would cut it off.
    """
    if isinstance(value, str):
        has_nul = _NUL in value
    elif isinstance(value, list):
        has_nul = any(_NUL in item for item in value)
    elif isinstance(value, dict):
        has_nul = any(_NUL in text for key, items in value.items() for text in (key, *items))
    else:
        return opaque.pack(value) if hasattr(value, "parts") else value
    if has_nul:
        raise ValueError("result contains a NUL character")
    return value
