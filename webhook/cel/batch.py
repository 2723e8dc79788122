"""What several policies decide, in one evaluation: the engine is entered once, and Python runs once around it.

A batch only ever says what each policy evaluated alone would say, and nothing where it cannot tell: an expression
that has no value, a budget that is used up. It never words a finding, and never asks a Python callback about params or
the authorizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from webhook.cel import engine, values
from webhook.cel.ast import checked
from webhook.cel.errors import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.cel.program import Bindings, Program

# One letter for each policy: it does not match the request, a condition is false, it passes, a rule is broken or open.
UNMATCHED, SKIPPED, PASSED, BROKEN = "-", "0", "1", "2"
_UNMATCHED, _SKIPPED, _PASSED, _BROKEN = map(checked.text, (UNMATCHED, SKIPPED, PASSED, BROKEN))
# Answered by callbacks, with what waits in a frame of one program; a batch has no frame.
_CALLING_BACK: Final = frozenset({"authorizer", "params"})


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """The expressions of one policy: conditions that must all be true for it to apply, and rules that must all be true.

    All conditions come from one environment. All rules come from one, with one scope of variables. ``rules`` is None
    where they cannot be decided here: the entry is then skipped, or pending as if one were violated. ``match_flag`` is
    the key of `Bindings` ``matching`` that states whether the request matches; empty where it always does.
    """

    conditions: tuple[Program, ...]
    rules: tuple[Program, ...] | None
    match_flag: str


def combinable(programs: Iterable[Program]) -> bool:
    """Whether programs may be part of a batch."""
    return all(program.references.isdisjoint(_CALLING_BACK) for program in programs)


class Batch:
    """One expression for several cases, whose programs are `combinable`."""

    __slots__ = ("_expression",)

    def __init__(self, cases: Sequence[BatchEntry]) -> None:
        """Combine; raises `CompileError` where the whole is nested too deeply."""
        expr = checked.call("join", target=checked.sequence(*map(_outcome, cases)))
        self._expression = engine.deserialize(checked.dump(expr))
        engine.plan(self._expression)

    def outcomes(self, bindings: Bindings) -> str:
        """One letter for each case, in their order; an empty text where not all of them have a value."""
        activation = bindings.activation
        try:
            value: Any = values.plain(self._expression.eval(activation))
        except (RuntimeError, TypeError, EvaluationError):
            return ""
        return str(value)


def _outcome(case: BatchEntry) -> bytes:
    """The expression of one letter. CEL's ``&&`` has the law of matchConditions: what is false beats an error."""
    letter = _BROKEN if case.rules is None else _PASSED
    if case.rules:
        letter = _choose(_hold(case.rules), _PASSED, _BROKEN)
    if case.conditions:
        letter = _choose(_hold(case.conditions), letter, _SKIPPED)
    if case.match_flag:
        matches = checked.call("@in", checked.text(case.match_flag), checked.ident(engine.MATCHING))
        letter = _choose(matches, letter, _UNMATCHED)
    return letter


def _hold(programs: Sequence[Program]) -> bytes:
    """Whether all are true, with what they need bound around these alone: others may mean another by the same name.

    It is bound at once (see `checked.make_eager`). What fails is a value here, which matters where it is reached.
    """
    closure = {
        variable.qualified: variable.expr for item in programs for variable in item.surroundings.closure
    }
    names = {name: value for item in programs for name, value in item.surroundings.names}
    expr = _all(programs)
    for name, value in (*reversed(closure.items()), *names.items()):
        expr = checked.bind(name, value, expr, lazy=False)
    return expr


def _all(programs: Sequence[Program]) -> bytes:
    """Whether all are true, as a tree: a chain of many would be nested too deeply for the engine."""
    if len(programs) == 1:
        return bytes(programs[0].body.message.expr.SerializeToString())
    middle = len(programs) // 2
    return checked.call("_&&_", _all(programs[:middle]), _all(programs[middle:]))


def _choose(condition: bytes, when_true: bytes, when_false: bytes) -> bytes:
    return checked.call("_?_:_", condition, when_true, when_false)
