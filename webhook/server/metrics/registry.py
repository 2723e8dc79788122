"""The metrics of one process: counters that requests change, and gauges that are read at the scrape.

Every process has one registry. Nothing here fails a request, and requesters cannot add label values. A gauge that
cannot be read is absent from the scrape, which an alert can detect.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import orjson
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from webhook.api import codes
from webhook.server.metrics.counters import Counter, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.metrics_core import Metric

    from webhook.server.metrics.counters import Rows
    from webhook.server.process.shared_memory import Slot

    Value = float | Mapping[str, float] | None
    Group = Callable[[], Mapping[str, float | None]]

OWN_FAULT = codes.INTERNAL_ERROR
FAULTS_HELP = "Total requests and tasks that failed because of Weightlock itself, by code."
_NUMBER = (int, float)
# Gauges that more than one process exposes, or that one process reads for another.
HELP = {
    "weightlock_grants_active": "Number of active grants.",
    "weightlock_grants_expiring_soon": "Number of active grants that expire within an hour.",
    "weightlock_break_glass_grants_active": "Number of active break-glass grants.",
    "weightlock_access_objects_ignored": "Number of access requests and approvals that are invalid.",
    "weightlock_certificate_expiry_timestamp_seconds": "Time when the serving certificate expires, in Unix seconds.",
    "weightlock_certificate_usable": "Whether the serving certificate is usable (1) or not (0, see the log).",
    "weightlock_snapshot_age_seconds": "Time since the snapshot last matched the cluster.",
    "weightlock_snapshot_max_age_seconds": "Snapshot age above which all covered requests are denied.",
    "weightlock_snapshot_problems": "Number of policies and ModelWeights that cannot be used as written.",
    "weightlock_admission_timeout_seconds": "Time within which each review is answered.",
    "weightlock_admission_queued_reviews": "Number of reviews that wait to be evaluated.",
    "weightlock_admission_pending_lookups": "Number of reviews that wait for the API server.",
    "weightlock_connections_open": "Number of open connections to the webhook's port.",
    "weightlock_connections_silent": "Number of connections without a complete request header.",
    "weightlock_worker_memory_bytes": "Resident memory of the worker that evaluates reviews, in bytes.",
    "weightlock_audit_queue_entries": "Number of audit log entries that wait to be written.",
    "weightlock_audit_lost_entries": "Number of audit log entries that this process lost.",
    "weightlock_audit_checkpoint_timestamp_seconds": "Time of the last audit log checkpoint, in Unix time.",
    "weightlock_audit_witness_cosignatures": "Number of witnesses that cosigned the last audit log checkpoint.",
    "weightlock_audit_witness_quorum": "Number of witnesses that must cosign an audit log checkpoint.",
    "weightlock_key_requests_running": "Number of key requests in progress.",
}


class Gauge(NamedTuple):
    """A metric that is read at the scrape: a number, or with ``label`` a number for each value of it.

    The name of a ``counter`` is without ``_total``. A value of None leaves the metric out.
    """

    name: str
    help: str
    read: Callable[[], Value]
    label: str = ""
    kind: Literal["counter", "gauge"] = "gauge"


class Instrument(Protocol):
    """Something that counts, and can be exposed together with the counts of other processes."""

    @property
    def name(self) -> str:
        """The name of its first family."""

    def rows(self) -> Rows:
        """Return the counts by labels."""

    def collect(self, rows: Rows | None = None) -> Iterable[Metric]:
        """Yield the families of these rows."""


class Registry(Collector):
    """All metrics of one process, and of those it shares memory with."""

    def __init__(
        self,
        component: str,
        instruments: Iterable[Instrument] = (),
        gauges: Iterable[Gauge] = (),
        *,
        count_faults: bool = True,
    ) -> None:
        self.registry = CollectorRegistry()
        self._component = component
        self._faults = Counter(
            "weightlock_internal_errors",
            FAULTS_HELP,
            ("code",),
            limit=50,
            initial=[(code,) for code in (*codes.FAULTS, *codes.BROKER_FAULTS)],
        )
        self._instruments: tuple[Instrument, ...] = (*instruments, *([self._faults] if count_faults else []))
        self._gauges = list(gauges)
        self._groups: list[Group] = [lambda: self._foreign]
        self._foreign: dict[str, float | None] = {}
        self._slot: Slot | None = None
        self._others: tuple[Slot, ...] = ()
        self._inherited: dict[str, Rows] = {}
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def internal_error(self, code: str = OWN_FAULT) -> None:
        """Count a failure of Weightlock itself."""
        self._faults.add((code,))

    def add(self, *gauges: Gauge) -> None:
        """Expose these, too."""
        self._gauges += gauges

    def gauge(self, name: str, read: Callable[[], float | None]) -> None:
        """Expose a gauge of `HELP`, instead of one of the same name if there is one. Raises `KeyError`."""
        self._gauges = [gauge for gauge in self._gauges if gauge.name != name]
        self.add(Gauge(name, HELP[name], read))

    def group(self, read: Group) -> None:
        """Expose several gauges of `HELP` that are read together; a fault leaves out all of them."""
        self._groups.append(read)

    @contextmanager
    def with_values(self, values: Mapping[str, float | None]) -> Iterator[None]:
        """Expose the gauges of another process, too, while the context lasts."""
        self._foreign = dict(values)
        try:
            yield
        finally:
            self._foreign = {}

    def share(self, slot: Slot, others: Iterable[Slot]) -> None:
        """Continue the counts of the process that had the slot before, and expose those of the others."""
        self._slot, self._others, self._inherited = slot, tuple(others), _decoded(slot.read())

    def save(self) -> None:
        """Save the counts for the next process that gets the slot."""
        self._saved()

    def collect(self) -> Iterator[Metric]:
        """Yield every family, for a scrape."""
        yield build_info(self._component)
        own = self._saved()
        processes = [own, *(_decoded(slot.read()) for slot in self._others)]
        for instrument in self._instruments:
            yield from instrument.collect(merge(counts.get(instrument.name, {}) for counts in processes))
        for gauge in (*self._gauges, *self._grouped()):
            value = _read(gauge)
            if value is not None:
                yield _family(gauge, value)

    def values(self) -> dict[str, float | None]:
        """Return the gauges without labels by name, for a process that exposes them for this one."""
        values = {gauge.name: _read(gauge) for gauge in (*self._gauges, *self._grouped())}
        return {name: value for name, value in values.items() if value is None or isinstance(value, _NUMBER)}

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the text of all metrics, and its content type, for an ``Accept`` header."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _grouped(self) -> Iterator[Gauge]:
        for read in self._groups:
            try:
                values = read()
            except Exception:  # noqa: BLE001, S112 - any fault of one group
                continue
            for name, value in values.items():
                if name in HELP:
                    yield Gauge(name, HELP[name], partial(_same, value))

    def _saved(self) -> dict[str, Rows]:
        """Return the counts, saved first: what was exposed once must not be lost."""
        own = {
            instrument.name: merge((self._inherited.get(instrument.name, {}), instrument.rows()))
            for instrument in self._instruments
        }
        if self._slot is not None:
            self._slot.write(orjson.dumps({name: list(rows.items()) for name, rows in own.items()}))
        return own


def _same(value: float | None) -> float | None:
    return value


def build_info(component: str) -> Metric:
    """Return the version of a component, as the value 1 with labels."""
    family = GaugeMetricFamily(
        "weightlock_build_info", "Build information (always 1).", labels=("version", "component")
    )
    family.add_metric((version("weightlock"), component), 1)
    return family


def _read(gauge: Gauge) -> Value:
    """Read a gauge; the other metrics must be scraped even if it fails."""
    try:
        return gauge.read()
    except Exception:  # noqa: BLE001 - any fault of one gauge
        return None


def _family(gauge: Gauge, value: float | Mapping[str, float]) -> Metric:
    kind = CounterMetricFamily if gauge.kind == "counter" else GaugeMetricFamily
    family = kind(gauge.name, gauge.help, labels=[gauge.label] if gauge.label else [])
    for label, number in ({"": value} if isinstance(value, _NUMBER) else value).items():
        family.add_metric([label] if gauge.label else [], number)
    return family


def _decoded(content: bytes) -> dict[str, Rows]:
    if not content:
        return {}
    return {
        name: {tuple(labels): numbers for labels, numbers in rows}
        for name, rows in orjson.loads(content).items()
    }
