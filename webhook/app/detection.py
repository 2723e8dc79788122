"""Detection in the controller: read the logs, evaluate the rules, and report alerts while this replica leads.

An alert is logged first. Events, notifications and the summary of a language model follow, and none of them can
prevent or change the entry.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import orjson

from webhook.app.errors import UsageError
from webhook.audit.detect import Follower, logged_alerts
from webhook.core.access.notices import Notice
from webhook.core.audit.entries import timestamp
from webhook.core.detection.engine import STATE_BYTES, Engine, StateError
from webhook.core.detection.silence import read_silences
from webhook.core.detection.triage import MAX_ANSWER, request_of, text_of
from webhook.manifests.detections import load_rules, rule_files
from webhook.manifests.reader import ManifestError
from webhook.manifests.shipped import shipped_detections
from webhook.server.metrics.counters import Counter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from webhook.api.detection import DetectionSettings, Triage
    from webhook.core.audit.notes import VerifierKey
    from webhook.core.detection.alert import Alert
    from webhook.core.detection.rule import RuleSet
    from webhook.core.detection.silence import Silence

# A batch takes about half a second of one core.
BATCH = 5_000
_SAVE_SECONDS = 60.0
_SILENCE_SECONDS = 15.0
_REMEMBERED = 4_096
# A rebuild raises no alert about older entries.
_REBUILD = timedelta(days=1)

log = logging.getLogger(__name__)


class Store(Protocol):
    """Where the state is stored; see `webhook.cluster.controller.detection.StateStore`."""

    async def read(self) -> bytes:
        """Return the stored state; empty without one."""

    async def write(self, state: bytes) -> None:
        """Store the state."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where alerts go. ``record`` writes an entry, ``event`` records an Event, ``notify`` sends a notification."""

    record: Callable[[str, Mapping[str, Any], str], None]
    event: Callable[[Alert, dict[str, Any]], Awaitable[None]]
    notify: Callable[[Notice], None]
    silences: Callable[[], Awaitable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class AlertNotice(Notice):
    """The notification of an alert: the fields of all notifications, and the alert's data."""

    alert: dict[str, Any]

    def as_json(self, now: datetime) -> dict[str, Any]:
        """Return the generic form with the alert."""
        # Without super(): a slotted dataclass is another class than the one in the closure.
        return {**Notice.as_json(self, now), "alert": self.alert}


class DetectionStats:
    """The figures of the process for its metrics."""

    def __init__(self, rules: RuleSet) -> None:
        names = [(name, rules.about(name).level) for name in rules.names]
        self.alerts = Counter(
            "weightlock_detection_alerts",
            "Total alerts of the detection rules, by rule, severity and result (found, silenced).",
            ("rule", "severity", "result"),
            limit=4 * len(names) + 8,
            initial=[(name, level, "found") for name, level in names],
        )
        self.entries = 0
        self.rules = len(names)
        self.faults = 0
        self.state_bytes = 0
        self.silences = 0
        self.last_evaluation: float | None = None
        self.lag: float | None = None


def shipped_or(directory: str) -> RuleSet:
    """Return the rules of a directory, or the shipped ones. Raises `UsageError`."""
    try:
        return load_rules(rule_files(Path(directory) if directory else shipped_detections()))
    except (ManifestError, FileNotFoundError) as error:
        raise UsageError(f"detection.rules: {error}") from None


def digest_of(rules: RuleSet) -> str:
    """Return a digest of the names and versions of the active rules."""
    names = sorted(
        f"{name}:{rules.about(name).identifier}:{rules.about(name).extension.version}"
        for name in (*rules.rules, *rules.correlations)
    )
    return f"sha256:{sha256(chr(10).join(names).encode()).hexdigest()}"


class Detection:
    """The detection of one controller replica."""

    def __init__(
        self,
        settings: DetectionSettings,
        rules: RuleSet,
        logs: Path,
        keys: Callable[[str], Sequence[VerifierKey]],
        store: Store,
        outputs: Outputs,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        refresh: Callable[[], None] | None = None,
    ) -> None:
        """``refresh`` brings the directory of the logs up to date, if it is a copy."""
        self._refresh = refresh
        self.stats = DetectionStats(rules)
        self._settings, self._rules, self._logs, self._keys = settings, rules, logs, keys
        self._store, self._outputs, self._now = store, outputs, now
        self._engine: Engine | None = None
        self._follower: Follower | None = None
        self._raise_since = self._since = ""
        self._saved = self._reported = self._silences_read = 0.0
        self._unsaved = False
        self._counted = 0
        self._silences: list[Silence] = []
        self._logged_silences: set[tuple[str, str]] = set()
        self._recent: dict[tuple[str, int], dict[str, Any]] = {}
        self._triaged: deque[float] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, leading: Callable[[], bool]) -> None:
        """Evaluate while this replica leads, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.interval_seconds)
            if not leading():
                self._engine = self._follower = None
                self.stats.last_evaluation = self.stats.lag = None
                continue
            try:
                if self._refresh is not None:
                    await asyncio.to_thread(self._refresh)
                if self._engine is None:
                    await self.start()
                while await self.step() and leading():
                    pass
            except Exception:
                self.stats.faults += 1
                log.exception("internal error")

    async def start(self) -> None:
        """Restore the state, or begin a rebuild from the log."""
        packed = await self._store.read()
        engine = Engine(self._rules)
        positions: dict[str, int] = {}
        self._raise_since = ""
        try:
            if packed:
                positions = engine.load(packed)
        except StateError as error:
            log.warning("the state of detection cannot be read", extra={"fields": {"why": str(error)}})
            engine, positions = Engine(self._rules), {}
        if not positions:
            self._raise_since = timestamp(self._now() - _REBUILD)
        earliest, last = timestamp(self._now() - _REBUILD), ""
        for entry in await asyncio.to_thread(lambda: list(logged_alerts(self._logs))):
            engine.remember(entry)
            if entry["data"].get("result") == "passed":
                last = max(last, entry["time"])
        # The entries since the last statement are evaluated now. After a day without an evaluation, there is a gap.
        self._since = last if last > earliest else timestamp(self._now())
        self._follower = Follower(
            self._logs, self._keys, [Path(each) for each in self._settings.audit_files], positions
        )
        self._engine = engine
        self._saved = self._reported = time.monotonic()
        self._counted = engine.evaluated

    async def step(self) -> bool:
        """Evaluate the new entries once. Return whether there may be more."""
        if self._engine is None or self._follower is None:
            raise RuntimeError("start was not called")
        engine, follower = self._engine, self._follower
        await self._read_silences()
        until = timestamp(self._now() - timedelta(seconds=self._settings.settle_seconds))
        items = await asyncio.to_thread(follower.read, until, BATCH)
        alerts = await asyncio.to_thread(self._evaluate, engine, items)
        for alert in alerts:
            await self._report(alert)
        self.stats.entries += len(items)
        self.stats.last_evaluation = self._now().timestamp()
        self.stats.lag = self._lag(items)
        self._unsaved = self._unsaved or bool(items)
        moment = time.monotonic()
        if self._unsaved and (alerts or moment - self._saved >= _SAVE_SECONDS):
            await self._save(engine, follower)
        if moment - self._reported >= self._settings.report_seconds:
            self._reported = moment
            self._record_evaluation(engine, follower)
        return len(items) >= BATCH

    def _evaluate(self, engine: Engine, items: list[tuple[str, str, int, dict[str, Any]]]) -> list[Alert]:
        alerts: list[Alert] = []
        for moment, origin, index, document in items:
            self._recent[origin, index] = document
            try:
                new_alerts = engine.feed(document, origin, index)
            except Exception:
                # One event must not hide the alerts of the others: they are read once.
                self.stats.faults += 1
                log.exception("internal error")
                continue
            if moment >= self._raise_since:
                alerts += new_alerts
        while len(self._recent) > _REMEMBERED:
            del self._recent[next(iter(self._recent))]
        return alerts

    def _lag(self, items: list[tuple[str, str, int, dict[str, Any]]]) -> float:
        if not items:
            return 0.0
        try:
            return max(self._now().timestamp() - datetime.fromisoformat(items[-1][0]).timestamp(), 0.0)
        except ValueError:
            return 0.0

    async def _save(self, engine: Engine, follower: Follower) -> None:
        packed = await asyncio.to_thread(engine.dump, STATE_BYTES, follower.stored())
        self.stats.state_bytes = len(packed)
        await self._store.write(packed)
        self._saved, self._unsaved = time.monotonic(), False

    def _record_evaluation(self, engine: Engine, follower: Follower) -> None:
        """State in the log that all rules were evaluated, or which log was not."""
        entries, self._counted = engine.evaluated - self._counted, engine.evaluated
        faults = "; ".join(f"{name}: {reason}" for name, reason in sorted(follower.faults.items()))
        data = {
            "name": "evaluation",
            "result": "failed" if faults else "passed",
            "detail": faults[:1024] or f"{len(self._rules.names)} rules evaluated {entries} entries",
            "since": self._since,
            "entries": entries,
            "rules": len(self._rules.names),
            "digest": digest_of(self._rules),
        }
        self._outputs.record("detection", data, "detections/evaluation")
        if not faults:
            self._since = timestamp(self._now())

    async def _read_silences(self) -> None:
        moment = time.monotonic()
        if moment - self._silences_read < _SILENCE_SECONDS and self._silences_read:
            return
        self._silences_read = moment
        try:
            content = await self._outputs.silences()
        except Exception as error:  # noqa: BLE001 - alerts are sent without silences
            log.warning("cannot read the silences", extra={"fields": {"why": str(error)[:200]}})
            return
        self._silences, invalid = read_silences(content)
        now = self._now()
        self.stats.silences = sum(each.begins <= now < each.ends for each in self._silences)
        for name in invalid:
            log.warning("invalid silence", extra={"fields": {"name": name[:253]}})
        for each in self._silences:
            identity = (each.name, content[each.name])
            if identity in self._logged_silences or now >= each.ends:
                continue
            self._logged_silences.add(identity)
            by = f" by {each.user}" if each.user else ""
            detail = f"alerts of {each.rule} are silenced until {timestamp(each.ends)}{by}"
            data = {"name": each.rule, "result": "silence", "key": each.key, "detail": detail}
            self._outputs.record("detection", {**data, "reason": each.reason}, f"detections/{each.rule}")

    async def _report(self, alert: Alert) -> None:
        """Log an alert, then record an Event and notify the receivers."""
        now = self._now()
        silence = next((each for each in self._silences if each.covers(alert, now)), None)
        if silence is not None:
            alert = alert.silenced(silence.reason)
        self._outputs.record("detection", alert.data(), f"detections/{alert.rule}")
        state = "silenced" if silence is not None else "found"
        self.stats.alerts.add((alert.rule, alert.level, state))
        entries = [
            self._recent[ref.origin, ref.entry]
            for ref in alert.refs
            if (ref.origin, ref.entry) in self._recent
        ]
        if silence is not None or alert.level == "informational":
            return
        log.warning(
            "detection", extra={"fields": {"rule": alert.rule, "key": alert.key, "severity": alert.level}}
        )
        data = alert.data()
        self._outputs.notify(AlertNotice("detection", alert.message, "", alert.rule, "", "", "", alert=data))
        try:
            await self._outputs.event(alert, entries[-1] if entries else {})
        except Exception as error:  # noqa: BLE001 - the entry exists
            log.warning("cannot record the event", extra={"fields": {"why": str(error)[:200]}})
        if self._settings.triage.url and self._may_triage():
            task = asyncio.create_task(self._triage(alert, entries))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _may_triage(self) -> bool:
        moment = time.monotonic()
        while self._triaged and self._triaged[0] < moment - 3600:
            self._triaged.popleft()
        if len(self._triaged) >= self._settings.triage.max_per_hour:
            return False
        self._triaged.append(moment)
        return True

    async def _triage(self, alert: Alert, entries: Sequence[dict[str, Any]]) -> None:
        try:
            text = await summarize(self._settings.triage, alert, entries)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            log.warning("cannot summarize an alert", extra={"fields": {"why": type(error).__name__}})
            return
        if text:
            data = {"name": alert.rule, "result": "triage", "key": alert.key, "detail": text}
            self._outputs.record("detection", data, f"detections/{alert.rule}")

    async def close(self) -> None:
        """Wait for the running summaries, and store the state."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        for task in self._tasks:
            task.cancel()
        if self._engine is not None and self._follower is not None and self._unsaved:
            await self._save(self._engine, self._follower)


async def summarize(settings: Triage, alert: Alert, entries: Sequence[dict[str, Any]]) -> str:
    """Return the marked text of a language model; empty if it returns none.

    Raises:
        aiohttp.ClientError, OSError, TimeoutError, ValueError: there is no response.
    """
    headers = {"Content-Type": "application/json"}
    if settings.key_file:
        key = await asyncio.to_thread(Path(settings.key_file).read_text, "utf-8")
        headers["Authorization"] = f"Bearer {key.strip()}"
    body = orjson.dumps(request_of(alert, entries, settings.model))
    timeout = aiohttp.ClientTimeout(total=settings.timeout_seconds)
    url = f"{settings.url.rstrip('/')}/chat/completions"
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(url, data=body, headers=headers, allow_redirects=False) as response,
    ):
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        answer = bytearray()
        async for chunk in response.content.iter_chunked(64 * 1024):
            answer += chunk
            if len(answer) > MAX_ANSWER:
                raise ValueError("the response is too large")
    return text_of(bytes(answer))
