"""The whole run: turns in alternation, then growth; results as JSON, from which the report is written."""

import argparse
import dataclasses
import json
import time

from harness.programs import ROOT

from bench.peers import growth, turn
from bench.peers.bench import Bench, say

RESULTS = ROOT / "bench" / "peers" / "results"


def main(arguments):
    """Measure, or only report; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a try of a few minutes")
    parser.add_argument("--only", nargs="+", default=(), help="these engines, and none")
    parser.add_argument("--report", action="store_true", help="write the report again, measure nothing")
    parser.add_argument("--no-growth", action="store_true", help="only the turns")
    options = parser.parse_args(arguments)
    partial = options.quick or options.only or options.no_growth
    place = ROOT / "build" / "bench-peers" if partial else RESULTS
    if not options.report:
        place.mkdir(parents=True, exist_ok=True)
        found = measure(turn.QUICK if options.quick else turn.FULL, options)
        (place / "run.json").write_text(json.dumps(found, separators=(",", ":")))
    from bench.peers import report  # noqa: PLC0415 - matplotlib is no part of what is measured

    said = report.write(json.loads((place / "run.json").read_text()), place if partial else ROOT / "docs")
    print(said)
    return 0


def measure(effort, options):
    """Every figure there is."""
    begun = time.monotonic()
    turns = []
    with Bench(options.only) as bench:
        for number in range(effort.rounds):
            started = time.monotonic()
            # Back and forth, so that nobody always follows the same one.
            order = list(bench.engines.values())[:: -1 if number % 2 else 1]
            for engine in order:
                say(f"round {number + 1} of {effort.rounds}: {engine.label}")
                turns.append({"engine": engine.name, "round": number, **turn.take(engine, effort)})
            now = time.monotonic()
            if number and now - begun + (now - started) > effort.minutes * 60:
                say(f"{number + 1} rounds, since another would take too long")
                break
        grown = {} if options.no_growth else growth.measure(bench, effort)
        where = bench.where()
        labels = {name: engine.label for name, engine in bench.engines.items()}
    return {
        "where": where,
        "labels": labels,
        "effort": dataclasses.asdict(effort),
        "rounds": 1 + max(one["round"] for one in turns),
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "turns": turns,
        "growth": grown,
    }
