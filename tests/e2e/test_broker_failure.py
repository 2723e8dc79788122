"""One broker of two is killed while sidecars ask it: what it was answering is lost, and nothing else."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.broker import BrokerProcess, grant_rights
from harness.controlplane import ControlPlane
from harness.forwarder import Forwarder
from harness.keylab import KeyLab
from harness.waiting import eventually
from harness.weightlock import Weightlock

from webhook.keys.agent.client import BrokerClient
from webhook.keys.errors import KeysError

CLIENTS = 6
# Each asks as often as the broker lets a pod ask.
EVERY = 0.8


@pytest.fixture
def brokers(
    own_weightlock: Weightlock, own_control_plane: ControlPlane, tmp_path: Path
) -> Iterator[tuple[BrokerProcess, BrokerProcess]]:
    """Two replicas, reached at one address: the first's."""
    grant_rights(own_control_plane)
    replicas = []
    for name in ("broker-one", "broker-two"):
        (tmp_path / name).mkdir()
        replicas.append(BrokerProcess(own_weightlock, tmp_path / name, name))
    first, second = replicas
    second.joins(first)
    first.start()
    second.start()
    with Forwarder([first.port, second.port]) as address:
        first.url = f"https://127.0.0.1:{address.port}"
        yield first, second
    first.stop()
    second.stop()


class Sidecars:
    """Pods that get their keys and renew their leases again and again, each with one request at a time."""

    def __init__(self, model: str, clients: list[BrokerClient]) -> None:
        self._model, self._stop = model, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in clients]
        self.renewed = 0
        self.lost: list[str] = []

    def _run(self, client: BrokerClient) -> None:
        while not self._stop.wait(EVERY):
            try:
                client.renew(self._model)
                self.renewed += 1
            except KeysError as error:
                self.lost.append(f"{type(error).__name__}: {error}")

    def __enter__(self) -> "Sidecars":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_killed_broker_loses_only_its_requests_in_flight(
    own_control_plane: ControlPlane,
    namespace: str,
    tmp_path: Path,
    brokers: tuple[BrokerProcess, BrokerProcess],
) -> None:
    first, second = brokers
    lab = KeyLab(own_control_plane, namespace, tmp_path, first)
    lab.seal().build()
    lab.granted()

    def started(number: int) -> BrokerClient:
        client = lab.client(lab.token(lab.running_pod(f"train-{number}")))
        keys, _ = client.release(lab.model)
        assert set(keys) == {"k1"}
        return client

    clients = [started(number) for number in range(CLIENTS)]
    with Sidecars(lab.model, clients) as sidecars:
        eventually(lambda: sidecars.renewed > 3 * CLIENTS, "leases by both")
        assert sidecars.lost == []
        second.kill()
        begun, so_far = time.monotonic(), sidecars.renewed
        eventually(lambda: sidecars.renewed > so_far + 3 * CLIENTS, "the other answers", seconds=60)
        print(
            f"{3 * CLIENTS} leases within {time.monotonic() - begun:.1f} s of the kill; lost: {sidecars.lost}"
        )
        started(CLIENTS)
        second.start()
        so_far = sidecars.renewed
        eventually(lambda: sidecars.renewed > so_far + 2 * CLIENTS, "both again", seconds=60)
    assert len(sidecars.lost) <= CLIENTS, sidecars.lost
    # A sidecar does not treat this as a denial: it keeps its keys, and retries.
    assert all(losses.startswith("BrokerUnavailableError: ") for losses in sidecars.lost), sidecars.lost
    renewed = {broker.port: len(broker.events(event="key.renewal", result="released")) for broker in brokers}
    assert all(count > CLIENTS for count in renewed.values()), renewed
