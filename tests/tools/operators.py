#!/usr/bin/env python3
"""Builds real operators into the cache, for tests that run them against a real API server with Weightlock in front.

They are built from the projects' own Go modules, whose content must be the one pinned here. It must
never leave half a cache entry behind, and no part of them belongs to Weightlock.

    tests/tools/operators.py          build if needed; the last line on stdout is the directory
    tests/tools/operators.py --find   the same, without building anything

The directory contains a program and a directory NAME-crds for each operator. Exit status: 0 ready; 3 they are not
available here (one line on stderr has the reason). Environment: WEIGHTLOCK_CACHE.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from gotoolchain import BrokenError, UnavailableError, find_go, last_line, run_go

TOOLCHAIN = Path(__file__).resolve().parents[1] / "e2e" / "controlplane"
CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")
EXIT_UNAVAILABLE = 3


class Operator(NamedTuple):
    """One operator: its module, the sum of its content, its main package and the directory of its CRDs."""

    name: str
    module: str
    version: str
    digest: str
    package: str
    crds: str


OPERATORS = (
    Operator(
        "jobset", "sigs.k8s.io/jobset", "v0.10.1", "h1:u8QKifNsrWVrlRFe6w2ofYTqFT9ma2DRHxfeB2m9xyU=",
        ".", "config/components/crd/bases",
    ),
    Operator(
        "kuberay", "github.com/ray-project/kuberay/ray-operator", "v1.4.2",
        "h1:A4tGzbIky8sInAUxZBdBb+rrpZ7fbqoxdsOtm559Zqg=", ".", "config/crd/bases",
    ),
    Operator(
        "lws", "sigs.k8s.io/lws", "v0.7.0", "h1:qWfzX8+UBak+Hq0+m/PuE3uO0mp/3dmm5q/h/7z31A8=",
        "./cmd", "config/crd/bases",
    ),
)  # fmt: skip


def directory() -> Path:
    """The directory of these versions in the cache."""
    return CACHE / ("operators-" + "-".join(f"{one.name}{one.version}" for one in OPERATORS))


def build(target: Path) -> None:
    """Download and build all operators into ``target``.

    Raises UnavailableError if they are not available here, BrokenError if a module is not the one pinned.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    go = find_go(TOOLCHAIN, CACHE)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="operators.tmp-") as name:
        partial = Path(name, "built")
        partial.mkdir()
        for operator in OPERATORS:
            print(f"operators: building {operator.name} {operator.version}", file=sys.stderr, flush=True)
            module = _module(go, operator, Path(name))
            done = run_go(
                [go, "build", "-trimpath", "-o", str(partial / operator.name), operator.package], module
            )
            if done.returncode:
                raise UnavailableError(f"{operator.name} cannot be built: {last_line(done.stderr)}")
            shutil.copytree(module / operator.crds, partial / f"{operator.name}-crds")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)


def _module(go: str, operator: Operator, outside: Path) -> Path:
    """The directory of an operator's module in the module cache."""
    done = subprocess.run(
        [go, "mod", "download", "-json", f"{operator.module}@{operator.version}"],
        cwd=outside,
        env=os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=mod"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UnavailableError(f"{operator.module} is not available: {last_line(done.stderr or done.stdout)}")
    module = json.loads(done.stdout)
    if module["Sum"] != operator.digest:
        raise BrokenError(f"{operator.module} {operator.version} is not the one pinned: {module['Sum']}")
    return Path(module["Dir"])


def main() -> int:
    """Find or build; print the directory."""
    target = directory()
    if not target.exists():
        if "--find" in sys.argv[1:]:
            print("operators: not built yet: tests/tools/operators.py builds them", file=sys.stderr)
            return EXIT_UNAVAILABLE
        try:
            build(target)
        except (UnavailableError, BrokenError) as error:
            print(f"operators: {error}", file=sys.stderr)
            return EXIT_UNAVAILABLE
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
