"""Weightlock as pods of a cluster with nodes, kind or one that exists already: the chart, with the image under test.

The image must be one that the nodes have (kind loads it) or can pull. The controller does not put webhook
configurations back here: tests take them away, and put them back themselves.
"""

from collections.abc import Mapping
from typing import Any

from harness import manifests
from harness.cluster import Cluster
from harness.installed import PROBE, WEBHOOK_PATHS, Installed
from harness.programs import ROOT
from harness.waiting import eventually

CHART = ROOT / "charts" / "weightlock"
WAIT_SECONDS = 300
DEPLOYMENT = f"deployment/{manifests.NAME}-webhook"
SELECTOR = f"app.kubernetes.io/instance={manifests.NAME},app.kubernetes.io/component=webhook"


class InClusterWeightlock(Installed):
    """One release of the chart with `image`; one webhook, so that a test that ends it has ended all."""

    def __init__(self, cluster: Cluster, image: str) -> None:
        super().__init__(cluster)
        self.image = image
        self._installed: list[dict[str, Any]] = []

    def values(self) -> dict[str, str]:
        """The values of the release, by path."""
        repository, _, tag = self.image.rpartition(":")
        matches = {
            "image.pullPolicy": "IfNotPresent",
            "webhook.replicas": "1",
            "webhook.minAvailable": "1",
            "webhook.acceptUnauthenticatedCallers": "true",
            "controller.replicas": "1",
            "controller.restoreWebhooks": "false",
            "broker.replicas": "1",
            "config.controller.settleSeconds": "1",
        }
        if "@" in self.image:
            repository, _, digest = self.image.partition("@")
            return {**matches, "image.repository": repository, "image.digest": digest}
        # Without a tag the colon, if there is one, belongs to the registry's port.
        if not repository or "/" in tag:
            repository, tag = self.image, "latest"
        return {**matches, "image.repository": repository, "image.tag": tag}

    def install(self) -> None:
        """`helm install`, and wait until the pods are ready and the API server asks."""
        command = ["install", manifests.NAME, str(CHART), "--namespace", manifests.NAMESPACE]
        command += ["--create-namespace", "--wait", f"--timeout={WAIT_SECONDS}s"]
        for path, value in self.values().items():
            command += ["--set", f"{path}={value}"]
        self.cluster.helm(*command, seconds=WAIT_SECONDS + 30).ok()
        eventually(self._is_called, "the API server calls Weightlock", seconds=60, every=0.5)
        self._installed = self._configurations()

    def uninstall(self) -> None:
        """`helm uninstall`; types and what people made of them stay."""
        self.cluster.helm("uninstall", manifests.NAME, "--namespace", manifests.NAMESPACE, "--wait").ok()

    @property
    def running(self) -> bool:
        """Whether its pod is available."""
        answer = self.cluster.client().get(
            f"/apis/apps/v1/namespaces/{manifests.NAMESPACE}/deployments/{manifests.NAME}-webhook"
        )
        return answer.status == 200 and bool(answer.body["status"].get("availableReplicas"))

    def start(self) -> None:
        """Scale the webhook to one replica and wait until that is ready."""
        self._kubectl("scale", DEPLOYMENT, "--replicas=1")
        self._kubectl("rollout", "status", DEPLOYMENT, f"--timeout={WAIT_SECONDS}s")

    def stop(self) -> None:
        """Scale the webhook to nothing and wait until its pod is gone."""
        self._kubectl("scale", DEPLOYMENT, "--replicas=0")
        eventually(lambda: not self._pods(), "Weightlock's pod is gone", seconds=60, every=0.5)

    def kill(self) -> None:
        """Scale the webhook to nothing and end its pod without grace, until no review is answered.

        The container outlives its forcibly deleted pod by some seconds, and open connections lead to it.
        """
        self._kubectl("scale", DEPLOYMENT, "--replicas=0")
        self._kubectl("delete", "pods", "-l", SELECTOR, "--force", "--grace-period=0")
        eventually(self._is_unanswered, "the webhook answers no more", seconds=60, every=0.5)

    def _is_unanswered(self) -> bool:
        """Whether the API server reaches no webhook."""
        answer = self.cluster.client().post("/api/v1/namespaces/default/pods", dict(PROBE), dryRun="All")
        return "failed calling webhook" in answer.message

    def logs(self) -> str:
        """What the webhook's pod wrote to its log."""
        return self._kubectl("logs", "-l", SELECTOR, "--tail=-1")

    def get(self, path: str) -> tuple[int, str]:
        """GET a path of the webhook's own port through the API server's proxy: status and text."""
        service = (
            f"/api/v1/namespaces/{manifests.NAMESPACE}/services/https:{manifests.NAME}-webhook:443/proxy"
        )
        answer = self.cluster.client().get(f"{service}{path}")
        return answer.status, answer.body if isinstance(answer.body, str) else str(answer.body)

    def add_webhooks(self) -> None:
        """Restore the webhook configurations as Helm installed them, and wait until the API server calls them."""
        self.cluster.apply(*self._installed)
        eventually(self._is_called, "the API server calls Weightlock", seconds=60, every=0.5)

    def remove_webhooks(self) -> None:
        """Remove the webhook configurations. Store them first if `install` did not."""
        self._installed = self._installed or self._configurations()
        super().remove_webhooks()

    def _configurations(self) -> list[dict[str, Any]]:
        """Return the webhook configurations, with the CA that the controller wrote and the annotations of Helm."""
        produced = []
        for path in WEBHOOK_PATHS:
            body = self.cluster.client().get(path).ok()
            metadata = {
                field: body["metadata"][field]
                for field in ("name", "labels", "annotations")
                if field in body["metadata"]
            }
            produced.append(
                {**{field: body[field] for field in ("apiVersion", "kind", "webhooks")}, "metadata": metadata}
            )
        return produced

    def _client_config(self, path: str) -> Mapping[str, Any]:
        service = {
            "namespace": manifests.NAMESPACE,
            "name": f"{manifests.NAME}-webhook",
            "path": path,
            "port": 443,
        }
        return {"service": service}

    def _kubectl(self, *arguments: str) -> str:
        done = self.cluster.kubectl("-n", manifests.NAMESPACE, *arguments, seconds=WAIT_SECONDS + 10)
        return done.ok().stdout

    def _pods(self) -> list[Any]:
        path = f"/api/v1/namespaces/{manifests.NAMESPACE}/pods"
        matches: list[Any] = self.cluster.client().get(path, labelSelector=SELECTOR).ok()["items"]
        return matches
