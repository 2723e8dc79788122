import pytest

from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import Lookup, MissingObjectError, ObjectKey, ObjectStore, group_kind, key_of

CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "a", "namespace": "research"},
}


def test_group_kind_is_written_as_kubernetes_writes_it():
    assert group_kind("v1", "Pod") == "Pod"
    assert group_kind("apps/v1", "Deployment") == "Deployment.apps"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"apiVersion": "v1", "kind": "Pod"},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": ""}},
        {"apiVersion": 1},
    ],
)
def test_other_documents_have_no_key(document):
    with pytest.raises(ValueError, match=r"metadata|Kubernetes object"):
        key_of(document)


def test_put_get_remove():
    store = ObjectStore(complete=True)
    key = store.put(CLAIM)
    assert key == ObjectKey("PersistentVolumeClaim", "research", "a")
    assert store.get(key) is CLAIM
    assert list(store.each("PersistentVolumeClaim")) == [CLAIM]
    assert list(store.each("PersistentVolumeClaim", "other")) == []
    assert store.count("PersistentVolumeClaim") == 1
    store.remove(key)
    store.remove(key)
    assert store.get(key) is None


def test_an_absent_object_of_a_complete_store_does_not_exist():
    assert Lookup(ObjectStore(complete=True)).get("Pod", "research", "a") is None


def test_an_uncached_object_is_requested():
    lookup = Lookup(ObjectStore(complete=False))
    with pytest.raises(MissingObjectError):
        lookup.get("Pod", "research", "a")
    assert lookup.missing == {ObjectKey("Pod", "research", "a")}


def test_fetched_data_includes_absent_objects():
    key = ObjectKey("Pod", "research", "a")
    assert Lookup(ObjectStore(complete=False), {key: None}).get(*key) is None
    assert Lookup(ObjectStore(complete=False), {key: CLAIM}).get(*key) is CLAIM


UNSAFE = {**CLAIM, "metadata": {**CLAIM["metadata"], "annotations": {"a": "allowed\0evil"}}}


def test_an_object_the_engine_would_read_wrongly_is_not_given_out():
    store = ObjectStore(complete=True)
    key = store.put(UNSAFE)
    with pytest.raises(MalformedObjectError, match="NUL"):
        Lookup(store).get(*key)
    store.put(CLAIM)
    assert Lookup(store).get(*key) is CLAIM


def test_nor_one_that_was_fetched():
    key = key_of(UNSAFE)
    with pytest.raises(MalformedObjectError, match="NUL"):
        Lookup(ObjectStore(complete=False), {key: UNSAFE}).get(*key)


def test_stored_objects_show_the_scope_of_their_kind():
    """An object with a namespace proves a namespaced kind; a kind without objects falls back to its definition."""
    store = ObjectStore(complete=True)
    assert store.is_namespaced("Quota.example.com") is None
    key = store.put(
        {"apiVersion": "example.com/v1", "kind": "Quota", "metadata": {"name": "q", "namespace": "n"}}
    )
    assert store.is_namespaced("Quota.example.com") is True
    store.remove(key)
    assert store.is_namespaced("Quota.example.com") is None
    store.put({"apiVersion": "example.com/v1", "kind": "Quota", "metadata": {"name": "q"}})
    assert store.is_namespaced("Quota.example.com") is False
