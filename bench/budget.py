"""What one verdict costs in counts that no load on the machine changes: instructions of the interpreter, calls into
native code, memory.

The counts are compared with `budget.json` by a test; a change that costs more must say so there. They hold for one
minor version of Python each. ``python -m bench budget --record`` writes what was counted for the version it runs under.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import yaml

from bench.decide import snapshot
from bench.documents import elsewhere, pod, policy, review
from webhook.api.config import Settings
from webhook.core.admission.mutate import mutate
from webhook.core.admission.provider import FetchedData, evaluate_sync
from webhook.core.admission.validate import validate
from webhook.core.admission.verdict import to_response
from webhook.core.kube.review import parse_review, render_review
from webhook.manifests.shipped import shipped_policies
from webhook.offline.provider import DirectoryProvider

ROOT = Path(__file__).resolve().parent.parent
BUDGET = Path(__file__).with_name("budget.json")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
WARM, KEPT_RUNS = 30, 200
UNITS = {
    "instructions": "instructions of the interpreter",
    "calls": "calls into native code",
    "bytes": "bytes of Python objects at the peak",
    "kept": "objects left behind",
}
# What may be used above the budget, in parts of it and absolutely: sizes of dictionaries and the like.
SLACK = {"instructions": (0.01, 20), "calls": (0.01, 5), "bytes": (0.03, 512), "kept": (0.0, 0.5)}


def settled(step, body, source_answer, state):
    """A function that does one whole phase, with all that the evaluation has to ask for known."""
    _, content = evaluate_sync(lambda content: step(parse_review(body), state, content, NOW), source_answer)

    def run():
        return render_review(to_response(step(parse_review(body), state, content, NOW)))

    return run


def nothing(needs):
    """The answer of a snapshot that is complete."""
    return FetchedData(objects=dict.fromkeys(needs.objects))


def ask_directory():
    """The shipped policies on the example state: who answers what they ask, and the snapshot."""
    source = DirectoryProvider([shipped_policies(), ROOT / "examples" / "state"], Settings())

    def ask(needs):
        return asyncio.run(source.fetch(needs))

    return ask, source.snapshot()


def cases():
    """Each case by its name: a function without arguments."""
    few = [policy(number) for number in range(20)]
    small, large = review(pod(2_000)), review(pod(20_000))
    state = snapshot(few)
    found = {
        "validate, 2 KB pod, 20 policies": settled(validate, small, nothing, state),
        "validate, 20 KB pod, 20 policies": settled(validate, large, nothing, state),
        "validate, 2 KB pod, 20 policies and 480 that do not match": settled(
            validate, small, nothing, snapshot([*few, *map(elsewhere, range(480))])
        ),
        "mutate, 2 KB pod": settled(mutate, small, nothing, state),
    }
    ask, shipped = ask_directory()
    for name in ("01-plain-pod", "02-weights-without-grant", "03-weights-with-grant"):
        body = review(yaml.safe_load((ROOT / "examples" / "samples" / f"{name}.yaml").read_text()))
        for step in (mutate, validate):
            found[f"{step.__name__}, shipped policies, {name}"] = settled(step, body, ask, shipped)
    return found


def count(run):
    """The counts of one call."""
    for _ in range(WARM):
        run()
    gc.collect()
    gc.disable()
    try:
        return {
            "instructions": _instructions(run),
            "calls": _calls(run),
            "bytes": _bytes(run),
            "kept": _kept(run),
        }
    finally:
        gc.enable()


def _instructions(run):
    total = 0

    def trace(frame, event, _):
        nonlocal total
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        total += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(None)
    return total


def _calls(run):
    total = 0

    def profile(_frame, event, _):
        nonlocal total
        total += event == "c_call"

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return total


def _bytes(run):
    tracemalloc.start()
    try:
        run()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def _kept(run):
    run()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(KEPT_RUNS):
        run()
    gc.collect()
    return round((sys.getallocatedblocks() - before) / KEPT_RUNS, 1)


def counted():
    """All counts, by case, from a separate process: hashes are equal each time, and no other code traces."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.budget"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def recorded():
    """The budget of this version of Python, by case; empty where there is none."""
    return json.loads(BUDGET.read_text()).get(VERSION, {})


def excesses(found, budget):
    """What is above the budget, one line each."""
    lines = []
    for name, counts in found.items():
        for unit, value in counts.items():
            part, absolute = SLACK[unit]
            planned = budget.get(name, {}).get(unit)
            if planned is None:
                lines.append(f"{name}: no budget for {UNITS[unit]}")
            elif value > planned * (1 + part) + absolute:
                lines.append(f"{name}: {value:g} {UNITS[unit]}, budget {planned:g}")
    return lines


def main():
    """Print the counts beside the budget; with ``--record`` they become the budget."""
    found, budget = counted(), recorded()
    for name, counts in found.items():
        print(name)
        for unit, value in counts.items():
            planned = budget.get(name, {}).get(unit)
            print(f"  {value:12,} {UNITS[unit]:36} budget {planned if planned is not None else '—':>12}")
    if "--record" in sys.argv:
        whole = {**json.loads(BUDGET.read_text()), VERSION: found} if BUDGET.exists() else {VERSION: found}
        BUDGET.write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
        print(f"recorded for Python {VERSION}")


if __name__ == "__main__":
    print(json.dumps({name: count(run) for name, run in cases().items()}))
