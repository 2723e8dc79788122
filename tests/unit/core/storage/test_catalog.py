"""Which model does this hold? Each entry of a ModelWeights, and the answers for many of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.api.modelweights import ModelWeights
from webhook.core.storage.catalog import Catalog
from webhook.core.storage.sources import backend_of

DIGEST = "sha256:" + "0" * 64
OTHER_DIGEST = "sha256:" + "1" * 64


def model_of(name, *volumes):
    spec = {"sensitivity": "frontier", "volumes": list(volumes)}
    document = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ModelWeights",
        "metadata": {"name": name},
        "spec": spec,
    }
    return ModelWeights.model_validate(document)


def names(models):
    return sorted({model.name for model in models})


def of_backend(catalog, source):
    return names(model for model, _, _ in catalog.of_backend(backend_of(source, "spec")))


@pytest.mark.parametrize(
    ("entry", "namespace", "name", "labels", "found"),
    [
        ({"names": ["a-*"]}, "any", "a-1", {}, True),
        ({"names": ["a-*"]}, "any", "b-1", {}, False),
        ({"names": ["a", "b-?"]}, "any", "b-1", None, True),
        ({"namespaces": ["r"], "names": ["a"]}, "r", "a", {}, True),
        ({"namespaces": ["r"], "names": ["a"]}, "s", "a", {}, False),
        ({"namespaces": ["r*"], "names": ["a"]}, "research", "a", {}, True),
        ({"namespaces": ["r"]}, "r", "anything", None, True),
        ({}, "any", "anything", None, True),
        ({"selector": {"matchLabels": {"w": "y"}}}, "any", "a", {"w": "y"}, True),
        ({"selector": {"matchLabels": {"w": "y"}}}, "any", "a", {}, False),
        ({"selector": {"matchLabels": {"w": "y"}}}, "any", "a", None, False),
        ({"names": ["a"], "selector": {"matchLabels": {"w": "y"}}}, "any", "a", {"w": "n"}, False),
        ({"selector": {}}, "any", "a", {}, True),
    ],
)
def test_claims_meet_all_that_is_given(entry, namespace, name, labels, found):
    catalog = Catalog([model_of("atlas", {"persistentVolumeClaim": entry})])
    assert names(catalog.of_claim(namespace, name, labels)) == (["atlas"] if found else [])


def test_volumes_meet_all_that_is_given():
    entry = {"names": ["atlas-*"], "selector": {"matchLabels": {"w": "y"}}}
    catalog = Catalog([model_of("atlas", {"persistentVolume": entry})])
    assert names(catalog.of_volume("atlas-1", {"w": "y"})) == ["atlas"]
    assert names(catalog.of_volume("atlas-1", {})) == []


@pytest.mark.parametrize(
    ("entry", "volume", "found"),
    [
        ({}, {}, True),
        ({"volumeHandles": ["a/*"]}, {"volumeHandle": "a/1"}, True),
        ({"volumeHandles": ["a/*"]}, {"volumeHandle": "b/1"}, False),
        ({"volumeHandles": ["*"]}, {}, False),
        ({"attributes": {"bucket": "a*"}}, {"volumeAttributes": {"Bucket": "a1"}}, True),
        ({"attributes": {"bucket": "a*"}}, {"volumeAttributes": {"bucket": "A1"}}, False),
        ({"attributes": {"bucket": "a", "dir": "x"}}, {"volumeAttributes": {"bucket": "a"}}, False),
        (
            {"attributes": {"bucket": "a", "dir": "x"}},
            {"volumeAttributes": {"bucket": "a", "dir": "x"}},
            True,
        ),
        ({"volumeHandles": ["a"], "attributes": {"bucket": "b"}}, {"volumeHandle": "a"}, True),
        (
            {"volumeHandles": ["a"], "attributes": {"bucket": "b"}},
            {"volumeAttributes": {"bucket": "b"}},
            True,
        ),
    ],
)
def test_a_handle_or_all_attributes_make_a_csi_volume_weights(entry, volume, found):
    catalog = Catalog([model_of("atlas", {"csi": {"driver": "d.example.com", **entry}})])
    expected = ["atlas"] if found else []
    assert of_backend(catalog, {"csi": {"driver": "d.example.com", **volume}}) == expected
    assert of_backend(catalog, {"csi": {"driver": "e.example.com", **volume}}) == []


def test_an_in_tree_disk_meets_the_entry_of_the_driver_it_is_translated_to():
    disks = {"csi": {"driver": "pd.csi.storage.gke.io", "volumeHandles": ["*/disks/atlas"]}}
    catalog = Catalog(
        [model_of("atlas", disks, {"csi": {"driver": "ebs.csi.aws.com", "volumeHandles": ["vol-1"]}})]
    )
    assert of_backend(catalog, {"gcePersistentDisk": {"pdName": "atlas"}}) == ["atlas"]
    assert of_backend(catalog, {"awsElasticBlockStore": {"volumeID": "vol-1"}}) == ["atlas"]


def test_two_exports_of_one_server():
    models = [
        model_of(name, {"nfs": {"server": "S.example.com", "path": f"/export/{name}*"}}) for name in "ab"
    ]
    catalog = Catalog(models)

    def ask(path):
        return of_backend(catalog, {"nfs": {"server": "s.example.com.", "path": path}})

    assert ask("/export/a1/x") == ["a"]
    assert ask("/export") == ["a", "b"]
    assert ask("/other") == []


@pytest.mark.parametrize(
    ("entry", "reference", "found"),
    [
        ("r.example.com/m/atlas*", "r.example.com/m/atlas-70b:v1", True),
        ("r.example.com/m/atlas*", "r.example.com/m/atlas/shards@" + DIGEST, True),
        ("r.example.com/m/atlas*", "mirror.example.com/m/atlas", False),
        ("r.example.com/m/atlas:v1", "r.example.com/m/atlas:v1", True),
        ("r.example.com/m/atlas:v1", "r.example.com/m/atlas:v2", False),
        ("r.example.com/m/atlas:latest", "r.example.com/m/atlas", True),
        ("r.example.com/m/atlas:v1", "r.example.com/m/atlas@" + DIGEST, True),
        ("r.example.com/m/atlas@" + DIGEST, "r.example.com/m/atlas:v2", True),
        ("r.example.com/m/atlas@" + DIGEST, "r.example.com/m/atlas@" + OTHER_DIGEST, False),
        ("r.example.com/m/atlas@" + DIGEST, "mirror.example.com/copy@" + DIGEST, True),
        ("*atlas*", "any.example.com/deep/atlas-1:x", True),
        ("nginx", "docker.io/library/nginx:1", True),
        ("nginx", "r.example.com/nginx", False),
    ],
)
def test_images(entry, reference, found):
    catalog = Catalog([model_of("atlas", {"image": {"reference": entry}})])
    expected = ["atlas"] if found else []
    assert names(catalog.of_image(reference)) == expected
    # Asked again, the answer is a remembered one.
    assert names(catalog.of_image(reference)) == expected


def test_the_cache_of_image_references_is_bounded():
    catalog = Catalog([model_of("atlas", {"image": {"reference": "r.example.com/atlas"}})])
    for number in range(5000):
        catalog.of_image(f"r.example.com/other:{number}")
    catalog.of_image("r.example.com/" + "x" * 10_000)
    assert len(catalog._image_models) <= 4096
    assert names(catalog.of_image("r.example.com/atlas:5001")) == ["atlas"]


def test_an_empty_catalog_is_false():
    assert not Catalog([])
    assert Catalog([model_of("atlas", {"hostPath": {"path": "/w"}})])


@given(st.lists(st.text("ab*", min_size=1, max_size=4), max_size=8), st.text("ab", max_size=5))
def test_many_models_answer_as_each_alone(patterns, name):
    models = [
        model_of(f"m{number}", {"persistentVolumeClaim": {"names": [glob]}})
        for number, glob in enumerate(patterns)
    ]
    alone = [found for model in models for found in names(Catalog([model]).of_claim("n", name, {}))]
    assert names(Catalog(models).of_claim("n", name, {})) == sorted(alone)
