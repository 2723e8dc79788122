"""Weightlock as pods of a cluster with nodes: kind, or a cluster that exists already.

The image under test must be one that the nodes have (kind loads it) or can pull. Its certificate is made here and
kept in a Secret; the API server of such a cluster shows webhooks no certificate of its own.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness import manifests
from harness.cluster import Cluster
from harness.installed import Installed
from harness.pki import Authority
from harness.waiting import eventually
from harness.weightlock import POLICIES

HOST = f"{manifests.NAME}.{manifests.NAMESPACE}.svc"
PORT = 8443
START_SECONDS = 120
CONFIG: Mapping[str, Any] = {
    "listen": {"port": PORT},
    "tls": {"certificate": "/etc/weightlock/tls/tls.crt", "key": "/etc/weightlock/tls/tls.key"},
}
LABELS = {"app.kubernetes.io/name": manifests.NAME}
DEPLOYMENT = f"deployment/{manifests.NAME}"


class InClusterWeightlock(Installed):
    """One replica of `image` behind a Service, with the shipped policies as objects of the cluster."""

    def __init__(self, cluster: Cluster, image: str) -> None:
        super().__init__(cluster)
        self.image = image
        self._authority = Authority(Path(tempfile.mkdtemp(dir=cluster.directory)), "weightlock-ca")
        self._serving = self._authority.server(manifests.NAME, [HOST])

    @property
    def running(self) -> bool:
        """Whether its pod is available."""
        answer = self.cluster.client().get(
            f"/apis/apps/v1/namespaces/{manifests.NAMESPACE}/deployments/{manifests.NAME}"
        )
        return answer.status == 200 and bool(answer.body["status"].get("availableReplicas"))

    def start(self) -> None:
        """Apply it with one replica and wait until that is ready."""
        self.cluster.apply(*self.objects())
        self.cluster.apply(*(d for d in manifests.documents(POLICIES) if d["kind"] == "WeightPolicy"))
        self._kubectl("rollout", "status", DEPLOYMENT, f"--timeout={START_SECONDS}s")

    def stop(self) -> None:
        """Scale it to nothing and wait until its pod is gone."""
        self._kubectl("scale", DEPLOYMENT, "--replicas=0")
        eventually(lambda: not self._pods(), "Weightlock's pod is gone", seconds=60, every=0.5)

    def kill(self) -> None:
        """Scale it to nothing and end its pod without grace."""
        self._kubectl("scale", DEPLOYMENT, "--replicas=0")
        self._kubectl("delete", "pods", "-l", _selector(), "--force", "--grace-period=0")

    def logs(self) -> str:
        """What its pod wrote to its log."""
        return self._kubectl("logs", "-l", _selector(), "--tail=-1")

    def get(self, path: str) -> tuple[int, str]:
        """GET a path of Weightlock's own port through the API server's proxy: status and text."""
        service = f"/api/v1/namespaces/{manifests.NAMESPACE}/services/https:{manifests.NAME}:443/proxy"
        answer = self.cluster.client().get(f"{service}{path}")
        return answer.status, answer.body if isinstance(answer.body, str) else str(answer.body)

    def _kubectl(self, *arguments: str) -> str:
        return (
            self.cluster.kubectl("-n", manifests.NAMESPACE, *arguments, seconds=START_SECONDS + 10)
            .ok()
            .stdout
        )

    def _pods(self) -> list[Any]:
        path = f"/api/v1/namespaces/{manifests.NAMESPACE}/pods"
        found: list[Any] = self.cluster.client().get(path, labelSelector=_selector()).ok()["items"]
        return found

    def _client_config(self, path: str) -> Mapping[str, Any]:
        service = {"namespace": manifests.NAMESPACE, "name": manifests.NAME, "path": path, "port": 443}
        return {"service": service, "caBundle": manifests.base64_of(self._authority.certificate)}

    def objects(self) -> list[manifests.Manifest]:
        """The Secret, ConfigMap, Deployment and Service."""
        metadata = {"name": manifests.NAME, "namespace": manifests.NAMESPACE, "labels": LABELS}
        certificate, key = (manifests.base64_of(f) for f in (self._serving.certificate, self._serving.key))
        pod = {"metadata": {"labels": LABELS}, "spec": self._pod_spec()}
        deployment = {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": pod}
        port = {"port": 443, "targetPort": PORT}
        return [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": metadata,
                "type": "kubernetes.io/tls",
                "data": {"tls.crt": certificate, "tls.key": key},
            },
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata,
                "data": {"config.yaml": yaml.safe_dump(dict(CONFIG))},
            },
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"selector": LABELS, "ports": [port]},
            },
        ]

    def _pod_spec(self) -> dict[str, Any]:
        mounts = [
            {"name": "config", "mountPath": "/etc/weightlock/config", "readOnly": True},
            {"name": "tls", "mountPath": "/etc/weightlock/tls", "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},
        ]
        container = {
            "name": manifests.NAME,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["serve", "--config", "/etc/weightlock/config/config.yaml"],
            "ports": [{"containerPort": PORT}],
            "readinessProbe": {
                "httpGet": {"path": "/readyz", "port": PORT, "scheme": "HTTPS"},
                "periodSeconds": 1,
            },
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            },
            "volumeMounts": mounts,
        }
        return {
            "serviceAccountName": manifests.ACCOUNT,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "terminationGracePeriodSeconds": 30,
            "containers": [container],
            "volumes": [
                {"name": "config", "configMap": {"name": manifests.NAME}},
                {"name": "tls", "secret": {"secretName": manifests.NAME}},
                {"name": "scratch", "emptyDir": {}},
            ],
        }


def _selector() -> str:
    return ",".join(f"{name}={value}" for name, value in LABELS.items())
