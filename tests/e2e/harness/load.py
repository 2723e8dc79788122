"""Pods that are tried all the time, by several clients, while something happens to Weightlock."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harness.cluster import Cluster
from harness.installed import PROBE
from harness.rest import Client

PODS = "/api/v1/namespaces/{}/pods"
PER_SECOND = 100
CLIENTS = 4


class Load:
    """Pods that are tried (dry run) all the time, about `PER_SECOND`, by several clients; refusals are kept."""

    def __init__(self, clients: list[Client], namespace: str) -> None:
        self._clients = clients
        self.refused: list[str] = []
        self.admitted = 0
        self._stop = threading.Event()
        self._path = PODS.format(namespace)
        self._threads = [
            threading.Thread(target=self._run, args=(client, len(clients))) for client in clients
        ]

    def _run(self, client: Client, share: int) -> None:
        begun, count = time.monotonic(), 0
        while not self._stop.is_set():
            answer = client.post(self._path, PROBE, dryRun="All")
            if answer.status == 201:
                self.admitted += 1
            else:
                self.refused.append(answer.message)
            count += 1
            due = begun + count * share / PER_SECOND
            self._stop.wait(max(0.0, due - time.monotonic()))

    @contextmanager
    def running(self) -> Iterator["Load"]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
            for client in self._clients:
                client.close()


def load(cluster: Cluster, namespace: str) -> Load:
    """A load of `CLIENTS` clients, each with one request at a time."""
    kubeconfig = cluster.kubeconfig()
    return Load([Client.from_kubeconfig(kubeconfig) for _ in range(CLIENTS)], namespace)
