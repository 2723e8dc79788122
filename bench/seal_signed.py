"""Seal with a check of the model's signature against sealing without it: pairs of runs, in turns, tmpfs to tmpfs.

One row for each shape of a model: one large file, a few shards, many small files. Each pair runs its two sides one
after the other, in a new process each, and the order alternates. So the load of the machine is the same for both.
The figure is the median of the pairs: the speed with the check as a part of the speed without, by the clock and by
the CPU time of all threads. The imports, 0.1 s for a signature of any model, are not measured.
Run it alone with ``python -m bench.seal_signed [--size GIB] [--pairs N] [--dir DIR]``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from bench.seal import GIB, OURS, SEAL, SIGNED, make, sign, timed

# Files by the name of the shape.
SHAPES = {"one file": 1, "4 shards": 4, "64 shards": 64, "2,000 small files": 2000}
SIDES = {"without": SEAL, "with": SIGNED}
IMPORTS = (
    "import webhook.cli.images.signatures, webhook.provenance.model_attestations, webhook.provenance.models\n"
)
TARGET = 0.9


def pair(home: Path, setup: str, order: list[str]) -> dict[str, dict[str, float]]:
    """Seal once without and once with the check."""
    results = {}
    for side in order:
        results[side] = timed(setup, SIDES[side], home / "plain", home / "sealed", home)
        shutil.rmtree(home / "sealed")
    return results


def row(directory: Path, files: int, size: int, jobs: int, pairs: int) -> tuple[float, float, float]:
    """Return the medians: the speed without the check in GiB/s, the ratio by the clock, and the ratio of CPU time."""
    setup = OURS.replace("JOBS", str(jobs)) + IMPORTS
    order = list(SIDES)
    results = []
    with tempfile.TemporaryDirectory(dir=directory, prefix="weightlock-bench-") as name:
        home = Path(name)
        make(home / "plain", size, files)
        sign(home)
        pair(home, setup, order)  # fills the caches of the interpreter and of the file system
        for number in range(pairs):
            results.append(pair(home, setup, order))
            order.reverse()
            print(f"  {files} files, {jobs} threads: pair {number + 1} of {pairs}", file=sys.stderr)
    clock = statistics.median(one["without"]["seconds"] / one["with"]["seconds"] for one in results)
    cpu = statistics.median(one["without"]["cpu"] / one["with"]["cpu"] for one in results)
    speed = size / GIB / statistics.median(one["without"]["seconds"] for one in results)
    return speed, clock, cpu


def main(arguments: list[str] | None = None) -> int:
    """Print a row for each shape and number of threads."""
    parser = argparse.ArgumentParser(prog="bench.seal_signed", description=__doc__)
    parser.add_argument("--size", type=float, default=0.5, help="GiB of weights in each shape (0.5)")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path("/dev/shm"), help="a tmpfs (/dev/shm)")
    options = parser.parse_args(arguments or [])
    size, free = int(options.size * GIB), shutil.disk_usage(options.dir).free
    if free < size * 2.2:
        print(
            f"seal_signed: {options.dir} has {free / GIB:.1f} GiB free and {size * 2.2 / GIB:.1f} are needed"
        )
        return 0
    print("speed with --verify-signature, as a part of the speed without it (target: 0.9)")
    for name, files in SHAPES.items():
        for jobs in sorted({1, min(os.cpu_count() or 1, 8)}):
            speed, clock, cpu = row(options.dir, files, size, jobs, options.pairs)
            shape = f"{name}, {jobs} thread{'s' if jobs > 1 else ''}"
            print(
                f"{shape:30} without {speed:5.2f} GiB/s   clock {clock:5.2f}x   CPU {cpu:5.2f}x", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
