"""The fixtures of the end-to-end tests: a cluster, a namespace in it, and Weightlock installed.

Without a control plane these tests are skipped, and the last lines of the run say why; with CI=true in the
environment they fail instead, since a check that quietly did not run is worse than none.

    control_plane       the cluster of the whole run, started once (`harness.cluster.Cluster`)
    own_control_plane   the same, for tests that stop, pause or restart it (skipped on other clusters)
    new_control_plane   a function that starts one more with `harness.controlplane.Options` of your own
    namespace           the name of a new namespace, deleted after the test
    weightlock          Weightlock before that cluster (`harness.installed.Installed`); whatever a test does to
                        it, the next test finds it running with its webhooks registered
    own_weightlock      the same as a process of ours (`harness.weightlock.Weightlock`; skipped on other clusters)
    installed_weightlock  the same for the whole run, for fixtures of wider scope
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from harness.cluster import Cluster  # noqa: E402 -- the path to it is set just above
from harness.controlplane import ControlPlane, Options  # noqa: E402
from harness.foreign import ExistingCluster, KindCluster  # noqa: E402
from harness.incluster import InClusterWeightlock  # noqa: E402
from harness.installed import Installed  # noqa: E402
from harness.programs import NoControlPlaneError, control_plane_programs  # noqa: E402
from harness.weightlock import Weightlock  # noqa: E402

REASON = pytest.StashKey[str]()


# Files that take minutes each. `make test` skips them. `make e2e-node` runs those in node/, `make e2e-long` the others.
LONG = frozenset(
    {
        "test_api_server_token.py",
        "test_cosign.py",
        "test_detection.py",
        "test_forgery.py",
        "test_gitops.py",
        "test_known_images.py",
        "test_life.py",
        "test_operators.py",
        "test_outages.py",
        "test_parts.py",
        "test_redteam.py",
        "test_storage_identity.py",
        "test_upgrade.py",
        "test_vault.py",
    }
)
_SKIP_LONG = pytest.mark.skip(reason="takes minutes: make e2e-long")
_SKIP_LONG_NODE = pytest.mark.skip(reason="takes minutes: make e2e-node")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below this directory as `e2e`, and skip the long files unless they are wanted."""
    long = os.environ.get("WEIGHTLOCK_E2E_LONG") == "1"
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if not long and item.path.name in LONG:
                item.add_marker(_SKIP_LONG_NODE if HERE / "node" in item.path.parents else _SKIP_LONG)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Iterator[None]:
    """Say after all other summaries why the end-to-end tests did not run."""
    yield
    if REASON in config.stash:
        terminalreporter.write_line(f"end-to-end tests did not run: {config.stash[REASON]}", yellow=True)


def _unavailable(config: pytest.Config, reason: NoControlPlaneError) -> NoReturn:
    """Skip, or fail with CI=true."""
    config.stash[REASON] = str(reason)
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and {reason}", pytrace=False)
    pytest.skip(str(reason))


def _programs(config: pytest.Config) -> Path:
    """The directory of the control plane's programs; skips, or fails with CI=true, where there are none."""
    try:
        return control_plane_programs()
    except NoControlPlaneError as reason:
        _unavailable(config, reason)


def _start(config: pytest.Config) -> Cluster:
    """The cluster that WEIGHTLOCK_E2E asks for; our own control plane by default."""
    kind = os.environ.get("WEIGHTLOCK_E2E")
    try:
        if kind == "existing":
            return ExistingCluster(Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config"))
        if kind == "kind":
            return KindCluster("weightlock-e2e", os.environ.get("WEIGHTLOCK_IMAGE"))
    except NoControlPlaneError as reason:
        _unavailable(config, reason)
    return ControlPlane(_programs(config)).start()


@pytest.fixture(scope="session")
def control_plane(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """The cluster of this run: `control_plane.kubectl(...)`, `.client(...)`, `.apply(...)`; see `Cluster`."""
    cluster = _start(pytestconfig)
    yield cluster
    cluster.stop()


@pytest.fixture
def own_control_plane(control_plane: Cluster) -> ControlPlane:
    """The control plane as processes of ours, to restart or pause. Leave it running as it was found."""
    if not isinstance(control_plane, ControlPlane):
        pytest.skip("the cluster is not ours to stop")
    return control_plane


@pytest.fixture(scope="session")
def new_control_plane(pytestconfig: pytest.Config) -> Iterator[Callable[[Options], ControlPlane]]:
    """A function that starts a further control plane with given options; all stop at the end of the run."""
    started: list[ControlPlane] = []

    def start(options: Options) -> ControlPlane:
        if os.environ.get("WEIGHTLOCK_E2E"):
            pytest.skip("needs a control plane of its own")
        started.append(ControlPlane(_programs(pytestconfig), options).start())
        return started[-1]

    yield start
    for cluster in started:
        cluster.stop()


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """The name of a namespace made for this test, with its default service account."""
    name = control_plane.new_namespace()
    yield name
    control_plane.delete_namespace(name)


@pytest.fixture(scope="session")
def installed_weightlock(control_plane: Cluster) -> Iterator[Installed]:
    """Weightlock before the cluster of this run, with the shipped policies, from the first test that asks."""
    image = os.environ.get("WEIGHTLOCK_IMAGE")
    weightlock: Installed
    if isinstance(control_plane, ControlPlane):
        weightlock = Weightlock(control_plane)
    elif image:
        weightlock = InClusterWeightlock(control_plane, image)
    else:
        pytest.skip("WEIGHTLOCK_IMAGE does not say which image to install in the cluster")
    weightlock.install()
    yield weightlock
    weightlock.uninstall()


@pytest.fixture
def weightlock(installed_weightlock: Installed) -> Installed:
    """Weightlock, running and asked by the API server, whatever the test before did to it."""
    if not installed_weightlock.running:
        installed_weightlock.start()
    if not installed_weightlock.webhooks_present():
        installed_weightlock.add_webhooks()
    return installed_weightlock


@pytest.fixture
def own_weightlock(weightlock: Installed) -> Weightlock:
    """Weightlock as a process of ours: its log file, its process id, its port."""
    if not isinstance(weightlock, Weightlock):
        pytest.skip("Weightlock is not a process of ours here")
    return weightlock
