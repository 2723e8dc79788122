"""What Prometheus reads from the webhook: names and labels that dashboards and alerts rely on.

Every process has a registry of its own. Nothing here may fail a request, and no label is the requester's to multiply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from webhook.server.tallies import CounterTally, HistogramTally, OutcomeTally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from webhook.core.review import AdmissionRequest
    from webhook.core.verdict import Verdict

_REVIEW_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_POLICY_SECONDS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.1, 1.0)
_MAX_OUTCOMES = 8000
_MAX_RESOURCES = 1000
_GAUGES = {
    "weightlock_grants_active": "Grants that hold now.",
    "weightlock_break_glass_grants_active": "Grants that hold now without approvals, in an emergency.",
    "weightlock_access_objects_ignored": "Access requests and approvals that count for nothing.",
    "weightlock_certificate_expiry_timestamp_seconds": "When the serving certificate ends, in Unix time.",
    "weightlock_snapshot_age_seconds": "Seconds since the snapshot was last known to be what the cluster holds.",
    "weightlock_snapshot_problems": "Policies and assets that cannot be used as they are; the log names them.",
}


class Metrics(Collector):
    """All metrics of one webhook process.

    ``decision`` is one of allowed, denied, and ``error`` where Weightlock itself could not decide.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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
        self._injections = 0
        self._releases = CounterTally(
            "weightlock_key_releases", "Answers to requests for keys, by result.", ("result",), limit=50
        )
        self._faults = 0
        self._gauges: dict[str, Callable[[], float | None]] = {}
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def answered(self, request: AdmissionRequest, verdict: Verdict, decision: str, seconds: float) -> None:
        """One review was answered."""
        subresource = request.subresource
        resource = f"{request.resource.name}/{subresource}" if subresource else request.resource.name
        self._requests.add((request.operation, resource, decision))
        self._duration.observe(seconds)
        self._evaluations.add(verdict.timings)
        if verdict.injected:
            self._injections += 1

    def refused(self, seconds: float) -> None:
        """A review was refused unread, so nothing is known of it but that it was answered."""
        self._requests.add(("", "", "denied"))
        self._duration.observe(seconds)

    def released(self, result: str) -> None:
        """A request for a key was answered."""
        self._releases.add((result,))

    def internal_error(self) -> None:
        """Weightlock itself failed at something."""
        self._faults += 1

    def gauge(self, name: str, read: Callable[[], float | None]) -> None:
        """Say where a gauge's value is read at a scrape; None or an error leaves it out. Raises `KeyError`."""
        _ = _GAUGES[name]
        self._gauges[name] = read

    def collect(self) -> Iterator[Metric]:
        """Every family, for a scrape."""
        yield self._requests.collect()
        yield self._duration.collect()
        yield from self._evaluations.collect()
        yield CounterMetricFamily("weightlock_injections", "Pods given the key sidecar.", self._injections)
        yield self._releases.collect()
        yield CounterMetricFamily(
            "weightlock_internal_errors",
            "Requests and tasks that failed through no fault of the caller.",
            self._faults,
        )
        for name, documentation in _GAUGES.items():
            read = self._gauges.get(name)
            value = _read(read) if read else None
            if value is not None:
                yield GaugeMetricFamily(name, documentation, value)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The text of all metrics, and its content type, for an ``Accept`` header."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


def _read(read: Callable[[], float | None]) -> float | None:
    """A gauge that cannot be read is absent, which an alert can see; the other metrics must still be scraped."""
    try:
        return read()
    except Exception:  # noqa: BLE001 - any fault of one gauge, whatever it is
        return None
