#!/usr/bin/env python3
"""Builds the Vault server that the tests of the Vault KMS run against, once, into the cache.

The source is the Go module in tests/e2e/vaultserver. It needs nothing but the standard library, and must never leave
half a cache entry behind.

    tests/tools/vaultserver.py          build if needed; the last line on stdout is the program
    tests/tools/vaultserver.py --find   the program if it is there, without building anything

Exit status: 0 ready; 3 it cannot be had here (one line on stderr says why). Environment: WEIGHTLOCK_CACHE.
"""

import contextlib
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gotoolchain import BrokenError, UnavailableError, find_go, go_environment, last_line

TESTS = Path(__file__).resolve().parents[1] / "e2e"
MODULE, TOOLCHAIN = TESTS / "vaultserver", TESTS / "controlplane"
CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")
FLAGS = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]
REPORT_SECONDS = 15


def say(text: str) -> None:
    """One line of progress."""
    print(f"vault server: {text}", file=sys.stderr, flush=True)


def program() -> Path:
    """Where the program is, or will be: named by a digest of everything that decides the build."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((MODULE / name).read_bytes())
    digest.update("\0".join([*FLAGS, platform.machine(), sys.platform]).encode())
    return CACHE / f"vaultserver-{digest.hexdigest()[:12]}"


def build(target: Path) -> None:
    """Build into ``target``, telling every 15 seconds how many packages are done.

    Raises UnavailableError where the sources or a toolchain cannot be had.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    go = find_go(TOOLCHAIN, CACHE)
    say("building it from source; the first time takes some minutes")
    started, messages, compiled, errors = time.monotonic(), time.monotonic(), 0, []
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="vaultserver.tmp-") as directory:
        built = Path(directory, "vaultserver")
        command = [go, "build", "-v", *FLAGS, "-o", str(built), "."]
        with subprocess.Popen(
            command, cwd=MODULE, env=go_environment(), text=True, stderr=subprocess.PIPE
        ) as process:
            for line in process.stderr or ():
                if " " in line and not line.startswith("go: downloading"):
                    errors.append(line)
                compiled += " " not in line
                if time.monotonic() - messages > REPORT_SECONDS:
                    messages = time.monotonic()
                    say(f"[{messages - started:.0f} s] {compiled} packages compiled")
        if process.returncode:
            raise UnavailableError(f"the Vault server could not be built: {last_line(''.join(errors))}")
        built.replace(target)


def main() -> int:
    """Find or build; print the program's path."""
    target = program()
    if not target.exists():
        if "--find" in sys.argv[1:]:
            say("not built yet: tests/tools/vaultserver.py builds it")
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
