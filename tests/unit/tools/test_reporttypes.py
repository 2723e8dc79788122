"""tests/tools/reporttypes.py with a go that only pretends: what is fetched, kept, and refused."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "tests" / "tools" / "reporttypes.py"


@pytest.fixture
def run(run_with_go):
    return partial(run_with_go, "reporttypes.py")


def test_find_does_not_fetch(run, tmp_path):
    answer = run("--find")
    assert (answer.returncode, "not fetched yet" in answer.stderr) == (3, True)
    assert not (tmp_path / "log").exists()


def test_a_failed_fetch_is_reported_and_leaves_no_files(run, tmp_path):
    answer = run(GO_ERROR="no such host")
    assert answer.returncode == 3
    assert answer.stderr.splitlines()[-1].endswith("no such host")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_that_is_not_the_one_expected_is_refused(run, tmp_path):
    for path in ("config/crd/openreports.io_reports.yaml", "config/crd/openreports.io_clusterreports.yaml"):
        file = tmp_path / "modules" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("kind: Other\n")
    answer = run()
    assert (answer.returncode, "is not the file that was expected" in answer.stderr) == (3, True)
    assert list((tmp_path / "cache").iterdir()) == []


def test_cached_crds_are_used(tmp_path):
    """With the real cache, where the end-to-end tests have put them; the go named here must not be asked."""
    find = [sys.executable, SCRIPT, "--find"]
    answer = subprocess.run(find, capture_output=True, text=True, check=False, timeout=60)
    if answer.returncode == 3:
        pytest.skip("not fetched yet: the end-to-end tests of reports fetch them")
    again = subprocess.run(
        [sys.executable, SCRIPT],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.stdout == answer.stdout
    names = sorted(file.name for file in Path(answer.stdout.strip()).iterdir())
    assert names == ["openreports.io.yaml", "wgpolicyk8s.io.yaml"]
