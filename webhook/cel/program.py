"""A compiled expression, and the values of one request that it is evaluated on.

A program is immutable and may be evaluated from any thread. Bindings belong to the thread that created them and to
one request; they convert each variable for the engine at most once, however many programs read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final

from webhook.cel import context, engine, values
from webhook.cel.ast import checked
from webhook.cel.authz import Answers, UnansweredError
from webhook.cel.errors import EvaluationError
from webhook.cel.schema import REQUEST_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.cel.expression import Checked
    from webhook.cel.variables import Variable

_CALLING_BACK: Final = frozenset({"authorizer", "params"})


class Bindings:
    """The values of one request: JSON-like data by variable name, the recorded decisions, and the requester.

    ``data`` must consist of exactly dict, list, str, int, float, bool and None, as a JSON parser makes them, and
    must have passed `webhook.core.kube.strict_json`. A variable that is left out is null, or an empty list. ``request``
    may be the whole AdmissionRequest; only the fields that policies can name remain. ``matching`` is for
    `webhook.cel.batch`.
    """

    __slots__ = ("_activation", "_data", "_thread", "authorizer", "request", "user")

    def __init__(
        self,
        data: Mapping[str, Any],
        *,
        authorizer: Answers | None = None,
        user: context.User | None = None,
        matching: Mapping[str, bool] | None = None,
    ) -> None:
        unknown = data.keys() - engine.ABSENT.keys()
        if unknown:
            raise ValueError(f"unknown variables: {', '.join(sorted(unknown))}")
        request: Mapping[str, Any] = data.get("request") or {}
        self.authorizer = authorizer if authorizer is not None else Answers()
        self.user = user if user is not None else context.User.from_user_info(request.get("userInfo"))
        self.request = {name: request[name] for name in REQUEST_FIELDS if name in request}
        self._data = {
            **engine.ABSENT,
            **data,
            "request": self.request,
            engine.MATCHING: matching or {},
            **_placed(data),
        }
        self._activation: Any = None
        self._thread = 0

    @property
    def activation(self) -> Any:
        """The engine's view of the data, created at first use.

        Raises RuntimeError in another thread than the first: cel-expr-python 0.1.3 converts values lazily and
        without a lock.
        """
        if self._activation is None:
            self._activation = engine.activation(self._data)
            self._thread = get_ident()
        elif self._thread != get_ident():
            raise RuntimeError("bindings were handed to another thread")
        return self._activation


def _placed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``pod`` as the activation contains it: by its place where it is a part of ``object``.

    Most of a review is the pod, and converting it a second time would cost as much as all policies together.
    """
    pod, document = data.get("pod"), data.get("object")
    if pod is not None and pod is document:
        return {engine.POD_PLACE: engine.POD_IS_OBJECT, engine.POD: None}
    spec = document.get("spec") if isinstance(document, dict) else None
    if pod is not None and isinstance(spec, dict) and pod is spec.get("template"):
        return {engine.POD_PLACE: engine.POD_IS_TEMPLATE, engine.POD: None}
    return {engine.POD_PLACE: engine.POD_IS_APART, engine.POD: pod}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an expression needs beyond the activation: variables of its policy, and other names with their bytes."""

    closure: tuple[Variable, ...]
    names: tuple[tuple[str, bytes], ...]

    def around(self, expr: Any) -> bytes:
        """Return the bytes of ``expr`` with everything it may need bound around it."""
        return self.enclose(expr.SerializeToString())

    def enclose(self, expr: bytes) -> bytes:
        """Do the same to the bytes of an expression."""
        for variable in reversed(self.closure):
            expr = checked.bind(variable.qualified, variable.expr, expr, lazy=True)
        for name, value in self.names:
            expr = checked.bind(name, value, expr, lazy=True)
        return expr


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression.

    ``references`` are the root variables it names, also through ``variables``; ``return_type`` is its type in
    words, such as ``bool`` or ``list(string)``. The rest is for `explain` and `lint`.
    """

    source: str
    return_type: str
    references: frozenset[str]
    expression: Any
    body: Checked
    surroundings: Surroundings

    @property
    def sees_managed_fields(self) -> bool:
        """Whether ``metadata.managedFields`` of a document could make a difference, also through ``variables``."""
        bodies = (self.body, *(variable.body for variable in self.surroundings.closure))
        return any(body.sees_managed_fields for body in bodies)

    def evaluate(self, bindings: Bindings, params: Any = None) -> Any:
        """Return the value on ``bindings`` as plain Python data.

        Raises EvaluationError if there is no value, and UnansweredError if ``authorizer`` lacks a decision
        in ``bindings``, even if the expression would have a value without it.
        """
        activation = bindings.activation
        if self.references.isdisjoint(_CALLING_BACK):
            return _value(self.expression, activation)
        return run(self.expression, bindings, params)


def run(expression: Any, bindings: Bindings, params: Any) -> Any:
    """Evaluate a raw engine expression whose functions may call back; raises as `Program.evaluate` does."""
    activation = bindings.activation
    answers = bindings.authorizer
    earlier, answers.open = answers.open, set()
    before = context.swap(context.Frame(answers, bindings.user, bindings.request, params))
    try:
        return _value(expression, activation)
    finally:
        context.swap(before)
        pending = answers.open
        answers.open = earlier | pending
        if pending:
            # The engine turns what a callback raises into an error value, which `||` may absorb.
            raise UnansweredError(f"{len(pending)} open authorizer checks")


def _value(expression: Any, activation: Any) -> Any:
    try:
        return values.plain(expression.eval(activation))
    except (RuntimeError, TypeError) as error:
        raise EvaluationError.parse(str(error)) from None
