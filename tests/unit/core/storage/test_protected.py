"""The index of protected storage: after any sequence of changes it equals a new index of the same objects."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.core.kube.objects import Lookup, ObjectKey, ObjectStore
from webhook.core.storage.catalog import Catalog
from webhook.core.storage.protected import ProtectedBackends
from webhook.core.storage.sources import backend_of

SNAPSHOT_GROUP = "snapshot.storage.k8s.io"
MODELS = [
    {"persistentVolumeClaim": {"names": ["c0"]}},
    {"persistentVolumeClaim": {"selector": {"matchLabels": {"w": "y"}}}},
    {"csi": {"driver": "d", "volumeHandles": ["h0"]}},
    {"persistentVolume": {"selector": {"matchLabels": {"w": "y"}}}},
]


def names(volumes):
    return sorted({getattr(volume, "volume", volume).name for volume in volumes})


@pytest.fixture
def handle():
    return lambda text: backend_of({"csi": {"driver": "d", "volumeHandle": text}}, "spec")


def test_volumes_of_a_protected_claim_are_found_by_their_storage(
    store_of, catalog_of, model_of, claim_of, volume_of, handle
):
    store = store_of(
        claim_of("c0", volumeName="v0"),
        volume_of(
            "v0", csi={"driver": "d", "volumeHandle": "h0"}, claimRef={"namespace": "research", "name": "c0"}
        ),
        volume_of("v1", csi={"driver": "d", "volumeHandle": "h1"}),
        volume_of("v2", labels={"w": "y"}, nfs={"server": "s", "path": "/a/b"}),
    )
    backends = catalog_of(model_of("atlas", *MODELS), store=store).backends
    assert names(backends.find(handle("h0"))) == ["v0"]
    assert names(backends.find(handle("h1"))) == []
    assert names(backends.find(backend_of({"nfs": {"server": "S.", "path": "/a"}}, "spec"))) == ["v2"]


def test_a_malformed_volume_harms_no_other(store_of, catalog_of, model_of, volume_of, handle):
    store = store_of(
        volume_of("bad", labels={"w": "y"}, csi={"driver": "d", "volumeHandle": {}}),
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "bare", "labels": {"w": "y"}}},
        volume_of("good", labels={"w": "y"}, csi={"driver": "d", "volumeHandle": "h"}),
    )
    backends = catalog_of(model_of("atlas", *MODELS), store=store).backends
    assert names(backends.find(handle("h"))) == ["good"]
    assert names(backends.bindable("ns", "c", {}, {}, Lookup(store))) == ["bare", "good"]


def test_nothing_to_protect_is_nothing_to_keep(store_of, catalog_of, volume_of, handle):
    store = store_of(volume_of("v", csi={"driver": "d", "volumeHandle": "h"}))
    backends = catalog_of(store=store).backends
    backends.changed(ObjectKey("PersistentVolume", "", "v"))
    assert names(backends.find(handle("h"))) == []


small = st.integers(min_value=0, max_value=3)


@st.composite
def documents(draw):
    """A claim, volume, snapshot or content of a small cluster where everything may lead to everything."""
    number, target = draw(small), draw(small)
    labels = draw(st.sampled_from([{}, {"w": "y"}]))
    kind = draw(st.sampled_from(["claim", "volume", "snapshot", "content"]))
    if kind == "claim":
        sources = [
            {},
            {"volumeName": f"v{target}"},
            {"dataSource": {"kind": "PersistentVolumeClaim", "name": f"c{target}"}},
            {"dataSource": {"apiGroup": SNAPSHOT_GROUP, "kind": "VolumeSnapshot", "name": f"s{target}"}},
        ]
        spec = {**draw(st.sampled_from(sources)), **draw(st.sampled_from(sources))}
        return item("v1", "PersistentVolumeClaim", f"c{number}", spec, "n", labels)
    if kind == "volume":
        spec = {"csi": {"driver": "d", "volumeHandle": f"h{target % 2}"}}
        if draw(st.booleans()):
            spec["claimRef"] = {"namespace": "n", "name": f"c{draw(small)}"}
        return item("v1", "PersistentVolume", f"v{number}", spec, "", labels)
    if kind == "snapshot":
        sources = [{"persistentVolumeClaimName": f"c{target}"}, {"volumeSnapshotContentName": f"t{target}"}]
        spec = {"source": draw(st.sampled_from(sources))}
        return item(f"{SNAPSHOT_GROUP}/v1", "VolumeSnapshot", f"s{number}", spec, "n")
    sources = [{"volumeHandle": f"h{target % 2}"}, {"snapshotHandle": f"x{target % 2}"}]
    spec = {"driver": "d", "source": draw(st.sampled_from(sources))}
    content = item(f"{SNAPSHOT_GROUP}/v1", "VolumeSnapshotContent", f"t{number}", spec)
    return {**content, "status": {"snapshotHandle": f"x{number % 2}"}}


def item(api_version, kind, name, spec, namespace="", labels=None):
    metadata = {"name": name, "labels": labels or {}, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


events = st.lists(st.tuples(st.booleans(), documents()), max_size=14)


def everything(backends, store):
    queries = [backend_of({"csi": {"driver": "d", "volumeHandle": f"h{number}"}}, "") for number in range(2)]
    matches = [names(backends.find(backend)) for backend in queries]
    waiting = [names(backends.bindable("n", f"c{number}", {}, {}, Lookup(store))) for number in range(4)]
    return [*matches, *waiting]


@given(events)
def test_an_updated_index_equals_a_new_index(model_of, happened):
    store = ObjectStore(complete=True)
    catalog = Catalog([model_of("atlas", *MODELS)])
    remaining = ProtectedBackends(catalog, store)
    for removed, item in happened:
        key = store.put(item)
        if removed:
            store.remove(key)
        remaining.changed(key)
    assert everything(remaining, store) == everything(ProtectedBackends(catalog, store), store)


@given(events)
def test_a_kept_backend_is_that_of_the_stored_document(model_of, happened):
    """A review takes it instead of reading the volume again, so it must be what reading would give."""
    store = ObjectStore(complete=True)
    remaining = ProtectedBackends(Catalog([model_of("atlas", *MODELS)]), store)
    for _, item in happened:
        remaining.changed(store.put(item))
    for document in store.each("PersistentVolume"):
        name = document["metadata"]["name"]
        backend = remaining.backend_of(name, document)
        assert backend is None or backend == backend_of(document["spec"], "spec")
        assert remaining.backend_of(name, copy.deepcopy(document)) is None


def test_a_volume_that_changed_is_read_again(model_of):
    """Between the change of an object and that of the index, the document of the index is another one."""
    store = ObjectStore(complete=True)

    def volume(handle):
        spec = {"csi": {"driver": "d", "volumeHandle": handle}}
        return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": spec}

    before, after = volume("h0"), volume("h1")
    key = store.put(before)
    remaining = ProtectedBackends(Catalog([model_of("atlas", *MODELS)]), store)
    assert remaining.backend_of("v", before).handle == "h0"
    store.put(after)
    assert remaining.backend_of("v", after) is None
    remaining.changed(key)
    assert remaining.backend_of("v", before) is None
    assert remaining.backend_of("v", after).handle == "h1"
    store.remove(key)
    remaining.changed(key)
    assert remaining.backend_of("v", after) is None


EDITS = [
    [],
    [{"persistentVolumeClaim": {"names": ["c0"]}}],
    [{"persistentVolumeClaim": {"namespaces": ["n"], "selector": {"matchLabels": {"w": "y"}}}}],
    [{"csi": {"driver": "d", "volumeHandles": ["h0"]}}],
    [{"csi": {"driver": "d", "volumeHandles": ["h*"]}}, {"persistentVolumeClaim": {"names": ["c*"]}}],
    [{"csi": {"driver": "d", "attributes": {"bucket": "b"}}}],
    [{"csi": {"driver": "d"}}],
    [{"persistentVolume": {"selector": {"matchLabels": {"w": "y"}}}}],
    [{"nfs": {"server": "s", "path": "/a"}}],
]


@given(events, st.lists(st.tuples(st.sampled_from(["atlas", "mini"]), st.sampled_from(EDITS)), max_size=6))
def test_an_edited_model_gives_the_same_index_as_a_new_one(model_of, happened, edits):
    """An edit touches only the volumes that the old or the new form matches."""
    store = ObjectStore(complete=True)
    catalog = Catalog([model_of("other", *MODELS[2:3])])
    remaining = ProtectedBackends(catalog, store)
    for _, item in happened:
        remaining.changed(store.put(item))
    models = {"other": model_of("other", *MODELS[2:3])}
    for name, entries in edits:
        if entries:
            models[name] = model_of(name, *entries)
            catalog.add(models[name])
        else:
            models.pop(name, None)
            catalog.discard(name)
        remaining.model_changed(name, Catalog([models[name]] if name in models else []))
    fresh = ProtectedBackends(Catalog(models.values()), store)
    assert everything(remaining, store) == everything(fresh, store)
    assert {v.name: v.models for v in remaining._volumes.values()} == {
        v.name: v.models for v in fresh._volumes.values()
    }
