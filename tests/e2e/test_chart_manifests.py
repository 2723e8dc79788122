"""The chart's webhooks as files of the API server (KEP-5793): no user can remove them through the API."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.controlplane import ControlPlane, Options
from harness.installed import WEBHOOK_PATHS
from harness.manifests import base64_of
from harness.pki import Authority
from harness.release import NAME, NAMESPACE, Release, pod
from harness.waiting import eventually

GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
PLUGINS = {"validating": "ValidatingAdmissionWebhook", "mutating": "MutatingAdmissionWebhook"}


def plugin(name: str, directory: Path) -> dict[str, Any]:
    """An entry of the AdmissionConfiguration, as docs/install.md shows it."""
    configuration = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "WebhookAdmissionConfiguration",
        "kubeConfigFile": "",
        "staticManifestsDir": str(directory),
    }
    return {"name": name, "configuration": configuration}


@pytest.fixture
def release(new_control_plane: Callable[[Options], ControlPlane], tmp_path: Path) -> Iterator[Release]:
    """The chart with certificates of one's own, and its webhook; an API server that reads two directories."""
    for kind in PLUGINS:
        (tmp_path / kind).mkdir()
    plugins = [plugin(name, tmp_path / kind) for kind, name in PLUGINS.items()]
    cluster = new_control_plane(Options(webhook_client_certificate=False, plugins=plugins))
    matches = Release(cluster)
    authority = Authority(tmp_path / "pki", "weightlock-ca")
    serving = authority.server("webhook", ["127.0.0.1"])
    metadata = {"name": f"{NAME}-webhook-tls", "namespace": NAMESPACE}
    files = {"tls.crt": serving.certificate, "tls.key": serving.key, "ca.crt": authority.certificate}
    data = {name: base64_of(file) for name, file in files.items()}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": metadata,
            "data": data,
        },
    )
    try:
        matches.helm(
            "install",
            f"certificates.mode=provided,certificates.provided.webhookSecret={NAME}-webhook-tls",
            f"apiServerManifests.url={matches.url},broker.enabled=false,controller.enabled=false",
            files={"certificates.provided.caBundle": authority.certificate},
        )
        matches.start("webhook")
        yield matches
    finally:
        matches.stop()
        cluster.stop()


def test_taking_the_webhooks_away_opens_nothing(release: Release, tmp_path: Path) -> None:
    cluster = release.cluster
    for kind, text in release.data("configmaps", f"{NAME}-apiserver-manifests").items():
        (tmp_path / kind.removesuffix(".yaml") / "weightlock.yaml").write_bytes(text)
    namespace = cluster.new_namespace()
    release.wait_admitting(namespace)
    admin = cluster.client()
    for path in WEBHOOK_PATHS:
        admin.delete(path).ok()

    # The API server notices a new file within a minute; who looks for configurations sees none.
    def denied() -> str:
        answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", pod("gpu", container=GPU), dryRun="All")
        return answer.message if "[WL201]" in answer.message else ""

    message = eventually(denied, "a pod is denied without a webhook configuration", seconds=120, every=1)
    assert 'admission webhook "validate.weightlock.dev" denied the request' in message
    assert release.webhooks() == [404, 404]
    assert cluster.kubectl("get", "validatingwebhookconfigurations", "-o", "name").ok().stdout == ""
    metadata = {"name": "weightlock.static.k8s.io"}
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    rejection = admin.post(
        WEBHOOK_PATHS[0].rpartition("/")[0], {**kind, "metadata": metadata, "webhooks": []}
    )
    assert rejection.status == 422

    release.parts["webhook"].kill()
    status, message = release.create(namespace, pod("later"))
    assert (status, "failed calling webhook" in message) == (500, True)
