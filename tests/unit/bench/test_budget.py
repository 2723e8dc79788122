"""A verdict costs no more than was agreed: counts of instructions, native calls and memory, which no load changes."""

import json

import pytest

from bench import budget


def test_the_hot_path_stays_within_its_budget():
    planned = budget.recorded()
    if not planned:
        existing = ", ".join(json.loads(budget.BUDGET.read_text()))
        pytest.skip(f"the budget was counted on Python {existing}; this is {budget.VERSION}")
    matches = budget.counted()
    assert set(matches) == set(planned), "record the cases again: python -m bench budget --record"
    over = budget.excesses(matches, planned)
    hint = "make it cheaper, or, where it is worth that, agree to it: python -m bench budget --record"
    assert not over, "\n".join([*over, hint])


def test_a_verdict_does_not_pay_for_policies_that_do_not_match():
    planned = budget.recorded() or budget.counted()
    few, many = "validate, 2 KB pod, 20 policies", "validate, 2 KB pod, 20 policies and 480 that do not match"
    for unit in ("instructions", "calls"):
        assert planned[many][unit] == planned[few][unit]


@pytest.mark.parametrize(
    ("unit", "value", "excess"),
    [
        ("instructions", 1000, False),
        ("instructions", 1030, False),
        ("instructions", 1031, True),
        ("kept", 1.0, False),
        ("kept", 1.1, True),
    ],
)
def test_counts_that_exceed_the_budget(unit, value, excess):
    planned = {"case": {"instructions": 1000, "kept": 0.5}}
    assert bool(budget.excesses({"case": {unit: value}}, planned)) is excess


def test_a_case_without_a_budget_is_reported():
    assert budget.excesses({"new": {"calls": 1}}, {}) == ["new: no budget for calls into native code"]


def test_more_work_is_counted_as_more():
    def little():
        return sum(range(10))

    def more():
        return [str(number).encode() for number in range(1000)]

    small, large = budget.count(little), budget.count(more)
    for unit in ("instructions", "calls", "bytes"):
        assert large[unit] > small[unit]
    remaining = []
    # Ten, because other code of the test process frees blocks meanwhile.
    assert budget.count(lambda: remaining.extend(object() for _ in range(10)))["kept"] >= 1
