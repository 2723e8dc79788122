"""The piece of source that each node of a checked expression stands for.

The engine records one offset a node (an operator, a dot, a bracket); the extent is recovered from the tokens around
it. Used for messages only, never for decisions.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

from webhook.cel.ast import checked

if TYPE_CHECKING:
    from webhook.cel.source import Source

_TOKEN: Final = re.compile(
    r"""//[^\n]*"""
    r"""|(?P<literal>[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))"""
    r"""|(?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?[uU]?)"""
    r"""|(?P<name>[A-Za-z_]\w*)"""
    r"""|(?P<operator>&&|\|\||[=!<>]=|[^\s\w])""",
    re.DOTALL,
)
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}


class Spans:
    """Where the nodes of one checked expression are written."""

    def __init__(self, message: Any, source: Source) -> None:
        self._source = source
        self._places = message.source_info.positions
        tokens = [match for match in _TOKEN.finditer(source.prepared) if match.lastgroup]
        self._texts = [match[0] for match in tokens]
        self._named = [match.lastgroup == "name" for match in tokens]
        self._starts = [match.start() for match in tokens]
        self._ends = [match.end() for match in tokens]
        self._match: dict[int, int] = {}
        brackets: list[int] = []
        for index, text in enumerate(self._texts):
            if text in _CLOSING:
                brackets.append(index)
            elif text in _CLOSING.values() and brackets:
                start = brackets.pop()
                self._match[start] = index
                self._match[index] = start

    def offset(self, node: Any) -> int:
        """Return where the engine places ``node``, as an offset into the source as written."""
        return self._source.original(self._places.get(node.id, 0))

    def start(self, node: Any) -> int:
        """Return where ``node`` begins, as an offset into the source as written."""
        return self._source.original(self._starts[self._extent(node)[0]]) if self._texts else 0

    def text(self, node: Any) -> str:
        """Return the source of ``node`` as written, on one line."""
        if not self._texts:
            return ""
        first, last = self._extent(node)
        # An extent that stops inside a respelling stops where the respelling does.
        end = self._source.original(self._ends[last]) if self._source.edits else self._ends[last]
        return " ".join(self._source.text[self._source.original(self._starts[first]) : end].split())

    def prepared_extent(self, node: Any) -> tuple[int, int]:
        """Return where ``node``, with the parentheses around it, starts and stops in the text for the engine."""
        first, last = self._wide(node)
        return self._starts[first], self._ends[last]

    def _token(self, node: Any) -> int:
        return max(0, bisect_right(self._starts, self._places.get(node.id, 0)) - 1)

    def _extent(self, node: Any) -> tuple[int, int]:
        """Return the first and the last token of ``node``."""
        at = self._token(node)
        text = self._texts[at]
        if text == "(" and at:
            return self._chain(at), self._match.get(at, at)
        if text == "[" and node.WhichOneof("kind") == "call_expr":
            return self._chain(at), self._match.get(at, at)
        if text in _CLOSING:
            return at, self._match.get(at, at)
        if text == ".":
            return self._chain(at), at + 2 if self._texts[at + 1] == "?" else at + 1
        if node.WhichOneof("kind") == "call_expr":
            first, last = at, at
            for argument in checked.children(node):
                low, high = self._wide(argument)
                first, last = min(first, low), max(last, high)
            return first, last
        if node.WhichOneof("kind") == "struct_expr":
            brace = self._texts.index("{", at)
            return at, self._match.get(brace, brace)
        return at, at + 1 if text == "-" else at

    def _wide(self, node: Any) -> tuple[int, int]:
        """Return the extent of ``node`` with the parentheses that group it."""
        first, last = self._extent(node)
        while first and self._match.get(first - 1) == last + 1 and not self._applies(first - 1):
            first, last = first - 1, last + 1
        return first, last

    def _applies(self, opening: int) -> bool:
        """Return whether a bracket calls or indexes what stands before it."""
        before = opening - 1
        return (
            before >= 0
            and (self._named[before] or self._texts[before] in {")", "]"})
            and self._texts[before] != "in"
        )

    def _chain(self, at: int) -> int:
        """Return the first token of the chain of names, calls and indexes that the token ``at`` continues."""
        while at > 0:
            text, before = self._texts[at], self._texts[at - 1]
            if text == "." or (text in {"(", "["} and self._applies(at)):
                at = self._match.get(at - 1, at - 1) if before in {")", "]", "}"} else at - 1
            elif before == ".":
                at -= 1
            elif before == "?" and at > 1 and self._texts[at - 2] == ".":
                at -= 2
            else:
                break
        return at
