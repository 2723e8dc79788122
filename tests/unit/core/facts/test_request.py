"""Facts of one request. The cases are in golden/requests. These tests check what a golden file cannot show."""

import pytest

from webhook.api.config import Settings
from webhook.core.facts import gather_request
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import Lookup, MissingObjectError, ObjectKey, ObjectStore
from webhook.core.storage.catalog import Catalog
from webhook.core.workloads.templates import WorkloadTable

SETTINGS, WORKLOADS = Settings(), WorkloadTable()


def template(claim):
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": claim}}
    return {"spec": {"containers": [{"name": "main"}], "volumes": [volume]}}


@pytest.fixture
def judge(request_of, snapshot_of, atlas):
    """What a request asks for, in a cluster that holds one model."""

    def gather(document, lookup=None, **fields):
        snapshot = snapshot_of(atlas)
        matches = Lookup(snapshot.objects) if lookup is None else lookup
        return gather_request(request_of(document, **fields), matches, snapshot.catalog, SETTINGS, WORKLOADS)

    return gather


def ray_cluster(*claims):
    groups = [{"template": template(claim)} for claim in claims]
    metadata = {"name": "r", "namespace": "research"}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": metadata,
        "spec": {"workerGroupSpecs": groups},
    }


def test_missing_objects_of_all_templates_are_requested_together(judge):
    lookup = Lookup(ObjectStore(complete=False))
    with pytest.raises(MissingObjectError):
        judge(ray_cluster("a", "b"), lookup)
    assert lookup.missing == {ObjectKey("PersistentVolumeClaim", "research", name) for name in "ab"}


def test_only_the_changed_template_is_evaluated(judge):
    old, new = ray_cluster("atlas-weights", "x"), ray_cluster("atlas-weights", "atlas-weights")
    first, second = judge(new, operation="UPDATE", oldObject=old)
    assert (first.unchanged, second.unchanged) == (True, False)
    assert not first.facts.weights
    assert [use.model for use in second.facts.weights] == ["atlas-70b"]


def test_the_owner_that_controls_is_the_controller(judge, pod_of):
    pod = pod_of()
    assert judge(pod)[0].workload == {
        "group": "",
        "kind": "Pod",
        "namespace": "research",
        "name": "train-7",
        "controller": None,
        "partial": False,
    }
    pod["metadata"] = {
        "generateName": "train-",
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "c"},
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "controller": True},
        ],
    }
    workload = judge(pod)[0].workload
    assert workload["name"] == "train-"
    assert workload["controller"] == {"group": "apps", "kind": "ReplicaSet", "name": "rs"}


def test_a_workload_without_templates_is_still_one_entry(judge):
    (matches,) = judge(ray_cluster())
    assert matches.pod is None
    assert matches.workload["kind"] == "RayCluster"


@pytest.mark.parametrize("subresource", ["exec", "attach", "portforward", "proxy"])
def test_a_connection_is_evaluated_against_the_live_pod(
    judge, request_of, snapshot_of, atlas, pod_of, subresource
):
    snapshot = snapshot_of(atlas, pod_of(claim="atlas-weights"))
    fields = {
        "operation": "CONNECT",
        "subResource": subresource,
        "resource": "pods",
        "object": {"kind": "PodExecOptions"},
    }
    request = request_of(None, **{**fields, "name": "train-7", "namespace": "research"})
    (matches,) = gather_request(request, Lookup(snapshot.objects), snapshot.catalog, SETTINGS, WORKLOADS)
    assert [use.model for use in matches.facts.weights] == ["atlas-70b"]
    assert matches.workload["kind"] == "Pod"
    lookup = Lookup(ObjectStore(complete=False))
    with pytest.raises(MissingObjectError):
        gather_request(request, lookup, snapshot.catalog, SETTINGS, WORKLOADS)
    assert lookup.missing == {ObjectKey("Pod", "research", "train-7")}


def test_without_models_an_unknown_pod_holds_none(request_of):
    request = request_of(
        None, operation="CONNECT", resource="pods", subResource="exec", name="p", namespace="n"
    )
    lookup = Lookup(ObjectStore(complete=True))
    (matches,) = gather_request(request, lookup, Catalog([]), SETTINGS, WORKLOADS)
    assert matches.facts.weights == ()


@pytest.mark.parametrize(
    "metadata",
    [
        {"name": 1},
        {"name": "p", "ownerReferences": "x"},
        {"name": "p", "ownerReferences": [{"controller": True, "kind": 1}]},
        {"name": "p", "annotations": []},
        {"name": "p", "annotations": {"cdi.k8s.io/x": 1}},
    ],
)
def test_metadata_of_another_shape_is_malformed(judge, metadata):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}}
    with pytest.raises(MalformedObjectError):
        judge(pod, name="p")


def test_an_update_of_a_malformed_pod_is_evaluated(judge, pod_of):
    old = {**pod_of(), "spec": {"containers": "none"}}
    with pytest.raises(MalformedObjectError):
        judge(pod_of(), operation="UPDATE", oldObject=old)


DRA_CLAIM = "ResourceClaim.resource.k8s.io"


def test_a_binding_reads_the_claims_of_its_pod_again(judge):
    """The cache may still contain a claim that was replaced after its pod was created."""
    store = ObjectStore(complete=False)
    cached = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": "mine", "namespace": "n"},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "nic"}}]}},
    }
    volume_claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "n"},
        "spec": {"volumeName": "pv"},
    }
    store.put(cached)
    store.put(volume_claim)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {
            "containers": [{"name": "m", "image": "i", "resources": {"claims": [{"name": "c"}]}}],
            "resourceClaims": [{"name": "c", "resourceClaimName": "mine"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }
    content = {ObjectKey("Pod", "n", "p"): pod}
    body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"name": "node-1"}}
    where = {
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "subResource": "binding",
        "namespace": "n",
        "name": "p",
    }

    lookup = Lookup(store, content)
    with pytest.raises(MissingObjectError):
        judge(body, lookup, **where)
    claims = {ObjectKey(DRA_CLAIM, "n", "mine"), ObjectKey("PersistentVolumeClaim", "n", "data")}
    assert claims <= lookup.missing

    # The facts are those of the claims that were read, not of those in the cache.
    exactly = {"deviceClassName": "gpu.nvidia.com"}
    swapped = {**cached, "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}}
    content |= {
        ObjectKey(DRA_CLAIM, "n", "mine"): swapped,
        ObjectKey("PersistentVolumeClaim", "n", "data"): None,
    }
    content |= dict.fromkeys(lookup.missing - claims)
    for name in ("nic", "gpu.nvidia.com"):
        content[ObjectKey("DeviceClass.resource.k8s.io", "", name)] = None
    (matches,) = judge(body, Lookup(store, content), **where)
    assert "gpu.nvidia.com" in str(matches.facts.devices)
    assert "data does not exist" in str(matches.facts.weights)
