"""Field and label selectors, read as the API server reads them and written as SubjectAccessReview takes them.

Follows k8s.io/apimachinery ``pkg/fields`` and ``pkg/labels`` for the syntax and k8s.io/apiserver
``plugin/pkg/authorizer/webhook`` for the requirements. A selector that does not parse restricts nothing, so the check
is about all objects: broader, never narrower, than what was meant.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from webhook.cel.authz import SelectorRequirement
from webhook.cel.libraries import k8s_names

if TYPE_CHECKING:
    from collections.abc import Sequence

_FIELD_OPERATOR: Final = re.compile(r"!=|==?")
_TERM: Final = re.compile(r"(?:[^\\,]|\\.|\\\Z)*", re.DOTALL)
_ESCAPED: Final = re.compile(r"(?:[^\\,=]|\\[\\,=])*", re.DOTALL)
_TOKEN: Final = re.compile(r"[ \t\r\n]*(==|!=|[=!(),><]|[^=!(),>< \t\r\n]+|\Z)")
_SYMBOLS: Final = frozenset({"==", "!=", "=", "!", "(", ")", ",", ">", "<", ""})
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_OPERATORS: Final = {
    "=": "In",
    "==": "In",
    "in": "In",
    "!=": "NotIn",
    "notin": "NotIn",
    ">": "",
    "<": "",
}
_LONGEST: Final = 64 * 1024


class _SyntaxError(ValueError):
    """A selector that does not parse."""


def field_requirements(selector: str) -> tuple[SelectorRequirement, ...]:
    """Return the requirements of a field selector, ordered as the API server orders them; none when it is invalid."""
    try:
        return tuple(_field_terms(selector))
    except _SyntaxError:
        return ()


def label_requirements(selector: str) -> tuple[SelectorRequirement, ...]:
    """Return the requirements of a label selector ordered by key; none when it is invalid."""
    try:
        return tuple(sorted(_LabelParser(selector).requirements(), key=lambda requirement: requirement.key))
    except _SyntaxError:
        return ()


def _field_terms(selector: str) -> list[SelectorRequirement]:
    if len(selector) > _LONGEST:
        raise _SyntaxError
    requirements = []
    for term in sorted(_split_terms(selector)):
        if not term:
            continue
        operator = _FIELD_OPERATOR.search(term)
        if operator is None or not _ESCAPED.fullmatch(term, operator.end()):
            raise _SyntaxError
        key, value = (
            term[: operator.start()],
            re.sub(r"\\(.)", r"\1", term[operator.end() :], flags=re.DOTALL),
        )
        if key or value:
            requirements.append(SelectorRequirement(key, "NotIn" if operator[0] == "!=" else "In", (value,)))
    return requirements


def _split_terms(selector: str) -> list[str]:
    terms, position = [], 0
    while position <= len(selector):
        match = _TERM.match(selector, position)
        term = match[0] if match else ""
        terms.append(term)
        position += len(term) + 1
    return terms


class _LabelParser:
    """The grammar of label selectors: ``x in (foo,,baz), y, z notin (), !w, v = 1, u > 2``."""

    def __init__(self, selector: str) -> None:
        if len(selector) > _LONGEST:
            raise _SyntaxError
        # "in" and "notin" are words like any other, except where an operator must come.
        self._tokens = [match[1] for match in _TOKEN.finditer(selector)]
        self._position = 0

    def requirements(self) -> list[SelectorRequirement]:
        """Return what the whole selector requires, without the parts that SubjectAccessReview cannot express."""
        requirements: list[SelectorRequirement] = []
        if self._peek() == "":
            return requirements
        while True:
            requirement = self._requirement()
            if requirement.operator:
                requirements.append(requirement)
            if self._take("", ",") == "":
                return requirements
            if self._peek() in _SYMBOLS - {"!"}:
                raise _SyntaxError

    def _peek(self) -> str:
        return self._tokens[self._position]

    def _next(self) -> str:
        token = self._tokens[self._position]
        if token:
            self._position += 1
        return token

    def _take(self, *expected: str) -> str:
        token = self._next()
        if token not in expected:
            raise _SyntaxError
        return token

    def _word(self) -> str:
        token = self._next()
        if token in _SYMBOLS:
            raise _SyntaxError
        return token

    def _requirement(self) -> SelectorRequirement:
        absent = self._peek() == "!"
        if absent:
            self._next()
        key = self._word()
        if k8s_names.label_key(key):
            raise _SyntaxError
        if absent:
            return SelectorRequirement(key, "DoesNotExist")
        if self._peek() in ("", ","):
            return SelectorRequirement(key, "Exists")
        operator = self._take(*_OPERATORS)
        values = self._values() if operator in ("in", "notin") else [self._exact()]
        if any(k8s_names.label_value(value) for value in values):
            raise _SyntaxError
        if operator in "><" and not (_INTEGER.fullmatch(values[0]) and -(2**63) <= int(values[0]) < 2**63):
            raise _SyntaxError
        return SelectorRequirement(key, _OPERATORS[operator], tuple(sorted(set(values))))

    def _exact(self) -> str:
        return "" if self._peek() in ("", ",") else self._word()

    def _values(self) -> Sequence[str]:
        self._take("(")
        if self._peek() == ")":
            self._next()
            return [""]
        values: list[str] = []
        while True:
            item = self._next()
            following = self._peek()
            if item == ",":
                if not values or following == ",":
                    values.append("")
                if following == ")":
                    values.append("")
                    break
            elif item in _SYMBOLS or following not in (",", ")"):
                raise _SyntaxError
            else:
                values.append(item)
                if following == ")":
                    break
        self._next()
        return values
