"""Environments: which variables a source may name, and the way from a source to a program.

The variables are those of k8s.io/apiserver ``pkg/admission/plugin/cel/compile.go`` and Weightlock's own. Nothing
is evaluated here on behalf of a request.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any, Final, Literal

from webhook.cel import dialect, engine, libraries, types
from webhook.cel.ast import checked, managed_fields, mixed_numbers
from webhook.cel.ast.rewrite import rewrite
from webhook.cel.errors import CompileError
from webhook.cel.expression import Checked
from webhook.cel.program import Program, Surroundings
from webhook.cel.source import Source, prepare
from webhook.cel.variables import PREFIX, Variables

Expectation = Literal["bool", "string", "string or null", "any"]

_EXPECTED: Final[dict[str, frozenset[str]]] = {
    "bool": frozenset({"bool"}),
    "string": frozenset({"string"}),
    "string or null": frozenset({"string", "null_type"}),
}
# The last words of the functions that the libraries declare, and of those of cel-cpp and its macros that they correct.
_LIBRARY_WORDS: Final = sorted(
    {function["name"].rpartition(".")[2] for function in libraries.configuration()["functions"]}
    | {"distinct", "flatten", "indexOf", "lastIndexOf", "range", "reverse", "slice", "sort", "sortBy"}
)
# Whether a source can use the libraries at all, determined from its text: by a call, the authorizer, or a variable that
# contains a value of theirs (whose slot has the type's name). Most sources do not, and are not walked for them.
_LIBRARIES: Final = re.compile(rf"\b(?:{'|'.join(_LIBRARY_WORDS)})\s*\(|\bauthorizer\b|\b(?:kubernetes|net)_")
_ABSENT: Final = checked.call(engine.ABSENT_FUNCTION)
_OBJECT: Final = checked.ident("object")


def _pod_is_at(place: int) -> bytes:
    return checked.call("_==_", checked.ident(engine.POD_PLACE), checked.constant(place))


_STAND_INS: Final = {
    "params": checked.call(engine.PARAMS_FUNCTION),
    "pod": checked.call(
        "_?_:_",
        _pod_is_at(engine.POD_IS_OBJECT),
        _OBJECT,
        checked.call(
            "_?_:_",
            _pod_is_at(engine.POD_IS_TEMPLATE),
            checked.select(checked.select(_OBJECT, "spec"), "template"),
            checked.ident(engine.POD),
        ),
    ),
}
_CACHED: Final = 64


class Environment:
    """The names that a source may use. Obtained from `environment`; has no state of any request."""

    def __init__(self, *, authorizer: bool, params: bool, weightlock: bool, namespace: bool) -> None:
        self._declared: dict[str, str] = dict(engine.REQUEST_VARIABLES)
        if params:
            self._declared["params"] = "dyn"
        if weightlock:
            self._declared.update(engine.FACT_VARIABLES)
        if authorizer:
            self._declared.update({name: type_.name() for name, type_ in libraries.variables().items()})
        self._stand_ins = (
            _STAND_INS if namespace else _STAND_INS | {"namespaceObject": checked.constant(None)}
        )
        self._engine = _raw(tuple(self._declared.items()))

    def variables(self) -> Variables:
        """Return an empty scope for the variables of one policy."""
        return Variables(self)

    def compile(
        self, source: str, *, expect: Expectation = "bool", variables: Variables | None = None
    ) -> Program:
        """Compile ``source`` to a program that yields the type ``expect``; ``any`` accepts every type.

        As in the API server the type must be exactly that: an expression of dynamic type is not a ``bool``.
        Raises CompileError.
        """
        scope = variables if variables is not None else Variables(self)
        body = self.check(source, scope)
        if expect != "any" and body.type_name not in _EXPECTED[expect]:
            raise CompileError.at(source, 0, f"must evaluate to {expect} but got {body.type_name}")
        closure = scope.closure(body.variables)
        references = body.references.union(*(variable.references for variable in closure))
        surroundings = Surroundings(closure, self._names(references))
        if body.expression is not None and not closure and not surroundings.names:
            expression = body.expression
        else:
            expression = engine.deserialize(checked.dump(surroundings.around(body.message.expr)))
        engine.plan(expression)
        return Program(source, body.type_name, references, expression, body, surroundings)

    def check(self, text: str, scope: Variables) -> Checked:
        """Parse and check ``text`` where the variables of ``scope`` are declared; raises CompileError."""
        source, expression = self._parse(prepare(text, scope.slots()), scope)
        message = checked.load(expression.serialize())
        dialect.validate(message, source)
        uses_libraries = _LIBRARIES.search(source.prepared) is not None
        if uses_libraries:
            dialect.reject(message, source, libraries.issues(message))
        type_name = types.describe(checked.type_of(message, message.expr))
        sees_managed_fields = managed_fields.is_visible(message.expr)
        rewritten = rewrite(message, source.prepared)
        if uses_libraries:
            rewritten |= libraries.lower(message)
        reference_names = {reference.name for reference in message.reference_map.values()}
        return Checked(
            source=source,
            expression=None if rewritten else expression,
            ast=message.SerializeToString(),
            type_name=type_name,
            variables=source.names,
            references=frozenset(name.partition(".")[0] for name in reference_names & self._declared.keys()),
            sees_managed_fields=sees_managed_fields,
        )

    def _parse(self, source: Source, scope: Variables) -> tuple[Source, Any]:
        env = self._scoped(scope, source.names)
        try:
            return source, engine.compile_source(env, source.prepared)
        except CompileError as error:
            widened = mixed_numbers.respell(
                source, error, lambda: env.compile(source.prepared, disable_check=True)
            )
            if widened is None:
                raise source.relocate(error) from None
        try:
            return widened, engine.compile_source(env, widened.prepared)
        except CompileError as error:
            raise widened.relocate(error) from None

    def _scoped(self, scope: Variables, names: frozenset[str]) -> Any:
        """Return the raw environment that declares those of ``names`` whose type is not among the usual ones, too."""
        usual = types.usual_slots()
        unusual = sorted(
            (scope[name].qualified, scope[name].type_name) for name in names if scope[name].slot not in usual
        )
        return _raw(tuple(self._declared.items()), tuple(unusual)) if unusual else self._engine

    def _names(self, references: frozenset[str]) -> tuple[tuple[str, bytes], ...]:
        """Return the substitutes for the variables that no activation contains, by name.

        ``params`` differ between the policies that share an activation, and ``pod`` is mostly a part of ``object``.
        What this environment lacks, a variable compiled in another one may still name; reaching it is an error.
        """
        missing = references - self._declared.keys()
        names = {name: _ABSENT for name in engine.DECLARABLE if name.partition(".")[0] in missing}
        names.update((name, value) for name, value in self._stand_ins.items() if name in references - missing)
        return tuple(names.items())


@lru_cache(maxsize=_CACHED)
def _raw(declarations: tuple[tuple[str, str], ...], unusual: tuple[tuple[str, str], ...] = ()) -> Any:
    """The engine's environment of what is ``declarations``, the usual slots and ``unusual`` ones (types in words).

    Equal declarations share one: each takes a megabyte and 15 ms.
    """
    slots = {PREFIX + name: words for name, words in types.usual_slots().items()} | dict(unusual)
    return engine.environment(
        dict(declarations) | {name: types.signature(words) for name, words in slots.items()}
    )


@cache
def environment(
    *, authorizer: bool = True, params: bool = True, weightlock: bool = True, namespace: bool = True
) -> Environment:
    """Return the environment with or without ``authorizer``, ``params`` and Weightlock's own variables.

    Without ``namespace``, ``namespaceObject`` is declared and null: so the API server evaluates matchConditions
    (k8s.io/apiserver ``pkg/admission/plugin/webhook/matchconditions/matcher.go``).
    """
    return Environment(authorizer=authorizer, params=params, weightlock=weightlock, namespace=namespace)
