"""Counters and histograms that cost one dictionary lookup per request and are computed at the scrape.

prometheus-client's own counters take a lock and walk the buckets at every observation, which for twenty policies costs
as much as evaluating the request. The classes here belong to the event loop's thread and need no lock. Labels are
bounded: combinations after the first ``limit`` are counted under ``other``.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    Rows = dict[tuple[str, ...], list[float]]

OTHER = "other"


class Counter:
    """A counter with labels; ``name`` is without ``_total``, as in the exposition format's family name.

    ``initial`` are label values that are exposed at 0 from the start: a series that first appears at 1 has no increase.
    """

    __slots__ = ("_counts", "_documentation", "_labels", "_limit", "name")

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        limit: int,
        initial: Iterable[tuple[str, ...]] = (),
    ) -> None:
        self.name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._limit = limit
        self._counts: dict[tuple[str, ...], float] = dict.fromkeys(initial, 0)

    def add(self, labels: tuple[str, ...] = ()) -> None:
        """Add one."""
        counts = self._counts
        if labels in counts:
            counts[labels] += 1
            return
        if len(counts) >= self._limit:
            labels = (OTHER,) * len(labels)
        counts[labels] = counts.get(labels, 0) + 1

    def rows(self) -> Rows:
        """Return the counts by labels."""
        return {labels: [count] for labels, count in self._counts.items()}

    def collect(self, rows: Rows | None = None) -> Iterator[Metric]:
        """Yield the family for a scrape, of these rows if any are given."""
        family = CounterMetricFamily(self.name, self._documentation, labels=self._labels)
        for labels, (count,) in (self.rows() if rows is None else rows).items():
            family.add_metric(labels, count)
        yield family


class Histogram:
    """A histogram. ``bounds`` are the buckets' upper bounds in seconds, ascending, without +Inf.

    ``series`` are all label values; requesters do not choose them.
    """

    __slots__ = ("_bounds", "_documentation", "_labels", "_series", "name")

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        labels: Sequence[str] = (),
        series: Iterable[tuple[str, ...]] = ((),),
    ) -> None:
        self.name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self._labels = tuple(labels)
        self._series = {labels: _empty(self._bounds) for labels in series}

    def observe(self, value: float, labels: tuple[str, ...] = ()) -> None:
        """Add one value. Raises `KeyError` for labels that were not declared."""
        series = self._series[labels]
        series[bisect_left(self._bounds, value)] += 1
        series[-1] += value

    def rows(self) -> Rows:
        """Return by labels a count for each bucket and above, and the sum."""
        return self._series

    def collect(self, rows: Rows | None = None) -> Iterator[Metric]:
        """Yield the family for a scrape, of these rows if any are given."""
        family = HistogramMetricFamily(self.name, self._documentation, labels=self._labels)
        for labels, series in (self._series if rows is None else rows).items():
            family.add_metric(labels, _buckets(self._bounds, series), series[-1])
        yield family


class OutcomeCounter:
    """Results and durations: a counter by (name, result) and a histogram by name.

    ``label`` is the label of the name. Both families come from the same numbers, so one lookup records both. A result
    without a duration counts in the first family only.
    """

    __slots__ = ("_bounds", "_counter", "_histogram", "_label", "_limit", "_series", "_untimed", "name")

    def __init__(
        self,
        counter: tuple[str, str],
        histogram: tuple[str, str],
        bounds: Sequence[float],
        *,
        label: str,
        limit: int,
    ) -> None:
        self.name = counter[0]
        self._counter = counter
        self._histogram = histogram
        self._bounds = tuple(bounds)
        self._label = label
        self._limit = limit
        self._series: dict[tuple[str, str], list[float]] = {}
        self._untimed: dict[tuple[str, str], int] = {}

    def add(self, outcomes: Iterable[tuple[str, str, float | None]]) -> None:
        """Add results: (name, result, seconds or None) each."""
        all_series, untimed, bounds = self._series, self._untimed, self._bounds
        for name, result, seconds in outcomes:
            key = name, result
            if key not in all_series:
                key = self._new(name, result)
            if seconds is None:
                untimed[key] += 1
                continue
            series = all_series[key]
            series[bisect_left(bounds, seconds)] += 1
            series[-1] += seconds

    def rows(self) -> Rows:
        """Return by (name, result) a histogram's numbers, and the number of results without a duration."""
        return {key: [*series, self._untimed[key]] for key, series in self._series.items()}

    def collect(self, rows: Rows | None = None) -> Iterator[Metric]:
        """Yield both families for a scrape, of these rows if any are given."""
        counter = CounterMetricFamily(*self._counter, labels=(self._label, "result"))
        histogram = HistogramMetricFamily(*self._histogram, labels=(self._label,))
        merged: Rows = {}
        for (name, result), numbers in (self.rows() if rows is None else rows).items():
            counter.add_metric((name, result), sum(numbers[:-2]) + numbers[-1])
            merged = merge((merged, {(name,): numbers[:-1]}))
        for labels, series in merged.items():
            histogram.add_metric(labels, _buckets(self._bounds, series), series[-1])
        yield counter
        yield histogram

    def _new(self, name: str, result: str) -> tuple[str, str]:
        if len(self._series) >= self._limit:
            name = OTHER
        self._series.setdefault((name, result), _empty(self._bounds))
        self._untimed.setdefault((name, result), 0)
        return name, result


def merge(many: Iterable[Rows]) -> Rows:
    """Return the sums of rows with the same labels."""
    merged: Rows = {}
    for rows in many:
        for labels, numbers in rows.items():
            so_far = merged.get(labels)
            merged[labels] = [a + b for a, b in zip(so_far, numbers, strict=True)] if so_far else numbers
    return merged


def _empty(bounds: Sequence[float]) -> list[float]:
    """Return a cell for each bucket, one for values above all of them, and the sum in the last."""
    return [0.0] * (len(bounds) + 2)


def _buckets(bounds: Sequence[float], series: Sequence[float]) -> list[tuple[str, float]]:
    """Return the buckets as Prometheus counts them: each contains all values up to its bound."""
    total, buckets = 0.0, []
    for bound, count in zip([*(repr(bound) for bound in bounds), "+Inf"], series, strict=False):
        total += count
        buckets.append((bound, total))
    return buckets
