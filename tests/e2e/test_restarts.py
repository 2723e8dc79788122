"""What a fault of Weightlock's own processes costs: the table of docs/scaling.md, each row with 0 failed requests.

The short form runs with the other tests. `make chaos` repeats each row, with 20,000 claims held and the longer faults.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from harness import load as loads
from harness import manifests
from harness.cluster import Cluster
from harness.forwarder import Forwarder
from harness.installed import Installed
from harness.waiting import eventually
from harness.weightlock import Weightlock

WHOLE = os.environ.get("WEIGHTLOCK_CHAOS") == "whole"
ROUNDS = 5 if WHOLE else 1
CLAIMS = 20_000 if WHOLE else 200
STOPPED_SECONDS = 15.0
CLIENTS, PER_SECOND = 8, 140


@dataclass
class Pair:
    """Two replicas that the API server reaches at one address."""

    first: Weightlock
    second: Weightlock
    address: Forwarder
    table: list[str] = field(default_factory=list)

    def child(self, role: str) -> int:
        """The pid of the first replica's newest child with a role."""
        children = Path(f"/proc/{self.first.pid}/task/{self.first.pid}/children").read_text().split()
        pids = [int(pid) for pid in children if comm(pid) == f"wl-{role}"]
        return max(pids)


def comm(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


@pytest.fixture(scope="module")
def pair(installed_weightlock: Installed) -> Iterator[Pair]:
    first = installed_weightlock
    if not isinstance(first, Weightlock):
        pytest.skip("Weightlock is not a process of ours here")
    if not first.running:
        first.start()
    shared = {part: first.config[part] for part in ("tls", "signing")}
    second = Weightlock(first.control_plane, name="second", config={**shared, "drainSeconds": 1})
    second._authority = first._authority
    second.start()
    with Forwarder([first.port, second.port]) as address:

        def client_config(path: str) -> dict[str, object]:
            return {**first._client_config(path), "url": f"https://127.0.0.1:{address.port}{path}"}

        first.cluster.apply(*manifests.webhooks(client_config))
        matches = Pair(first, second, address)
        yield matches
        first.add_webhooks()
        print("\n".join(["", "| fault | failed of requests |", "| --- | ---: |", *matches.table]))
    second.stop()


@pytest.fixture(scope="module")
def place(control_plane: Cluster) -> Iterator[str]:
    """A namespace for all tests of this module."""
    name = control_plane.new_namespace()
    yield name
    control_plane.delete_namespace(name)


@pytest.fixture(scope="module")
def claims(pair: Pair, place: str) -> int:
    """So many claims are held by both replicas."""
    kubeconfig = pair.first.cluster.kubeconfig()
    path = f"/api/v1/namespaces/{place}/persistentvolumeclaims"
    spec = {"accessModes": ["ReadOnlyMany"], "resources": {"requests": {"storage": "1Gi"}}}
    threads = []
    for part in range(CLIENTS):

        def create(part: int = part) -> None:
            own = loads.Client.from_kubeconfig(kubeconfig)
            for number in range(part, CLAIMS, CLIENTS):
                claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": spec}
                own.post(path, {**claim, "metadata": {"name": f"claim-{number}"}})
            own.close()

        threads.append(threading.Thread(target=create))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return CLAIMS


def kill_worker(pair: Pair) -> None:
    os.kill(pair.child("worker"), signal.SIGKILL)


def stop_worker(pair: Pair) -> None:
    pid = pair.child("worker")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(STOPPED_SECONDS if WHOLE else 3.0)
    with_it_gone(lambda: os.kill(pid, signal.SIGCONT))


def kill_parent(pair: Pair) -> None:
    os.kill(pair.first.pid, signal.SIGKILL)
    # Its children respond to the requests that they have, and end.
    time.sleep(1.0)
    pair.first.kill()
    pair.first.start()


def stop_in_order(pair: Pair) -> None:
    pair.first.stop()
    pair.first.start()


def with_it_gone(act: Callable[[], None]) -> None:
    with suppress(ProcessLookupError):
        act()


@contextmanager
def load(pair: Pair, namespace: str) -> Iterator[loads.Load]:
    loads.PER_SECOND, before = PER_SECOND, loads.PER_SECOND
    kubeconfig = pair.first.cluster.kubeconfig()
    clients = [loads.Client.from_kubeconfig(kubeconfig) for _ in range(CLIENTS)]
    try:
        with loads.Load(clients, namespace).running() as running:
            yield running
    finally:
        loads.PER_SECOND = before


@pytest.mark.parametrize(
    "fault", [kill_worker, stop_worker, kill_parent, stop_in_order], ids=lambda f: f.__name__
)
def test_a_fault_costs_no_request(pair: Pair, claims: int, place: str, fault: Callable[[Pair], None]) -> None:
    with load(pair, place) as running:
        for _ in range(ROUNDS):
            so_far = running.admitted
            eventually(lambda so_far=so_far: running.admitted > so_far + 100, "admitted by both", seconds=60)
            fault(pair)
            so_far = running.admitted
            eventually(
                lambda so_far=so_far: running.admitted > so_far + 200, "admitted afterwards", seconds=60
            )
    name = fault.__name__.replace("_", " ")
    pair.table.append(
        f"| {name}, {claims:,} claims, {ROUNDS} times | {len(running.refused)} of {running.admitted:,} |"
    )
    assert running.refused == [], running.refused[:3]


@pytest.mark.parametrize("start", ["a new replica", "a new worker of the same replica"])
def test_the_first_verdict_after_a_start(pair: Pair, claims: int, place: str, start: str) -> None:
    """One replica alone. The table has the time, which the test does not check."""
    pair.address.withdraw(pair.second.port)
    client = loads.Client.from_kubeconfig(pair.first.cluster.kubeconfig())
    try:
        if start == "a new replica":
            pair.first.stop()
            begin = time.monotonic()
            pair.first.start()
        else:
            worker = pair.child("worker")
            begin = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            eventually(lambda: comm(str(worker)) == "", "the worker is gone", seconds=60)
        answer = client.post(loads.PODS.format(place), loads.PROBE, dryRun="All")
        seconds = time.monotonic() - begin
    finally:
        client.close()
        pair.address.add(pair.second.port)
    pair.table.append(f"| first verdict of {start}, {claims:,} claims | after {seconds:.2f} s |")
    assert answer.status == 201, answer
