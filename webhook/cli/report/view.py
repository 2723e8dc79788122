"""What runs and breaks a rule, in words: tables, the line below them, and JSON for other programs. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from webhook.cli.format import people, table, when
from webhook.core.kube.text import one_line
from webhook.core.kube.time import parse_time
from webhook.core.reports.results import OUTCOMES, Counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from webhook.core.reports.results import Result

_HEADINGS = ("RESOURCE", "CODE", "POLICY", "ACTION", "RESULT", "MESSAGE")
_WIDE = ("SEVERITY", "FIX")
_MAX_MESSAGE = 80
_LISTED = ("Audit", "Warn")


@dataclass(frozen=True, slots=True)
class Filter:
    """What is asked for; empty fields ask for anything."""

    policy: str = ""
    code: str = ""
    action: str = ""

    def __bool__(self) -> bool:
        return bool(self.policy or self.code or self.action)

    def takes(self, item: Result) -> bool:
        """Whether a result is asked for."""
        return (
            self.policy in ("", item.policy)
            and self.code in ("", item.code)
            and (not self.action or self.action in item.actions)
        )


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known of what runs: the results listed, the counts of each namespace, and what nothing breaks.

    ``scanned`` is when the oldest of it was found, RFC 3339; empty: just now. ``unbroken`` are policies with their
    actions; ``problems`` are things that cannot be used as they are, and why.
    """

    results: Sequence[Result]
    counts: Mapping[str, Counts]
    scanned: str = ""
    unbroken: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> Counts:
        """The counts of all namespaces together."""
        total = Counts()
        for found in self.counts.values():
            total.add(found)
        return total


def failing(findings: Findings, wanted: Filter) -> bool:
    """Whether anything asked for fails or could not be checked, be it listed or only counted."""
    if any(item.outcome != "warn" for item in findings.results if wanted.takes(item)):
        return True
    return any(
        counts.left_out and how in (("Deny", "Audit") if not wanted.action else (wanted.action,))
        for counts in findings.counts.values()
        for policy, how in counts.broken
        if wanted.policy in ("", policy) and not wanted.code and how != "Warn"
    )


def listing(
    findings: Findings, wanted: Filter, now: datetime, *, namespaces: bool, wide: bool = False
) -> str:
    """The results as a table, and what they come to."""
    shown = [item for item in findings.results if wanted.takes(item)]
    lines = []
    if shown:
        headings = (*(("NAMESPACE",) if namespaces else ()), *_HEADINGS, *(_WIDE if wide else ()))
        lines.append(table(headings, [_row(item, namespaces=namespaces, wide=wide) for item in shown]))
    for namespace, counts in sorted(findings.counts.items()):
        if counts.left_out:
            lines.append(
                f"and {counts.left_out} more in namespace {namespace}: a report lists the most serious"
            )
    lines += [f"{name} cannot be used: {one_line(text)}" for name, text in sorted(findings.problems.items())]
    return "\n".join([*lines, _sum(findings, shown, wanted, now)])


def would_deny(findings: Findings, wanted: Filter, now: datetime) -> tuple[str, int]:
    """What would be denied were each policy that audits or warns at Deny, as a table; and how many rows it has."""
    rows = refusals(findings, wanted)
    total = findings.total
    judged = f"{_many(total.resources, 'resource')} evaluated{_moment(findings, now)}"
    lines = []
    if rows:
        cells = [(row["policy"], row["action"], row["namespace"], str(row["resources"])) for row in rows]
        lines.append(table(("POLICY", "ACTION", "NAMESPACE", "WOULD BE DENIED"), cells))
    broken = {row["policy"] for row in rows}
    ready = [
        name
        for name, actions in sorted(findings.unbroken.items())
        if name not in broken and "Deny" not in actions and wanted.policy in ("", name)
    ]
    if ready:
        lines.append(f"Nothing breaks {people(ready)}: ready for Deny.")
    if not rows:
        lines.append(f"No further resources would be denied: {judged}.")
    elif wanted:
        lines.append(f"{judged[0].upper()}{judged[1:]}.")
    else:
        lines.append(f"With these policies set to Deny, {total.newly} more of {judged} would be denied.")
    return "\n".join(lines), len(rows)


def refusals(findings: Findings, wanted: Filter) -> list[dict[str, Any]]:
    """The same for other programs: a row for each policy and namespace, the largest number of a policy first."""
    rows = [
        {"policy": policy, "action": how, "namespace": namespace, "resources": number}
        for namespace, counts in findings.counts.items()
        for (policy, how), number in counts.broken.items()
        if how in _LISTED and wanted.policy in ("", policy) and wanted.action in ("", how)
    ]
    return sorted(rows, key=lambda row: (row["policy"], -int(str(row["resources"])), row["namespace"]))


def data(findings: Findings, wanted: Filter) -> dict[str, Any]:
    """All of it for other programs."""
    total = findings.total
    return {
        "results": [_data(item) for item in findings.results if wanted.takes(item)],
        "summary": {
            **{outcome: total.outcomes[outcome] for outcome in OUTCOMES},
            "pass": total.passed,
            "skip": total.skipped,
            "resources": total.resources,
            "leftOut": total.left_out,
            "wouldDeny": total.newly,
        },
        "problems": dict(findings.problems),
        "scanned": findings.scanned,
    }


def _row(item: Result, *, namespaces: bool, wide: bool) -> list[str]:
    message = one_line(item.message)
    if not wide and len(message) > _MAX_MESSAGE:
        message = f"{message[: _MAX_MESSAGE - 1]}…"
    action = "waived" if item.waiver else ",".join(item.actions)
    cells = [
        one_line(str(item.resource)),
        one_line(item.code),
        one_line(item.policy),
        action,
        item.outcome,
        message,
    ]
    if namespaces:
        cells.insert(0, one_line(item.resource.namespace))
    return [*cells, item.severity, one_line(item.fix)] if wide else cells


def _sum(findings: Findings, shown: Sequence[Result], wanted: Filter, now: datetime) -> str:
    total = findings.total
    judged = f"{_many(total.resources, 'resource')} evaluated{_moment(findings, now)}"
    if wanted:
        numbers = _numbers(lambda outcome: sum(item.outcome == outcome for item in shown))
        return f"{numbers} of what was asked for; {judged}."
    if not any(total.outcomes.values()):
        return f"Nothing breaks a rule: {judged}."
    return f"{_numbers(lambda outcome: total.outcomes[outcome])}, {total.passed} pass; {judged}."


def _numbers(count: Callable[[str], int]) -> str:
    return ", ".join(f"{count(outcome)} {outcome}" for outcome in OUTCOMES)


def _moment(findings: Findings, now: datetime) -> str:
    scanned = parse_time(findings.scanned)
    return f" {when(scanned, now)}" if scanned is not None else ""


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _data(item: Result) -> dict[str, Any]:
    resource = item.resource
    return {
        "namespace": resource.namespace,
        "kind": resource.kind,
        "name": resource.name,
        "code": item.code,
        "policy": item.policy,
        "actions": list(item.actions),
        "result": item.outcome,
        "severity": item.severity,
        "message": item.message,
        "fix": item.fix,
        "controls": list(item.controls),
        "waiver": item.waiver,
    }


def ordered(results: Iterable[Result]) -> list[Result]:
    """By namespace and resource."""
    return sorted(results, key=lambda item: (item.resource, item.code, item.policy, item.message))
