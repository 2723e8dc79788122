"""Which volumes a claim that names none could be bound to."""

import pytest

from webhook.core.kube.objects import Lookup
from webhook.core.storage.binding import claim_classes, fits, is_available, offered_class

BETA = {"volume.beta.kubernetes.io/storage-class": "old"}


def storage_class(name, default="true"):
    annotations = {"storageclass.kubernetes.io/is-default-class": default}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
    }


@pytest.mark.parametrize(
    ("changes", "available"),
    [
        ({}, True),
        ({"phase": "Available"}, True),
        ({"phase": "Pending"}, True),
        ({"phase": "Released"}, False),
        ({"phase": "Bound"}, False),
        ({"claimRef": {"name": "a", "namespace": "b"}}, False),
    ],
)
def test_a_volume_is_available_until_a_claim_has_it(volume_of, changes, available):
    assert is_available(volume_of("v", **changes)) is available


def test_a_volume_on_its_way_out_is_not_available(volume_of):
    volume = volume_of("v")
    volume["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    assert not is_available(volume)
    assert is_available({"metadata": {"name": "v"}})


def test_classes(volume_of, store_of):
    lookup = Lookup(store_of(storage_class("fast"), storage_class("slow", "false")))
    assert offered_class(volume_of("v")) == ""
    assert offered_class(volume_of("v", storageClassName="fast")) == "fast"
    assert (
        offered_class({"metadata": {"name": "v", "annotations": BETA}, "spec": {"storageClassName": "new"}})
        == "old"
    )
    assert claim_classes({"storageClassName": "slow"}, {}, lookup) == {"slow"}
    assert claim_classes({"storageClassName": ""}, {}, lookup) == {""}
    assert claim_classes({}, {}, lookup) == {"", "fast"}
    assert claim_classes({"storageClassName": "new"}, {"annotations": BETA}, lookup) == {"old"}


@pytest.mark.parametrize(
    ("claim", "fitting"),
    [
        ({}, True),
        ({"volumeMode": "Block"}, False),
        ({"accessModes": ["ReadWriteOnce"]}, True),
        ({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]}, False),
        ({"accessModes": "x"}, True),
        ({"selector": {"matchLabels": {"tier": "weights"}}}, True),
        ({"selector": {"matchLabels": {"tier": "other"}}}, False),
        ({"selector": {}}, True),
        ({"selector": {"matchExpressions": [{"key": "tier", "operator": "Odd"}]}}, False),
    ],
)
def test_modes_and_labels(volume_of, claim, fitting):
    volume = volume_of("v", labels={"tier": "weights"}, accessModes=["ReadWriteOnce", "ReadOnlyMany"])
    assert fits(volume, claim) is fitting
