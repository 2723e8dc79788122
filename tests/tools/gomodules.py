"""Files from Go modules of the module proxy, each with a pinned digest, in the cache. Standard library only."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gotoolchain import BrokenError, UnavailableError, last_line

TOOLCHAIN = Path(__file__).resolve().parents[1] / "e2e" / "controlplane"
CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")
EXIT_UNAVAILABLE = 3
FETCH_SECONDS = 300


def report(title: str, text: str) -> None:
    """Print one line to stderr."""
    print(f"{title}: {text}", file=sys.stderr, flush=True)


def module(go: str, name: str, scratch: Path) -> Path:
    """Return the directory of a module's files. Raises UnavailableError."""
    environment = os.environ | {"GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    command = [go, "mod", "download", "-json", name]
    try:
        answer = subprocess.run(
            command,
            cwd=scratch,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=FETCH_SECONDS,
        )
        matches = json.loads(answer.stdout or "{}")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{name} could not be fetched: {error}") from None
    if answer.returncode or "Dir" not in matches:
        raise UnavailableError(f"{name}: {matches.get('Error') or last_line(answer.stderr)}")
    return Path(matches["Dir"])


def pinned(source: str, directory: Path, path: str, digest: str) -> bytes:
    """Return a file of the module ``source``. Raises BrokenError if it has another SHA-256."""
    content = (directory / path).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise BrokenError(f"{source}: {path} is not the file that was expected")
    return content


def find_or_fetch(title: str, target: Path, fetch: Callable[[Path], None], missing: str) -> int:
    """Find or fetch ``target``, and print it. Return the exit code. ``missing`` is the report of ``--find``."""
    if not target.exists():
        if "--find" in sys.argv[1:]:
            report(title, missing)
            return EXIT_UNAVAILABLE
        try:
            fetch(target)
        except (UnavailableError, BrokenError, OSError) as error:
            report(title, str(error))
            return EXIT_UNAVAILABLE
    print(target)
    return 0
