"""Options of the whole test suite."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# No test is timed: a machine may be busy with other things.
settings.register_profile("weightlock", deadline=None)
settings.load_profile("weightlock")


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the program gives into the golden files; read the diff before you commit it",
    )


@pytest.fixture
def update_golden(request):
    """Whether golden files are to be rewritten."""
    return request.config.getoption("--update-golden")


@pytest.fixture(scope="session")
def prometheus_programs():
    """The directory with `prometheus` and `promtool`; skips, or fails with CI=true, where they cannot be had."""
    find = [sys.executable, ROOT / "tests" / "tools" / "debpackages.py", "--find", "prometheus"]
    answer = subprocess.run(find, capture_output=True, text=True, check=False, timeout=60)
    if answer.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true, and there is {answer.stderr.strip()}", pytrace=False)
        pytest.skip(f"{answer.stderr.strip()} (make prometheus)")
    return Path(answer.stdout.strip()) / "usr" / "bin"


@pytest.fixture(scope="session")
def promtool(prometheus_programs):
    """The path of Prometheus' own checker of rules and metrics."""
    return prometheus_programs / "promtool"
