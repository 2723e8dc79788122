"""The texts of denials and warnings.

A denial is at most 1,024 bytes long: the essential sentence first and on one line, then the fix, then the other
violations as far as they fit, then the help. Errors of Weightlock have a different wording.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.api.links import help_link
from webhook.core.kube.review import Cause
from webhook.core.kube.text import clip, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.core.policies.policy import Finding

MAX_MESSAGE_BYTES = 1024
MAX_WARNING_LENGTH = 120
MAX_WARNINGS = 16
_MAX_FIRST_BYTES = 480
_MAX_FIX_BYTES = 200
_MAX_CAUSES = 32
_MAX_CAUSE_BYTES = 512


def denial(findings: Sequence[Finding], uid: str, help_url: str = "") -> str:
    """Return the message of a denial, at most `MAX_MESSAGE_BYTES` bytes of UTF-8."""
    first, others = findings[0], findings[1:]
    lines = [clip(f"{sentence(first)} [{first.code}]", _MAX_FIRST_BYTES, keep=f" [{first.code}]")]
    if fix_of(first):
        lines.append(clip(f"Fix: {fix_of(first)}", _MAX_FIX_BYTES))
    policy, request = clip(one_line(first.policy), 80), clip(one_line(uid), 64)
    last = f"Policy: {policy}   Help: {help_link(help_url, first.code)}   Request: {request}"
    room = MAX_MESSAGE_BYTES - len(last.encode()) - len("Also: and 1000 more\n")
    return "\n".join([*lines, *_also(others, room - sum(len(line.encode()) + 1 for line in lines)), last])


def causes(findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """Return one cause per finding for ``status.details.causes``, at most 32.

    The reason is the code. The message is the sentence, followed by a line ``Fix: …`` if there is a next step.
    """
    return tuple(
        Cause(finding.code, _cause_message(finding), clip(finding.path, 253))
        for finding in findings[:_MAX_CAUSES]
    )


def _cause_message(finding: Finding) -> str:
    text = clip(sentence(finding), _MAX_CAUSE_BYTES)
    fix = fix_of(finding)
    return f"{text}\nFix: {clip(fix, _MAX_FIX_BYTES)}" if fix else text


def warnings(findings: Sequence[Finding]) -> Iterable[str]:
    """Yield warnings for the terminal, each at most 120 characters. The last states how many were omitted."""
    for finding in findings[:MAX_WARNINGS]:
        tail = f" [{finding.code}]"
        text = one_line(finding.message)
        room = MAX_WARNING_LENGTH - len(tail)
        yield (text if len(text) <= room else text[: room - 1] + "…") + tail
    if len(findings) > MAX_WARNINGS:
        yield f"and {len(findings) - MAX_WARNINGS} more warnings"


def sentence(finding: Finding) -> str:
    """Return the violation on one line."""
    return one_line(finding.message)


def fix_of(finding: Finding) -> str:
    """Return the next step on one line."""
    if finding.unevaluable and not finding.fix:
        return "this is not caused by your manifest: retry, and contact your cluster admin if it persists"
    return one_line(finding.fix)


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
