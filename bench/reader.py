"""The reader against safetensors on plain files, and many small files against ``cp``, tmpfs to tmpfs.

Ratios are those of one run.
Each contender runs in a process of its own, in turns; the best of each counts. Several users on one machine change the
seconds, and the CPU seconds hardly.
Run it alone with ``python -m bench.reader [--size GIB] [--files N] [--rounds N]``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
_PRELUDE = """
import json, os, sys, time
from pathlib import Path
import numpy
home, jobs = Path(sys.argv[1]), int(sys.argv[2])
"""
_REPORT = """
print(json.dumps({"seconds": time.perf_counter() - start, "cpu": sum(os.times()[:4]) - cpu,
                  "rss": int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024}))
"""
_START = "start, cpu = time.perf_counter(), sum(os.times()[:4])\n"
_OPEN = "import weightlock\nkey = home / 'key'\n"
_TENSORS = """
with opened as tensors:
    for name in tensors.offset_keys():
        tensors.get_tensor(name)[..., -1:].sum()
"""
_SLOW = """
from webhook.keys.sealed.storage import store
before = store.LocalBlob.read_at
reads = 0
def slow(self, buffer, offset):
    global reads
    reads += 1
    time.sleep(0.01)
    return before(self, buffer, offset)
store.LocalBlob.read_at = slow
"""
_OPERATIONS = """
from webhook.keys.sealed import operations
from webhook.keys.sealed.operations import KeyService, Work
from webhook.keys.sealed.transfer import NoProgress
from webhook.keys.sealed.unsealing import verify
service = KeyService(f"local://{home}/keyset.json")
work = Work(jobs, NoProgress(), "2026-01-01T00:00:00Z")
"""
READER = {
    "safetensors, plain file": (
        "import safetensors\n",
        "opened = safetensors.safe_open(home / 'plain/model.safetensors', 'np')\n" + _TENSORS,
    ),
    "weightlock.safe_open": (
        _OPEN,
        "opened = weightlock.safe_open(home / 'sealed/model.safetensors', 'np', key_file=key, threads=jobs)\n"
        + _TENSORS,
    ),
    "plain file, read()": ("", "content = (home / 'plain/model.safetensors').read_bytes()\n"),
    "weights.read()": (
        _OPEN,
        (
            "with weightlock.open_weights(home / 'sealed', key_file=key, threads=jobs) as weights:\n"
            "    content = weights.read('model.safetensors')\n"
        ),
    ),
    "first tensor, 10 ms a read": (
        _OPEN + _SLOW,
        (
            "with weightlock.safe_open(home / 'sealed', 'np', key_file=key) as tensors:\n"
            "    tensors.get_tensor('norm')\n"
        ),
    ),
}
FILES = {
    "cp": ("import shutil\n", "shutil.copytree(home / 'many', home / 'target')\n"),
    "unseal": (
        _OPERATIONS,
        (
            "with operations.open_sealed(home / 'sealed-many', service) as sealed:\n"
            "    operations.unseal(sealed, home / 'target', [], work, mode=0o600, replace=False)\n"
        ),
    ),
    "verify": (
        _OPERATIONS,
        (
            "with operations.open_sealed(home / 'sealed-many', service) as sealed:\n"
            "    assert not verify(sealed, jobs, NoProgress())\n"
        ),
    ),
}


def _timed(home: Path, jobs: int, setup: str, code: str) -> dict[str, float]:
    shutil.rmtree(home / "target", ignore_errors=True)
    words = [sys.executable, "-c", _PRELUDE + setup + _START + code + _REPORT, str(home), str(jobs)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def _make(home: Path, size: float, files: int) -> None:
    import numpy  # noqa: PLC0415 - a dependency of the tests
    import safetensors.numpy  # noqa: PLC0415

    from webhook.keys.sealed import operations  # noqa: PLC0415
    from webhook.keys.sealed.operations import KeyService, Work  # noqa: PLC0415
    from webhook.keys.sealed.transfer import NoProgress  # noqa: PLC0415

    (home / "plain").mkdir()
    (home / "many").mkdir()
    rows = 64 * MIB // 4096
    tensors = {
        f"t{index}": numpy.ones((rows, 1024), "f4") * index for index in range(int(size * GIB / (64 * MIB)))
    }
    tensors["norm"] = numpy.ones(4096, "f4")
    safetensors.numpy.save_file(tensors, home / "plain/model.safetensors")
    for index in range(files):
        (home / "many" / f"{index}.bin").write_bytes(os.urandom(4096))
    service, work = KeyService(f"local://{home}/keyset.json"), Work(2, NoProgress(), "2026-01-01T00:00:00Z")
    for source in ("plain", "many"):
        target = home / ("sealed" if source == "plain" else "sealed-many")
        manifest = operations.seal(home / source, target, service, "bench", "k1", work)
        if source == "plain":
            with service.unwrap(manifest.key, "bench") as key, key.view() as view:
                (home / "key").write_bytes(view)


def _best(
    home: Path, jobs: int, rounds: int, table: dict[str, tuple[str, str]]
) -> dict[str, dict[str, float]]:
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for name, (setup, code) in table.items():
            result = _timed(home, jobs, setup, code)
            if name not in best or result["seconds"] < best[name]["seconds"]:
                best[name] = result
    return best


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.reader", description=__doc__)
    parser.add_argument("--size", type=float, default=1.0, help="GiB of the model (1)")
    parser.add_argument("--files", type=int, default=20_000, help="number of files of 4 KiB (20000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4))
    options = parser.parse_args(arguments or [])
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="weightlock-bench-") as name:
        home = Path(name)
        _make(home, options.size, options.files)
        size = (home / "plain/model.safetensors").stat().st_size
        matches = _best(home, options.jobs, options.rounds, READER)
        print(f"{options.size:g} GiB in one file, {options.jobs} threads, best of {options.rounds}")
        for what, result in matches.items():
            speed = size / GIB / result["seconds"]
            rate = "" if "first" in what else f"{speed:5.2f} GiB/s"
            cpu, memory = result["cpu"], result["rss"] / size
            times = f"{memory:4.2f} times the file resident"
            print(f"{what:28} {result['seconds']:6.2f} s {rate:12} {cpu:5.2f} CPU s   {times}")
        for ours, peer in (
            ("weightlock.safe_open", "safetensors, plain file"),
            ("weights.read()", "plain file, read()"),
        ):
            print(f"{ours} against {peer}: {matches[peer]['seconds'] / matches[ours]['seconds']:.2f}")
        matches = _best(home, options.jobs, options.rounds, FILES)
        print(f"{options.files} files of 4 KiB")
        for what, result in matches.items():
            against = matches["cp"]["seconds"] / result["seconds"]
            memory = result["rss"] / MIB
            print(
                f"{what:8} {result['seconds']:6.2f} s {against:6.2f} of cp {result['cpu']:6.2f} CPU s {memory:6.0f} MiB"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
