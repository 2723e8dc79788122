"""Collect the entries of all logs into what an assessment needs: runs, policies, grants, releases, exceptions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from webhook.core.audit.entries import kind_of

END = "9999"


class Ref(NamedTuple):
    """An entry: its log, its index and its time."""

    origin: str
    entry: int
    time: str

    @property
    def name(self) -> str:
        """A name for files and links."""
        return f"{self.origin.replace('/', '-')}-{self.entry}"


@dataclass(slots=True)
class Interval:
    """A half-open interval of time with the entry that began it."""

    start: str
    end: str
    ref: Ref


@dataclass(slots=True)
class PolicyInterval(Interval):
    """A policy as one process enforced it."""

    name: str = ""
    actions: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    digest: str = ""
    code: str = ""

    @property
    def denies(self) -> bool:
        """Whether the policy denies."""
        return "Deny" in self.actions


@dataclass(slots=True)
class GrantRecord:
    """A grant, a waiver or a break-glass access."""

    kind: str
    data: dict[str, Any]
    ref: Ref
    ended: str = END


@dataclass(slots=True)
class Timeline:
    """Everything observed. Entries of one log come in order; logs come one after another."""

    runs: dict[str, list[Interval]] = field(default_factory=dict)
    policies: dict[str, list[PolicyInterval]] = field(default_factory=dict)
    grants: list[GrantRecord] = field(default_factory=list)
    votes: dict[str, list[tuple[Ref, dict[str, Any]]]] = field(default_factory=dict)
    requests: dict[str, tuple[Ref, dict[str, Any]]] = field(default_factory=dict)
    releases: list[tuple[Ref, dict[str, Any]]] = field(default_factory=list)
    models: dict[str, list[tuple[Ref, dict[str, Any]]]] = field(default_factory=dict)
    others: dict[str, list[tuple[Ref, dict[str, Any]]]] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    _last: dict[str, str] = field(default_factory=dict)

    def add(self, origin: str, index: int, entry: dict[str, Any]) -> None:
        """Add one entry."""
        ref, data, kind = Ref(origin, index, entry["time"]), entry["data"], kind_of(entry)
        handler = {
            "log": self._log,
            "policy": self._policy,
            "grant": self._grant,
            "waiver": self._grant,
            "breakglass": self._grant,
        }.get(kind)
        if handler is not None:
            handler(ref, kind, data)
        elif kind == "verdict":
            self.verdicts[str(data.get("decision", ""))] += 1
        elif kind == "approval":
            self.votes.setdefault(str(data.get("request", "")), []).append((ref, data))
        elif kind == "request":
            self.requests[str(data.get("name", ""))] = (ref, data)
        elif kind in ("release", "renewal"):
            self.releases.append((ref, {**data, "kind": kind}))
        elif kind == "model":
            self.models.setdefault(str(data.get("name", "")), []).append((ref, data))
        else:
            self.others.setdefault(kind, []).append((ref, data))
        self._last[origin] = entry["time"]

    def finish(self) -> None:
        """Close intervals that no entry closed: a log proves nothing after its last entry."""
        for origin in self.runs:
            self._close(origin, self._last.get(origin, ""))

    def _log(self, ref: Ref, kind: str, data: dict[str, Any]) -> None:
        event = data.get("event")
        if event == "start":
            # A run without a stop entry proves nothing after its last entry.
            self._close(ref.origin, self._last.get(ref.origin, ref.time))
            self.runs.setdefault(ref.origin, []).append(Interval(ref.time, END, ref))
        elif event == "stop":
            self._close(ref.origin, ref.time)
        else:
            self.others.setdefault(f"{kind}.{event}", []).append((ref, data))

    def _close(self, origin: str, time: str) -> None:
        for interval in (*self.runs.get(origin, ()), *self.policies.get(origin, ())):
            if interval.end == END:
                interval.end = time

    def _policy(self, ref: Ref, _: str, data: dict[str, Any]) -> None:
        name = str(data.get("name", ""))
        intervals = self.policies.setdefault(ref.origin, [])
        run = self.runs.get(ref.origin, [None])[-1]
        first = run is not None and not any(
            each.name == name and each.start >= run.start for each in intervals
        )
        for interval in intervals:
            if interval.name == name and interval.end == END:
                interval.end = ref.time
        if data.get("change") == "removed":
            return
        # What a process reports first was in force since its start: it answers no request before.
        start = run.start if run is not None and first and data.get("change") == "added" else ref.time
        intervals.append(
            PolicyInterval(
                start,
                END,
                ref,
                name,
                tuple(data.get("actions", ())),
                tuple(data.get("controls", ())),
                str(data.get("digest", "")),
                str(data.get("code", "")),
            )
        )

    def _grant(self, ref: Ref, kind: str, data: dict[str, Any]) -> None:
        for record in self.grants:
            if (
                record.kind == kind
                and record.data.get("request") == data.get("request")
                and record.ended == END
            ):
                if data.get("state") == "ended":
                    record.ended = ref.time
                return
        if data.get("state") == "active":
            self.grants.append(GrantRecord(kind, data, ref))
