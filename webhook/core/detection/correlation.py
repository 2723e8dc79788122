"""The windows of Sigma correlations: event_count, value_count, temporal and temporal_ordered.

The state of a group is bounded: as many events as the condition needs, or one time for each rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from webhook.core.detection.firing import MAX_REFS, Firing, Ref, duration, grouper, key_of, named
from webhook.core.detection.match import reader, text_of
from webhook.core.detection.table import Table

if TYPE_CHECKING:
    from webhook.core.detection.match import Event
    from webhook.core.detection.rule import Correlation

MAX_GROUPS = 5_000
_COMPARE = {
    "gte": lambda left, right: left >= right,
    "gt": lambda left, right: left > right,
    "eq": lambda left, right: left == right,
}


class CorrelationState:
    """The windows of one correlation."""

    def __init__(self, correlation: Correlation) -> None:
        self.correlation = correlation
        self._groups = {rule: grouper(correlation.fields_of(rule)) for rule in correlation.rules}
        self.table: Table[list[Any]] = Table(list, MAX_GROUPS)
        self._feed = {
            "event_count": self._event_count,
            "value_count": self._value_count,
            "temporal": self._temporal,
            "temporal_ordered": self._ordered,
        }[correlation.type]
        self._value = reader(correlation.value) if correlation.value else None

    def feed(self, rule: str, event: Event, ref: Ref) -> Firing | None:
        """Add an event that a rule matched. Return a firing if the condition is met."""
        values = self._groups[rule](event)
        if not all(values):
            # Sigma groups events that have all fields.
            return None
        row = self.table.get(key_of(values))
        firing = self._feed(row, rule, event, ref)
        if firing is None:
            return None
        refs, baseline = firing
        return Firing(named(self.correlation.group_by, values), tuple(refs[-MAX_REFS:]), baseline, event)

    def _event_count(self, row: list[Any], rule: str, event: Event, ref: Ref) -> tuple[list[Ref], str] | None:  # noqa: ARG002
        limit, window = self.correlation.count, self.correlation.seconds
        row.append(list(ref))
        _drop_old(row, ref.time - window)
        if len(row) > limit + 1:
            del row[: len(row) - limit - 1]
        if not _COMPARE[self.correlation.operator](len(row), limit):
            return None
        return [Ref(*each) for each in row], (
            f"{len(row)} events within {duration(window)}, the rule allows fewer than {limit}"
        )

    def _value_count(self, row: list[Any], rule: str, event: Event, ref: Ref) -> tuple[list[Ref], str] | None:  # noqa: ARG002
        limit, window = self.correlation.count, self.correlation.seconds
        assert self._value is not None  # noqa: S101 - the type has a field
        for value in (text_of(each)[:128] for each in self._value(event)):
            row[:] = [each for each in row if each[5] != value]
            row.append([*ref, value])
        _drop_old(row, ref.time - window)
        if len(row) > 2 * limit:
            del row[: len(row) - 2 * limit]
        if not _COMPARE[self.correlation.operator](len(row), limit):
            return None
        shown = ", ".join(sorted(each[5] for each in row)[:12])
        return [Ref(*each[:5]) for each in row], (
            f"{len(row)} values of {self.correlation.value} within {duration(window)}: {shown}"
        )

    def _temporal(self, row: list[Any], rule: str, event: Event, ref: Ref) -> tuple[list[Ref], str] | None:  # noqa: ARG002
        window = self.correlation.seconds
        row[:] = [each for each in row if each[5] != rule]
        row.append([*ref, rule])
        _drop_old(row, ref.time - window)
        if len(row) < self.correlation.count:
            return None
        names = ", ".join(each[5] for each in row)
        return [Ref(*each[:5]) for each in row], f"all within {duration(window)}: {names}"

    def _ordered(self, row: list[Any], rule: str, event: Event, ref: Ref) -> tuple[list[Ref], str] | None:  # noqa: ARG002
        """``row[i]`` is the chain of the rules 0…i that began last. A later start covers every earlier one."""
        rules, window = self.correlation.rules, self.correlation.seconds
        row.extend([] for _ in range(len(rules) - len(row)))
        # From the last rule to the first, so that one event takes one place of the chain.
        for index in range(len(rules) - 1, -1, -1):
            if rules[index] != rule:
                continue
            before = row[index - 1] if index else []
            if index and (not before or before[0][4] < ref.time - window or before[-1][4] > ref.time):
                continue
            row[index] = [*before, list(ref)]
        chain = row[-1]
        if not chain or chain[-1] != list(ref):
            return None
        return [Ref(*each) for each in chain], f"in this order within {duration(window)}: {', '.join(rules)}"

    def dump(self) -> list[Any]:
        """Return the state as JSON."""
        return [[key, row] for key, row in self.table.items()]

    def load(self, rows: list[Any]) -> None:
        """Restore the state from `dump`."""
        for key, row in rows:
            self.table.put(key, row)


def _drop_old(row: list[Any], since: float) -> None:
    if row and row[0][4] < since:
        row[:] = [each for each in row if each[4] >= since]
