"""Scripts of tests/tools that fetch a Go module, run with a go that only pretends."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
GO = """#!/bin/sh
[ "$1" = version ] && echo "go version go1.99.0 linux/amd64" && exit 0
echo "$4" >> "$LOG"
[ -n "$GO_ERROR" ] && echo "{\\"Error\\": \\"$GO_ERROR\\"}" && exit 1
echo "{\\"Dir\\": \\"$MODULES\\"}"
"""


@pytest.fixture
def run_with_go(tmp_path):
    """Return a function that runs a script with such a go. Keyword arguments are environment."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "go").write_text(GO)
    (tools / "go").chmod(0o755)

    def run(script, *arguments, **environment):
        environment |= {
            "PATH": f"{tools}:/usr/bin:/bin",
            "WEIGHTLOCK_CACHE": str(tmp_path / "cache"),
            "LOG": str(tmp_path / "log"),
            "MODULES": str(tmp_path / "modules"),
        }
        command = [sys.executable, TOOLS / script, *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    return run
