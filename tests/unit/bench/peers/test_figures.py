"""From results to figures: what is added, ratios, goals that hold and goals that are missed."""

import pytest

from bench.peers.figures import Figures, Goal, Spread, cells, direct_cells

WITHOUT = (2.0, 3.0)


def quantiles(latency):
    return {"p50": latency, "p95": 2 * latency, "p99": 3 * latency}


def turn(engine, number, latency, cpu=1.0):
    api = {
        cell: {**quantiles(latency), "count": 500, "opened": 5, "without": quantiles(WITHOUT[number])}
        for cell in cells(("allowed", "denied", "mutated"))
        if engine != "noop" or not cell.startswith("mutated")
    }
    straight = {
        cell: {"p50": latency, "p99": latency, "perSecond": 1.0, "cpuPer10000": cpu}
        for cell in direct_cells()
    }
    return {"engine": engine, "round": number, "api": api, "direct": straight, "idle": {"once": 10.0}}


def stage(cpu, memory):
    return {
        "direct": {"cpuPer10000": cpu, "p50": cpu},
        "idle": {"once": memory},
        "after": {"once": memory},
    }


@pytest.fixture
def figures():
    latencies = {"noop": (3.0, 4.0), "weightlock": (3.4, 4.2), "kyverno": (6.0, 7.0)}
    turns = [
        turn(engine, number, latency, cpu={"kyverno": 4.0, "weightlock": 2.0}.get(engine, 1.0))
        for engine, rounds in latencies.items()
        for number, latency in enumerate(rounds)
    ]
    growth = {
        "weightlock": {"base": stage(1.0, 40), "policies": stage(1.1, 50), "pods": stage(2.0, 50)},
        "kyverno": {"base": stage(4.0, 100), "policies": stage(4.0, 90), "pods": stage(4.0, 200)},
    }
    return Figures(
        {"labels": {name: name for name in latencies}, "rounds": 2, "turns": turns, "growth": growth}
    )


def test_added_latency_is_the_difference_to_the_adjacent_reference_run(figures):
    assert figures.added("weightlock", "allowed/2KB/8", "p50") == pytest.approx([1.4, 1.2])
    assert figures.added("noop", "mutated/2KB/8", "p50") == []
    assert figures.without("mutated/2KB/8", "p50") == [2.0, 3.0, 2.0, 3.0]


def test_a_ratio_is_that_of_the_medians(figures):
    assert figures.added_ratio("allowed/2KB/1", "p50", "kyverno") == pytest.approx(1.3 / 4.0)
    assert figures.added_ratio("mutated/2KB/1", "p50", "noop") is None


def test_a_difference_within_noise_has_no_ratio(figures):
    for number in range(2):
        figures._turns["noop", number]["api"]["allowed/2KB/1"]["p50"] = 2.0
    assert figures.added_ratio("allowed/2KB/1", "p50", "noop") is None


def test_the_goals_have_verdicts(figures):
    verdicts = {goal.text: goal.verdict for goal in figures.goals()}
    assert verdicts == {
        "added p50 of kyverno's": "**holds**",
        "added p99 of kyverno's": "**holds**",
        "added p50 of noop's": "**holds**",
        "added p99 of noop's": "**holds**",
        "CPU per review of kyverno's": "**holds**",
        "memory of Kyverno's": "**missed** in 1 of 4",
        "a review with policies that match nothing, of one without them": "**holds**",
        "a review with pods, of one without them": "**missed** in 2 of 2",
    }


def test_a_busy_machine_does_not_count_as_growth(figures):
    stages = figures.growth["weightlock"]
    for stage, factor in (("base", 1.0), ("policies", 1.0), ("pods", 1.9)):
        stages[stage]["reference"] = {"cpuPer10000": factor, "p50": factor}
    verdicts = {goal.text: goal.verdict for goal in figures.goals()}
    assert verdicts["a review with pods, of one without them"] == "**holds**"


def test_a_goal_counts_its_cells():
    goal = Goal("something", 1.0, {"a": 0.5, "b": 2.0})
    assert (goal.holds, goal.verdict) == (1, "**missed** in 1 of 2")
    assert goal.mean == pytest.approx(1.0)
    assert Goal("nothing", 1.0, {}).verdict == "not measured"


def test_connections_are_counted_for_a_thousand_creations(figures):
    assert figures.opened("weightlock", "allowed/2KB/32") == [10.0, 10.0]


def test_a_spread_is_median_least_and_most():
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([]) is None
