"""What Prometheus reads from each process: names and labels that dashboards and alerts rely on, see docs/monitoring.md.

Every process has a registry of its own. Nothing here may fail a request, and no label is the requester's to multiply.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

import orjson
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from webhook.api import codes
from webhook.server.metrics.counters import CounterTally, HistogramTally, OutcomeTally, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from webhook.core.admission.verdict import Verdict
    from webhook.core.kube.review import AdmissionRequest
    from webhook.server.metrics.counters import Rows
    from webhook.server.process.shared_memory import Slot

    Readings = Callable[[], Mapping[str, float | None]]

# Fine where answers are, and fine again between half of what the API server may wait and all of it.
_REVIEW_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 30.0),
)
_POLICY_SECONDS = (
    0.00001,
    0.000025,
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.1,
    1.0,
)
_KEY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0)
_MAX_OUTCOMES = 8000
_MAX_RESOURCES = 1000
_CUSTOM = "custom"
POLICY_FAULT, OWN_FAULT, _OVERLOADED = codes.UNEVALUABLE, codes.INTERNAL_ERROR, codes.OVERLOADED
GAUGES = {
    "weightlock_grants_active": "Grants that hold now.",
    "weightlock_grants_ending_soon": "Grants that hold now and end within the hour.",
    "weightlock_break_glass_grants_active": "Grants that hold now without approvals, in an emergency.",
    "weightlock_access_objects_ignored": "Access requests and approvals that count for nothing.",
    "weightlock_certificate_expiry_timestamp_seconds": "When the serving certificate ends, in Unix time.",
    "weightlock_certificate_usable": "1 where the serving certificate may be used now, 0 where the log says why not.",
    "weightlock_snapshot_age_seconds": "Seconds since the snapshot was last known to be what the cluster holds.",
    "weightlock_snapshot_max_age_seconds": "The age of the snapshot from which everything governed is denied.",
    "weightlock_snapshot_problems": "Policies and assets that cannot be used as they are; the log names them.",
    "weightlock_admission_timeout_seconds": "Time within which each review is answered, whatever happens.",
    "weightlock_admission_waiting_reviews": "Reviews that wait for their turn.",
    "weightlock_admission_asking_reviews": "Reviews that wait for an answer of the API server.",
    "weightlock_key_requests_running": "Requests for keys that are being decided.",
}


class Tally(Protocol):
    """What counts, and can be shown together with the counts of other processes."""

    @property
    def name(self) -> str:
        """The name of its first family."""

    def rows(self) -> Rows:
        """What was counted, by labels."""

    def collect(self, rows: Rows | None = None) -> Iterable[Metric]:
        """The families of these rows."""


def build_info(component: str) -> Metric:
    """The version of a component, as the value 1 with labels."""
    family = GaugeMetricFamily(
        "weightlock_build_info", "Always 1; what runs here.", labels=("version", "component")
    )
    family.add_metric((version("weightlock"), component), 1)
    return family


class Metrics(Collector):
    """What every process has: who it is, its own faults, and gauges that are read at a scrape."""

    def __init__(self, component: str, *tallies: Tally) -> None:
        self.registry = CollectorRegistry()
        self._component = component
        self._faults = CounterTally(
            "weightlock_internal_errors",
            "Requests and tasks that failed through no fault of the caller, by code.",
            ("code",),
            limit=50,
            known=[(code,) for code in (*codes.FAULTS, *codes.BROKER_FAULTS)],
        )
        self._tallies: tuple[Tally, ...] = (*tallies, self._faults)
        self._readings: dict[str, Readings] = {}
        self._slot: Slot | None = None
        self._others: tuple[Slot, ...] = ()
        self._inherited: dict[str, Rows] = {}
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def internal_error(self, code: str = OWN_FAULT) -> None:
        """Weightlock itself failed at something."""
        self._faults.add((code,))

    def gauge(self, name: str, read: Callable[[], float | None]) -> None:
        """Say where a gauge's value is read at a scrape; None or an error leaves it out. Raises `KeyError`."""
        _ = GAUGES[name]
        self._readings[name] = lambda: {name: read()}

    def gauges(self, what: str, read: Readings) -> None:
        """Say where several gauges are read together; an error leaves all of them out."""
        self._readings[what] = read

    def share(self, slot: Slot, others: Iterable[Slot]) -> None:
        """Go on with the counts of those who had the slot before, and show those of the others besides."""
        self._slot, self._others, self._inherited = slot, tuple(others), _decoded(slot.read())

    def save(self) -> None:
        """Leave the counts to whoever comes after this process."""
        self._saved()

    def collect(self) -> Iterator[Metric]:
        """Every family, for a scrape."""
        yield build_info(self._component)
        own = self._saved()
        everybody = [own, *(_decoded(slot.read()) for slot in self._others)]
        for tally in self._tallies:
            yield from tally.collect(merge(counts.get(tally.name, {}) for counts in everybody))
        found: dict[str, float | None] = {}
        for read in self._readings.values():
            found.update(_read(read))
        for name, documentation in GAUGES.items():
            value = found.get(name)
            if value is not None:
                yield GaugeMetricFamily(name, documentation, value)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The text of all metrics, and its content type, for an ``Accept`` header."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _saved(self) -> dict[str, Rows]:
        """What was counted here and inherited. It is saved before it is shown: what was seen once must not be lost."""
        own = {
            tally.name: merge((self._inherited.get(tally.name, {}), tally.rows())) for tally in self._tallies
        }
        if self._slot is not None:
            self._slot.write(orjson.dumps({name: list(rows.items()) for name, rows in own.items()}))
        return own


class AdmissionMetrics(Metrics):
    """The webhook's. ``decision`` is allowed, denied, or ``error`` where Weightlock itself could not decide."""

    def __init__(self) -> None:
        self._requests = CounterTally(
            "weightlock_admission_requests",
            "Admission reviews answered, mutation and validation each.",
            ("operation", "resource", "decision"),
            limit=_MAX_RESOURCES,
        )
        self._duration = HistogramTally(
            "weightlock_admission_duration_seconds",
            "Time from a whole review to its answer.",
            _REVIEW_SECONDS,
        )
        self._findings = CounterTally(
            "weightlock_admission_findings",
            "Rules that were broken, by reason code and what came of it.",
            ("code", "action"),
            limit=4 * len(codes.KNOWN),
            known=[(code, "deny") for code in codes.ADMISSION],
        )
        self._evaluations = OutcomeTally(
            ("weightlock_policy_evaluations", "Policies evaluated, by what came of it."),
            (
                "weightlock_policy_evaluation_duration_seconds",
                "Time to evaluate one policy on one pod template or object; one review in 64 is timed.",
            ),
            _POLICY_SECONDS,
            label="policy",
            limit=_MAX_OUTCOMES,
        )
        self._injections = CounterTally(
            "weightlock_injections", "Pods given the key sidecar.", (), limit=1, known=[()]
        )
        self.restarts = 0
        tallies = (self._requests, self._duration, self._findings, self._evaluations, self._injections)
        super().__init__("webhook", *tallies)

    def answered(self, request: AdmissionRequest, verdict: Verdict, decision: str, seconds: float) -> None:
        """One review was answered."""
        subresource = request.subresource
        resource = f"{request.resource.name}/{subresource}" if subresource else request.resource.name
        self._requests.add((request.operation, resource, decision))
        self._duration.observe(seconds)
        self._evaluations.add(verdict.timings)
        if verdict.injected:
            self._injections.add()
        if verdict.denials or verdict.warnings or verdict.audits:
            self._found(verdict)

    def refused(self, verdict: Verdict, seconds: float) -> None:
        """A review was refused unread, so nothing is known of it but that it was answered."""
        self._requests.add(("", "", "denied"))
        self._duration.observe(seconds)
        self._found(verdict)

    def collect(self) -> Iterator[Metric]:
        """Every family, for a scrape."""
        yield from super().collect()
        yield CounterMetricFamily(
            "weightlock_worker_restarts",
            "Workers that ended as they should not, and were replaced.",
            self.restarts,
        )

    def _found(self, verdict: Verdict) -> None:
        """Count codes once a review: a rule may be broken by each of many containers."""
        for action, findings in (
            ("deny", verdict.denials),
            ("warn", verdict.warnings),
            ("audit", verdict.audits),
        ):
            for code in {finding.code for finding in findings}:
                self._findings.add((code if code in codes.KNOWN else _CUSTOM, action))
                if code == POLICY_FAULT:
                    self.internal_error(POLICY_FAULT)


class BrokerMetrics(Metrics):
    """The key broker's.

    ``result`` is released, renewed, refused, unavailable or error, with a code but for the first two.
    """

    def __init__(self) -> None:
        self._releases = CounterTally(
            "weightlock_key_releases",
            "Answers to requests for keys, by result and code.",
            ("result", "code"),
            limit=200,
            known=[
                ("released", ""),
                ("renewed", ""),
                *(("refused", code) for code in codes.BROKER_DENIALS),
                *(("unavailable", code) for code in (_OVERLOADED, *codes.BROKER_FAULTS)),
                ("error", OWN_FAULT),
            ],
        )
        self._duration = HistogramTally(
            "weightlock_key_request_duration_seconds",
            "Time from a whole request for a key to its answer, by what was asked.",
            _KEY_SECONDS,
            ("call",),
            [("challenge",), ("release",), ("renew",)],
        )
        super().__init__("broker", self._releases, self._duration)

    def answered(self, result: str, code: str = "") -> None:
        """A request for a key was answered."""
        self._releases.add((result, code))
        if result != "refused" and code:
            self.internal_error(code)

    def took(self, call: str, seconds: float) -> None:
        """A call was answered within so many seconds. Raises `KeyError` for one that there is not."""
        self._duration.observe(seconds, (call,))


def _read(read: Readings) -> Mapping[str, float | None]:
    """A gauge that cannot be read is absent, which an alert can see; the other metrics must still be scraped."""
    try:
        return read()
    except Exception:  # noqa: BLE001 - any fault of one gauge, whatever it is
        return {}


def _decoded(content: bytes) -> dict[str, Rows]:
    if not content:
        return {}
    return {
        name: {tuple(labels): numbers for labels, numbers in rows}
        for name, rows in orjson.loads(content).items()
    }
