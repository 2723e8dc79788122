import pytest

from webhook.api.crds import definitions
from webhook.core.kube.kinds import is_namespaced, plural


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Pod", "pods"),
        ("Deployment.apps", "deployments"),
        ("NetworkPolicy.networking.k8s.io", "networkpolicies"),
        ("Ingress.networking.k8s.io", "ingresses"),
        ("StorageClass.storage.k8s.io", "storageclasses"),
        ("Endpoints", "endpoints"),
        ("ModelWeights.weightlock.dev", "modelweights"),
        ("WeightPolicy.weightlock.dev", "weightpolicies"),
        ("Gateway.gateway.networking.k8s.io", "gateways"),
    ],
)
def test_plural(kind, expected):
    assert plural(kind) == expected


def test_scope():
    assert is_namespaced("Pod")
    assert is_namespaced("Anything.example.com")
    assert not is_namespaced("Namespace")
    assert not is_namespaced("AccessRequest.weightlock.dev")


@pytest.mark.parametrize("document", definitions(), ids=lambda document: document["spec"]["names"]["kind"])
def test_the_scopes_of_weightlocks_own_kinds(document):
    """A review of a cluster-scoped object has no namespace."""
    spec = document["spec"]
    assert is_namespaced(f"{spec['names']['kind']}.{spec['group']}") is (spec["scope"] == "Namespaced")
