"""Environments: which variables a source may name, and the way from a source to a program.

The variables are those of k8s.io/apiserver ``pkg/admission/plugin/cel/compile.go`` and Weightlock's own. Nothing is
evaluated here on behalf of a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from cel_expr_python import cel

from webhook.core.cel import checked, engine, types
from webhook.core.cel.errors import CompileError
from webhook.core.cel.program import Program
from webhook.core.cel.variables import Variables

Expectation = Literal["bool", "string", "string or null", "any"]

_EXPECTED: Final[dict[str, frozenset[str]]] = {
    "bool": frozenset({"bool"}),
    "string": frozenset({"string"}),
    "string or null": frozenset({"string", "null"}),
}
_CACHED_SCOPES: Final = 1024
# Literals and comments first, so that what they hold is never taken for code.
_TOKENS: Final = re.compile(
    r"""(?P<skip>//[^\n]*|[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))"""
    r"""|(?P<quoted>`)"""
    r"""|(?P<has>\bhas\s*\(\s*variables\s*\.\s*(?P<tested>[A-Za-z_]\w*)\s*\))"""
    r"""|(?<![\w.])variables\s*\.\s*(?P<name>[A-Za-z_]\w*)""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Checked:
    """A source that passed the checker: the engine's expression, its AST, and what it names."""

    expression: Any
    message: Any
    type: Any
    type_name: str
    variables: frozenset[str]
    references: frozenset[str]


class Environment:
    """What a source may name. Obtained from `environment`; holds no state of any request."""

    def __init__(self, *, authorizer: bool, params: bool, weightlock: bool) -> None:
        self._declared: dict[str, Any] = dict(engine.REQUEST_VARIABLES)
        if params:
            self._declared["params"] = cel.Type.DYN
        if weightlock:
            self._declared.update(engine.FACT_VARIABLES)
        if authorizer:
            self._declared.update(engine.libraries.variables())
        self._engine = engine.environment(self._declared)
        self._scopes: dict[tuple[tuple[str, str], ...], Any] = {}

    def compile(
        self, source: str, *, expect: Expectation = "bool", variables: Variables | None = None
    ) -> Program:
        """Compile ``source`` to a program that yields what ``expect`` says; ``any`` accepts every type.

        As in the API server the type must be exactly that: an expression of dynamic type is no ``bool``.
        Raises CompileError.
        """
        scope = variables if variables is not None else Variables(self)
        body = self.check(source, scope)
        if expect != "any" and body.type_name not in _EXPECTED[expect]:
            raise CompileError.at(source, 0, f"must evaluate to {expect} but got {body.type_name}")
        closure = scope.closure(body.variables)
        references = body.references.union(*(variable.references for variable in closure))
        bound = self._bound(body, closure, "params" in references)
        engine.plan(bound)
        return Program(source=source, return_type=body.type_name, references=references, expression=bound)

    def variables(self) -> Variables:
        """Return an empty scope for the variables of one policy."""
        return Variables(self)

    def check(self, source: str, scope: Variables) -> Checked:
        """Parse and check ``source`` where the variables of ``scope`` are known; raises CompileError."""
        prepared, names = _prepare(source, scope)
        expression = engine.compile_source(self._scoped(scope.declarations(names)), prepared)
        message = checked.load(expression.serialize())
        root = checked.type_of(message)
        named = {item.value.name for item in message.reference_map if item.value.name}
        return Checked(
            expression=expression,
            message=message,
            type=types.declare(root),
            type_name=types.describe(root),
            variables=frozenset(name[10:] for name in named if name.startswith("variables.")),
            references=frozenset(name.partition(".")[0] for name in named & self._declared.keys()),
        )

    def _scoped(self, declarations: tuple[tuple[str, str, Any], ...]) -> Any:
        if not declarations:
            return self._engine
        key = tuple((name, type_name) for name, type_name, _ in declarations)
        env = self._scopes.get(key)
        if env is None:
            if len(self._scopes) >= _CACHED_SCOPES:
                self._scopes.clear()
            env = engine.environment({**self._declared, **{name: type_ for name, _, type_ in declarations}})
            self._scopes[key] = env
        return env

    def _bound(self, body: Checked, closure: tuple[Any, ...], params: bool) -> Any:
        if not closure and not params:
            return body.expression
        expr = body.message.expr.SerializeToString()
        parts = [checked.tables(body.message)]
        for variable in reversed(closure):
            expr = checked.bind("variables." + variable.name, variable.expr, expr, variable.identity)
            parts.append(variable.tables)
        if params:
            identity = checked.PARAMS_IDENTITY
            call = checked.call(engine.PARAMS_FUNCTION, identity)
            expr = checked.bind("params", call, expr, identity + 1)
            parts.append(checked.reference(identity, engine.PARAMS_OVERLOAD))
        return engine.deserialize(self._engine, checked.dump(b"".join((*parts, checked.expression(expr)))))


@cache
def environment(*, authorizer: bool = True, params: bool = True, weightlock: bool = True) -> Environment:
    """Return the environment with or without ``authorizer``, ``params`` and Weightlock's own variables."""
    return Environment(authorizer=authorizer, params=params, weightlock=weightlock)


def _prepare(source: str, scope: Variables) -> tuple[str, set[str]]:
    """Return ``source`` as the engine should see it, of the same length, and the variables it names.

    ``has(variables.x)`` is true for every defined variable in Kubernetes, and cel-expr-python 0.1.3 takes it for
    ``variables.x``, so it is replaced by ``true``. Quoted identifiers are not part of the Kubernetes dialect.
    """
    names: set[str] = set()
    if "variables" not in source and "`" not in source:
        return source, names

    def replace(match: re.Match[str]) -> str:
        if match["quoted"]:
            raise CompileError.at(source, match.start(), "Syntax error: token recognition error at: '`'")
        if match["tested"] and match["tested"] in scope:
            return "true" + re.sub(r"[^\n]", " ", match[0][4:])
        if match["name"]:
            names.add(match["name"])
        return match[0]

    return _TOKENS.sub(replace, source), names
