"""Counters and histograms: what Prometheus reads is what was noted, and labels are bounded."""

import pytest

from webhook.server.metrics.counters import Counter, Histogram, OutcomeCounter, merge


def samples(metric):
    families = list(metric)
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def test_counts_by_labels():
    tally = Counter("things", "Things.", ("a", "b"), limit=10)
    for labels in (("x", "y"), ("x", "y"), ("x", "z")):
        tally.add(labels)
    assert samples(tally.collect()) == {("things_total", ("x", "y")): 2, ("things_total", ("x", "z")): 1}


def test_labels_beyond_the_limit_are_counted_together():
    tally = Counter("things", "Things.", ("a",), limit=2)
    for number in range(10):
        tally.add((str(number),))
    tally.add(("0",))
    assert samples(tally.collect()) == {
        ("things_total", ("0",)): 2,
        ("things_total", ("1",)): 1,
        ("things_total", ("other",)): 8,
    }


@pytest.mark.parametrize(
    ("value", "buckets"),
    [(0.0, [1, 1, 1]), (0.1, [1, 1, 1]), (0.2, [0, 1, 1]), (1.0, [0, 1, 1]), (9.0, [0, 0, 1])],
)
def test_a_value_is_in_every_bucket_that_does_not_end_below_it(value, buckets):
    tally = Histogram("seconds", "Seconds.", (0.1, 1.0))
    tally.observe(value)
    matches = samples(tally.collect())
    assert [matches["seconds_bucket", (end,)] for end in ("0.1", "1.0", "+Inf")] == buckets
    assert matches["seconds_count", ()] == 1
    assert matches["seconds_sum", ()] == value


def test_outcomes_are_counted_by_result_and_timed_by_thing():
    tally = OutcomeCounter(("evaluations", "E."), ("seconds", "S."), (0.1, 1.0), label="policy", limit=10)
    tally.add([("a", "pass", 0.05), ("a", "violation", 0.5), ("b", "pass", 2.0)])
    tally.add([("a", "pass", 0.05)])
    counter, histogram = tally.collect()
    assert samples([counter]) == {
        ("evaluations_total", ("a", "pass")): 2,
        ("evaluations_total", ("a", "violation")): 1,
        ("evaluations_total", ("b", "pass")): 1,
    }
    matches = samples([histogram])
    assert [matches["seconds_bucket", ("a", end)] for end in ("0.1", "1.0", "+Inf")] == [2, 3, 3]
    assert matches["seconds_sum", ("a",)] == pytest.approx(0.6)
    assert matches["seconds_count", ("b",)] == 1


def test_outcomes_beyond_the_limit_are_counted_together():
    tally = OutcomeCounter(("evaluations", "E."), ("seconds", "S."), (0.1,), label="policy", limit=2)
    tally.add([(str(number), "pass", 0.0) for number in range(10)])
    counter, _ = tally.collect()
    assert samples([counter])["evaluations_total", ("other", "pass")] == 8
    assert len(counter.samples) == 3


def test_known_labels_are_there_from_the_beginning():
    tally = Counter("things", "Things.", ("a",), limit=2, initial=[("x",)])
    tally.add(("y",))
    assert samples(tally.collect()) == {("things_total", ("x",)): 0, ("things_total", ("y",)): 1}


def test_a_histogram_with_labels_knows_them_beforehand():
    tally = Histogram("seconds", "Seconds.", (1.0,), ("call",), [("a",), ("b",)])
    tally.observe(0.5, ("a",))
    matches = samples(tally.collect())
    assert (matches["seconds_count", ("a",)], matches["seconds_count", ("b",)]) == (1, 0)
    with pytest.raises(KeyError):
        tally.observe(0.5, ("c",))


def test_rows_of_several_processes_are_summed_by_labels():
    assert merge([{("a",): [1, 2]}, {}, {("b",): [5]}, {("a",): [3, 4]}]) == {("a",): [4, 6], ("b",): [5]}


def test_merging_does_not_change_its_inputs():
    tally = Histogram("seconds", "Seconds.", (1.0,))
    tally.observe(0.5)
    merge([tally.rows(), tally.rows()])
    assert samples(tally.collect())["seconds_count", ()] == 1
