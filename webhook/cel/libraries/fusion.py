"""Fuse chains of library calls into one call: ``quantity(x).isLessThan(quantity('1Gi'))`` crosses into Python once.

Every argument and result that crosses is copied, and cel-expr-python 0.1.3 leaks what it hands to a callback, some
100 bytes for a string and 500 for a message. A plan is what remains of a chain: its calls composed, literals
already parsed, and only strings still to come.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from webhook.cel.ast import checked
from webhook.cel.libraries import opaque, syntax
from webhook.cel.libraries.authorizer import Authorizer, ResourceCheck
from webhook.cel.libraries.declarations import BOOL, CelType, Overload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FUNCTION: Final = "@library"
MOST_LEAVES: Final = 8
_LITERALS: Final = {"string": "string_value", "bool": "bool_value", "int": "int64_value"}
_EQUALITIES: Final = {"_==_": True, "_!=_": False}
# Values of these types can be compared with each other, and with nothing else.
_COMPARABLE: Final = {
    name: CelType(name)
    for name in (opaque.QUANTITY, opaque.SEMVER, opaque.URL, opaque.IP, opaque.CIDR, opaque.FORMAT)
}
_RUNS: Final[dict[int, Callable[[tuple[str, ...]], Any]]] = {}
_NUMBERS: Final[dict[Any, int]] = {}
_numbers = count()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a chain computes. ``key`` is equal for plans that compute the same; ``leaves`` are its arguments.

    ``constant`` is the value, in a tuple, if nothing is left to compute. ``calls`` counts the calls that
    were composed or already evaluated.
    """

    key: Any
    run: Callable[[tuple[str, ...]], Any]
    leaves: tuple[Any, ...] = ()
    calls: int = 0
    constant: tuple[Any] | None = None


def run(number: int, *leaves: str) -> Any:
    """Run a plan; the callback behind `FUNCTION`."""
    return _RUNS[number](leaves)


class Fuser:
    """Replaces the chains of one checked expression, in place."""

    def __init__(self, message: Any, overloads: Mapping[str, Overload]) -> None:
        self._message = message
        self._overloads = overloads

    def fuse(self) -> None:
        """Replace every chain, the longest first."""
        pending = [self._message.expr]
        while pending:
            node = pending.pop()
            plan = self._plan(node)
            if plan is not None and plan.calls and len(plan.leaves) <= MOST_LEAVES:
                # The leaves of the plan are the arguments now, and may contain chains of their own.
                _replace(node, plan)
            pending.extend(checked.children(node))

    def _plan(self, node: Any) -> Plan | None:
        if node.WhichOneof("kind") != "call_expr":
            return None
        overload = self._overload(node)
        if overload is None or overload.implementation is None:
            return None
        call = node.call_expr
        arguments = [call.target, *call.args] if call.HasField("target") else list(call.args)
        parts = []
        for argument, parameter in zip(arguments, overload.parameters, strict=True):
            part = self._part(argument, parameter.name)
            if part is None:
                return None
            parts.append(part)
        return _compose(overload, parts)

    def _part(self, node: Any, expected: str) -> Plan | None:
        literal = _literal(node, expected)
        if literal is not None:
            return literal
        plan = self._plan(node)
        if plan is not None:
            return plan
        if expected == "string":
            return Plan(("leaf",), lambda leaves: leaves[0], (node,))
        return None

    def _overload(self, node: Any) -> Overload | None:
        """Return the one overload that a call means, or None when that is decided at run time."""
        function = node.call_expr.function
        if function in _EQUALITIES:
            return self._equality(node)
        if function.startswith("@"):
            return self._overloads.get(function)
        if node.id not in self._message.reference_map:
            return None
        candidates = self._message.reference_map[node.id].overload_id
        overload = self._overloads.get(candidates[0]) if len(candidates) == 1 else None
        return overload if overload is not None and overload.function == function else None

    def _equality(self, node: Any) -> Overload | None:
        """Return ``==`` or ``!=`` as an overload where both sides are values of one library type."""
        sides = [self._type_name(argument) for argument in node.call_expr.args]
        if sides[0] != sides[1] or sides[0] not in _COMPARABLE:
            return None
        expected = _EQUALITIES[node.call_expr.function]
        type_ = _COMPARABLE[sides[0]]
        function = node.call_expr.function
        return Overload(
            function,
            f"{function}{sides[0]}",
            (type_, type_),
            BOOL,
            lambda left, right: (left == right) is expected,
        )

    def _type_name(self, node: Any) -> str:
        return str(checked.type_of(self._message, node).message_type)


def _literal(node: Any, expected: str) -> Plan | None:
    kind = node.WhichOneof("kind")
    if kind == "const_expr":
        constant = node.const_expr
        field = constant.WhichOneof("kind")
        if field == _LITERALS.get(expected):
            value = getattr(constant, field)
            return Plan(("constant", field, value), lambda _: value, constant=(value,))
    elif kind == "ident_expr" and node.ident_expr.name == "authorizer" and expected == Authorizer.TYPE:
        requester = Authorizer()
        return Plan("authorizer", lambda _: requester, constant=(requester,))
    elif kind == "ident_expr" and node.ident_expr.name == "authorizer.requestResource":
        return Plan("authorizer.requestResource", lambda _: ResourceCheck.of_request())
    return None


def _compose(overload: Overload, parts: list[Plan]) -> Plan:
    implementation: Any = overload.implementation
    key = (overload.identity, *(part.key for part in parts))
    leaves = tuple(leaf for part in parts for leaf in part.leaves)
    calls = 1 + sum(part.calls for part in parts)
    if overload.pure and all(part.constant for part in parts):
        try:
            value = implementation(*(part.constant[0] for part in parts if part.constant))
        except ValueError:
            pass  # It fails where and when it is reached, like any other expression.
        else:
            return Plan(key, lambda _: value, calls=calls, constant=(value,))
    steps = tuple(_steps(parts))
    return Plan(key, lambda given: implementation(*(step(given) for step in steps)), leaves, calls)


def _steps(parts: list[Plan]) -> Iterator[Callable[[tuple[str, ...]], Any]]:
    """Yield what computes each part from the leaves of the whole."""
    start = 0
    for part in parts:
        yield _step(part, slice(start, start + len(part.leaves)))
        start += len(part.leaves)


def _step(part: Plan, here: slice) -> Callable[[tuple[str, ...]], Any]:
    if part.constant:
        value = part.constant[0]
        return lambda _: value
    return lambda given: part.run(given[here])


def _replace(node: Any, plan: Plan) -> None:
    identity = node.id
    leaves = [leaf.SerializeToString() for leaf in plan.leaves]
    value = plan.constant[0] if plan.constant else None
    if isinstance(value, (bool, int, float, str)):
        replacement = syntax.constant(value)
    elif value is not None and hasattr(value, "parts"):
        replacement = syntax.literal(value)
    else:
        replacement = checked.call(FUNCTION, syntax.constant(_number(plan)), *leaves)
    node.ParseFromString(replacement)
    node.id = identity


def _number(plan: Plan) -> int:
    number = _NUMBERS.get(plan.key)
    if number is None:
        # Two threads may both come here; each number still means one plan.
        number = next(_numbers)
        _RUNS[number] = plan.run
        _NUMBERS[plan.key] = number
    return number
