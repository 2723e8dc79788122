"""Advice about an expression that compiles: parts that may fail, are slow or are never true.

Findings are advice for `policy lint`; nothing here decides about a request. Facts about Kubernetes objects are a
modest table of the fields that policies read most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from webhook.cel import types
from webhook.cel.ast import checked
from webhook.cel.ast.rewrite import FORMATTED
from webhook.cel.ast.spans import Spans
from webhook.cel.errors import Issue
from webhook.cel.tools import known_fields
from webhook.cel.tools.known_fields import ELEMENT, Path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.cel.expression import Checked
    from webhook.cel.program import Program
    from webhook.cel.variables import Variable, Variables

QUADRATIC: Final = "quadratic"
MISSING_HAS: Final = "missing-has"
LARGE_ARGUMENT: Final = "large-argument"
NEVER_EQUAL: Final = "never-equal"

# Whose size the requester chooses.
_REQUESTED: Final = frozenset({"object", "oldObject", "pod", "request"})
_NUMBERS: Final = frozenset({"int", "uint", "double"})
_COMPARABLE: Final = {
    "string": frozenset({"string"}),
    "bool": frozenset({"bool"}),
    **dict.fromkeys(_NUMBERS, _NUMBERS),
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One piece of advice. ``line`` and ``column`` count from 1; ``rule`` is one of the names above."""

    line: int
    column: int
    rule: str
    message: str


def lint(program: Program) -> tuple[Finding, ...]:
    """Return the findings on the program's own source, in source order; its variables have their own."""
    return _lint(program.body, program.surroundings.closure)


def lint_variables(variables: Variables) -> dict[str, tuple[Finding, ...]]:
    """Return the findings on each variable of a policy, by its name."""
    entries = tuple(variables)
    return {entry.name: _lint(entry.body, entries) for entry in entries}


def _lint(body: Checked, variables: Iterable[Variable]) -> tuple[Finding, ...]:
    message = body.message
    linter = _Linter(message, {variable.qualified: variable for variable in variables})
    spans = Spans(message, body.source)
    findings = set()
    for node, rule, text in linter.findings():
        place = Issue.at(body.source.text, spans.start(node), text)
        findings.add(Finding(place.line, place.column, rule, text))
    return tuple(sorted(findings))


class _Linter:
    def __init__(self, message: Any, variables: dict[str, Variable]) -> None:
        self._message = message
        self._variables = variables
        self._loops: dict[str, Path] = {}
        self._guarded: set[Path] = set()

    def findings(self) -> Iterator[tuple[Any, str, str]]:
        nodes = list(checked.walk(self._message.expr))
        for node in nodes:
            loop = node.comprehension_expr
            if node.WhichOneof("kind") == "comprehension_expr" and loop.iter_var != "#unused":
                path = self.path(loop.iter_range)
                self._loops[loop.iter_var2 or loop.iter_var] = (*path, ELEMENT) if path else ()
        self._guarded = {path for node in nodes for path in self._guards(node)}
        for node in nodes:
            kind = node.WhichOneof("kind")
            if kind == "comprehension_expr":
                yield from self._quadratic(node)
            elif kind == "select_expr" and not node.select_expr.test_only:
                yield from self._missing_has(node)
            elif kind == "call_expr":
                yield from self._large_argument(node)
                yield from self._never_equal(node)

    def path(self, expr: Any) -> Path:
        """Return the names that lead to ``expr`` from a root variable, or nothing where it is computed."""
        kind = expr.WhichOneof("kind")
        if kind == "ident_expr":
            name = expr.ident_expr.name
            if name in self._variables:
                message = self._variables[name].body.message
                return _Linter(message, self._variables).path(message.expr)
            return self._loops.get(name, (name,))
        operand, key = _access(expr)
        above = self.path(operand) if operand is not None else ()
        return (*above, key) if above else ()

    def _guards(self, node: Any) -> Iterator[Path]:
        kind = node.WhichOneof("kind")
        call = node.call_expr
        if (kind == "select_expr" and node.select_expr.test_only) or call.function in {"_?._", "_[?_]"}:
            yield self.path(node)
        elif call.function == "@in" and call.args[0].const_expr.string_value:
            yield (*self.path(call.args[1]), call.args[0].const_expr.string_value)

    def _quadratic(self, node: Any) -> Iterator[tuple[Any, str, str]]:
        loop = node.comprehension_expr
        if loop.accu_init.WhichOneof("kind") != "list_expr" or loop.iter_var == "#unused":
            return
        path = self.path(loop.iter_range)
        if path and path[0] in _REQUESTED:
            text = (
                f"map and filter take time by the square of the length of {_words(path)}, which the requester "
                "chooses: use all, exists or exists_one where that is enough"
            )
            yield node, QUADRATIC, text

    def _missing_has(self, node: Any) -> Iterator[tuple[Any, str, str]]:
        path = self.path(node)
        if path not in self._guarded and known_fields.is_optional(path):
            text = f"{_words(path)} may be absent, and reading it is then an error: test has() first"
            yield node, MISSING_HAS, text

    def _large_argument(self, node: Any) -> Iterator[tuple[Any, str, str]]:
        call = node.call_expr
        if call.function != FORMATTED:
            return
        argument = call.args[0]
        path = self.path(argument)
        if path and path[0] in _REQUESTED and known_fields.is_collection(path):
            text = f"putting {_words(path)} into words is slow where it is large: name the fields that matter"
            yield argument, LARGE_ARGUMENT, text

    def _never_equal(self, node: Any) -> Iterator[tuple[Any, str, str]]:
        call = node.call_expr
        if call.function not in {"_==_", "_!=_"}:
            return
        for side, other in (call.args, reversed(call.args)):
            path = self.path(side)
            field = known_fields.type_of(path) if path and path[0] in _REQUESTED else None
            other_type = types.describe(checked.type_of(self._message, other))
            if field and other_type in _COMPARABLE and other_type not in _COMPARABLE[field]:
                outcome = "false" if call.function == "_==_" else "true"
                text = f"{_words(path)} is a {field}: the comparison with a {other_type} is always {outcome}"
                yield node, NEVER_EQUAL, text


def _access(expr: Any) -> tuple[Any, str]:
    """Return what ``expr`` takes a field or element of, and its name; an index stands for every element."""
    kind = expr.WhichOneof("kind")
    if kind == "select_expr":
        return expr.select_expr.operand, expr.select_expr.field
    if kind == "call_expr" and expr.call_expr.function in {"_[_]", "_?._", "_[?_]"}:
        operand, key = expr.call_expr.args
        return operand, key.const_expr.string_value or ELEMENT
    if kind == "comprehension_expr" and expr.comprehension_expr.iter_var == "#unused":
        # A guarded access: the operand is bound, the access is in the branch where it is sound.
        access = expr.comprehension_expr.result.call_expr
        if access.function == "_?_:_" and len(access.args[1].call_expr.args) == 2:
            key = access.args[1].call_expr.args[1].const_expr.string_value
            return expr.comprehension_expr.accu_init, key or ELEMENT
    return None, ""


def _words(path: Path) -> str:
    return ".".join(path).replace("." + ELEMENT, ELEMENT)
