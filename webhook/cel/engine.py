"""The one place that talks to cel-expr-python: libraries, types, and the way from a source to an expression.

Exactly the Kubernetes set is enabled: strings (version 2), sets, optionals, two-variable comprehensions, and
Weightlock's own Kubernetes libraries. cel-cpp's math, bindings, encoders, lists and regex stay off: a policy that used
them would not load in an API server, or mean something else there.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import orjson
from cel_expr_python import cel

from webhook.cel import context, libraries, values
from webhook.cel.ast import rewrite
from webhook.cel.errors import CompileError, EvaluationError
from webhook.cel.formatting import formatted
from webhook.cel.schema import descriptors

if TYPE_CHECKING:
    from collections.abc import Mapping

# name -> type, as `webhook.cel.types.signature` writes it
REQUEST_VARIABLES: Final = {
    "object": "dyn",
    "oldObject": "dyn",
    "request": "kubernetes.AdmissionRequest",
    "namespaceObject": "kubernetes.Namespace",
}
FACT_VARIABLES: Final = {
    "pod": "dyn",
    "workload": "weightlock.Workload",
    "weights": "list<weightlock.Weight>",
    "devices": "list<weightlock.Device>",
    "escapes": "list<weightlock.Escape>",
    "images": "list<weightlock.Image>",
    "subject": "weightlock.Subject",
    "grants": "list<weightlock.Grant>",
}
# What a variable is when a request does not have it.
ABSENT: Final[dict[str, Any]] = {
    name: [] if type_.startswith("list") else None
    for name, type_ in (REQUEST_VARIABLES | FACT_VARIABLES).items()
}
# Everything that some environment declares, with its full name.
DECLARABLE: Final = (*ABSENT, "params", "authorizer", "authorizer.requestResource")
# Where the activation has the pod, and the pod itself where it is not a part of the object.
POD_PLACE: Final = "@podPlace"
POD: Final = "@pod"
# Which policies match the request, of those whose matching a batch must check.
MATCHING: Final = "@matching"
POD_IS_APART, POD_IS_OBJECT, POD_IS_TEMPLATE = range(3)
PARAMS_FUNCTION: Final = "@params"
ABSENT_FUNCTION: Final = "@absent"
_EXTENSION_NAMES: Final = (
    {"name": "strings", "version": 2},
    {"name": "sets"},
    {"name": "two-var-comprehensions"},
)


def _params() -> Any:
    return context.current().params


def _absent() -> Any:
    raise ValueError("no such attribute in this expression")


def _map_of_pairs(pairs: list[list[Any]]) -> dict[Any, Any]:
    return _map_of_maps([{key: value} for key, value in pairs])


def _map_of_maps(maps: list[dict[Any, Any]]) -> dict[Any, Any]:
    merged: dict[Any, Any] = {}
    for entries in maps:
        if not merged.keys().isdisjoint(entries):
            raise ValueError("insert failed: key already exists")
        merged.update(entries)
    return merged


def _function(name: str, parameters: list[Any], result: Any, implementation: Any) -> Any:
    return cel.FunctionDecl(name, [cel.Overload(f"{name}_0", result, parameters, False, implementation)])


def _formatted() -> Any:
    string = cel.Type.STRING
    return cel.FunctionDecl(
        rewrite.FORMATTED,
        [
            cel.Overload(f"{rewrite.FORMATTED}_{name}", string, [type_, string], False, formatted)
            for name, type_ in (("list", cel.Type.LIST), ("map", cel.Type.MAP), ("double", cel.Type.DOUBLE))
        ],
    )


# No source can spell a name with "@": these exist for rewritten expressions only.
_INTERNAL: Final = [
    _function(PARAMS_FUNCTION, [], cel.Type.DYN, _params),
    _function(ABSENT_FUNCTION, [], cel.Type.DYN, _absent),
    _function(rewrite.MAP_OF_PAIRS, [cel.Type.LIST], cel.Type.MAP, _map_of_pairs),
    _function(rewrite.MAP_OF_MAPS, [cel.Type.LIST], cel.Type.MAP, _map_of_maps),
    _formatted(),
]
_POOL: Final = descriptors(libraries.message_files())
_EXTENSIONS: Final = [
    *libraries.extensions(),
    cel.CelExtension("weightlock", [*_INTERNAL, *libraries.functions()]),
]


def environment(variables: Mapping[str, str]) -> Any:
    """Return a raw engine environment that declares ``variables`` (name to type signature) and every library."""
    library = libraries.configuration()
    document = {
        **library,
        "extensions": [*_EXTENSION_NAMES, *library["extensions"]],
        "variables": [{"name": name, "type": type_} for name, type_ in variables.items()],
    }
    # JSON is YAML, and is unambiguous.
    config = cel.NewEnvConfigFromYaml(orjson.dumps(document).decode())
    return cel.NewEnv(
        descriptor_pool=_POOL,
        config=config,
        extensions=_EXTENSIONS,
        function_impls=dict(libraries.implementations()),
    )


def activation(data: Mapping[str, Any]) -> Any:
    """Return the engine's view of ``data``, converted variable by variable on first reference."""
    return _RUNTIME.Activation(dict(data))


def compile_source(env: Any, source: str) -> Any:
    """Parse and check ``source``; return the engine's expression or raise CompileError with every issue."""
    try:
        return env.compile(source)
    except RuntimeError as error:
        raise CompileError.parse(str(error)) from None


def deserialize(serialized: bytes) -> Any:
    """Return the expression of a serialized checked AST; raises CompileError when it is nested too deeply."""
    try:
        return _RUNTIME.deserialize(serialized)
    except RuntimeError:
        # The engine parses at most 100 levels of messages, two for each level of an expression or variable.
        raise CompileError.at("", 0, "expression and the variables it needs are nested too deeply") from None


def plan(expression: Any) -> None:
    """Have the engine plan the execution now; it otherwise does at the first evaluation (some 200 µs).

    Raises CompileError when it cannot.
    """
    try:
        expression.eval()
    except RuntimeError as error:
        # Without variables an evaluation usually fails; only a failure to plan is final.
        if "reference resolve" in str(error):
            raise CompileError.parse(str(error)) from None


@cache
def _probe(source: str) -> Any:
    return _RUNTIME.compile(source)


def evaluate(source: str, params: Any) -> Any:
    """Return the plain value of a source of our own that names ``params``; raises EvaluationError."""
    try:
        return values.plain(_probe(source).eval(_RUNTIME.Activation({"params": params})))
    except RuntimeError as error:
        raise EvaluationError.parse(str(error)) from None


# Activations and serialized expressions fit every environment. This one has no types: an absent field is absent at
# run time, whatever the checker infers.
_RUNTIME: Final = environment(dict.fromkeys(DECLARABLE, "dyn"))
