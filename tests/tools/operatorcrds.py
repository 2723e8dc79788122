#!/usr/bin/env python3
"""Fetches the types of the Prometheus operator into the cache, for tests that show an API server the chart's objects.

They come out of the operator's own Go module, whose content must be the one pinned here. It must never leave half a
cache entry behind, and nothing of it is part of Weightlock.

    tests/tools/operatorcrds.py          fetch if needed; the last line on stdout is the directory with their YAML
    tests/tools/operatorcrds.py --find   the same, without fetching anything

Exit status: 0 ready; 3 they cannot be had here (one line on stderr says why). Environment: WEIGHTLOCK_CACHE.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gotoolchain import BrokenError, UnavailableError, find_go, last_line

TOOLCHAIN = Path(__file__).resolve().parents[1] / "e2e" / "controlplane"
CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")
MODULE, VERSION = "github.com/prometheus-operator/prometheus-operator", "v0.85.0"
DIGEST = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="
PLACE = "example/prometheus-operator-crd"
KINDS = ("prometheusrules", "servicemonitors")
EXIT_UNAVAILABLE = 3


def fetch(target: Path) -> None:
    """Fetch the module and copy the types into ``target``.

    Raises UnavailableError where it cannot be had, BrokenError where it is not the one pinned.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    go = find_go(TOOLCHAIN, CACHE)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="operatorcrds.tmp-") as directory:
        # Outside of any module, so that only this one is fetched and none that it requires.
        answer = subprocess.run(
            [go, "mod", "download", "-json", f"{MODULE}@{VERSION}"],
            cwd=directory,
            env=os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=mod"},
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            raise UnavailableError(f"the module cannot be had: {last_line(answer.stderr or answer.stdout)}")
        module = json.loads(answer.stdout)
        if module["Sum"] != DIGEST:
            raise BrokenError(f"{MODULE} {VERSION} is not the one pinned: {module['Sum']}")
        partial = Path(directory, "types")
        partial.mkdir()
        for kind in KINDS:
            shutil.copyfile(
                Path(module["Dir"], PLACE, f"monitoring.coreos.com_{kind}.yaml"), partial / f"{kind}.yaml"
            )
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)


def main() -> int:
    """Find or fetch; print the directory."""
    target = CACHE / f"operatorcrds-{VERSION}"
    if not target.exists():
        if "--find" in sys.argv[1:]:
            print(
                "no types of the Prometheus operator: tests/tools/operatorcrds.py fetches them",
                file=sys.stderr,
            )
            return EXIT_UNAVAILABLE
        try:
            fetch(target)
        except (UnavailableError, BrokenError) as error:
            print(f"no types of the Prometheus operator: {error}", file=sys.stderr)
            return EXIT_UNAVAILABLE if isinstance(error, UnavailableError) else 1
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
