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
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    Rows = dict[tuple[str, ...], list[float]]

OTHER = "other"


class CounterTally:
    """A counter with labels; ``name`` is without ``_total``, as in the exposition format's family name.

    ``known`` are label values that are shown from the beginning, at 0: what first appears at 1 shows no increase.
    """

    __slots__ = ("_counts", "_documentation", "_labels", "_limit", "name")

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        limit: int,
        known: Iterable[tuple[str, ...]] = (),
    ) -> None:
        self.name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._limit = limit
        self._counts: dict[tuple[str, ...], float] = dict.fromkeys(known, 0)

    def add(self, labels: tuple[str, ...] = ()) -> None:
        """Count once more."""
        counts = self._counts
        if labels in counts:
            counts[labels] += 1
            return
        if len(counts) >= self._limit:
            labels = (OTHER,) * len(labels)
        counts[labels] = counts.get(labels, 0) + 1

    def rows(self) -> Rows:
        """What was counted, by labels."""
        return {labels: [count] for labels, count in self._counts.items()}

    def collect(self, rows: Rows | None = None) -> Iterator[Metric]:
        """The family, for a scrape; of these rows where any are given."""
        family = CounterMetricFamily(self.name, self._documentation, labels=self._labels)
        for labels, (count,) in (self.rows() if rows is None else rows).items():
            family.add_metric(labels, count)
        yield family


class HistogramTally:
    """A histogram. ``bounds`` are the buckets' upper ends in seconds, rising, without +Inf.

    ``known`` are the label values there can be; whoever chooses them is not the requester.
    """

    __slots__ = ("_bounds", "_documentation", "_labels", "_series", "name")

    def __init__(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        labels: Sequence[str] = (),
        known: Iterable[tuple[str, ...]] = ((),),
    ) -> None:
        self.name = name
        self._documentation = documentation
        self._bounds = tuple(bounds)
        self._labels = tuple(labels)
        self._series = {labels: _empty(self._bounds) for labels in known}

    def observe(self, value: float, labels: tuple[str, ...] = ()) -> None:
        """Note one value. Raises `KeyError` where the labels are not known."""
        series = self._series[labels]
        series[bisect_left(self._bounds, value)] += 1
        series[-1] += value

    def rows(self) -> Rows:
        """What was noted, by labels: a count for each bucket and above, and the sum."""
        return self._series

    def collect(self, rows: Rows | None = None) -> Iterator[Metric]:
        """The family, for a scrape; of these rows where any are given."""
        family = HistogramMetricFamily(self.name, self._documentation, labels=self._labels)
        for labels, series in (self._series if rows is None else rows).items():
            family.add_metric(labels, _buckets(self._bounds, series), series[-1])
        yield family


class OutcomeTally:
    """What things came to and how long they took: a counter by (thing, result), and a histogram by thing.

    ``label`` is what a thing is called. Both families come from the same numbers, so one look-up notes them both;
    an outcome that nobody timed counts in the first alone.
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

    def rows(self) -> Rows:
        """What was noted, by (thing, result): a histogram's numbers, and how many were not timed."""
        return {key: [*series, self._untimed[key]] for key, series in self._series.items()}

    def collect(self, rows: Rows | None = None) -> Iterator[Metric]:
        """Both families, for a scrape; of these rows where any are given."""
        counter = CounterMetricFamily(*self._counter, labels=(self._label, "result"))
        histogram = HistogramMetricFamily(*self._histogram, labels=(self._label,))
        merged: Rows = {}
        for (thing, result), numbers in (self.rows() if rows is None else rows).items():
            counter.add_metric((thing, result), sum(numbers[:-2]) + numbers[-1])
            merged = merge((merged, {(thing,): numbers[:-1]}))
        for labels, series in merged.items():
            histogram.add_metric(labels, _buckets(self._bounds, series), series[-1])
        yield counter
        yield histogram

    def _new(self, thing: str, result: str) -> tuple[str, str]:
        if len(self._series) >= self._limit:
            thing = OTHER
        self._series.setdefault((thing, result), _empty(self._bounds))
        self._untimed.setdefault((thing, result), 0)
        return thing, result


def merge(many: Iterable[Rows]) -> Rows:
    """The sums of rows with the same labels."""
    merged: Rows = {}
    for rows in many:
        for labels, numbers in rows.items():
            known = merged.get(labels)
            merged[labels] = [a + b for a, b in zip(known, numbers, strict=True)] if known else numbers
    return merged


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
