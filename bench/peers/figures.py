"""From raw results to figures: medians over the rounds with their spread, what is added, ratios, goals. No I/O."""

import math
import statistics
from dataclasses import dataclass

from bench.peers import pods
from bench.peers.plan import CLIENTS, DIRECT_CLIENTS, cell_name

US = "weightlock"
QUANTILES = ("p50", "p95", "p99")
# Below this a difference of two latencies is noise, and a ratio with it says nothing.
LEAST_MS = 0.02
FLAT = 1.15


@dataclass(frozen=True, slots=True)
class Spread:
    """A median over rounds, and the least and the most."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values):
        """None where there are no values."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal: what was to be, the ratios there are by cell, and the most that each may be."""

    text: str
    most: float
    ratios: dict

    @property
    def holds(self):
        """How many cells hold."""
        return sum(ratio <= self.most for ratio in self.ratios.values())

    @property
    def verdict(self):
        """In a word, or in numbers."""
        if not self.ratios:
            return "not measured"
        if self.holds == len(self.ratios):
            return "**holds**"
        return f"**missed** in {len(self.ratios) - self.holds} of {len(self.ratios)}"

    @property
    def mean(self):
        """The geometric mean of the ratios."""
        return math.exp(statistics.mean(math.log(ratio) for ratio in self.ratios.values()))


class Figures:
    """A run's results, asked by engine and cell."""

    def __init__(self, found):
        self.found = found
        self.labels = found["labels"]
        self.engines = list(self.labels)
        self.growth = found["growth"]
        self._turns = {(turn["engine"], turn["round"]): turn for turn in found["turns"]}
        self.rounds = range(found["rounds"])

    def _cells(self, engine, cell):
        turns = (self._turns[engine, number]["api"].get(cell) for number in self.rounds)
        return [turn for turn in turns if turn]

    def latency(self, engine, cell, quantile):
        """Of a creation through the API server, in milliseconds, a value a round."""
        return [one[quantile] for one in self._cells(engine, cell)]

    def without(self, cell, quantile):
        """The same creation without a webhook call: a value for each round of each engine."""
        return [one["without"][quantile] for engine in self.engines for one in self._cells(engine, cell)]

    def added(self, engine, cell, quantile):
        """What an engine adds to what was measured in turns with it where it was not asked, a value a round."""
        return [one[quantile] - one["without"][quantile] for one in self._cells(engine, cell)]

    def added_ratio(self, cell, quantile, peer):
        """What we add over what a peer adds: the ratio of the medians; None where either is lost in noise."""
        ours, theirs = self.added(US, cell, quantile), self.added(peer, cell, quantile)
        if not ours or not theirs:
            return None
        ours, theirs = statistics.median(ours), statistics.median(theirs)
        return ours / theirs if min(ours, theirs) >= LEAST_MS else None

    def opened(self, engine, cell):
        """Connections opened for 1,000 creations, but for the clients' own, a value a round."""
        return [one["opened"] / one["count"] * 1000 for one in self._cells(engine, cell)]

    def direct(self, engine, cell, name):
        """A figure of the engine's own port, a value a round."""
        turns = (self._turns[engine, number].get("direct") for number in self.rounds)
        return [turn[cell][name] for turn in turns if turn]

    def of_turns(self, engine, *path):
        """A figure of each turn, such as ``idle``, ``pss``; empty where the engine has none."""
        values = []
        for number in self.rounds:
            value = self._turns[engine, number]
            for step in path:
                value = value.get(step) if value else None
            if value is not None:
                values.append(value)
        return values

    def goals(self):
        """The goals, with what was measured of each."""
        here = [peer for peer in ("kyverno", "gatekeeper") if peer in self.labels]
        found = [self._latency_goal(quantile, peer, 0.7) for peer in here for quantile in ("p50", "p99")]
        if "noop" in self.labels:
            found += [self._latency_goal(quantile, "noop", 1.5) for quantile in ("p50", "p99")]
        found += [self._cpu_goal(peer) for peer in here]
        if "kyverno" in here and self.growth:
            found.append(Goal("memory of Kyverno's", 0.5, self._memory_ratios("kyverno")))
        found += self._flat_goals()
        return found

    def _latency_goal(self, quantile, peer, most):
        ratios = {}
        for cell in cells(("allowed", "mutated")):
            ratio = self.added_ratio(cell, quantile, peer)
            if ratio is not None:
                ratios[cell] = ratio
        return Goal(f"added {quantile} of {_whose(self.labels[peer])}", most, ratios)

    def _cpu_goal(self, peer):
        ratios = {}
        for cell in direct_cells():
            ours, theirs = (statistics.median(self.direct(name, cell, "cpuPer10000")) for name in (US, peer))
            ratios[cell] = ours / theirs
        return Goal(f"CPU per review of {_whose(self.labels[peer])}", 1.0, ratios)

    def _memory_ratios(self, peer):
        points = {
            "idle": ("base", "idle"),
            "after many reviews": ("base", "after"),
            "with policies": ("policies", "after"),
            "with pods": ("pods", "after"),
        }
        ours, theirs = self.growth[US], self.growth[peer]
        return {
            name: ours[stage][when]["once"] / theirs[stage][when]["once"]
            for name, (stage, when) in points.items()
        }

    def _flat_goals(self):
        stages = self.growth.get(US, {})
        steps = {"policies that match nothing": "policies", "pods": "pods", "weights and grants": "weights"}
        found, before = [], "base"
        for text, stage in steps.items():
            if stage in stages:
                ratios = {
                    display: _beside(stages[stage], figure) / _beside(stages[before], figure)
                    for display, figure in (("CPU", "cpuPer10000"), ("p50", "p50"))
                }
                found.append(Goal(f"a review with {text}, of one without them", FLAT, ratios))
                before = stage
        return found


def _beside(stage, figure):
    """A figure in parts of what the no-op took at the same time, where it was measured."""
    reference = stage.get("reference")
    return stage["direct"][figure] / (reference[figure] if reference else 1.0)


def _whose(label):
    return f"{label}'s"


def cells(kinds):
    """The cells of creations through the API server."""
    return [cell_name(clients, kind, size) for kind in kinds for size in pods.SIZES for clients in CLIENTS]


def direct_cells():
    """The cells at an engine's own port."""
    return [f"{size}/{clients}" for size in pods.SIZES for clients in DIRECT_CLIENTS]
