"""Options of the whole test suite."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
# What tests of several directories import: the support modules, and `harness` of the end-to-end tests.
for place in ("e2e", "support"):
    if str(ROOT / "tests" / place) not in sys.path:
        sys.path.insert(0, str(ROOT / "tests" / place))

import compiled_policies  # noqa: E402 -- the path to it is set just above
import scheduling  # noqa: E402

# No test is timed: a machine may be busy with other things.
settings.register_profile("weightlock", deadline=None)
settings.load_profile("weightlock")


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the program gives into the golden files; read the diff before you commit it",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Distribute groups of tests for `--dist loadfile`."""
    return scheduling.Scheduling(config, log) if config.option.dist == "loadfile" else None


def pytest_collection_modifyitems(config, items):
    """Sort the tests of a process of xdist as its siblings do."""
    if hasattr(config, "workerinput"):
        scheduling.sort(items)


@pytest.fixture(scope="session", autouse=True)
def shared_policies():
    """Compile equal policies once for the whole run."""
    with pytest.MonkeyPatch.context() as patch:
        compiled_policies.share(patch)
        yield


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
