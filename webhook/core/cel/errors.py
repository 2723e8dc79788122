"""What can go wrong with an expression: it does not compile, or it cannot be evaluated on this request.

Both carry words fit for the author of the policy. Neither may carry the object under review.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_ISSUE: Final = re.compile(r"^ERROR: [^\n:]*:(-?\d+):(-?\d+): ", re.MULTILINE)
_STATUS: Final = re.compile(r"^[A-Z_]+: ")
_SUFFIX: Final = re.compile(r" \[[A-Z_]+\]$")


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing wrong in a source. ``line`` and ``column`` count from 1; ``caret`` quotes the line and points at it."""

    line: int
    column: int
    message: str
    caret: str = ""


class CompileError(Exception):
    """A source that the engine or the dialect refuses; ``issues`` holds at least one entry, in source order."""

    def __init__(self, issues: tuple[Issue, ...]) -> None:
        super().__init__(
            "\n".join(
                f"ERROR: <input>:{i.line}:{i.column}: {i.message}{i.caret and chr(10) + i.caret}"
                for i in issues
            )
        )
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
        """Build one issue from a character offset into ``source``."""
        before = source[:offset]
        line = before.count("\n") + 1
        column = offset - (before.rfind("\n") + 1) + 1
        text = source.splitlines()[line - 1] if source.strip() else ""
        return cls((Issue(line, column, message, f" | {text}\n | {'.' * (column - 1)}^"),))

    @classmethod
    def parse(cls, text: str) -> CompileError:
        """Read the engine's report: ``ERROR: <input>:LINE:COLUMN: message``, then the quoted line and caret."""
        report = _SUFFIX.sub("", _STATUS.sub("", text, count=1))
        starts = list(_ISSUE.finditer(report))
        if not starts:
            return cls((Issue(1, 1, report.strip()),))
        issues = []
        for start, end in zip(starts, [*(match.start() for match in starts[1:]), len(report)], strict=True):
            message, _, caret = report[start.end() : end].rstrip("\n").partition("\n")
            issues.append(Issue(max(1, int(start[1])), max(1, int(start[2])), message, caret))
        return cls(tuple(issues))


class EvaluationError(Exception):
    """An expression that has no value on this request: a missing key, a failed conversion, a limit reached."""

    @property
    def message(self) -> str:
        """What went wrong, in the engine's words."""
        return str(self)

    @classmethod
    def parse(cls, text: str) -> EvaluationError:
        """Drop the status code that the engine puts around its message."""
        return cls(_SUFFIX.sub("", _STATUS.sub("", text, count=1)))
