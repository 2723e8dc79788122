"""Baselines that Sigma cannot express: values seen first, rates, hours, missing events, pairs and rings.

All are deterministic, learn only from the log, and store a bounded number of values for each group. A firing states its
baseline as a sentence.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol

from webhook.core.detection import rule as rules
from webhook.core.detection.firing import Firing, Ref, day, grouper, key_of, named
from webhook.core.detection.match import reader, text_of
from webhook.core.detection.sketch import Sketch
from webhook.core.detection.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.core.detection.match import Event

MAX_GROUPS = 2_000
MAX_VALUES = 256
MAX_KEYS = 10_000
MAX_EDGES = 2_000
MAX_TIMES = 64
MAX_TEXT = 253
_PRUNE_SECONDS = 3600
_CLEAR = 64
# Standard deviations of a count that are chance.
_CHANCE = 3
# Begins the keys of groups in a table that has other keys, too.
_GROUP = "\x1e"


class State(Protocol):
    """The state of one statistic. ``table`` contains all of it that grows."""

    table: Table[Any]

    def feed(self, event: Event, ref: Ref) -> Firing | None:
        """Learn from an event. Return a firing if it differs from the baseline before it."""

    def dump(self) -> list[Any]:
        """Return the state as JSON."""

    def load(self, rows: list[Any]) -> None:
        """Restore the state from `dump`."""

    def shrink(self, share: float) -> None:
        """Forget the groups that were used least recently, down to a share of them."""


class _Grouped:
    """State in a table of groups."""

    def __init__(self, make: Callable[[], Any], limit: int = MAX_GROUPS) -> None:
        self.table: Table[Any] = Table(make, limit)

    def dump(self) -> list[Any]:
        """Return the state as JSON."""
        return [[key, row] for key, row in self.table.items()]

    def load(self, rows: list[Any]) -> None:
        """Restore the state from `dump`."""
        for key, row in rows:
            self.table.put(key, row)

    def shrink(self, share: float) -> None:
        """Forget the groups that were used least recently."""
        self.table.shrink(int(len(self.table) * share))


class FirstSeenState(_Grouped):
    """Row: first time, events, values with their last time, times of recent new values."""

    def __init__(self, settings: rules.FirstSeen) -> None:
        super().__init__(lambda: [0.0, 0, {}, []])
        self._settings = settings
        self._group, self._value = grouper(settings.group_by), _values(settings.value)
        self.log_started = 0.0
        self._learn = settings.learn.timedelta.total_seconds()
        self._within = settings.within.timedelta.total_seconds()

    def feed(self, event: Event, ref: Ref) -> Firing | None:
        """Learn a value. Return a firing if the group has enough history and never had it."""
        values = self._value(event)
        group = self._group(event)
        firing = None
        for value in values:
            firing = self._one(group, value, event, ref) or firing
        return firing

    def _one(self, group: tuple[str, ...], value: str, event: Event, ref: Ref) -> Firing | None:
        row = self.table.get(key_of(group))
        first, count, last_seen, novel = row
        short = _short(value)
        row[0], row[1] = first or ref.time, count + 1
        if short in last_seen:
            last_seen[short] = ref.time
            return None
        recent = [time for time in novel if time > ref.time - self._within]
        baseline = self._baseline(row, value)
        last_seen[short] = ref.time
        row[3] = [*recent, ref.time][-(self._settings.novelties + 2) :]
        if len(last_seen) > MAX_VALUES:
            del last_seen[min(last_seen, key=last_seen.__getitem__)]
        if self._settings.history == "log":
            enough = ref.time - self.log_started >= self._learn
        else:
            enough = count >= self._settings.minimum and ref.time - first >= self._learn
        if not enough or len(recent) > self._settings.novelties:
            return None
        fields = (*self._settings.group_by, ".".join(self._settings.value[:1]))
        return Firing(named(fields, (*group, value)), (ref,), baseline, event)

    def _baseline(self, row: list[Any], value: str) -> str:
        first, count, last_seen, _ = row
        if count == 1:
            return f"{value!r} is the first value of its group in the log"
        latest = sorted(last_seen, key=last_seen.__getitem__, reverse=True)[:5]
        more = f" and {len(last_seen) - 5} more" if len(last_seen) > 5 else ""
        names = f": {', '.join(latest)}{more}" if latest else ""
        return f"{value!r} is new: {count - 1} events since {day(first)} have {len(last_seen)} values{names}"


class RateState(_Grouped):
    """Row: first time, bucket since then, events in it, the sketch of the past buckets, and its quantile."""

    def __init__(self, settings: rules.Rate) -> None:
        super().__init__(lambda: [0.0, 0, 0, [0], 0.0])
        self._settings, self._group = settings, grouper(settings.group_by)
        self._bucket = settings.bucket.timedelta.total_seconds()
        self._learn = settings.learn.timedelta.total_seconds()

    def feed(self, event: Event, ref: Ref) -> Firing | None:
        """Count an event. Return a firing if its bucket exceeds the baseline."""
        group = self._group(event)
        row = self.table.get(key_of(group))
        if row[0] == 0:
            row[0] = ref.time
        # Buckets of the clock would begin with a part of one, and a small first bucket makes a low baseline.
        number = int((ref.time - row[0]) // self._bucket)
        if number > row[1]:
            # Empty buckets do not count: a group that is rarely used has its own busy hours as its baseline.
            sketch = Sketch.load(row[3])
            sketch.add(row[2])
            row[1:] = [number, 0, sketch.dump(), sketch.quantile(self._settings.quantile)]
        row[2] += 1
        if row[2] < self._settings.minimum or ref.time - row[0] < self._learn:
            return None
        usual = row[4]
        limit = self._settings.factor * usual
        # A usual count varies by chance by its root (Poisson), which matters where it is small.
        if row[2] <= limit + _CHANCE * math.sqrt(usual):
            return None
        total = Sketch.load(row[3]).total
        if total < self._settings.intervals:
            return None
        baseline = (
            f"{row[2]} events in {self._settings.bucket}, and {usual:.0f} is the "
            f"{100 * self._settings.quantile:g}th percentile of {total} intervals since {day(row[0])}"
        )
        return Firing(named(self._settings.group_by, group), (ref,), baseline, event)


class HoursState(_Grouped):
    """Row: first time, used hours, 48 counts, the last hour: the hours of working days, then those of weekends.

    An hour of one day counts once: the pods of an array start together and are one observation.
    """

    def __init__(self, settings: rules.Hours) -> None:
        super().__init__(lambda: [0.0, 0, [0] * 48, 0])
        self._settings, self._group = settings, grouper(settings.group_by)
        self._learn = settings.learn.timedelta.total_seconds()

    def feed(self, event: Event, ref: Ref) -> Firing | None:
        """Learn an hour. Return a firing if neither it nor the hours beside it were used before."""
        group = self._group(event)
        row = self.table.get(key_of(group))
        first, count, slots, last = row
        hour = int(ref.time // 3600)
        if hour == last:
            return None
        moment = datetime.fromtimestamp(ref.time, UTC)
        base = 24 if moment.weekday() >= 5 else 0
        before = slots[base : base + 24]
        row[0], row[1], row[3] = first or ref.time, count + 1, hour
        slots[base + moment.hour] += 1
        if (
            count < self._settings.minimum
            or ref.time - first < self._learn
            or not self._unusual(before, moment.hour)
        ):
            return None
        # Few events of this kind of day are no profile, but none at all is one.
        if any(before):
            if sum(before) < self._settings.minimum:
                return None
        elif ref.time - first < 2 * self._learn:
            return None
        kind = "weekends" if base else "working days"
        used = [f"{hour:02}" for hour in range(24) if slots[base + hour] and hour != moment.hour]
        baseline = (
            f"{moment.hour:02} h UTC on {kind} is new: {count} hours with events since {day(first)} are at "
            f"{', '.join(used) or 'other days only'}"
        )
        return Firing(named(self._settings.group_by, group), (ref,), baseline, event)

    def _unusual(self, slots: list[int], hour: int) -> bool:
        """Return whether an hour is outside the used hours. An account that uses most hours has no usual hours."""
        margin = range(-self._settings.margin, self._settings.margin + 1)
        near = [any(slots[(each + step) % 24] for step in margin) for each in range(24)]
        return not near[hour] and sum(near) <= self._settings.most


class MissingState(_Grouped):
    """Row by key: the last time that a rule of ``seen`` had it. Row by group: the events of its streak."""

    def __init__(self, settings: rules.Missing) -> None:
        super().__init__(list, MAX_KEYS)
        self._settings, self._key = settings, grouper([settings.key])
        self._group = grouper(settings.group_by)
        self._seen = {name: grouper([path]) for name, path in settings.seen.items()}
        self._within = settings.within.timedelta.total_seconds()
        self.sources = tuple(settings.seen)

    def mark(self, name: str, event: Event, ref: Ref) -> None:
        """Learn the key of an event of another rule."""
        (key,) = self._seen[name](event)
        if key:
            self.table.get(key)[:] = [ref.time]

    def feed(self, event: Event, ref: Ref) -> Firing | None:
        """Return a firing if the key of the event is unknown, and those of the events before it in its group were."""
        (key,) = self._key(event)
        row = self.table.peek(key)
        logged = row is not None and len(row) > 0 and ref.time - row[0] <= self._within
        refs = self._streak(event, ref, logged=logged)
        if len(refs) < self._settings.streak:
            return None
        if self._settings.streak == 1:
            baseline = (
                f"no event of {self._names} has {self._settings.key} {key!r} in {self._settings.within}"
            )
            return Firing(((self._settings.key, key),), refs, baseline, event)
        baseline = (
            f"the last {len(refs)} events of the group have a {self._settings.key} "
            f"that no event of {self._names} has"
        )
        return Firing(named(self._settings.group_by, self._group(event)), refs, baseline, event)

    @property
    def _names(self) -> str:
        return ", ".join(self._settings.seen)

    def _streak(self, event: Event, ref: Ref, *, logged: bool) -> tuple[Ref, ...]:
        """Return the last events in a row whose key was unknown."""
        if self._settings.streak == 1:
            return () if logged else (ref,)
        row = self.table.get(_GROUP + key_of(self._group(event)))
        recent = [] if logged else [each for each in row if ref.time - each[4] <= self._within]
        row[:] = [] if logged else [*recent, list(ref)][-self._settings.streak :]
        return tuple(Ref(*each) for each in row)


class _Edges(_Grouped):
    """Row by (from, to): the times of their events. Row by from: the times and the units of its events."""

    def __init__(self, source: str, target: str, unit: str, within: float) -> None:
        super().__init__(list, MAX_EDGES)
        self._source, self._target, self._within = reader(source), reader(target), within
        self._unit = reader(unit) if unit else None
        self._pruned = 0.0

    def add(self, event: Event, ref: Ref) -> tuple[str, str] | None:
        """Add the edge of an event, and forget old ones."""
        source, target = self._source(event), self._target(event)
        if len(source) != 1 or len(target) != 1:
            return None
        edge = _edge(key_of([text_of(source[0])[:MAX_TEXT], text_of(target[0])[:MAX_TEXT]]))
        times = self.table.get(key_of(edge))
        times.append(ref.time)
        del times[:-MAX_TIMES]
        if self._unit is not None:
            self._add_unit(edge[0], event, ref)
        if ref.time - self._pruned >= _PRUNE_SECONDS:
            self._pruned = ref.time
            self._prune(ref.time - self._within)
        return edge

    def _add_unit(self, source: str, event: Event, ref: Ref) -> None:
        assert self._unit is not None  # noqa: S101 - the caller checks it
        unit = sha256(",".join(map(text_of, self._unit(event))).encode(errors="replace")).hexdigest()[:16]
        units = self.table.get(_GROUP + source)
        if all(each[1] != unit for each in units):
            units.append([ref.time, unit])
            del units[:-MAX_TIMES]

    def count(self, edge: tuple[str, str]) -> int:
        """Return the number of events of one edge."""
        return len(self.table.peek(key_of(edge)) or ())

    def units(self, source: str, counts: dict[tuple[str, str], int]) -> int:
        """Return the number of units of a source, or of its events without a unit."""
        if self._unit is None:
            return sum(count for (each, _), count in counts.items() if each == source)
        return len(self.table.peek(_GROUP + source) or ())

    def _prune(self, since: float) -> None:
        for key, row in list(self.table.items()):
            row[:] = [each for each in row if (each[0] if isinstance(each, list) else each) >= since]
            if not row:
                self.table.drop(key)

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of events of each edge."""
        return {_edge(key): len(times) for key, times in self.table.items() if not key.startswith(_GROUP)}


def _edge(key: str) -> tuple[str, str]:
    source, _, target = key.partition("\x1f")
    return source, target


class PairsState(_Edges):
    """Pairs of users whose events are nearly all with each other."""

    def __init__(self, settings: rules.Pairs) -> None:
        within = settings.within.timedelta.total_seconds()
        super().__init__(settings.left, settings.right, settings.unit, within)
        self._settings = settings

    def feed(self, event: Event, ref: Ref) -> Firing | None:
        """Learn a pair. Return a firing if it is exclusive."""
        edge = self.add(event, ref)
        if edge is None or self.count(edge) < self._settings.minimum:
            return None
        counts, (left, right) = self.counts(), edge
        both = counts[edge]
        of_left = self.units(left, counts)
        of_right = sum(count for (_, each), count in counts.items() if each == right)
        others = {each for _, each in counts if each not in (right, left)}
        share = self._settings.share
        exclusive = both >= share * of_left and both >= share * of_right
        if not exclusive or len(others) < self._settings.others:
            return None
        baseline = (
            f"{both} of {of_left} events of {left} are with {right}, who has {of_right}, in "
            f"{self._settings.within}. {len(others)} others are available"
        )
        fields = (self._settings.left, self._settings.right)
        return Firing(named(fields, edge), (ref,), baseline, event)


class RingState(_Edges):
    """Circles of users who approve each other."""

    def __init__(self, settings: rules.Ring) -> None:
        within = settings.within.timedelta.total_seconds()
        super().__init__(settings.source, settings.target, settings.unit, within)
        self._settings = settings

    def feed(self, event: Event, ref: Ref) -> Firing | None:
        """Learn an edge. Return a firing if it closes a ring."""
        edge = self.add(event, ref)
        if edge is None or self.count(edge) < self._settings.minimum:
            return None
        counts = self.counts()
        received: dict[str, int] = {}
        for (_, target), count in counts.items():
            received[target] = received.get(target, 0) + count
        most, all_of = self._strong(counts, received), self._of_source(counts)
        for strong, others in ((most, 0), (all_of, self._settings.others)):
            source, target = edge
            if source == target or target not in strong.get(source, ()):
                continue
            path = _path(strong, target, source, self._settings.length - 1)
            if path is not None and len(received.keys() - set(path)) >= others:
                return self._firing((source, *path), ref, event)
        return None

    def _firing(self, path: tuple[str, ...], ref: Ref, event: Event) -> Firing:
        members = sorted(set(path))
        circle = " → ".join(path)
        baseline = f"{circle}, each at least {self._settings.minimum} times in {self._settings.within}"
        return Firing((("ring", ", ".join(members)),), (ref,), baseline, event)

    def _strong(self, counts: dict[tuple[str, str], int], received: dict[str, int]) -> dict[str, list[str]]:
        """Return the edges that are most of what their target received."""
        strong: dict[str, list[str]] = {}
        for (source, target), count in sorted(counts.items()):
            if count >= self._settings.minimum and count >= self._settings.share * received[target]:
                strong.setdefault(source, []).append(target)
        return strong

    def _of_source(self, counts: dict[tuple[str, str], int]) -> dict[str, list[str]]:
        """Return the edges that are most of what their source requested."""
        strong: dict[str, list[str]] = {}
        for (source, target), count in sorted(counts.items()):
            if count >= self._settings.minimum and count >= self._settings.share * self.units(source, counts):
                strong.setdefault(source, []).append(target)
        return strong


def _path(edges: dict[str, list[str]], start: str, end: str, length: int) -> tuple[str, ...] | None:
    """Return the shortest path of at most ``length`` edges, by breadth-first search."""
    paths: list[tuple[str, ...]] = [(start,)]
    visits = {start}
    for _ in range(length):
        longer = []
        for path in paths:
            for each in edges.get(path[-1], ()):
                if each == end:
                    return (*path, each)
                if each not in visits:
                    visits.add(each)
                    longer.append((*path, each))
        paths = longer
    return None


def _values(paths: list[str]) -> Callable[[Event], list[str]]:
    """Read the compared value: several fields together, or each item of one list. ``|repository`` drops a tag."""
    if len(paths) > 1:
        group = grouper(paths)

        def joined(event: Event) -> list[str]:
            values = group(event)
            return ["/".join(values)] if any(values) else []

        return joined
    path, _, transform = paths[0].partition("|")
    read = reader(path)
    if transform == "repository":
        return lambda event: sorted({repository(text_of(each)) for each in read(event)})
    return lambda event: sorted({text_of(each) for each in read(event)})


def repository(image: str) -> str:
    """Return an image reference without tag and digest."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _short(value: str) -> str:
    return value if len(value) <= _CLEAR else f"sha256:{sha256(value.encode()).hexdigest()[:32]}"


def state_of(settings: rules.Statistic) -> State:
    """Return the empty state of a statistic."""
    makers: dict[type, Callable[[Any], State]] = {
        rules.FirstSeen: FirstSeenState,
        rules.Rate: RateState,
        rules.Hours: HoursState,
        rules.Missing: MissingState,
        rules.Pairs: PairsState,
        rules.Ring: RingState,
    }
    return makers[type(settings)](settings)
