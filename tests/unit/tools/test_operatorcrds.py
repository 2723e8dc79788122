"""tests/tools/operatorcrds.py with a go that only pretends: what is taken from the module, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "tests" / "tools" / "operatorcrds.py"
DIGEST = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s="


@pytest.fixture
def run(tmp_path):
    """A function that runs the script with a cache of its own and a go that answers as told."""
    programs, module = tmp_path / "bin", tmp_path / "module"
    types = module / "example" / "prometheus-operator-crd"
    types.mkdir(parents=True)
    for kind in ("prometheusrules", "servicemonitors", "prometheuses"):
        (types / f"monitoring.coreos.com_{kind}.yaml").write_text(f"kind: {kind}\n")
    programs.mkdir()

    def run(*arguments, digest=DIGEST, fails=""):
        answer = json.dumps({"Dir": str(module), "Sum": digest})
        go = programs / "go"
        go.write_text(
            "#!/bin/sh\ncase $1 in version) echo go version go1.99.0 linux/amd64; exit;; esac\n"
            + (f"echo '{fails}' >&2; exit 1\n" if fails else f"echo '{answer}'\n")
        )
        go.chmod(0o755)
        environment = {
            **os.environ,
            "WEIGHTLOCK_CACHE": str(tmp_path / "cache"),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        command = [sys.executable, SCRIPT, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    return run


def test_the_two_types_are_taken_and_kept(run):
    done = run()
    assert done.returncode == 0, done.stderr
    place = Path(done.stdout.strip())
    assert sorted(file.name for file in place.iterdir()) == ["prometheusrules.yaml", "servicemonitors.yaml"]
    assert run("--find", fails="no network").stdout == done.stdout
    assert [file.name for file in place.parent.iterdir()] == [place.name]


def test_without_fetching_nothing_is_there(run):
    done = run("--find")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1


def test_a_module_that_cannot_be_had_is_one_line(run, tmp_path):
    done = run(fails="go: module lookup: no such host")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[-1].endswith("go: module lookup: no such host")
    assert list((tmp_path / "cache").iterdir()) == []


def test_another_module_than_the_one_pinned_is_refused(run, tmp_path):
    done = run(digest="h1:other")
    assert done.returncode == 1
    assert "not the one pinned" in done.stderr
    assert list((tmp_path / "cache").iterdir()) == []
