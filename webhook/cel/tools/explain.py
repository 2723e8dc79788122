"""Why an expression has the value it has: the tree of its parts, each with its own value, and what decided.

Every part is evaluated by the engine itself, in the context of the whole. The output is for users: values are cut short
and maps show their keys only, so that an explanation can be pasted into a ticket.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from webhook.cel import engine
from webhook.cel.ast import checked
from webhook.cel.ast.spans import Spans
from webhook.cel.authz import UnansweredError
from webhook.cel.errors import CompileError, EvaluationError, OpaqueValueError
from webhook.cel.program import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.cel.expression import Checked
    from webhook.cel.program import Bindings, Program

_MAX_TEXT: Final = 200
_MAX_ELEMENTS: Final = 256
_MAX_SHOWN: Final = 3
_MAX_NODES: Final = 500
_DECISIVE: Final = {"_&&_": False, "_||_": True}


@dataclass(frozen=True, slots=True)
class Node:
    """One part of an expression: its source, its value in words or its error, and why it matters."""

    text: str
    value: str = ""
    error: str = ""
    note: str = ""
    children: tuple[Node, ...] = ()

    def lines(self, depth: int = 0) -> Iterator[str]:
        """Yield the tree as indented lines."""
        outcome = f"error: {self.error}" if self.error else self.value
        note = f"   [{self.note}]" if self.note else ""
        yield f"{'  ' * depth}{self.text}{' = ' if outcome else ''}{outcome}{note}"
        for child in self.children:
            yield from child.lines(depth + 1)


@dataclass(frozen=True, slots=True)
class _Opaque:
    """Stands for a value that has no JSON form."""

    type_name: str

    def __str__(self) -> str:
        return f"<{self.type_name}>"


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any = None
    error: str = ""

    def is_(self, value: bool) -> bool:
        return not self.error and self.value is value


@dataclass(frozen=True, slots=True)
class _Place:
    """Which source the explained part belongs to, and the variables of the loops it lies in (name, bytes)."""

    body: Checked
    message: Any
    spans: Spans
    locals: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def of(cls, body: Checked) -> _Place:
        message = body.message
        return cls(body, message, Spans(message, body.source))

    def has(self, name: str) -> bool:
        """Return whether ``name`` is a variable of a loop; its value is shown with the element."""
        return any(name == local for local, _ in self.locals)

    def inside(self, *locals_: tuple[str, bytes]) -> _Place:
        return replace(self, locals=(*self.locals, *locals_))


def explain(program: Program, bindings: Bindings, params: Any = None) -> Node:
    """Return the tree of ``program`` evaluated on ``bindings``.

    Parts that were not reached are shown without a value. Questions that ``authorizer`` cannot answer become errors
    of their part; they are not added to the open ones.
    """
    pending = set(bindings.authorizer.open)
    try:
        place = _Place.of(program.body)
        return _Explainer(program, bindings, params).node(place, place.message.expr)
    finally:
        bindings.authorizer.open = pending


class _Explainer:
    def __init__(self, program: Program, bindings: Bindings, params: Any) -> None:
        self._program = program
        self._bindings = bindings
        self._params = params
        self._left = _MAX_NODES

    def node(self, place: _Place, expr: Any, note: str = "") -> Node:
        self._left -= 1
        outcome = self._evaluate(place, expr)
        text = _cut(place.spans.text(expr))
        children = self._children(place, expr, outcome) if self._left > 0 else ()
        return Node(
            text, "" if outcome.error else brief(outcome.value), _cut(outcome.error), note, tuple(children)
        )

    def _evaluate(self, place: _Place, expr: Any) -> _Outcome:
        content = expr.SerializeToString()
        if checked.type_of(place.message, expr).abstract_type.name == "optional_type":
            # An optional has no plain form: show its content.
            value = checked.call("value", target=content)
            content = checked.call(
                "_?_:_", checked.call("hasValue", target=content), value, checked.text("none")
            )
        for name, value in reversed(place.locals):
            content = checked.bind(name, value, content, lazy=True)
        try:
            expression = engine.deserialize(checked.dump(self._program.surroundings.enclose(content)))
            return _Outcome(run(expression, self._bindings, self._params))
        except OpaqueValueError as opaque:
            return _Outcome(_Opaque(opaque.type_name))
        except (EvaluationError, CompileError) as error:
            return _Outcome(error=error.message)
        except UnansweredError:
            return _Outcome(error="the authorizer check is pending")

    def _children(self, place: _Place, expr: Any, outcome: _Outcome) -> Iterator[Node]:
        kind = expr.WhichOneof("kind")
        function = expr.call_expr.function
        if kind == "ident_expr":
            yield from self._variable(expr.ident_expr.name)
        elif kind == "comprehension_expr" and expr.comprehension_expr.iter_var != "#unused":
            yield from self._loop(place, expr)
        elif function in _DECISIVE and all(argument.id for argument in expr.call_expr.args):
            yield from self._junction(place, expr, outcome)
        elif function == "_?_:_" and expr.call_expr.args[0].id and not self._made_by_macro(place, expr):
            yield from self._conditional(place, expr)
        elif kind != "select_expr" or outcome.error or not _is_chain(expr):
            texts = set()
            for where, child in self._parts(place, expr, expr):
                shown = child.WhichOneof("kind") == "const_expr" or where.has(child.ident_expr.name)
                text = where.spans.text(child)
                if text not in texts and not shown:
                    texts.add(text)
                    yield self.node(where, child)

    def _variable(self, name: str) -> Iterator[Node]:
        for variable in self._program.surroundings.closure:
            if variable.qualified == name:
                place = _Place.of(variable.body)
                yield self.node(place, place.message.expr, f"definition of variables.{variable.name}")

    def _junction(self, place: _Place, expr: Any, outcome: _Outcome) -> Iterator[Node]:
        function = expr.call_expr.function
        decisive = _DECISIVE[function]
        for operand in _operands(expr, function):
            result = self._evaluate(place, operand)
            if result.error and not outcome.error:
                text = _cut(place.spans.text(operand))
                yield Node(text, error=_cut(result.error), note="does not matter here")
            else:
                decides = bool(result.error) or result.is_(decisive)
                yield self.node(place, operand, "decides" if decides else "")

    def _conditional(self, place: _Place, expr: Any) -> Iterator[Node]:
        condition, when_true, when_false = expr.call_expr.args
        result = self._evaluate(place, condition)
        yield self.node(place, condition, "condition")
        for branch, value in ((when_true, True), (when_false, False)):
            if result.is_(value):
                yield self.node(place, branch, "chosen")
            else:
                yield Node(_cut(place.spans.text(branch)), note="not reached")

    def _loop(self, place: _Place, expr: Any) -> Iterator[Node]:
        loop = expr.comprehension_expr
        yield self.node(place, loop.iter_range)
        elements = self._evaluate(place, loop.iter_range)
        if elements.error or not isinstance(elements.value, list | dict):
            return
        predicate = _predicate(loop)
        decisive = _DECISIVE.get(loop.loop_step.call_expr.function, True)
        shown: list[tuple[_Place, str]] = []
        ordinary: list[tuple[_Place, str]] = []
        for where, label in _elements(place, loop, elements.value):
            outcome = self._evaluate(where, predicate)
            if outcome.error or outcome.is_(decisive):
                shown.append((where, f"{label}: {'fails' if outcome.error else 'decides'}"))
                if not outcome.error and loop.loop_step.call_expr.function in _DECISIVE:
                    break
            elif len(ordinary) < _MAX_SHOWN:
                ordinary.append((where, label))
        for where, note in (shown or ordinary)[:_MAX_SHOWN]:
            yield self.node(where, predicate, note)

    def _parts(self, place: _Place, root: Any, expr: Any) -> Iterator[tuple[_Place, Any]]:
        """Yield the parts of ``expr`` that its author wrote, through what macros and rewrites put in between."""
        loop = expr.comprehension_expr
        if loop.iter_var == "#unused":
            yield from self._visible(place, root, loop.accu_init)
            inner = place.inside((loop.accu_var, loop.accu_init.SerializeToString()))
            yield from self._visible(inner, root, loop.result)
            return
        if loop.iter_var:
            # A loop from a macro: its step cannot be shown without an element.
            yield from self._visible(place, root, loop.iter_range)
            return
        for child in checked.children(expr):
            yield from self._visible(place, root, child)

    def _visible(self, place: _Place, root: Any, child: Any) -> Iterator[tuple[_Place, Any]]:
        if child.id and place.spans.offset(child) != place.spans.offset(root):
            yield place, child
        else:
            yield from self._parts(place, root, child)

    @staticmethod
    def _made_by_macro(place: _Place, expr: Any) -> bool:
        return any(place.spans.offset(child) == place.spans.offset(expr) for child in checked.children(expr))


def _operands(expr: Any, function: str) -> Iterator[Any]:
    """Yield the operands of a chain of one operator, which the engine stores as a balanced tree, in order."""
    if expr.call_expr.function == function and all(argument.id for argument in expr.call_expr.args):
        for argument in expr.call_expr.args:
            yield from _operands(argument, function)
    else:
        yield expr


def _is_chain(expr: Any) -> bool:
    while expr.WhichOneof("kind") == "select_expr":
        expr = expr.select_expr.operand
    return bool(expr.WhichOneof("kind") == "ident_expr" and "." not in expr.ident_expr.name)


def _predicate(loop: Any) -> Any:
    """Return what a loop computes for each element: its condition if it has one, else its item."""
    step = loop.loop_step.call_expr
    if step.function == "_?_:_":
        return step.args[0]
    item = step.args[1]
    return item.list_expr.elements[0] if item.WhichOneof("kind") == "list_expr" else item


def _elements(place: _Place, loop: Any, value: list[Any] | dict[Any, Any]) -> Iterator[tuple[_Place, str]]:
    """Yield the surroundings of each pass of ``loop`` over ``value``, and words for the element."""
    container = loop.iter_range.SerializeToString()
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for number, key in enumerate(keys):
        if number == _MAX_ELEMENTS:
            return
        literal = checked.constant(key)
        item = checked.call("_[_]", container, literal)
        if loop.iter_var2:
            where = place.inside((loop.iter_var, literal), (loop.iter_var2, item))
        else:
            where = place.inside((loop.iter_var, literal if isinstance(value, dict) else item))
        name, shown = (loop.iter_var2 or loop.iter_var), value[key]
        if isinstance(value, dict):
            name, shown = loop.iter_var, key
        yield where, f"element {number + 1} of {len(value)}, {name} = {brief(shown)}"


def brief(value: Any) -> str:
    """Return ``value`` in words, at most 200 characters: scalars as CEL writes them, maps by their keys only."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _cut(f'"{value}"')
    if isinstance(value, dict):
        name = value.get("name")
        label = f'name "{name}"; ' if isinstance(name, str) else ""
        return _cut(f"{{{label}keys: {', '.join(sorted(map(str, value)))}}}") if value else "{}"
    if isinstance(value, list):
        if any(isinstance(item, list | dict) for item in value):
            return f"[{len(value)} elements]"
        return _cut(f"[{', '.join(brief(item) for item in value[:20])}]")
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
