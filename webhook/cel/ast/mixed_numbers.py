"""Comparisons of an int with a double, or a uint with either, when the checker can see both types.

Kubernetes allows ``size(x) < 1.5`` (cel-go's CrossTypeNumericComparisons). The checker of cel-expr-python 0.1.3 rejects
it, though the engine can evaluate it: so one side is made dynamic, and the source is checked again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from webhook.cel.ast import checked
from webhook.cel.ast.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.cel.errors import CompileError
    from webhook.cel.source import Source

_REFUSED: Final = re.compile(
    r"found no matching overload for '_(?:<|<=|>|>=)_' applied to '\((?:int|uint|double), (?:int|uint|double)\)'"
)
_COMPARISONS: Final = frozenset({"_<_", "_<=_", "_>_", "_>=_"})


def respell(source: Source, error: CompileError, parse: Callable[[], Any]) -> Source | None:
    """Return ``source`` with the rejected comparisons made dynamic, or None if ``error`` has any other issue.

    ``error`` talks of the text for the engine; ``parse`` gives that text parsed but not checked.
    """
    if not all(_REFUSED.fullmatch(issue.message) for issue in error.issues):
        return None
    places = {source.prepared_offset(issue.line, issue.column) for issue in error.issues}
    message = checked.load_parsed(parse().serialize())
    spans = Spans(message, source)
    insertions = []
    for node in checked.walk(message.expr):
        if node.call_expr.function in _COMPARISONS and message.source_info.positions.get(node.id) in places:
            start, end = spans.prepared_extent(node.call_expr.args[1])
            insertions += [(start, "dyn("), (end, ")")]
    return source.insert(insertions)
