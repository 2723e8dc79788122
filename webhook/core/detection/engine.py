"""Run all rules over events, in the order of their time, and raise alerts once.

An event is an entry of the audit log, or an event of the API server's audit log. The engine has no clock: all windows
and baselines use the time of the events. Its state is JSON, and is trimmed to a number of bytes.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson

from webhook.api.entries import TYPE_PREFIX
from webhook.core.detection.alert import Alert, key_for
from webhook.core.detection.correlation import CorrelationState
from webhook.core.detection.firing import Firing, Ref, grouper, named
from webhook.core.detection.rule import KUBERNETES
from webhook.core.detection.statistic import FirstSeenState, MissingState, State, state_of
from webhook.core.detection.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.core.detection.match import Event
    from webhook.core.detection.rule import About, Correlation, Rule, RuleSet

STATE_BYTES = 900 * 1024
_MAX_UNPACKED = 64 * 1024 * 1024
_RAISED = 10_000
_AUDIT_IDS = 4_096
_JOINED = f"{TYPE_PREFIX}kubernetes"
_VERSION = 1
_MAX_IDENTIFIER = 300
_LEAST_AUDIT_IDS = 256
# 9999-12-31, the last day that a datetime has.
_LAST_SECOND = 253_402_214_400
# Ends the key of an alert whose event is expected.
_EXPECTED = "/expected"


class StateError(ValueError):
    """The stored state cannot be read. The message is one line."""


class Engine:
    """The state of all rules. Feed events in the order of their time."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self.evaluated = 0
        self._started = 0.0
        self._by_source: dict[str, list[Rule]] = {}
        for rule in rules.rules.values():
            self._by_source.setdefault(rule.source, []).append(rule)
        self._statistics: dict[str, State] = {
            name: state_of(rule.about.extension.statistic)
            for name, rule in rules.rules.items()
            if rule.about.extension.statistic is not None
        }
        self._correlations = {name: CorrelationState(each) for name, each in rules.correlations.items()}
        self._users: dict[str, list[Correlation]] = {}
        for correlation in rules.correlations.values():
            for name in dict.fromkeys(correlation.rules):
                self._users.setdefault(name, []).append(correlation)
        self._markers: dict[str, list[MissingState]] = {}
        for state in self._statistics.values():
            if isinstance(state, MissingState):
                for name in state.sources:
                    self._markers.setdefault(name, []).append(state)
        self._keys: dict[str, Callable[[Event], tuple[str, ...]]] = {}
        self._raised: Table[list[float]] = Table(lambda: [0.0, 0], _RAISED)
        self._audit_ids: Table[bool] = Table(bool, _AUDIT_IDS)

    def feed(self, event: Event, origin: str, index: int) -> list[Alert]:
        """Evaluate one event. Return the new alerts.

        An event that is neither an entry nor an audit event is ignored. An entry of a joined audit log is the
        event that it contains.
        """
        if event.get("type") == _JOINED:
            data = event.get("data")
            event = {
                "kind": "Event",
                "apiVersion": f"{KUBERNETES}/v1",
                **(data if isinstance(data, dict) else {}),
            }
        source, identifier, time = self._describe(event)
        if not source:
            return []
        self.evaluated += 1
        if not self._started:
            self._start(time)
        if source == "detection":
            self.remember(event)
            return []
        ref = Ref(origin, index, identifier, source, time)
        alerts: list[Alert] = []
        for rule in (*self._by_source.get(source, ()), *self._by_source.get("", ())):
            if rule.matches(event):
                self._matched(rule, event, ref, alerts)
        return alerts

    def _describe(self, event: Event) -> tuple[str, str, float]:
        kind = event.get("type")
        if isinstance(kind, str) and kind.startswith(TYPE_PREFIX):
            return kind[len(TYPE_PREFIX) :], _identifier(event.get("id")), _seconds(event.get("time"))
        if event.get("kind") == "Event" and str(event.get("apiVersion", "")).startswith("audit.k8s.io/"):
            request = _request(event)
            if event.get("stage") == "RequestReceived" or self._audit_ids.peek(request) is not None:
                # Long requests have an event for their start and one for their end.
                return "", "", 0.0
            self._audit_ids.get(request)
            identifier = _identifier(event.get("auditID"))
            return KUBERNETES, identifier, _seconds(event.get("requestReceivedTimestamp"))
        return "", "", 0.0

    def _start(self, time: float) -> None:
        """Remember the time of the first event: the log has no history before it."""
        self._started = time
        for state in self._statistics.values():
            if isinstance(state, FirstSeenState):
                state.log_started = time

    def remember(self, event: Event) -> None:
        """Remember the entry of an alert, so that a replay does not raise it again."""
        data, time = event.get("data"), _seconds(event.get("time"))
        if not isinstance(data, dict):
            return
        if data.get("result") in ("found", "silenced") and data.get("key"):
            row = self._raised.get(str(data["key"]))
            row[0] = max(row[0], time)

    def _matched(self, rule: Rule, event: Event, ref: Ref, alerts: list[Alert]) -> None:
        name, statistic = rule.about.name, self._statistics.get(rule.about.name)
        for marker in self._markers.get(name, ()):
            marker.mark(name, event, ref)
        if statistic is not None:
            firing = statistic.feed(event, ref)
            if firing is None:
                return
        else:
            firing = Firing((), (ref,), "the rule matches this event alone", event)
        self._report(rule.about, firing, ref, alerts)

    def _report(self, about: About, fired: Firing, ref: Ref, alerts: list[Alert]) -> None:
        for correlation in self._users.get(about.name, ()):
            result = self._correlations[correlation.about.name].feed(about.name, fired.event, ref)
            if result is not None:
                # A correlation of correlations groups by the names of the inner groups, too.
                overlay = {name: value for name, value in result.group if "." not in name}
                inner = Firing(result.group, result.refs, result.baseline, {**result.event, **overlay})
                self._report(correlation.about, inner, ref, alerts)
        if about.name not in self.rules.inner:
            rule = self.rules.rules.get(about.name)
            expected = rule is not None and rule.expected is not None and rule.expected(fired.event)
            alert = self._raise(about, fired, ref, expected=expected)
            if alert is not None:
                alerts.append(replace(alert, level="informational") if expected else alert)

    def _raise(self, about: About, fired: Firing, ref: Ref, *, expected: bool) -> Alert | None:
        group = fired.group
        if about.extension.key:
            read = self._keys.get(about.name)
            if read is None:
                read = self._keys[about.name] = grouper(about.extension.key)
            group = named(about.extension.key, read(fired.event)) or group
        elif not group:
            group = (("subject", str(fired.event.get("subject") or ref.id)),)
        # An expected event must not suppress the alert of an unexpected one.
        key = key_for(about.name, group) + (_EXPECTED if expected else "")
        row = self._raised.get(key)
        # An entry with a time in the future must not suppress its alert forever.
        if row[0] and abs(ref.time - row[0]) < about.extension.dedup.timedelta.total_seconds():
            row[1] += 1
            return None
        repeats = int(row[1])
        row[0], row[1] = ref.time, 0
        return Alert(
            about.name,
            about.title,
            about.level,
            key,
            ref.time,
            group,
            fired.refs,
            fired.baseline,
            tuple(about.techniques),
            tuple(about.extension.controls),
            about.extension.runbook or about.name,
            repeats,
        )

    def dump(self, limit: int = STATE_BYTES, positions: Mapping[str, int] | None = None) -> bytes:
        """Return the state in at most ``limit`` bytes, with the positions of the logs.

        It forgets the groups that were used least recently if it must.
        """
        while True:
            content = orjson.dumps({**self._document(), "positions": dict(positions or {})})
            packed = zlib.compress(content, 6)
            if len(packed) <= limit and len(content) <= _MAX_UNPACKED:
                return packed
            before = self._rows()
            for state in self._statistics.values():
                state.shrink(0.5)
            for correlation in self._correlations.values():
                correlation.table.shrink(len(correlation.table) // 2)
            self._raised.shrink(len(self._raised) // 2)
            self._audit_ids.shrink(max(len(self._audit_ids) // 2, _LEAST_AUDIT_IDS))
            if self._rows() == before:
                return packed

    def _rows(self) -> int:
        tables = [state.table for state in self._states().values()]
        return sum(map(len, tables)) + len(self._raised) + len(self._audit_ids)

    def _states(self) -> dict[str, State | CorrelationState]:
        return {**self._statistics, **self._correlations}

    def _document(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "started": self._started,
            "rules": {
                name: [self.rules.about(name).extension.version, state.dump()]
                for name, state in self._states().items()
            },
            "raised": [[key, row] for key, row in self._raised.items()],
            "audit": [key for key, _ in self._audit_ids.items()],
        }

    def load(self, packed: bytes) -> dict[str, int]:
        """Restore the state, and return the positions. The state of a rule with another version is dropped.

        Raises:
            StateError: the state is damaged.
        """
        try:
            unpacker = zlib.decompressobj()
            raw = unpacker.decompress(packed, _MAX_UNPACKED)
            if unpacker.unconsumed_tail:
                raise StateError("the state is larger than 64 MiB")
            if not unpacker.eof:
                raise StateError("the state is truncated")
            document = orjson.loads(raw)
            if document["version"] != _VERSION:
                raise StateError(f"version {document['version']} is unknown")
            self._start(float(document["started"]))
            for name, (version, rows) in document["rules"].items():
                state = self._statistics.get(name) or self._correlations.get(name)
                if state is not None and self.rules.about(name).extension.version == version:
                    state.load(rows)
            for key, row in document["raised"]:
                self._raised.put(key, row)
            for key in document["audit"]:
                self._audit_ids.put(key, False)
            return {str(origin): int(index) for origin, index in document["positions"].items()}
        except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateError(f"cannot read the state: {error}") from None


def _identifier(value: Any) -> str:
    return str("" if value is None else value)[:_MAX_IDENTIFIER]


def _request(event: Event) -> str:
    """Return what identifies a request. A client can choose its audit ID, so that alone could hide other requests."""
    user = event.get("user")
    parts = (
        event.get("auditID"),
        event.get("requestReceivedTimestamp"),
        event.get("verb"),
        str(event.get("requestURI", "")).partition("?")[0],
        user.get("username") if isinstance(user, dict) else "",
    )
    return sha256("\x1f".join(map(str, parts)).encode(errors="replace")).hexdigest()[:32]


def _seconds(time: Any) -> float:
    """Return RFC 3339 as Unix seconds, without a zone as UTC; 0 if it is not a time since 1970."""
    try:
        moment = datetime.fromisoformat(str(time))
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return seconds if 0 <= seconds <= _LAST_SECOND else 0.0
