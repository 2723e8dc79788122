"""The one place that talks to cel-expr-python: which libraries are on, which types exist, how a source becomes an AST.

Exactly the Kubernetes set is enabled: cel-cpp's strings (version 2) and optionals, and Weightlock's own Kubernetes
libraries. cel-cpp's math, bindings, encoders and proto extensions stay off, since a policy that used them would not
load in an API server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings

from webhook.core.cel import context
from webhook.core.cel.errors import CompileError
from webhook.core.cel.schema import descriptors

if TYPE_CHECKING:
    from collections.abc import Mapping

try:
    from webhook.core.cel import libraries
except ImportError:
    import types

    libraries = types.SimpleNamespace(
        functions=list,
        message_files=list,
        extensions=list,
        variables=lambda: {"authorizer": cel.Type.DYN, "authorizer.requestResource": cel.Type.DYN},
        values=dict,
    )

REQUEST_VARIABLES: Final = {
    "object": cel.Type.DYN,
    "oldObject": cel.Type.DYN,
    "request": cel.Type("kubernetes.AdmissionRequest"),
    "namespaceObject": cel.Type("kubernetes.Namespace"),
}
FACT_VARIABLES: Final = {
    "pod": cel.Type.DYN,
    "workload": cel.Type("weightlock.Workload"),
    "weights": cel.Type.List(cel.Type("weightlock.Weight")),
    "devices": cel.Type.List(cel.Type("weightlock.Device")),
    "escapes": cel.Type.List(cel.Type("weightlock.Escape")),
    "subject": cel.Type("weightlock.Subject"),
    "grants": cel.Type.List(cel.Type("weightlock.Grant")),
}
# What a variable is when the request does not have it.
ABSENT: Final[dict[str, Any]] = {
    name: [] if name in {"weights", "devices", "escapes", "grants"} else None
    for name in (*REQUEST_VARIABLES, *FACT_VARIABLES)
}
PARAMS_FUNCTION: Final = "@params"
PARAMS_OVERLOAD: Final = "@params_0"
_POOL: Final = descriptors(libraries.message_files())


def _params() -> Any:
    return context.current().params


def _extensions() -> list[Any]:
    # No source can name "@params": it exists for the wrapper that binds `params` to the object in question.
    params = cel.FunctionDecl(
        PARAMS_FUNCTION, [cel.Overload(PARAMS_OVERLOAD, cel.Type.DYN, [], False, _params)]
    )
    return [
        ext_strings.ExtStrings(2),
        ext_optional.ExtOptional(),
        *libraries.extensions(),
        cel.CelExtension("weightlock", [params, *libraries.functions()]),
    ]


_EXTENSIONS: Final = _extensions()


def environment(variables: Mapping[str, Any]) -> Any:
    """Return a raw engine environment that declares ``variables`` (name to engine type) and every library."""
    return cel.NewEnv(descriptor_pool=_POOL, variables=dict(variables), extensions=_EXTENSIONS)


def activation(data: Mapping[str, Any]) -> Any:
    """Return the engine's view of ``data``, converted variable by variable on first reference."""
    return _RUNTIME.Activation(dict(data))


def compile_source(env: Any, source: str) -> Any:
    """Parse and check ``source``; return the engine's expression or raise CompileError with every issue."""
    try:
        return env.compile(source)
    except RuntimeError as error:
        raise CompileError.parse(str(error)) from None


def deserialize(env: Any, serialized: bytes) -> Any:
    """Return the expression of a serialized checked AST; raises CompileError when the engine cannot hold it."""
    try:
        return env.deserialize(serialized)
    except RuntimeError as error:
        raise CompileError.parse(str(error)) from None


def plan(expression: Any) -> None:
    """Have the engine build its execution plan now, which it otherwise does at the first evaluation (some 200 µs)."""
    try:
        expression.eval()
    except RuntimeError:
        # Without variables most expressions fail here; the plan is made all the same.
        return


# Activations fit every environment by variable name. This one knows no types: an absent field is absent at run time,
# whatever the checker knows about it.
_RUNTIME: Final = environment(dict.fromkeys((*ABSENT, *libraries.variables()), cel.Type.DYN))
