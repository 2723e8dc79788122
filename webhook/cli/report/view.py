"""Findings as text: tables with a summary line, and JSON for other programs. Pure."""

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
    """Selects results; empty fields match all."""

    policy: str = ""
    code: str = ""
    action: str = ""

    def __bool__(self) -> bool:
        return bool(self.policy or self.code or self.action)

    def takes(self, item: Result) -> bool:
        """Whether a result is selected."""
        return (
            self.policy in ("", item.policy)
            and self.code in ("", item.code)
            and (not self.action or self.action in item.actions)
        )


@dataclass(frozen=True, slots=True)
class Findings:
    """Results, counts by namespace, and policies without violations.

    ``scanned`` is the time of the oldest report, RFC 3339; empty: now. ``unbroken`` are policies with their
    actions; ``problems`` are things that cannot be used as they are, and why.
    """

    results: Sequence[Result]
    counts: Mapping[str, Counts]
    scanned: str = ""
    unbroken: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> Counts:
        """Return the counts of all namespaces together."""
        total = Counts()
        for counts in self.counts.values():
            total.add(counts)
        return total


def failing(findings: Findings, selection: Filter) -> bool:
    """Whether any selected result fails or could not be evaluated, listed or only counted."""
    if any(item.outcome != "warn" for item in findings.results if selection.takes(item)):
        return True
    return any(
        counts.left_out and how in (("Deny", "Audit") if not selection.action else (selection.action,))
        for counts in findings.counts.values()
        for policy, how in counts.broken
        if selection.policy in ("", policy) and not selection.code and how != "Warn"
    )


def listing(
    findings: Findings, selection: Filter, now: datetime, *, namespaces: bool, wide: bool = False
) -> str:
    """Return the results as a table with a summary."""
    rows_shown = [item for item in findings.results if selection.takes(item)]
    lines = []
    if rows_shown:
        headings = (*(("NAMESPACE",) if namespaces else ()), *_HEADINGS, *(_WIDE if wide else ()))
        lines.append(table(headings, [_row(item, namespaces=namespaces, wide=wide) for item in rows_shown]))
    for namespace, counts in sorted(findings.counts.items()):
        if counts.left_out:
            lines.append(
                f"and {counts.left_out} more in namespace {namespace}: a report lists the most serious"
            )
    lines += [f"{name} cannot be used: {one_line(text)}" for name, text in sorted(findings.problems.items())]
    return "\n".join([*lines, _sum(findings, rows_shown, selection, now)])


def would_deny(findings: Findings, selection: Filter, now: datetime) -> tuple[str, int]:
    """Return the resources that Audit and Warn policies would deny, as a table, and its number of rows."""
    rows = refusals(findings, selection)
    total = findings.total
    evaluated = f"{_many(total.resources, 'resource')} evaluated{_moment(findings, now)}"
    lines = []
    if rows:
        cells = [(row["policy"], row["action"], row["namespace"], str(row["resources"])) for row in rows]
        lines.append(table(("POLICY", "ACTION", "NAMESPACE", "WOULD BE DENIED"), cells))
    violations = {row["policy"] for row in rows}
    ready = [
        name
        for name, actions in sorted(findings.unbroken.items())
        if name not in violations and "Deny" not in actions and selection.policy in ("", name)
    ]
    if ready:
        lines.append(f"Nothing breaks {people(ready)}: ready for Deny.")
    if not rows:
        lines.append(f"No other resource would be denied: {evaluated}.")
    elif selection:
        lines.append(f"{evaluated[0].upper()}{evaluated[1:]}.")
    else:
        lines.append(f"With these policies set to Deny, {total.newly} more of {evaluated} would be denied.")
    return "\n".join(lines), len(rows)


def refusals(findings: Findings, selection: Filter) -> list[dict[str, Any]]:
    """Return the same for other programs: a row for each policy and namespace, the largest number first."""
    rows = [
        {"policy": policy, "action": how, "namespace": namespace, "resources": number}
        for namespace, counts in findings.counts.items()
        for (policy, how), number in counts.broken.items()
        if how in _LISTED and selection.policy in ("", policy) and selection.action in ("", how)
    ]
    return sorted(rows, key=lambda row: (row["policy"], -int(str(row["resources"])), row["namespace"]))


def data(findings: Findings, selection: Filter) -> dict[str, Any]:
    """Return everything for other programs."""
    total = findings.total
    return {
        "results": [_data(item) for item in findings.results if selection.takes(item)],
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


def _sum(findings: Findings, rows_shown: Sequence[Result], selection: Filter, now: datetime) -> str:
    total = findings.total
    evaluated = f"{_many(total.resources, 'resource')} evaluated{_moment(findings, now)}"
    if selection:
        numbers = _numbers(lambda outcome: sum(item.outcome == outcome for item in rows_shown))
        return f"{numbers} selected; {evaluated}."
    if not any(total.outcomes.values()):
        return f"No violations: {evaluated}."
    return f"{_numbers(lambda outcome: total.outcomes[outcome])}, {total.passed} pass; {evaluated}."


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
    """Return the sort key: namespace, resource."""
    return sorted(results, key=lambda item: (item.resource, item.code, item.policy, item.message))
