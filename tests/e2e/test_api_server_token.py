"""Signatures at admission on a real API server that authenticates itself by the token of KEP-6060.

Kubernetes 1.37 issues the tokens, and its API server presents none by itself. It presents the token of a file, which
its AdmissionConfiguration names, and reads the file again each minute. So a process beside the API server can renew it.
"""

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from harness import manifests
from harness.controlplane import WEBHOOK_PLUGINS, ControlPlane, Options
from harness.lab import API
from harness.waiting import eventually
from harness.weightlock import Weightlock

# Exempt from Weightlock: the first token is requested while the API server has none.
NAMESPACE, ACCOUNT = "kube-system", "kube-apiserver"
PATHS = {"ValidatingAdmissionWebhook": "validate", "MutatingAdmissionWebhook": "mutate"}
KINDS = {"validate": "ValidatingWebhookConfiguration", "mutate": "MutatingWebhookConfiguration"}
RBAC = "rbac.authorization.k8s.io"


class Setup(NamedTuple):
    cluster: ControlPlane
    weightlock: Weightlock

    def token(self, path: str) -> str:
        """Request a token for one path of the webhook, bound to its configuration."""
        spec = {
            "audiences": [f"{self.weightlock.url}/{path}"],
            "expirationSeconds": 600,
            "boundObjectRef": {
                "kind": KINDS[path],
                "apiVersion": "admissionregistration.k8s.io/v1",
                "name": manifests.NAME,
            },
            "attestations": {"admissionReviewAPIGroups": ["*"]},
        }
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        url = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
        return str(self.cluster.client().post(url, body).ok()["status"]["token"])


def role(name: str, rule: dict[str, Any], namespace: str, account: str) -> list[dict[str, Any]]:
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}
    metadata = {"name": name}
    return [
        {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": [rule]},
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "subjects": [subject],
            "roleRef": reference,
        },
    ]


@pytest.fixture(scope="module")
def setup(
    new_control_plane: Callable[[Options], ControlPlane], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setup]:
    directory = tmp_path_factory.mktemp("tokens")
    plugins = []
    for plugin in WEBHOOK_PLUGINS:
        token = directory / PATHS[plugin]
        token.write_text("none yet")
        kubeconfig = directory / f"{PATHS[plugin]}.kubeconfig"
        user = {"name": "*", "user": {"tokenFile": str(token)}}
        kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "users": [user]}))
        configuration = {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "WebhookAdmissionConfiguration",
            "kubeConfigFile": str(kubeconfig),
        }
        plugins.append({"name": plugin, "configuration": configuration})
    options = Options(
        webhook_client_certificate=False,
        plugins=plugins,
        feature_gates={"APIServerWebhookAuthenticationToken": True},
    )
    cluster = new_control_plane(options)
    weightlock = Weightlock(cluster)
    tls = weightlock.config["tls"]
    weightlock.config["tls"] = {key: tls[key] for key in ("certificate", "key")}
    weightlock.config["callers"] = {
        "tokenConfigurations": [manifests.NAME],
        "tokenAudiences": [weightlock.url],
    }
    attest = {
        "apiGroups": ["authentication.k8s.io"],
        "resources": ["admissionReviewAPIGroups"],
        "resourceNames": ["*"],
        "verbs": ["attest"],
    }
    review = {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
    account = {"metadata": {"name": ACCOUNT, "namespace": NAMESPACE}}
    cluster.apply(
        *manifests.identity(),
        *manifests.crds(),
        {"apiVersion": "v1", "kind": "ServiceAccount", **account},
        *role("attest", attest, NAMESPACE, ACCOUNT),
        *role("review-tokens", review, manifests.NAMESPACE, manifests.ACCOUNT),
    )
    cluster.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s").ok()
    weightlock.start()
    cluster.apply(*manifests.webhooks(weightlock._client_config))
    setup = Setup(cluster, weightlock)
    for path in KINDS:
        (directory / path).write_text(setup.token(path))
    # The API server caches the content of the files for a minute.
    eventually(weightlock._is_called, "the API server presents its tokens", seconds=90, every=0.5)
    yield setup
    weightlock.uninstall()


def request(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "AccessRequest",
        "metadata": {"name": name},
        "spec": {
            "model": "atlas",
            "subject": {"kind": "ServiceAccount", "namespace": "default", "name": "default"},
            "namespaces": ["default"],
            "duration": "10m",
            "reason": "tests",
        },
    }


def test_the_webhook_signs_for_an_api_server_that_presents_its_token(setup: Setup) -> None:
    model = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ModelWeights",
        "metadata": {"name": "atlas"},
        "spec": {
            "sensitivity": "frontier",
            "volumes": [{"persistentVolumeClaim": {"namespaces": ["default"], "names": ["weights"]}}],
            "access": {"approvals": 1, "approvers": {"groups": ["approvers"]}},
        },
    }
    setup.cluster.apply(model)
    client = setup.cluster.client()

    def stored() -> dict[str, Any]:
        # The webhook may not have seen the ModelWeights yet.
        return dict(client.post(f"{API}/accessrequests", request("signed")).ok())

    created = eventually(stored, "the request is created", seconds=10)
    assert created["spec"]["signature"]
    assert created["metadata"]["generation"] == 1


def test_no_other_token_and_no_other_path_is_accepted(setup: Setup) -> None:
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1f0c",
            "kind": {"group": "weightlock.dev", "version": "v1alpha1", "kind": "AccessRequest"},
            "resource": {"group": "weightlock.dev", "version": "v1alpha1", "resource": "accessrequests"},
            "name": "forged",
            "operation": "CREATE",
            "userInfo": {"username": "bob"},
            "object": request("forged"),
        },
    }
    plain = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    url = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
    account = setup.cluster.client().post(url, plain).ok()["status"]["token"]
    tokens = {"none": "", "of the other path": setup.token("validate"), "of the account": account}
    results = {name: send(setup.weightlock, review, token) for name, token in tokens.items()}
    assert results == dict.fromkeys(tokens, 403)
    # The same review with the right token, which only the API server's host has.
    assert send(setup.weightlock, review, setup.token("mutate")) == 200


def send(weightlock: Weightlock, review: dict[str, Any], token: str) -> int:
    tls = ssl.create_default_context(cafile=str(weightlock.ca))
    connection = http.client.HTTPSConnection("127.0.0.1", weightlock.port, context=tls, timeout=30)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        connection.request("POST", "/mutate", json.dumps(review), headers)
        return connection.getresponse().status
    finally:
        connection.close()
