"""The texts of denials and warnings.

A denial is at most 1,024 bytes: the essential sentence first and on one line, then what to do, then the other
violations as far as they fit, then where to read on. Our own faults are worded so that nobody blames the writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.core.policies.policy import Finding

MAX_MESSAGE_BYTES = 1024
MAX_WARNING_LENGTH = 120
MAX_WARNINGS = 16
_MAX_FIRST_BYTES = 480
_MAX_FIX_BYTES = 200
HELP_URL = "https://github.com/weightlock/weightlock/blob/main/docs/denied.md"


def denial(findings: Sequence[Finding], uid: str, help_url: str = HELP_URL) -> str:
    """Return the message of a denial, at most `MAX_MESSAGE_BYTES` bytes of UTF-8."""
    first, others = findings[0], findings[1:]
    lines = [clip(f"{sentence(first)} [{first.code}]", _MAX_FIRST_BYTES, keep=f" [{first.code}]")]
    if fix_of(first):
        lines.append(clip(f"Fix: {fix_of(first)}", _MAX_FIX_BYTES))
    policy, request = clip(_printable(first.policy), 80), clip(_printable(uid), 64)
    last = f"Policy: {policy}   Help: {help_url}#{first.code}   Request: {request}"
    room = MAX_MESSAGE_BYTES - len(last.encode()) - len("Also: and 1000 more\n")
    return "\n".join([*lines, *_also(others, room - sum(len(line.encode()) + 1 for line in lines)), last])


def warnings(findings: Sequence[Finding]) -> Iterable[str]:
    """Yield warnings for the terminal, each at most 120 characters. The last states how many were omitted."""
    for finding in findings[:MAX_WARNINGS]:
        tail = f" [{finding.code}]"
        text = _printable(finding.message)
        room = MAX_WARNING_LENGTH - len(tail)
        yield (text if len(text) <= room else text[: room - 1] + "…") + tail
    if len(findings) > MAX_WARNINGS:
        yield f"and {len(findings) - MAX_WARNINGS} more warnings"


def sentence(finding: Finding) -> str:
    """Return the violation on one line."""
    return _printable(finding.message)


def fix_of(finding: Finding) -> str:
    """Return the next step on one line."""
    if finding.unevaluable and not finding.fix:
        return "this is not caused by your manifest: retry, and contact your cluster admin if it persists"
    return _printable(finding.fix)


def clip(text: str, limit: int, keep: str = "") -> str:
    """Cut a text to ``limit`` bytes of UTF-8 at a character boundary, followed by ``keep``."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    room = limit - len("…".encode()) - len(keep.encode())
    return raw[:room].decode(errors="ignore") + "…" + keep


def _also(findings: Sequence[Finding], room: int) -> list[str]:
    lines: list[str] = []
    for index, finding in enumerate(findings):
        line = f"Also: {sentence(finding)} [{finding.code}]"
        room -= len(line.encode()) + 1
        if room < 0:
            lines.append(f"{'A' if not lines else 'a'}nd {len(findings) - index} more")
            break
        lines.append(line)
    return lines


def _printable(text: str) -> str:
    """Return one line without control characters: a message may quote text of a requester."""
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return text.strip()
