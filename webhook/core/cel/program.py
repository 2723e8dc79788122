"""A compiled expression, and the values of one request that it is evaluated on.

A program is immutable and may be evaluated from any thread. Bindings belong to the thread that made them and to one
request; they convert each variable for the engine at most once, however many programs read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.core.authz import Answers, UnansweredError
from webhook.core.cel import context, engine, values
from webhook.core.cel.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Bindings:
    """The values of one request: plain JSON-like data by variable name, the recorded answers, and who asks."""

    __slots__ = ("_activation", "_data", "authorizer", "request", "user")

    def __init__(
        self, data: Mapping[str, Any], *, authorizer: Answers | None = None, user: context.User | None = None
    ):
        unknown = data.keys() - engine.ABSENT.keys()
        if unknown:
            raise ValueError(f"unknown variables: {', '.join(sorted(unknown))}")
        self.authorizer = authorizer if authorizer is not None else Answers()
        self.user = user if user is not None else context.User()
        self.request: Mapping[str, Any] = data.get("request") or {}
        self._data = {**engine.ABSENT, **data}
        self._activation: Any = None

    @property
    def activation(self) -> Any:
        """The engine's view of the data, made at first use; it belongs to the calling thread."""
        if self._activation is None:
            self._activation = engine.activation(self._data)
        return self._activation


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled expression.

    ``references`` holds the root variables it names, also through ``variables``; ``return_type`` is its type in
    words, such as ``bool`` or ``list(string)``.
    """

    source: str
    return_type: str
    references: frozenset[str]
    expression: Any

    def evaluate(self, bindings: Bindings, params: Any = None) -> Any:
        """Return the value on ``bindings`` as plain Python data.

        Raises EvaluationError when there is no value, and UnansweredError when ``authorizer`` was asked something
        that ``bindings`` holds no answer to, even if the expression would have had a value without it.
        """
        return run(self.expression, bindings, params)


def run(expression: Any, bindings: Bindings, params: Any) -> Any:
    """Evaluate a raw engine expression as `Program.evaluate` does."""
    answers = bindings.authorizer
    earlier, answers.open = answers.open, set()
    before = context.swap(context.Frame(answers, bindings.user, bindings.request, params))
    try:
        return values.plain(expression.eval(bindings.activation))
    except (RuntimeError, TypeError) as error:
        raise EvaluationError.parse(str(error)) from None
    finally:
        context.swap(before)
        asked = answers.open
        answers.open = earlier | asked
        if asked:
            # The engine turns what a callback raises into an error value, which `||` may absorb.
            raise UnansweredError(f"{len(asked)} open questions")
