"""A custom resource of any kind on a real API server: the controller extends the webhook rules by its CRD's schema."""

from typing import Any

from harness.controller import Controllers
from harness.installed import WEBHOOK_PATHS
from harness.lab import Lab
from harness.waiting import eventually
from harness.weightlock import Weightlock

GROUP, PLURAL = "agents.example.com", "sandboxes"
VALIDATING = next(path for path in WEBHOOK_PATHS if "validating" in path)
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
# The controller's loop takes a second, and the watches deliver in milliseconds.
SECONDS = 15

_LISTS = {
    name: {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    for name in ("containers", "initContainers", "volumes")
}
_POD = {"type": "object", "properties": {**_LISTS, "serviceAccountName": {"type": "string"}}}
_TEMPLATE = {"type": "object", "properties": {"metadata": {"type": "object"}, "spec": _POD}}
_SPEC = {"type": "object", "properties": {"podTemplate": _TEMPLATE, "replicas": {"type": "integer"}}}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"{PLURAL}.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"kind": "Sandbox", "plural": PLURAL, "singular": "sandbox"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _SPEC}}},
            }
        ],
    },
}


def rules(weightlock: Weightlock) -> list[Any]:
    configuration = weightlock.cluster.client().get(VALIDATING).ok()
    return [rule for rule in configuration["webhooks"][0]["rules"] if rule["apiGroups"] == [GROUP]]


def test_a_new_kind_is_evaluated_within_seconds(
    own_weightlock: Weightlock, controllers: Controllers, namespace: str
) -> None:
    lab = Lab(own_weightlock.cluster, namespace).build()
    client = own_weightlock.cluster.client()
    assert rules(own_weightlock) == []
    own_weightlock.cluster.apply(CRD)
    try:
        eventually(lambda: rules(own_weightlock), "the rules contain the kind", seconds=SECONDS)
        assert rules(own_weightlock)[0]["resources"] == [PLURAL]
        path = f"/apis/{GROUP}/v1/namespaces/{namespace}/{PLURAL}"
        sandbox = {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Sandbox",
            "metadata": {"name": "s", "namespace": namespace},
            "spec": {"podTemplate": {"spec": lab.pod()["spec"]}},
        }
        eventually(
            lambda: "[WL101]" in client.post(path, sandbox, dryRun="All").message,
            "it is denied",
            seconds=SECONDS,
        )
        harmless = {
            **sandbox,
            "spec": {"podTemplate": {"spec": {"containers": [{"name": "c", "image": "i"}]}}},
        }
        client.post(path, harmless).ok()
    finally:
        client.delete(f"{CRDS}/{PLURAL}.{GROUP}")
    eventually(lambda: not rules(own_weightlock), "the rules no longer contain the kind", seconds=SECONDS)
    # The controller agrees with its own change.
    assert "admission is not guarded" not in controllers.log()
    assert "not protected" not in controllers.log()


def test_removed_rules_are_written_again(
    own_weightlock: Weightlock, controllers: Controllers, namespace: str
) -> None:
    client = own_weightlock.cluster.client()
    own_weightlock.cluster.apply(CRD)
    try:
        eventually(lambda: rules(own_weightlock), "the rules contain the kind", seconds=SECONDS)
        live = client.get(VALIDATING).ok()
        remaining = [rule for rule in live["webhooks"][0]["rules"] if rule["apiGroups"] != [GROUP]]
        patch = [{"op": "replace", "path": "/webhooks/0/rules", "value": remaining}]
        client.patch(VALIDATING, patch, "json").ok()
        eventually(lambda: rules(own_weightlock), "the rules contain the kind again", seconds=SECONDS)
    finally:
        client.delete(f"{CRDS}/{PLURAL}.{GROUP}")
    eventually(lambda: not rules(own_weightlock), "the rules no longer contain the kind", seconds=SECONDS)
