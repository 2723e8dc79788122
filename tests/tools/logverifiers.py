#!/usr/bin/env python3
"""Build the independent verifiers of the audit log from Go modules, once, into the cache.

Tessera's fsck verifies the tiles that Weightlock wrote. torchwood's litewitness cosigns its checkpoints. The pins are
in tests/e2e/logverifiers.

    tests/tools/logverifiers.py          build if needed; the last line on stdout is the directory of the programs
    tests/tools/logverifiers.py --find   print the directory if it exists, without a build

Exit status: 0 ready, 3 not available here (one line on stderr has the reason). Environment: WEIGHTLOCK_CACHE.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gotoolchain import BrokenError, UnavailableError, find_go, last_line

TESTS = Path(__file__).resolve().parents[1] / "e2e"
MODULE, TOOLCHAIN = TESTS / "logverifiers", TESTS / "controlplane"
CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")
PROGRAMS = {
    "fsck": "github.com/transparency-dev/tessera/cmd/fsck",
    "litewitness": "filippo.io/torchwood/cmd/litewitness",
}
FLAGS = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"log verifiers: {text}", file=sys.stderr, flush=True)


def directory() -> Path:
    """Return the directory of the programs, named by a digest of everything that decides the build."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    digest.update("\0".join([*FLAGS, *PROGRAMS.values(), platform.machine(), sys.platform]).encode())
    return CACHE / f"logverifiers-{digest.hexdigest()[:12]}"


def build(target: Path) -> None:
    """Build into ``target``. Raises UnavailableError if the sources or a toolchain are not available."""
    CACHE.mkdir(parents=True, exist_ok=True)
    go = find_go(TOOLCHAIN, CACHE)
    ours = {"GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off"}
    say("building from source; the first build takes some minutes")
    partial = Path(tempfile.mkdtemp(dir=CACHE, prefix=f"{target.name}.tmp-"))
    try:
        command = [go, "build", *FLAGS, "-o", f"{partial}/", *PROGRAMS.values()]
        result = subprocess.run(
            command, cwd=MODULE, env=os.environ | ours, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise UnavailableError(f"cannot build the log verifiers: {last_line(result.stderr)}")
        partial.chmod(0o755)
        with contextlib.suppress(OSError):
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main() -> int:
    """Find or build the programs and print their directory."""
    target = directory()
    if not target.exists():
        if "--find" in sys.argv[1:]:
            say("not built yet: tests/tools/logverifiers.py builds them")
            return 3
        try:
            build(target)
        except (UnavailableError, BrokenError) as error:
            say(str(error))
            return 3
    print(target)
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
