"""What serving promises, as the API server meets it: certificates change, processes hang and die, stops are orderly."""

import os
import signal
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.installed import PROBE
from harness.load import PODS, load
from harness.pki import KeyPair
from harness.waiting import eventually, slowness
from harness.weightlock import Weightlock


@pytest.fixture
def renew(own_weightlock: Weightlock) -> Callable[[], KeyPair]:
    """A function that writes a new certificate of the same authority over the old one, file by file."""
    return lambda: own_weightlock._authority.server("weightlock", ["127.0.0.1"])


def served(weightlock: Weightlock) -> str:
    return ssl.get_server_certificate(("127.0.0.1", weightlock.port))


def worker(weightlock: Weightlock) -> int:
    """The process that evaluates."""
    children = Path(f"/proc/{weightlock.pid}/task/{weightlock.pid}/children").read_text().split()
    return max(int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "wl-worker")


def test_the_certificate_changes_twice_under_load_and_not_one_admission_fails(
    own_weightlock: Weightlock, namespace: str, renew: Callable[[], KeyPair]
) -> None:
    process = own_weightlock.pid
    with load(own_weightlock.cluster, namespace).running() as running:
        for _ in range(2):
            before = served(own_weightlock)
            renew()
            eventually(
                lambda old=before: served(own_weightlock) != old, "the new certificate is served", seconds=15
            )
            # Connections that the API server opens from now on see the new one.
            admitted = running.admitted
            eventually(lambda so_far=admitted: running.admitted > so_far + 100, "a hundred more", seconds=30)
    assert running.refused == [], running.refused[:5]
    assert own_weightlock.pid == process
    assert own_weightlock.get("/readyz")[0] == 200


def test_a_worker_that_is_killed_is_replaced_within_a_moment(
    own_weightlock: Weightlock, namespace: str
) -> None:
    before = worker(own_weightlock)
    client = own_weightlock.cluster.client()
    os.kill(before, signal.SIGKILL)
    begun = time.monotonic()
    eventually(
        lambda: client.post(PODS.format(namespace), PROBE, dryRun="All").status == 201, "admitted again"
    )
    assert time.monotonic() - begun < 10 * slowness()
    assert worker(own_weightlock) != before
    assert own_weightlock.metric("weightlock_worker_restarts_total") >= 1


def test_a_worker_that_hangs_is_replaced(own_weightlock: Weightlock, namespace: str) -> None:
    before = worker(own_weightlock)
    client = own_weightlock.cluster.client()
    os.kill(before, signal.SIGSTOP)
    eventually(
        lambda: client.post(PODS.format(namespace), PROBE, dryRun="All").status == 201,
        "admitted again",
        seconds=40,
    )
    assert worker(own_weightlock) != before
    assert "a worker does not respond; starting another" in own_weightlock.logs()


def test_a_stop_in_order_loses_nothing_that_was_begun(own_weightlock: Weightlock, namespace: str) -> None:
    with load(own_weightlock.cluster, namespace).running() as running:
        eventually(lambda: running.admitted > 50, "some are admitted")
        own_weightlock.stop()
        stopped = len(running.refused)
        own_weightlock.start()
        admitted = running.admitted
        eventually(lambda: running.admitted > admitted + 50, "admitted again")
    # It answered until it stopped. After that no process listened, which is not its fault and fails closed.
    early = [message for message in running.refused[:stopped] if "connection refused" not in message]
    assert early == [], early[:5]
    # Before it has read the cluster it says so, and that denies, too.
    words = ("failed calling webhook", "[WL903]")
    odd = [message for message in running.refused if not any(word in message for word in words)]
    assert odd == [], odd[:5]
