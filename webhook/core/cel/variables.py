"""The ``variables`` of one policy: named expressions, each usable by those after it and by the policy's rules.

Values never travel between expressions. A variable is bound around the expression that uses it, inside one AST, so it
is evaluated on first use, at most once per evaluation, and its failure matters only if it is reached: the meaning of
k8s.io/apiserver ``pkg/cel/lazy``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from webhook.core.cel import checked
from webhook.core.cel.errors import CompileError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.core.cel.environment import Environment

_PREFIX: Final = "variables."
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Ids of bound expressions live above those of any source: the engine numbers from 1 and caps sources at 100,000 characters.
_STRIDE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Variable:
    """One compiled variable: its checked expression with ids of its own, ready to be bound around another."""

    name: str
    source: str
    type: Any
    type_name: str
    needs: frozenset[str]
    references: frozenset[str]
    expr: bytes
    tables: bytes
    identity: int
    message: Any


class Variables:
    """An ordered scope of variables, filled by `define` and read by ``Environment.compile``."""

    __slots__ = ("_entries", "_environment")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._entries: dict[str, Variable] = {}

    def define(self, name: str, source: str) -> Variables:
        """Compile ``source`` as ``variables.<name>`` and add it; return this scope, so calls can be chained.

        Raises CompileError when the name is no identifier or taken, or the source does not compile.
        """
        if not _IDENTIFIER.fullmatch(name) or name in self._entries:
            raise CompileError.at(source, 0, f"name {name!r} is not an identifier, or defined twice")
        body = self._environment.check(source, self)
        message = body.message
        identity = _STRIDE * (2 * len(self._entries) + 2)
        checked.shift(message, identity)
        root = message.expr.SerializeToString()
        tables = checked.tables(message)
        self._entries[name] = Variable(
            name=name,
            source=source,
            type=body.type,
            type_name=body.type_name,
            needs=body.variables,
            references=body.references,
            expr=root,
            tables=tables,
            identity=identity + _STRIDE,
            message=message,
        )
        return self

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Variable:
        return self._entries[name]

    def __len__(self) -> int:
        return len(self._entries)

    def declarations(self, names: Iterable[str]) -> tuple[tuple[str, str, Any], ...]:
        """Return (qualified name, type in words, engine type) of those of ``names`` that are defined, sorted."""
        return tuple(
            (_PREFIX + name, self._entries[name].type_name, self._entries[name].type)
            for name in sorted(set(names) & self._entries.keys())
        )

    def closure(self, names: Iterable[str]) -> tuple[Variable, ...]:
        """Return the variables ``names`` and all that they need, in the order of their definition."""
        wanted: set[str] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            if name not in wanted:
                wanted.add(name)
                pending.extend(self._entries[name].needs)
        return tuple(entry for name, entry in self._entries.items() if name in wanted)
