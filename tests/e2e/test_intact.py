"""Objects that Weightlock depends on are weakened: they are restored if that is safe, and Events name the change."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from harness import manifests
from harness.controller import Controllers
from harness.controlplane import ControlPlane
from harness.installed import PROBE, WEBHOOK_PATHS
from harness.waiting import eventually
from harness.weightlock import Weightlock

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TYPE = "modelweights.weightlock.dev"
PODS = "/api/v1/namespaces/{}/pods"
WHO = "tampering-tool"


@pytest.fixture
def controllers(own_weightlock: Weightlock) -> Iterator[Controllers]:
    """One controller that restores, and leads."""
    matches = Controllers(own_weightlock).prepare()
    matches.start(restore=True)
    matches.wait_leading()
    yield matches
    matches.stop()
    own_weightlock.control_plane.apply(*manifests.crds())


def definition(cluster: ControlPlane, name: str = TYPE) -> Any:
    return cluster.client().get(f"{CRDS}/{name}").ok()


def tamper(cluster: ControlPlane, path: str, *patch: dict[str, Any]) -> None:
    cluster.client().patch(path, list(patch), "json", fieldManager=WHO).ok()


def wait_for_event(cluster: ControlPlane, name: str, *words: str, seconds: float = 30) -> str:
    """Wait for an Event about an object that says all words; its text."""

    def look() -> str | None:
        path = "/api/v1/namespaces/default/events"
        items = cluster.client().get(path, fieldSelector=f"involvedObject.name={name}").ok()["items"]
        said = [item["message"] for item in items if item["type"] == "Warning"]
        return next((text for text in said if all(word in text for word in words)), None)

    return eventually(look, f"an event about {name} with {words}", seconds=seconds) or ""


LOOSENED = {
    "a schema that keeps whatever is written": (
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-preserve-unknown-fields",
        True,
        "properties.spec.x-kubernetes-preserve-unknown-fields is True, expected none",
    ),
    "a version that is not served": ("/spec/versions/0/served", False, "versions[0].served is False"),
    "a webhook that rewrites what is read": (
        "/spec/conversion",
        {
            "strategy": "Webhook",
            "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://127.0.0.1:1/convert"},
            },
        },
        "conversion is ",
    ),
}


@pytest.mark.parametrize(("path", "value", "words"), LOOSENED.values(), ids=LOOSENED.keys())
def test_a_changed_crd_is_restored(controllers: Controllers, path: str, value: Any, words: str) -> None:
    cluster = controllers.cluster
    before = definition(cluster)["spec"]
    tamper(cluster, f"{CRDS}/{TYPE}", {"op": "add", "path": path, "value": value})
    eventually(lambda: definition(cluster)["spec"] == before, "it is as it was")
    wait_for_event(cluster, TYPE, words, f"last writer: {WHO} (Update) at 20", "; restored")


def test_an_event_of_a_webhook_configuration_names_the_change_and_the_field_manager(
    controllers: Controllers,
) -> None:
    cluster, path = controllers.cluster, WEBHOOK_PATHS[0]
    before = cluster.client().get(path).ok()["webhooks"]
    tamper(cluster, path, {"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"})
    eventually(lambda: cluster.client().get(path).ok()["webhooks"] == before, "it is as it was")
    wait_for_event(
        cluster, "weightlock", "webhooks[0].failurePolicy is Ignore, expected Fail", WHO, "; restored"
    )


def test_a_type_of_another_version_is_left_to_the_upgrade(controllers: Controllers) -> None:
    cluster = controllers.cluster
    label = {"op": "add", "path": "/metadata/labels", "value": {"app.kubernetes.io/version": "9.9.9"}}
    names = {"op": "add", "path": "/spec/names/categories", "value": ["newer"]}
    tamper(cluster, f"{CRDS}/{TYPE}", label, names)
    wait_for_event(cluster, TYPE, "not restored: it belongs to version 9.9.9, and this controller is ")
    assert definition(cluster)["spec"]["names"]["categories"] == ["newer"]


def test_a_deleted_crd_is_not_recreated_and_weightlock_denies(
    controllers: Controllers, namespace: str
) -> None:
    cluster, name = controllers.cluster, "accessapprovals.weightlock.dev"
    cluster.client().delete(f"{CRDS}/{name}").ok()
    wait_for_event(cluster, name, "its objects were deleted with it")
    pods = PODS.format(namespace)
    said = eventually(
        lambda: cluster.client().post(pods, PROBE, dryRun="All").message if _denied(cluster, pods) else None,
        "pods are denied",
    )
    assert "the cluster no longer has accessapprovals" in said
    assert "[WL903]" in said
    assert cluster.client().get(f"{CRDS}/{name}").status == 404
    cluster.apply(*manifests.crds())
    eventually(lambda: not _denied(cluster, pods), "pods are admitted once the type is there")


def _denied(cluster: ControlPlane, pods: str) -> bool:
    return bool(cluster.client().post(pods, PROBE, dryRun="All").status != 201)


def test_the_loss_of_a_namespaces_protecting_label_is_reported(
    controllers: Controllers, namespace: str
) -> None:
    cluster, path = controllers.cluster, f"/api/v1/namespaces/{namespace}"

    def label(value: str | None) -> None:
        metadata = {"labels": {"weightlock.dev/holds-weights": value}}
        cluster.client().patch(path, {"metadata": metadata}, fieldManager=WHO).ok()

    def said() -> str | None:
        with contextlib.suppress(AssertionError):
            return wait_for_event(
                cluster,
                namespace,
                "protection label weightlock.dev/holds-weights removed or changed",
                seconds=5,
            )
        return None

    def lost() -> str | None:
        # The controller must have seen the label before, and a reconcile takes a second.
        label("true")
        said()
        label(None)
        return said()

    # Removing a field leaves no managedFields entry.
    assert "see the API server audit log for the user" in (
        eventually(lost, "an Event reports it", seconds=60) or ""
    )
