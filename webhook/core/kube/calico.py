"""Label selectors of Calico, such as ``team == 'a' && !has(secret)``, on labels of which some may be unknown.

The grammar is that of projectcalico/calico, libcalico-go/lib/selector/parser. The value of a test is None where an
unknown label decides.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'[^']*'|"[^"]*")|(?P<mark>==|!=|&&|\|\||[!(){},])|(?P<name>[A-Za-z0-9_./-]+))"""
)
_MAX_LENGTH = 4096
_MAX_DEPTH = 32


class CalicoSelectorError(ValueError):
    """The selector cannot be read."""


class _Token(NamedTuple):
    kind: str
    text: str


def matches(
    selector: str, labels: Mapping[str, str], is_known: Callable[[str], bool] | None = None
) -> bool | None:
    """Whether a selector matches labels; None where that depends on a label that is not known.

    ``is_known`` is false for a label that may have any value. Raises `CalicoSelectorError`.
    """
    parser = _Parser(list(_tokens(selector)), labels, is_known)
    value = parser.either(0)
    if parser.next() is not None:
        raise CalicoSelectorError(f"unexpected {parser.next()}")
    return value


def _tokens(text: str) -> Iterator[_Token]:
    if len(text) > _MAX_LENGTH:
        raise CalicoSelectorError("too long")
    end, text = 0, text.rstrip()
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:
            raise CalicoSelectorError(f"unexpected {text[end : end + 16]}")
        kind = match.lastgroup or ""
        value = match[kind]
        yield _Token(kind, value[1:-1] if kind == "text" else value)
        end = match.end()


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


class _Parser:
    """Reads and evaluates at once: both sides of an operator are always read."""

    def __init__(
        self, tokens: list[_Token], labels: Mapping[str, str], is_known: Callable[[str], bool] | None
    ) -> None:
        self._tokens = tokens
        self._place = 0
        self._labels = labels
        self._is_known = is_known

    def next(self) -> _Token | None:
        return self._tokens[self._place] if self._place < len(self._tokens) else None

    def _take(self, *expected: str) -> _Token:
        token = self.next()
        if token is None or (expected and token.text not in expected):
            raise CalicoSelectorError(f"expected {' or '.join(expected)}")
        self._place += 1
        return token

    def _is(self, *marks: str) -> bool:
        token = self.next()
        return token is not None and token.kind != "text" and token.text in marks

    def either(self, depth: int) -> bool | None:
        """Operands of ``||``."""
        values = [self._all(depth)]
        while self._is("||"):
            self._take("||")
            values.append(self._all(depth))
        return True if True in values else None if None in values else False

    def _all(self, depth: int) -> bool | None:
        values = [self._one(depth)]
        while self._is("&&"):
            self._take("&&")
            values.append(self._one(depth))
        return False if False in values else None if None in values else True

    def _one(self, depth: int) -> bool | None:
        if depth > _MAX_DEPTH:
            raise CalicoSelectorError("nested too deeply")
        if self._is("!"):
            self._take("!")
            return _not(self._one(depth + 1))
        if self._is("("):
            self._take("(")
            value = self.either(depth + 1)
            self._take(")")
            return value
        label = self._take()
        if label.kind != "name":
            raise CalicoSelectorError(f"unexpected {label.text}")
        if self._is("("):
            return self._call(label.text)
        return self._comparison(label.text)

    def _call(self, name: str) -> bool | None:
        self._take("(")
        if name in ("all", "global"):
            self._take(")")
            # Nothing in a namespace is global.
            return name == "all"
        if name != "has":
            raise CalicoSelectorError(f"unexpected {name}")
        label = self._take()
        if label.kind != "name":
            raise CalicoSelectorError(f"unexpected {label.text}")
        self._take(")")
        value = self._value(label.text)
        return None if value is None else bool(value)

    def _value(self, label: str) -> tuple[str, ...] | None:
        """Return the label's value, nothing if it is missing, or None if it is unknown."""
        if label in self._labels:
            return (self._labels[label],)
        return () if self._is_known is None or self._is_known(label) else None

    def _comparison(self, label: str) -> bool | None:
        operator = self._take("==", "!=", "in", "not", "contains", "starts", "ends").text
        if operator == "not":
            self._take("in")
        elif operator in ("starts", "ends"):
            self._take("with")
        operands = self._set() if operator in ("in", "not") else [self._text()]
        existing = self._value(label)
        if existing is None:
            return None
        value = existing[0] if existing else None
        if operator in ("!=", "not"):
            return value not in operands
        if value is None:
            return False
        if operator in ("==", "in"):
            return value in operands
        part = operands[0]
        return {"contains": part in value, "starts": value.startswith(part), "ends": value.endswith(part)}[
            operator
        ]

    def _text(self) -> str:
        token = self._take()
        if token.kind != "text":
            raise CalicoSelectorError(f"unexpected {token.text}")
        return token.text

    def _set(self) -> list[str]:
        self._take("{")
        values = [self._text()]
        while self._is(","):
            self._take(",")
            values.append(self._text())
        self._take("}")
        return values
