"""The condition of a Sigma rule: ``and``, ``or``, ``not``, parentheses, ``1 of selection_*``, ``all of them``."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from webhook.core.detection.match import RuleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.core.detection.match import Event, Predicate

_TOKEN = re.compile(r"\s*(?:(\(|\))|([A-Za-z0-9_*-]+))")
_MAX_LENGTH = 2048
_MAX_DEPTH = 32


def compile_condition(text: str, selections: Mapping[str, Predicate]) -> Predicate:
    """Compile a condition over named selections.

    Raises:
        RuleError: the condition is invalid, or names an unknown selection.
    """
    if not isinstance(text, str) or len(text) > _MAX_LENGTH:
        raise RuleError("the condition is not a text of at most 2048 characters")
    return _Parser(_tokens(text), selections).whole()


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise RuleError(f"condition: unexpected {text[position:].strip()[:20]!r}")
        tokens.append(match[1] or match[2])
        position = match.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[str], selections: Mapping[str, Predicate]) -> None:
        self._tokens, self._at, self._selections, self._depth = tokens, 0, selections, 0

    def whole(self) -> Predicate:
        result = self._or()
        if self._at < len(self._tokens):
            raise RuleError(f"condition: unexpected {self._tokens[self._at]!r}")
        return result

    def _peek(self) -> str:
        return self._tokens[self._at].lower() if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise RuleError("condition: unexpected end")
        self._at += 1
        return self._tokens[self._at - 1]

    def _or(self) -> Predicate:
        parts = [self._and()]
        while self._peek() == "or":
            self._next()
            parts.append(self._and())
        return any_of(parts)

    def _and(self) -> Predicate:
        parts = [self._not()]
        while self._peek() == "and":
            self._next()
            parts.append(self._not())
        return all_of(parts)

    def _not(self) -> Predicate:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise RuleError("condition: nested too deeply")
        try:
            if self._peek() == "not":
                self._next()
                inner = self._not()
                return lambda event: not inner(event)
            return self._atom()
        finally:
            self._depth -= 1

    def _atom(self) -> Predicate:
        token = self._next()
        if token == "(":  # noqa: S105 - a parenthesis
            inner = self._or()
            if self._next() != ")":
                raise RuleError("condition: a parenthesis is not closed")
            return inner
        if token.lower() in ("1", "any", "all") and self._peek() == "of":
            self._next()
            parts = self._named(self._next())
            return all_of(parts) if token.lower() == "all" else any_of(parts)
        if token not in self._selections:
            raise RuleError(f"condition: selection {token!r} does not exist")
        return self._selections[token]

    def _named(self, pattern: str) -> list[Predicate]:
        if pattern == "them":
            parts = [each for name, each in self._selections.items() if not name.startswith("_")]
        else:
            parts = [each for name, each in self._selections.items() if fnmatchcase(name, pattern)]
        if not parts:
            raise RuleError(f"condition: no selection matches {pattern!r}")
        return parts


def any_of(parts: list[Predicate]) -> Predicate:
    """Return a predicate that is true if any part is."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        first, second = parts
        return lambda event: first(event) or second(event)

    def test(event: Event) -> bool:
        return any(part(event) for part in parts)

    return test


def all_of(parts: list[Predicate]) -> Predicate:
    """Return a predicate that is true if all parts are."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        first, second = parts
        return lambda event: first(event) and second(event)

    def test(event: Event) -> bool:
        return all(part(event) for part in parts)

    return test
