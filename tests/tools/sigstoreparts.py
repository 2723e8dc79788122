#!/usr/bin/env python3
"""Build cosign and a private Sigstore from Go modules, once, into the cache.

Fulcio, a certificate log (TesseraCT), Rekor v2 and a timestamp authority are the Sigstore. The registry is Debian's.
The pins are in tests/e2e/sigstore.

    tests/tools/sigstoreparts.py          build if needed; the last line on stdout is the directory of the programs
    tests/tools/sigstoreparts.py --find   print the directory if it exists, without a build

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

from gotoolchain import BrokenError, UnavailableError, find_go, go_environment, last_line

TESTS = Path(__file__).resolve().parents[1] / "e2e"
MODULE, TOOLCHAIN = TESTS / "sigstore", TESTS / "controlplane"
CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")
PROGRAMS = {
    "cosign": "github.com/sigstore/cosign/v3/cmd/cosign",
    "timestamp-server": "github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server",
    "rekor": "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix",
    "tesseract": "github.com/transparency-dev/tesseract/cmd/tesseract/posix",
    "fulcio": "github.com/sigstore/fulcio",
}
FLAGS = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"sigstore: {text}", file=sys.stderr, flush=True)


def directory() -> Path:
    """Return the directory of the programs, named by a digest of everything that decides the build."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    digest.update("\0".join([*FLAGS, *PROGRAMS.values(), platform.machine(), sys.platform]).encode())
    return CACHE / f"sigstore-{digest.hexdigest()[:12]}"


def build(target: Path) -> None:
    """Build into ``target``. Raises UnavailableError if the sources or a toolchain are not available."""
    CACHE.mkdir(parents=True, exist_ok=True)
    go = find_go(TOOLCHAIN, CACHE)
    partial = Path(tempfile.mkdtemp(dir=CACHE, prefix=f"{target.name}.tmp-"))
    try:
        for name, package in PROGRAMS.items():
            say(f"building {name} from source; all programs take 8 minutes of a core")
            command = [go, "build", "-p=2", *FLAGS, "-o", str(partial / name), package]
            result = subprocess.run(
                command, cwd=MODULE, env=go_environment(), capture_output=True, text=True, check=False
            )
            if result.returncode:
                raise UnavailableError(f"cannot build {name}: {last_line(result.stderr)}")
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
            say("not built yet: tests/tools/sigstoreparts.py builds it")
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
