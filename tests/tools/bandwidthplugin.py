#!/usr/bin/env python3
"""Builds the CNI bandwidth plugin that the tests of egress limits run, once, into the cache.

The version is pinned by the Go module in tests/e2e/bandwidth. It needs nothing but the standard library, and must never
leave half a cache entry behind.

    tests/tools/bandwidthplugin.py          build if needed; the last line on stdout is the program
    tests/tools/bandwidthplugin.py --find   the program if it is there, without building anything

Exit status: 0 ready; 3 it cannot be had here (one line on stderr says why). Environment: WEIGHTLOCK_CACHE.
"""

import hashlib
import os
import platform
import sys
import tempfile
from pathlib import Path

from gotoolchain import BrokenError, UnavailableError, find_go, last_line, run_go

TESTS = Path(__file__).resolve().parents[1] / "e2e"
MODULE, TOOLCHAIN = TESTS / "bandwidth", TESTS / "controlplane"
CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")
PACKAGE = "github.com/containernetworking/plugins/plugins/meta/bandwidth"
FLAGS = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"bandwidth plugin: {text}", file=sys.stderr, flush=True)


def program() -> Path:
    """Return the path of the program, named by a digest of everything that decides the build."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    digest.update("\0".join([*FLAGS, platform.machine(), sys.platform]).encode())
    return CACHE / f"bandwidth-{digest.hexdigest()[:12]}"


def build(target: Path) -> None:
    """Build into ``target``. Raises UnavailableError where the sources or a toolchain cannot be had."""
    CACHE.mkdir(parents=True, exist_ok=True)
    go = find_go(TOOLCHAIN, CACHE)
    say("building it from source")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="bandwidth.tmp-") as directory:
        built = Path(directory, "bandwidth")
        command = [go, "build", *FLAGS, "-o", str(built), PACKAGE]
        done = run_go(command, MODULE)
        if done.returncode:
            raise UnavailableError(f"the bandwidth plugin could not be built: {last_line(done.stderr)}")
        built.replace(target)


def main() -> int:
    """Find or build; print the program's path."""
    target = program()
    if not target.exists():
        if "--find" in sys.argv[1:]:
            say("not built yet: tests/tools/bandwidthplugin.py builds it")
            return 3
        try:
            build(target)
        except (UnavailableError, BrokenError, OSError) as error:
            say(str(error))
            return 3
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
