"""The whole run: turns in alternation, then growth; results as JSON, from which the report is written."""

import argparse
import dataclasses
import json
import time

from harness.programs import ROOT

from bench.peers import growth, plan, turn
from bench.peers.bench import Bench, say

RESULTS = ROOT / "bench" / "peers" / "results"


def main(arguments):
    """Measure, or only report; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a try of a few minutes")
    parser.add_argument("--short", action="store_true", help="two rounds, in about half the time")
    parser.add_argument("--only", nargs="+", default=(), help="Weightlock and these")
    parser.add_argument("--report", action="store_true", help="write the report again, measure nothing")
    parser.add_argument("--no-growth", action="store_true", help="only the turns")
    options = parser.parse_args(arguments)
    partial = options.quick or options.only or options.no_growth
    place = ROOT / "build" / "bench-peers" if partial else RESULTS
    if not options.report:
        place.mkdir(parents=True, exist_ok=True)
        found = {}
        try:
            measure(
                found, plan.QUICK if options.quick else plan.SHORT if options.short else plan.FULL, options
            )
        finally:
            # What was measured before a failure is worth keeping; only a whole run is reported.
            (place / "run.json").write_text(json.dumps(found, separators=(",", ":")))
    from bench.peers import report  # noqa: PLC0415 - matplotlib is not part of the measurement

    print(report.write(json.loads((place / "run.json").read_text()), place if partial else ROOT / "docs"))
    return 0


def measure(found, effort, options):
    """Fill ``found`` with every figure there is."""
    begun = time.monotonic()
    with Bench(options.only) as bench:
        found |= {
            "where": bench.where(),
            "labels": {name: engine.label for name, engine in bench.engines.items()},
            "effort": dataclasses.asdict(effort),
            "minutes": 0.0,
            "turns": [],
            "growth": {},
        }
        for number in range(effort.rounds):
            started = time.monotonic()
            # Back and forth, so that no engine always follows the same one.
            order = list(bench.engines.values())[:: -1 if number % 2 else 1]
            for engine in order:
                say(f"round {number + 1} of {effort.rounds}: {engine.label}")
                found["turns"].append({"engine": engine.name, "round": number, **turn.take(engine, effort)})
            now = time.monotonic()
            found |= {"rounds": number + 1, "minutes": round((now - begun) / 60, 1)}
            if 0 < number < effort.rounds - 1 and now - begun + (now - started) > effort.minutes * 60:
                say(f"{number + 1} rounds, since another would take too long")
                break
        if not options.no_growth:
            growth.measure(bench, effort, found["growth"])
    found["minutes"] = round((time.monotonic() - begun) / 60, 1)
