"""tests/tools/oscalschema.py with a go that only pretends: nothing is fetched by --find, and no other file is used."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tests" / "tools" / "oscalschema.py"
PATH = "src/internal/schemas/oscal_complete_schema-1-1-3.json"
GO = """#!/bin/sh
[ "$1" = version ] && echo "go version go1.99.0 linux/amd64" && exit 0
echo "$4" >> "$LOG"
[ -n "$GO_ERROR" ] && echo "{\\"Error\\": \\"$GO_ERROR\\"}" && exit 1
echo "{\\"Dir\\": \\"$MODULES\\"}"
"""


@pytest.fixture
def run(tmp_path):
    """A function that runs the script with such a go; keyword arguments are environment."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "go").write_text(GO)
    (tools / "go").chmod(0o755)

    def run(*arguments, **environment):
        environment |= {
            "PATH": f"{tools}:/usr/bin:/bin",
            "WEIGHTLOCK_CACHE": str(tmp_path / "cache"),
            "LOG": str(tmp_path / "log"),
            "MODULES": str(tmp_path / "modules"),
        }
        command = [sys.executable, SCRIPT, *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    return run


def test_find_does_not_fetch(run, tmp_path):
    answer = run("--find")
    assert (answer.returncode, "not fetched yet" in answer.stderr) == (3, True)
    assert not (tmp_path / "log").exists()


def test_a_failed_fetch_leaves_no_files(run, tmp_path):
    answer = run(GO_ERROR="no such host")
    assert (answer.returncode, answer.stderr.splitlines()[-1].endswith("no such host")) == (3, True)
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_file_is_rejected(run, tmp_path):
    file = tmp_path / "modules" / PATH
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    answer = run()
    assert (answer.returncode, "is not the file that was expected" in answer.stderr) == (3, True)
    assert list((tmp_path / "cache").iterdir()) == []
