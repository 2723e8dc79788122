"""What can go wrong with an expression: it does not compile, or it cannot be evaluated on this request.

Both carry words fit for the author of the policy. Neither may carry the object under review.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_ISSUE: Final = re.compile(r"^ERROR: [^\n:]*:(-?\d+):(-?\d+): ", re.MULTILINE)
_PREFIX: Final = re.compile(r"^[A-Z_]+: ")
_SUFFIX: Final = re.compile(r" \[[A-Z_]+\]$")
# The engine's words -> those of cel-go, which Kubernetes shows. The last ones would quote the object.
_WORDING: Final = (
    (re.compile(r'^Key not found in map : "?(.*?)"?$', re.DOTALL), r"no such key: \1"),
    (re.compile(r'^No value with name "(.*)" found in Activation$'), r"no such attribute(s): \1"),
    (re.compile(r"^Index error: index=(-?\d+) .*$"), r"index out of bounds: \1"),
    (re.compile(r"^No matching overloads found : .*$", re.DOTALL), "no such overload"),
    (re.compile(r"^Applying SELECT to non-message type$"), "no such overload: field selection"),
    (re.compile(r"^divide by zero$"), "division by zero"),
    (re.compile(r"^sort\(\): unsupported type .*$"), "list elements must be comparable"),
    (re.compile(r"^sort\(\): (list elements must .*)$"), r"\1"),
    (re.compile(r"^flatten\(\): (level must .*)$"), r"\1"),
    (re.compile(r"^Iteration budget exceeded$"), "iteration budget exceeded: more than 10000 steps"),
    (re.compile(r"^Non-CEL value type for .*$", re.DOTALL), "the request contains a value that is not JSON"),
    (re.compile(r"^Integer value '.*$", re.DOTALL), "the request contains an integer beyond 64 bits"),
)


@dataclass(frozen=True, slots=True)
class Issue:
    """One fault in a source.

    ``line`` and ``column`` count from 1; ``caret`` quotes the line and points at the column.
    """

    line: int
    column: int
    message: str
    caret: str = ""

    def __str__(self) -> str:
        text = f"ERROR: <input>:{self.line}:{self.column}: {self.message}"
        return f"{text}\n{self.caret}" if self.caret else text

    @classmethod
    def at(cls, source: str, offset: int, message: str) -> Issue:
        """Build from a character offset into ``source``, with the line quoted as the API server quotes it."""
        start = source.rfind("\n", 0, offset) + 1
        line = source.count("\n", 0, offset) + 1
        text = source[start:].partition("\n")[0]
        return cls(line, offset - start + 1, message, f" | {text}\n | {'.' * (offset - start)}^")


class CompileError(Exception):
    """A source that the engine or the dialect rejects; ``issues`` is never empty and in source order."""

    def __init__(self, issues: tuple[Issue, ...]) -> None:
        super().__init__("\n".join(map(str, issues)))
        self.issues = issues

    @property
    def line(self) -> int:
        """Line of the first issue, from 1."""
        return self.issues[0].line

    @property
    def column(self) -> int:
        """Column of the first issue, from 1."""
        return self.issues[0].column

    @property
    def message(self) -> str:
        """What is wrong first, in one line."""
        return self.issues[0].message

    @property
    def caret(self) -> str:
        """The source line of the first issue with a caret under the column, as the API server prints it."""
        return self.issues[0].caret

    @classmethod
    def at(cls, source: str, offset: int, message: str) -> CompileError:
        """Build from one issue at a character offset into ``source``."""
        return cls((Issue.at(source, offset, message),))

    @classmethod
    def parse(cls, text: str) -> CompileError:
        """Read the engine's report: ``ERROR: <input>:LINE:COLUMN: message``, the quoted line, the caret."""
        report = _SUFFIX.sub("", _PREFIX.sub("", text, count=1))
        starts = list(_ISSUE.finditer(report))
        if not starts:
            return cls((Issue(1, 1, report.strip()),))
        issues = []
        for start, end in zip(starts, [*(match.start() for match in starts[1:]), len(report)], strict=True):
            message, _, caret = report[start.end() : end].rstrip("\n").partition("\n")
            issues.append(Issue(max(1, int(start[1])), max(1, int(start[2])), message, caret))
        # The engine repeats what no place in the source belongs to.
        return cls(tuple(dict.fromkeys(issues)))


class EvaluationError(Exception):
    """An expression that has no value on this request: a missing key, a failed conversion, a limit."""

    @property
    def message(self) -> str:
        """What went wrong, in cel-go's words where it has the same error."""
        return str(self)

    @classmethod
    def parse(cls, text: str) -> EvaluationError:
        """Take the engine's message: without its status code, in Kubernetes' words, without the object."""
        message = _SUFFIX.sub("", _PREFIX.sub("", text, count=1))
        for pattern, words in _WORDING:
            message, changed = pattern.subn(words, message, count=1)
            if changed:
                break
        return cls(message)


class OpaqueValueError(EvaluationError):
    """A value that has no JSON form, such as a quantity or an address; ``type_name`` is its type."""

    def __init__(self, type_name: str) -> None:
        super().__init__(f"a value of type {type_name} has no plain form")
        self.type_name = type_name
