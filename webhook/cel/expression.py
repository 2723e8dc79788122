"""A checked expression, as the environment hands it to programs and variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.cel.ast import checked

if TYPE_CHECKING:
    from webhook.cel.source import Source


@dataclass(frozen=True, slots=True)
class Checked:
    """A source that passed the checker, and what it names.

    ``ast`` is what to evaluate, as bytes, which take a tenth of a message's memory; ``expression`` is the engine's own,
    None where the two differ. ``sees_managed_fields`` does not cover its variables.
    """

    source: Source
    expression: Any
    ast: bytes
    type_name: str
    variables: frozenset[str]
    references: frozenset[str]
    sees_managed_fields: bool

    @property
    def message(self) -> Any:
        """The AST as a new `CheckedExpr`."""
        return checked.CheckedExpr.FromString(self.ast)
