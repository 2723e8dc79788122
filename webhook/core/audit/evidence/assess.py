"""Decide each control of a profile from a timeline. Pure: the same log gives the same result, anywhere."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from webhook.core.audit.evidence.timeline import END

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from webhook.core.audit.evidence.profiles import Control, Profile
    from webhook.core.audit.evidence.timeline import GrantRecord, Ref, Timeline

State = Literal["satisfied", "not-satisfied", "not-assessed"]
MAX_REASONS = 50
MAX_DAYS = 3700
# The entry of a whole drill; the others have the code of a control as name.
_SUMMARY = "drill"


@dataclass(slots=True)
class Part:
    """The result of one criterion: positive observations, and reasons against."""

    title: str
    positive: list[tuple[str, Ref]] = field(default_factory=list)
    against: list[tuple[str, Ref | None]] = field(default_factory=list)

    def fail(self, reason: str, ref: Ref | None = None) -> None:
        """Add a reason, up to `MAX_REASONS`."""
        if len(self.against) < MAX_REASONS:
            self.against.append((reason, ref))


@dataclass(slots=True)
class Assessment:
    """The result for one control."""

    control: Control
    parts: list[Part]

    @property
    def state(self) -> State:
        """Satisfied needs a positive observation in every part and no reason against any."""
        if not self.parts:
            return "not-assessed"
        if any(part.against for part in self.parts):
            return "not-satisfied"
        return "satisfied" if all(part.positive for part in self.parts) else "not-assessed"


@dataclass(frozen=True, slots=True)
class Scope:
    """What is assessed: the period [start, end) and the faults of the logs' verification."""

    start: str
    end: str
    faults: tuple[str, ...] = ()
    logs: tuple[tuple[str, int, str], ...] = ()


def assess(timeline: Timeline, profile: Profile, scope: Scope) -> list[Assessment]:
    """Assess every control of a profile."""
    results = []
    for control in profile.controls:
        parts = [part for name in control.criteria for part in _criterion(name, timeline, scope)]
        names = sorted(
            {
                each.name
                for intervals in timeline.policies.values()
                for each in intervals
                if control.reference in each.controls
            }
        )
        parts += [_policy(name, timeline, scope) for name in names]
        parts += _drills_of(names, timeline, scope)
        if "own-policies" in control.criteria and not names:
            # A log without any policy for this control must not satisfy it by other criteria.
            parts.append(Part("policies in force"))
        results.append(Assessment(control, parts))
    return results


def _criterion(name: str, timeline: Timeline, scope: Scope) -> Iterable[Part]:
    kind, _, argument = name.partition(":")
    if kind == "own-policies":
        return []
    if kind == "policies":
        reference = f"NIST-800-53/{argument}"
        names = {
            each.name
            for intervals in timeline.policies.values()
            for each in intervals
            if reference in each.controls
        }
        return [_policy(each, timeline, scope) for each in sorted(names)] or [Part("policies in force")]
    return [_CRITERIA[kind](timeline, scope)]


def _policy(name: str, timeline: Timeline, scope: Scope) -> Part:
    """A policy denies in every interval of the period, in every webhook that runs."""
    part = Part(f"policy {name} at Deny")
    intervals: list[tuple[str, str]] = []
    for origin, runs in sorted(timeline.runs.items()):
        if "/webhook/" not in f"{origin}/":
            continue
        denies = [each for each in timeline.policies.get(origin, ()) if each.name == name and each.denies]
        for run in runs:
            low, high = max(run.start, scope.start), min(run.end, scope.end)
            if low >= high:
                continue
            inside = [
                (max(each.start, low), min(each.end, high))
                for each in denies
                if each.start < high and each.end > low
            ]
            for start, end in gaps(inside, low, high):
                part.fail(f"policy {name} was not at Deny in {origin} from {start} to {end}", run.ref)
            intervals += inside
            part.positive += [
                (f"policy {name} ({each.digest}) at Deny in {origin}", each.ref)
                for each in denies
                if each.start < high and each.end > low
            ]
    for start, end in gaps(intervals, scope.start, scope.end):
        part.fail(f"no webhook with policy {name} at Deny is observed from {start} to {end}")
    return part


def gaps(intervals: Sequence[tuple[str, str]], low: str, high: str) -> list[tuple[str, str]]:
    """Return the parts of [low, high) that no interval covers."""
    result, position = [], low
    for start, end in sorted(intervals):
        if start > position:
            result.append((position, start))
        position = max(position, end)
        if position >= high:
            break
    if position < high:
        result.append((position, high))
    return result


def _inside(ref: Ref, scope: Scope) -> bool:
    return scope.start <= ref.time < scope.end


def _required(timeline: Timeline, model: str, time: str) -> int:
    """The approvals that a model required at a time. A model without an entry requires one."""
    fields_known = [
        data
        for ref, data in timeline.models.get(model, ())
        if ref.time <= time and data.get("change") != "removed"
    ]
    return int(fields_known[-1].get("approvals", 0)) if fields_known else 1


def _approvals(timeline: Timeline, record: GrantRecord) -> list[str]:
    """The distinct approvers of a grant whose votes are in the log, without the requester."""
    name = str(record.data.get("request", ""))
    _, request = timeline.requests.get(name, (None, {}))
    requester = (request.get("requester") or {}).get("username", "")
    votes = {
        data["approver"]["username"]
        for _, data in timeline.votes.get(name, ())
        if data.get("decision") == "Approve"
    }
    return sorted(votes - {requester})


def grant_faults(timeline: Timeline, record: GrantRecord) -> list[str]:
    """Return what is wrong with an ordinary grant."""
    name, model = record.data.get("request", ""), str(record.data.get("model", ""))
    approvers, votes = sorted(record.data.get("approvers", ())), _approvals(timeline, record)
    required = _required(timeline, model, record.ref.time)
    faults = []
    if not set(approvers) <= set(votes):
        missing = ", ".join(sorted(set(approvers) - set(votes)))
        faults.append(f"grant {name}: the log has no approval by {missing}")
    if len(votes) < required:
        faults.append(f"grant {name}: {len(votes)} approvals in the log, model {model} requires {required}")
    if name not in timeline.requests:
        faults.append(f"grant {name}: the log has no request")
    return faults


def _grants(timeline: Timeline, scope: Scope) -> Part:
    part = Part("every grant has its approvals")
    for record in timeline.grants:
        if record.ref.time >= scope.end or min(record.ended, record.data.get("expires", END)) <= scope.start:
            continue
        if record.kind == "breakglass":
            part.fail(f"break-glass access {record.data.get('request')} has no approvals", record.ref)
            continue
        if record.kind != "grant" or not record.data.get("model"):
            continue
        faults = grant_faults(timeline, record)
        for fault in faults:
            part.fail(fault, record.ref)
        if not faults:
            part.positive.append((f"grant {record.data.get('request')} is approved", record.ref))
    return part


def _releases(timeline: Timeline, scope: Scope) -> Part:
    part = Part("every key release has an active grant")
    for ref, data in timeline.releases:
        if data.get("kind") != "release" or data.get("decision") != "released" or not _inside(ref, scope):
            continue
        model, name = str(data.get("model", "")), data.get("grant", "")
        states = [model_data for _, model_data in timeline.models.get(model, ())]
        if states and states[-1].get("sensitivity") == "public":
            part.positive.append((f"release of the public model {model}", ref))
            continue
        match = next(
            (
                record
                for record in timeline.grants
                if record.data.get("request") == name
                and record.data.get("model") == model
                and record.data.get("begins", END)
                <= ref.time
                < min(record.data.get("expires", ""), record.ended)
            ),
            None,
        )
        if match is None:
            part.fail(f"release of model {model} at {ref.time}: no grant in the log was active", ref)
        else:
            part.positive.append((f"release of model {model} under grant {name}", ref))
    # A hole in the broker's log could hide a release.
    for ref, data in timeline.others.get("log.loss", ()):
        if any(kind in ("release", "renewal") for kind in data.get("lost", ())):
            part.fail("the broker's log lost entries", ref)
    return part


def _log(timeline: Timeline, scope: Scope) -> Part:
    part = Part("the log is whole")
    for fault in scope.faults:
        part.fail(fault)
    intervals = []
    for origin, runs in sorted(timeline.runs.items()):
        for run in runs:
            low, high = max(run.start, scope.start), min(run.end, scope.end)
            if low < high:
                intervals.append((low, high))
                part.positive.append((f"log {origin} is whole", run.ref))
    for start, end in gaps(intervals, scope.start, scope.end):
        part.fail(f"no log has a run from {start} to {end}")
    for ref, data in timeline.others.get("log.loss", ()):
        if _inside(ref, scope):
            part.fail(f"log {ref.origin} lost entries: {data.get('lost')}", ref)
    return part


def _integrity(timeline: Timeline, scope: Scope) -> Part:
    part = Part("webhook configurations are intact")
    for ref, data in timeline.others.get("drift", ()):
        if _inside(ref, scope):
            part.fail(f"{data.get('kind')} {data.get('name')} drifted and was not restored", ref)
    intervals = []
    for origin, runs in sorted(timeline.runs.items()):
        if "/controller/" not in f"{origin}/":
            continue
        for run in runs:
            low, high = max(run.start, scope.start), min(run.end, scope.end)
            if low < high:
                intervals.append((low, high))
                part.positive.append((f"controller {origin} watched the webhook configurations", run.ref))
    if intervals:
        for start, end in gaps(intervals, scope.start, scope.end):
            part.fail(f"no controller is observed from {start} to {end}")
    return part


def _models(timeline: Timeline, scope: Scope) -> Part:
    part = Part("models are registered")
    for name, states in sorted(timeline.models.items()):
        ref, data = states[-1]
        if ref.time < scope.end and data.get("change") != "removed":
            part.positive.append((f"model {name} has sensitivity {data.get('sensitivity')}", ref))
    return part


def _detections(timeline: Timeline, scope: Scope) -> Part:
    """Every interval of the period has a statement that the rules were evaluated. Alerts prove that they work."""
    part = Part("detection rules were evaluated")
    intervals: list[tuple[str, str]] = []
    for ref, data in timeline.others.get("detection", ()):
        result = data.get("result")
        if data.get("name") == "evaluation" and result == "passed":
            low, high = max(str(data.get("since", ref.time)), scope.start), min(ref.time, scope.end)
            if low < high:
                intervals.append((low, high))
                part.positive.append((str(data.get("detail", "evaluated")), ref))
        elif not _inside(ref, scope):
            continue
        elif result == "failed":
            part.fail(f"the rules were not evaluated: {data.get('detail', '')}", ref)
        elif result in ("found", "silenced"):
            part.positive.append((f"alert of rule {data.get('name')}", ref))
    if intervals:
        for start, end in gaps(intervals, scope.start, scope.end):
            part.fail(f"no evaluation of the detection rules is observed from {start} to {end}")
    return part


def _drills(timeline: Timeline, scope: Scope) -> Part:
    """A drill passed on each day of the period, and none failed. Without any drill, the criterion is not assessed."""
    part = Part("drills passed")
    days: set[str] = set()
    observed = False
    for ref, data in timeline.others.get("drill", ()):
        if not _inside(ref, scope):
            continue
        observed = True
        if data.get("name") == _SUMMARY and data.get("result") == "passed":
            days.add(ref.time[:10])
            what = f"{data.get('stopped', 0)} of {data.get('attacks', 0)} attacks stopped"
            part.positive.append((f"drill at {ref.time}: {what}", ref))
        elif data.get("name") == _SUMMARY and data.get("result") == "failed":
            part.fail(f"drill at {ref.time} failed: a control did not hold", ref)
    if observed:
        for day in whole_days(scope.start, scope.end):
            if day not in days:
                part.fail(f"no drill passed on {day}")
    return part


def whole_days(start: str, end: str) -> list[str]:
    """Return the UTC days that [start, end) contains as a whole, at most `MAX_DAYS`."""
    try:
        low, high = datetime.fromisoformat(start), datetime.fromisoformat(end)
    except ValueError:
        return []
    day = low.replace(hour=0, minute=0, second=0, microsecond=0)
    if day < low:
        day += timedelta(days=1)
    days: list[str] = []
    while day + timedelta(days=1) <= high and len(days) < MAX_DAYS:
        days.append(f"{day:%Y-%m-%d}")
        day += timedelta(days=1)
    return days


def _drills_of(names: Sequence[str], timeline: Timeline, scope: Scope) -> list[Part]:
    """The drills that tried the codes of some policies: they count where there are any, and are not required."""
    codes = {
        each.code
        for intervals in timeline.policies.values()
        for each in intervals
        if each.name in names and each.code
    }
    parts = []
    for code in sorted(codes):
        part = Part(f"drills on {code}")
        for ref, data in timeline.others.get("drill", ()):
            if data.get("name") != code or not _inside(ref, scope):
                continue
            counts = f"{data.get('stopped', 0)} of {data.get('attacks', 0)} attacks"
            if data.get("result") == "passed":
                part.positive.append((f"drill at {ref.time}: {code} stopped {counts}", ref))
            else:
                part.fail(f"drill at {ref.time}: {code} stopped only {counts}", ref)
        if part.positive or part.against:
            parts.append(part)
    return parts


def _egress(timeline: Timeline, scope: Scope) -> Part:
    """Every model of the highest sensitivity has an egress budget at the end of the period."""
    part = Part("models have an egress budget")
    for name, states in sorted(timeline.models.items()):
        earlier = [(ref, data) for ref, data in states if ref.time < scope.end]
        if not earlier or earlier[-1][1].get("change") == "removed":
            continue
        ref, data = earlier[-1]
        seconds = data.get("egressSeconds", 0)
        if seconds:
            part.positive.append((f"model {name} cannot be sent in less than {seconds} s", ref))
        elif data.get("sensitivity") == "frontier":
            part.fail(f"model {name} has no egress budget", ref)
    return part


_CRITERIA: dict[str, Callable[[Timeline, Scope], Part]] = {
    "grants": _grants,
    "releases": _releases,
    "log": _log,
    "integrity": _integrity,
    "models": _models,
    "detections": _detections,
    "drills": _drills,
    "egress": _egress,
}


def sample(records: Sequence[GrantRecord], count: int, seed: int) -> list[GrantRecord]:
    """Draw a reproducible sample: the same log, count and seed give the same grants."""
    ordered = sorted(records, key=lambda record: (record.ref.origin, record.ref.entry))
    if len(ordered) <= count:
        return ordered
    indices = random.Random(seed).sample(range(len(ordered)), count)  # noqa: S311 - reproducible, not a secret
    return [ordered[index] for index in sorted(indices)]


def exceptions(timeline: Timeline, scope: Scope) -> list[tuple[str, str, Ref, dict[str, Any]]]:
    """Return break-glass access, waivers and denied releases of the period: kind, sentence, entry and data."""
    result = []
    for record in timeline.grants:
        if (
            record.kind in ("breakglass", "waiver")
            and record.ref.time < scope.end
            and record.ended > scope.start
        ):
            what = record.data.get("model") or record.data.get("waiver")
            words = "break-glass access to model" if record.kind == "breakglass" else "waiver of policy"
            result.append(
                (
                    record.kind,
                    f"{words} {what} by request {record.data.get('request')}",
                    record.ref,
                    record.data,
                )
            )
    return result
