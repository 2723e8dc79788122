"""The ``variables`` of one policy: named expressions, each usable by those after it and by the policy's rules.

Values never travel between expressions. A variable is bound around the expression that uses it, inside one AST, so
it is evaluated on first use, at most once per evaluation, and its failure matters only if it is reached: the
meaning of k8s.io/apiserver ``pkg/cel/lazy``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from webhook.cel import types
from webhook.cel.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from webhook.cel.expression import Checked

PREFIX: Final = "variables."
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Variable:
    """One compiled variable; ``expr`` is its expression as bytes, ready to be bound around another."""

    name: str
    slot: str
    body: Checked
    expr: bytes

    @property
    def qualified(self) -> str:
        """The name of the variable in checked expressions."""
        return PREFIX + self.slot

    @property
    def source(self) -> str:
        """The expression as it was written."""
        return self.body.source.text

    @property
    def type_name(self) -> str:
        """The type of the expression in words, with which the variable is declared to those after it."""
        return self.body.type_name

    @property
    def references(self) -> frozenset[str]:
        """The root variables that the expression itself names."""
        return self.body.references


class Checker(Protocol):
    """The part of an environment that a scope of variables needs."""

    def check(self, text: str, scope: Variables) -> Checked:
        """Return the checked expression. Raises CompileError."""


class Variables:
    """An ordered scope of variables, filled by `define` and read by ``Environment.compile``."""

    __slots__ = ("_entries", "_environment")

    def __init__(self, environment: Checker) -> None:
        self._environment = environment
        self._entries: dict[str, Variable] = {}

    def define(self, name: str, source: str) -> Variables:
        """Compile ``source`` as ``variables.<name>`` and add it; return this scope, so calls can be chained.

        Raises CompileError if the name is not an identifier or is taken, or the source does not compile.
        """
        if not _IDENTIFIER.fullmatch(name):
            raise CompileError.at(name, 0, "name of a variable must be an identifier")
        if name in self._entries:
            raise CompileError.at(name, 0, "variable is defined twice")
        body = self._environment.check(source, self)
        number = sum(entry.type_name == body.type_name for entry in self._entries.values())
        slot = types.slot(body.type_name, number)
        self._entries[name] = Variable(name, slot, body, body.message.expr.SerializeToString())
        return self

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Variable:
        return self._entries[name]

    def __iter__(self) -> Iterator[Variable]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def slots(self) -> dict[str, str]:
        """Return the slot of each variable, by its name."""
        return {name: entry.slot for name, entry in self._entries.items()}

    def closure(self, names: Iterable[str]) -> tuple[Variable, ...]:
        """Return the variables ``names`` and all that they need, in the order of their definition."""
        required: set[str] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            if name not in required:
                required.add(name)
                pending.extend(self._entries[name].body.variables)
        return tuple(entry for name, entry in self._entries.items() if name in required)
