"""What an installed Weightlock offers the tests, be it a process of ours or pods of a cluster.

Installing is what an admin does: types, rights, the program itself, and last the webhooks that make the API
server ask it.
"""

import abc
from collections.abc import Mapping
from typing import Any

from harness import manifests
from harness.cluster import Cluster
from harness.waiting import eventually

WEBHOOK_PATHS = tuple(
    f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations/{manifests.NAME}"
    for kind in ("validating", "mutating")
)
PROBE: Mapping[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "is-weightlock-asked-"},
    "spec": {"containers": [{"name": "main", "image": "registry.example.com/none:1"}]},
}


class Installed(abc.ABC):
    """A Weightlock in front of an API server. `install` it; then it can be killed, restarted, looked into."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @property
    @abc.abstractmethod
    def running(self) -> bool:
        """Whether it runs."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start it and wait until it is ready. Raises AssertionError with the end of its log."""

    @abc.abstractmethod
    def stop(self) -> None:
        """End it in an orderly way; the webhooks stay registered."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End it as a crash would; the webhooks stay registered, so calls of the API server fail."""

    @abc.abstractmethod
    def logs(self) -> str:
        """What it wrote to its log."""

    @abc.abstractmethod
    def get(self, path: str) -> tuple[int, str]:
        """GET a path of Weightlock's own port, such as `/readyz` or `/metrics`: status and text."""

    @abc.abstractmethod
    def _client_config(self, path: str) -> Mapping[str, Any]:
        """The `clientConfig` by which the API server reaches `path`."""

    def install(self) -> None:
        """Apply types and rights, start, register the webhooks, and wait until the API server asks."""
        self.cluster.apply(*manifests.identity(), *manifests.crds())
        self.cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s").ok()
        self.start()
        self.add_webhooks()

    def uninstall(self) -> None:
        """Take the webhooks away and stop; types and what people made of them stay."""
        self.remove_webhooks()
        self.stop()

    def restart(self, *, crash: bool = False) -> None:
        """End it and start it again, where the API server looks for it."""
        if crash:
            self.kill()
        else:
            self.stop()
        self.start()

    def add_webhooks(self) -> None:
        """Register the webhooks and wait until the API server asks both."""
        self.cluster.apply(*manifests.webhooks(self._client_config))
        eventually(self._is_called, "the API server calls Weightlock", seconds=60, every=0.2)

    def remove_webhooks(self) -> None:
        """Take the webhook configurations away, as an attacker with the rights of an admin would."""
        for path in WEBHOOK_PATHS:
            self.cluster.client().delete(path)

    def webhooks_present(self) -> bool:
        """Whether both webhook configurations exist."""
        return all(self.cluster.client().get(path).status == 200 for path in WEBHOOK_PATHS)

    def _is_called(self) -> bool:
        """Whether the API server calls both webhooks for a pod in a dry run."""
        before = self.metric("weightlock_admission_requests_total", resource="pods")
        self.cluster.client().post("/api/v1/namespaces/default/pods", dict(PROBE), dryRun="All")
        return self.metric("weightlock_admission_requests_total", resource="pods") >= before + 2

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry `labels`; 0 where there is none."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            expected = [f'{label}="{text}"' for label, text in labels.items()]
            if series.partition("{")[0] == name and all(label in series for label in expected):
                total += float(value)
        return total
