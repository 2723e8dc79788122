#!/usr/bin/env python3
"""Builds the programs that Weightlock is measured beside, each once a version, into the cache outside the tree.

Each has a Go module of its own in bench/peers/modules. If a peer cannot be built here, the reason is
logged and written into the report, and the others continue. It needs only the standard library, and must never leave
half a cache entry behind.

    bench/peers/build.py          build what is missing; stdout is JSON: each program, version, or the reason
    bench/peers/build.py --find   the same without building anything

Exit status: 0, whatever could be had; 1 where not even the load generator could. Environment: WEIGHTLOCK_CACHE.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

from gotoolchain import BrokenError, UnavailableError, find_go, go_environment, last_line  # noqa: E402

MODULES = ROOT / "bench" / "peers" / "modules"
TOOLCHAIN = ROOT / "tests" / "e2e" / "controlplane"
CACHE = Path(os.environ.get("WEIGHTLOCK_CACHE") or Path.home() / ".cache" / "weightlock")
# The package that is built of each module; the module whose version is the program's (empty: our own few lines);
# and the directories of that module with the CustomResourceDefinitions that the program needs.
PROGRAMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "load": (".", "", ()),
    "noop": (".", "", ()),
    "kyverno": (
        "github.com/kyverno/kyverno/cmd/kyverno",
        "github.com/kyverno/kyverno",
        ("config/crds",),
    ),
    "gatekeeper": (
        "github.com/open-policy-agent/gatekeeper/v3",
        "github.com/open-policy-agent/gatekeeper/v3",
        ("charts/gatekeeper/crds",),
    ),
}
FLAGS = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]
REPORT_SECONDS = 15


def say(text: str) -> None:
    """One line of progress."""
    print(f"peers: {text}", file=sys.stderr, flush=True)


def place(name: str) -> Path:
    """The directory where a program is, or will be: named by a digest of everything that decides the build."""
    digest = hashlib.sha256()
    for file in sorted((MODULES / name).iterdir()):
        digest.update(f"{file.name}\0".encode() + file.read_bytes())
    digest.update("\0".join([*FLAGS, platform.machine(), sys.platform]).encode())
    return CACHE / f"peer-{name}-{digest.hexdigest()[:12]}"


def version(name: str) -> str:
    """The version that go.mod names; empty for a program of ours."""
    expected = PROGRAMS[name][1]
    text = (MODULES / name / "go.mod").read_text()
    matches = (
        re.search(rf"^\s*(?:require )?{re.escape(expected)} (v\S+)", text, re.MULTILINE) if expected else None
    )
    return matches[1] if matches else ""


def build(name: str, go: str, target: Path) -> None:
    """Build one program into the directory ``target``. Raises UnavailableError with the last words of the build."""
    package, module, definitions = PROGRAMS[name]
    say(f"building {name} {version(name)} from source; the first time takes some minutes")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{target.name}.tmp-") as directory:
        partial = Path(directory, "partial")
        partial.mkdir()
        compile_program(name, [go, "build", "-v", *FLAGS, "-o", str(partial / name), package])
        for expected in definitions:
            where = [go, "list", "-m", "-f", "{{.Dir}}", module]
            answer = subprocess.run(
                where,
                cwd=MODULES / name,
                env=go_environment(),
                capture_output=True,
                text=True,
                check=True,
            )
            shutil.copytree(
                Path(answer.stdout.strip(), expected),
                partial / "crds",
                copy_function=shutil.copyfile,
                dirs_exist_ok=True,
            )
        partial.rename(target)


def compile_program(name: str, command: list[str]) -> None:
    """Run ``go build -v``, telling every 15 seconds how many packages are done. Raises UnavailableError."""
    started = messages = time.monotonic()
    compiled, errors = 0, []
    with subprocess.Popen(
        command, cwd=MODULES / name, env=go_environment(), text=True, stderr=subprocess.PIPE
    ) as process:
        for line in process.stderr or ():
            if " " in line and not line.startswith("go: downloading"):
                errors.append(line)
            compiled += " " not in line
            if time.monotonic() - messages > REPORT_SECONDS:
                messages = time.monotonic()
                say(f"[{messages - started:.0f} s] {name}: {compiled} packages compiled")
    if process.returncode:
        raise UnavailableError(last_line("".join(errors)))


def ensure(name: str, *, may_build: bool) -> dict[str, str]:
    """A program's place and version, or the reason why there is none."""
    target, messages = place(name), {"version": version(name)}
    if not target.exists() and not may_build:
        return {**messages, "reason": "not built yet: bench/peers/build.py builds it"}
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        try:
            build(name, find_go(TOOLCHAIN, CACHE), target)
        except (UnavailableError, BrokenError) as error:
            say(f"{name} cannot be had here: {error}")
            return {**messages, "reason": str(error)}
    crds = {"crds": str(target / "crds")} if PROGRAMS[name][2] else {}
    return {**messages, **crds, "program": str(target / name)}


def main() -> int:
    """Find or build them all; print what there is."""
    matches = {name: ensure(name, may_build="--find" not in sys.argv[1:]) for name in PROGRAMS}
    print(json.dumps(matches))
    return 0 if "program" in matches["load"] else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
