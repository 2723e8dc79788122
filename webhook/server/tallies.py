"""Counters and histograms that cost a dictionary look-up on the way of a request and are worked out at the scrape.

prometheus-client's own counters take a lock and walk the buckets at every observation, which for twenty policies is
as dear as judging the request. Everything here belongs to the event loop's thread and needs no lock. Labels are
bounded: whatever comes after the first `limit` combinations is counted under ``other``.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client.metrics_core import Metric

OTHER = "other"


class CounterTally:
    """A counter with labels; ``name`` is without ``_total``, as in the exposition format's family name."""

    __slots__ = ("_counts", "_documentation", "_labels", "_limit", "_name")

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, limit: int) -> None:
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._limit = limit
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, labels: tuple[str, ...], amount: int = 1) -> None:
        """Count once more."""
        counts = self._counts
        if labels in counts:
            counts[labels] += amount
            return
        if len(counts) >= self._limit:
            labels = (OTHER,) * len(labels)
        counts[labels] = counts.get(labels, 0) + amount

    def collect(self) -> Metric:
        """The family, for a scrape."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        return family


class HistogramTally:
    """A histogram with at most one label. ``bounds`` are the buckets' upper ends in seconds, rising, without +Inf."""

    __slots__ = ("_bounds", "_documentation", "_labels", "_limit", "_name", "_series")

    def __init__(
        self, name: str, documentation: str, bounds: Sequence[float], *, label: str = "", limit: int = 1
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self._labels = (label,) if label else ()
        self._limit = limit
        # The last cell holds the sum; the one before it counts what is above every bound.
        self._series: dict[str, list[float]] = {}
        if not label:
            self._series[""] = self._empty()

    def observe(self, value: float, label: str = "") -> None:
        """Note one value."""
        series = self._series.get(label)
        if series is None:
            if len(self._series) >= self._limit:
                label = OTHER
            series = self._series.setdefault(label, self._empty())
        series[bisect_left(self._bounds, value)] += 1
        series[-1] += value

    def collect(self) -> Metric:
        """The family, for a scrape."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        ends = [*(repr(bound) for bound in self._bounds), "+Inf"]
        for label, series in self._series.items():
            total = 0.0
            buckets = []
            for end, count in zip(ends, series, strict=False):
                total += count
                buckets.append((end, total))
            family.add_metric((label,) if self._labels else (), buckets, series[-1])
        return family

    def _empty(self) -> list[float]:
        return [0.0] * (len(self._bounds) + 2)
