"""Cases of detection rules: events in YAML beside a rule, and the alerts that they must raise.

A case runs on the rules of its own file only. Each event must be valid: an entry that no schema accepts would prove
nothing. ``count`` and ``every`` repeat an event to build a baseline, and ``{n}`` in its texts is the repetition.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, ValidationError

from webhook.api.base import Schema
from webhook.api.duration import Duration
from webhook.api.entries import DATA, SCHEMA_ROOT, SCHEMA_VERSION, TYPE_PREFIX
from webhook.api.faults import describe
from webhook.core.detection.engine import Engine
from webhook.manifests.detections import CASES, RULES, load_rules, read_documents, rule_files
from webhook.manifests.reader import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from webhook.core.detection.alert import Alert

# A Monday.
START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
_ORIGIN = "cluster/test/case"
_MAX_EVENTS = 100_000


class CaseEvent(Schema):
    """One event, or several. ``at`` is the time since the start of the case, ``after`` since the previous event."""

    type: str = ""
    like: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    audit: dict[str, Any] | None = None
    at: Duration | None = None
    after: Duration = Duration("1s")
    count: int = Field(default=1, ge=1, le=10_000)
    every: Duration = Duration("1m")


class Case(Schema):
    """Events, and the names of the rules that must raise an alert. No other rule may."""

    name: str = Field(min_length=1, max_length=253)
    events: list[CaseEvent] = Field(min_length=1, max_length=256)
    fires: list[str] = Field(default_factory=list)
    baseline: str = Field(default="", description="a part of the baseline of an alert")


class Cases(Schema):
    """A file of cases. ``templates`` are events that others are like."""

    templates: dict[str, CaseEvent] = Field(default_factory=dict)
    cases: list[Case] = Field(min_length=1, max_length=256)


class Outcome(NamedTuple):
    """The result of a case. ``problems`` is empty if it passed."""

    file: str
    case: str
    problems: tuple[str, ...]


def read_cases(path: Path) -> Cases:
    """Read the cases of a rule file.

    Raises:
        ManifestError: the file is missing or invalid.
    """
    documents = read_documents(path)
    if len(documents) != 1:
        raise ManifestError(f"{path}: expected one document with cases")
    try:
        return Cases.model_validate(documents[0])
    except ValidationError as error:
        raise ManifestError(f"{path}: {describe(error)}") from None


def run_directory(directory: Path) -> Iterator[Outcome]:
    """Run the cases of every rule file.

    Raises:
        ManifestError: a file is invalid, or a rule file has no cases.
    """
    files = rule_files(directory)
    load_rules(files)
    for path in files:
        beside = path.with_name(path.name.removesuffix(RULES) + CASES)
        if not beside.is_file():
            raise ManifestError(f"{path} has no cases: create {beside.name}")
        cases = read_cases(beside)
        for case in cases.cases:
            yield run_case(path, cases, case)


def run_case(path: Path, cases: Cases, case: Case) -> Outcome:
    """Run one case on a new engine."""
    engine = Engine(load_rules([path]))
    alerts: list[Alert] = []
    problems: list[str] = []
    for index, event in enumerate(events_of(cases, case)):
        if fault := fault_of(event):
            problems.append(f"event {index}: {fault}")
            break
        alerts += engine.feed(event, _ORIGIN, index)
    alert_rules, expected = {alert.rule for alert in alerts}, set(case.fires)
    problems += [f"{name} did not fire" for name in sorted(expected - alert_rules)]
    problems += [
        f"{alert.rule} fired: {alert.baseline}"
        for alert in {each.rule: each for each in alerts if each.rule not in expected}.values()
    ]
    if case.baseline and not any(case.baseline in alert.baseline for alert in alerts):
        baselines = "; ".join(alert.baseline for alert in alerts) or "no alert"
        problems.append(f"no baseline contains {case.baseline!r}: {baselines}")
    return Outcome(path.name, case.name, tuple(problems))


def events_of(cases: Cases, case: Case) -> Iterator[dict[str, Any]]:
    """Yield the events of a case in their order."""
    moment, number = START, 0
    for event in case.events:
        whole = _merged(cases, event)
        moment = START + event.at.timedelta if event.at is not None else moment + event.after.timedelta
        for repetition in range(event.count):
            if repetition:
                moment += event.every.timedelta
            number += 1
            if number > _MAX_EVENTS:
                raise ManifestError(f"case {case.name!r} has more than {_MAX_EVENTS} events")
            yield _event(whole, moment, number, repetition)


def _merged(cases: Cases, event: CaseEvent) -> CaseEvent:
    if not event.like:
        return event
    base = cases.templates.get(event.like)
    if base is None:
        raise ManifestError(f"template {event.like!r} does not exist")
    base = _merged(cases, base) if base.like != event.like else base
    audit = _deep(base.audit, event.audit) if base.audit is not None and event.audit is not None else None
    return event.model_copy(
        update={
            "type": event.type or base.type,
            "data": _deep(base.data, event.data),
            "audit": audit if audit is not None else event.audit or base.audit,
        }
    )


def _deep(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in change.items():
        before = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(before, dict) and isinstance(value, dict):
            result[key] = _deep(before, value)
        else:
            result[key] = value
    return result


def _event(event: CaseEvent, moment: datetime, number: int, repetition: int) -> dict[str, Any]:
    time = f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
    if event.audit is not None:
        document: dict[str, Any] = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": f"audit-{number}",
            "stage": "ResponseComplete",
            "requestReceivedTimestamp": time,
            "stageTimestamp": time,
        }
        event_document: dict[str, Any] = _filled(event.audit, repetition)
        return document | event_document
    return {
        "specversion": "1.0",
        "id": f"entry-{number}",
        "source": _ORIGIN,
        "type": f"{TYPE_PREFIX}{event.type}",
        "time": time,
        "datacontenttype": "application/json",
        "dataschema": f"{SCHEMA_ROOT}/{SCHEMA_VERSION}/{event.type}.json",
        "data": _filled(event.data, repetition),
    }


def _filled(value: Any, repetition: int) -> Any:
    if isinstance(value, str):
        return value.replace("{n}", str(repetition))
    if isinstance(value, dict):
        return {key: _filled(each, repetition) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, repetition) for each in value]
    return value


def fault_of(event: dict[str, Any]) -> str:
    """Return why an event is not a valid entry; empty for valid ones and for audit events."""
    kind = str(event.get("type", "")).removeprefix(TYPE_PREFIX)
    if event.get("kind") == "Event":
        return ""
    if kind not in DATA:
        return f"type {kind!r} is unknown"
    try:
        DATA[kind].model_validate(event["data"])
    except ValidationError as error:
        return describe(error)
    return ""
