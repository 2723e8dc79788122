"""Health and metrics over plain HTTP, for a process that serves nothing else.

What is read is the caller's to say; a reading that fails is left out and never fails the scrape.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from webhook.server.http import routes
from webhook.server.http.listener import Listener
from webhook.server.http.server import Router, Server
from webhook.server.metrics.metrics import build_info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from socket import socket

    from prometheus_client.metrics_core import Metric

    from webhook.server.http.health import Health

    Value = float | Mapping[str, float] | None

_CLOSE_SECONDS = 2.0


class Reading(NamedTuple):
    """One metric and where its value is read: a number, or with ``label`` a number for each value of it.

    The name of a counter is without ``_total``. A reading of None leaves the metric out.
    """

    name: str
    kind: Literal["counter", "gauge"]
    documentation: str
    read: Callable[[], Value]
    label: str = ""


class Readings(Collector):
    """All metrics of one process, each read at the scrape."""

    def __init__(self, component: str, readings: Iterable[Reading]) -> None:
        self._component = component
        self._readings = tuple(readings)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def collect(self) -> Iterator[Metric]:
        """Every family, for a scrape."""
        yield build_info(self._component)
        for reading in self._readings:
            try:
                value = reading.read()
            except Exception:  # noqa: BLE001, S112 - any fault of one reading; its absence is what an alert sees
                continue
            if value is not None:
                yield _family(reading, value)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The text of all metrics, and its content type, for an ``Accept`` header."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


@asynccontextmanager
async def watching(
    listening: socket, health: Health, readings: Readings, internal_error: Callable[[], None]
) -> AsyncIterator[str]:
    """Serve /healthz, /readyz and /metrics on a socket from `bind` while the context lasts; the address as a URL."""
    router = Router(routes.watch_routes(health, readings), internal_error)
    listener = Listener(listening, Server(router))
    listener.serve(None)
    try:
        yield f"http://{listener.address}"
    finally:
        await listener.close(_CLOSE_SECONDS)


def _family(reading: Reading, value: float | Mapping[str, float]) -> Metric:
    kind = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
    family = kind(reading.name, reading.documentation, labels=[reading.label] if reading.label else [])
    for label, number in ({"": value} if isinstance(value, int | float) else value).items():
        family.add_metric([label] if reading.label else [], number)
    return family
