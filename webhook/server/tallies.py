"""Counters and histograms that cost a dictionary look-up on the way of a request and are worked out at the scrape.

prometheus-client's own counters take a lock and walk the buckets at every observation, which for twenty policies is
as dear as judging the request. Everything here belongs to the event loop's thread and needs no lock. Labels are
bounded: whatever comes after the first ``limit`` combinations is counted under ``other``.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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

    def add(self, labels: tuple[str, ...]) -> None:
        """Count once more."""
        counts = self._counts
        if labels in counts:
            counts[labels] += 1
            return
        if len(counts) >= self._limit:
            labels = (OTHER,) * len(labels)
        counts[labels] = counts.get(labels, 0) + 1

    def collect(self) -> Metric:
        """The family, for a scrape."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        return family


class HistogramTally:
    """A histogram without labels. ``bounds`` are the buckets' upper ends in seconds, rising, without +Inf."""

    __slots__ = ("_bounds", "_documentation", "_name", "_series")

    def __init__(self, name: str, documentation: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self._series = _empty(self._bounds)

    def observe(self, value: float) -> None:
        """Note one value."""
        self._series[bisect_left(self._bounds, value)] += 1
        self._series[-1] += value

    def collect(self) -> Metric:
        """The family, for a scrape."""
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric((), _buckets(self._bounds, self._series), self._series[-1])
        return family


class OutcomeTally:
    """What things came to and how long they took: a counter by (thing, result), and a histogram by thing.

    ``label`` is what a thing is called. Both families come from the same numbers, so one look-up notes them both;
    an outcome that nobody timed counts in the first alone.
    """

    __slots__ = ("_bounds", "_counter", "_histogram", "_label", "_limit", "_series", "_untimed")

    def __init__(
        self,
        counter: tuple[str, str],
        histogram: tuple[str, str],
        bounds: Sequence[float],
        *,
        label: str,
        limit: int,
    ) -> None:
        self._counter = counter
        self._histogram = histogram
        self._bounds = tuple(bounds)
        self._label = label
        self._limit = limit
        self._series: dict[tuple[str, str], list[float]] = {}
        self._untimed: dict[tuple[str, str], int] = {}

    def add(self, outcomes: Iterable[tuple[str, str, float | None]]) -> None:
        """Note outcomes: (thing, result, seconds or None) each."""
        known, untimed, bounds = self._series, self._untimed, self._bounds
        for thing, result, seconds in outcomes:
            key = thing, result
            if key not in known:
                key = self._new(thing, result)
            if seconds is None:
                untimed[key] += 1
                continue
            series = known[key]
            series[bisect_left(bounds, seconds)] += 1
            series[-1] += seconds

    def collect(self) -> tuple[Metric, Metric]:
        """Both families, for a scrape."""
        counter = CounterMetricFamily(*self._counter, labels=(self._label, "result"))
        histogram = HistogramMetricFamily(*self._histogram, labels=(self._label,))
        merged: dict[str, list[float]] = {}
        for (thing, result), series in self._series.items():
            counter.add_metric((thing, result), sum(series[:-1]) + self._untimed[thing, result])
            whole = merged.setdefault(thing, _empty(self._bounds))
            merged[thing] = [one + other for one, other in zip(whole, series, strict=True)]
        for thing, series in merged.items():
            histogram.add_metric((thing,), _buckets(self._bounds, series), series[-1])
        return counter, histogram

    def _new(self, thing: str, result: str) -> tuple[str, str]:
        if len(self._series) >= self._limit:
            thing = OTHER
        self._series.setdefault((thing, result), _empty(self._bounds))
        self._untimed.setdefault((thing, result), 0)
        return thing, result


def _empty(bounds: Sequence[float]) -> list[float]:
    """A cell for each bucket, one for what is above them all, and the sum in the last."""
    return [0.0] * (len(bounds) + 2)


def _buckets(bounds: Sequence[float], series: Sequence[float]) -> list[tuple[str, float]]:
    """The buckets as Prometheus counts them: each holds all that is not above its end."""
    total, found = 0.0, []
    for end, count in zip([*(repr(bound) for bound in bounds), "+Inf"], series, strict=False):
        total += count
        found.append((end, total))
    return found
