"""Backups of namespaces and of pods. The attacks and the harmless ones are in tests/redteam/copies-and-images.yaml."""

import pytest

from webhook.api.config import Settings
from webhook.core.facts import gather_request
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import Lookup
from webhook.core.workloads.templates import WorkloadTable

SETTINGS, WORKLOADS = Settings(), WorkloadTable()


@pytest.fixture
def models_of(request_of, snapshot_of, atlas, claim_of):
    """The models that a write copies, in a cluster with one protected and one free claim in ``research``."""
    snapshot = snapshot_of(atlas, claim_of("atlas-weights"), claim_of("scratch"))

    def models_of(document, **fields):
        facts = gather_request(
            request_of(document, **fields), Lookup(snapshot.objects), snapshot.catalog, SETTINGS, WORKLOADS
        )
        return [use.model for item in facts for use in item.facts.weights]

    return models_of


@pytest.fixture
def claim_of():
    def claim_of(name):
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "research"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": ""},
        }

    return claim_of


def backup(**spec):
    return {
        "apiVersion": "velero.io/v1",
        "kind": "Backup",
        "metadata": {"name": "nightly", "namespace": "velero"},
        "spec": spec,
    }


def test_an_update_counts_the_namespaces_that_it_adds(models_of):
    old = backup(includedNamespaces=["web"])
    assert models_of(backup(includedNamespaces=["web"], ttl="1h"), operation="UPDATE", oldObject=old) == []
    new = backup(includedNamespaces=["web", "research"])
    assert models_of(new, operation="UPDATE", oldObject=old) == ["atlas-70b"]
    assert models_of(backup(ttl="1h", **new["spec"]), operation="UPDATE", oldObject=new) == []


@pytest.mark.parametrize("namespaces", [None, [], ["*"], ["res*"]])
def test_a_backup_without_an_exact_list_of_namespaces_may_copy_any_model(models_of, namespaces):
    assert models_of(backup(includedNamespaces=namespaces)) == ["?"]


@pytest.mark.parametrize("resources", [["Pods"], ["persistentvolumeclaims."], ["secrets", "pvc"], ["*"]])
def test_a_backup_of_pods_or_claims_brings_their_volumes(models_of, resources):
    assert models_of(backup(includedNamespaces=["research"], includedResources=resources)) == ["atlas-70b"]


def test_a_spec_of_another_shape_is_malformed(models_of):
    with pytest.raises(MalformedObjectError):
        models_of(backup() | {"spec": ["research"]})


def test_a_resource_with_pods_copies_claims_of_other_namespaces_too(models_of):
    mover = {
        "apiVersion": "mover.example.org/v1",
        "kind": "Mover",
        "metadata": {"name": "m", "namespace": "web"},
        "spec": {"image": "registry.example.com/rsync:1", "pvcName": "atlas-weights"},
    }
    assert models_of(mover) == []
    mover["spec"]["pvcNamespace"] = "research"
    assert models_of(mover) == ["atlas-70b"]
    assert models_of(mover, operation="UPDATE", oldObject=mover) == []
