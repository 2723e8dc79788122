"""Stores that a custom resource names by several fields."""

import pytest

from webhook.core.facts.store_fields import named_stores
from webhook.core.storage.locations import Relation, related
from webhook.core.storage.uris import parse_uri


def resource(spec, kind="Loader", api="example.com/v1", **metadata):
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "x", **metadata}, "spec": spec}


def locations(document):
    return [place for store in named_stores(document) for place in store.locations]


@pytest.mark.parametrize(
    ("uri", "document"),
    [
        ("s3://b/atlas", resource({"s3": {"bucket": "b", "key": "atlas/x"}})),
        ("s3://b/atlas", resource({"s3Bucket": "b", "s3Prefix": "atlas"})),
        ("s3://b/atlas", resource({"from": [{"model_bucket": "b"}]})),
        ("s3://b/atlas", resource({"bucket": "b", "key": "decoy", "path": "atlas"})),
        ("gs://b/atlas", resource({"resourceRef": {"kind": "StorageBucket", "external": "b"}})),
        ("gs://b/x", resource({}, kind="StorageBucket", name="b")),
        (
            "s3://b/x",
            resource({"forProvider": {}}, kind="Bucket", annotations={"crossplane.io/external-name": "b"}),
        ),
        ("s3://b/x", resource({"existingBucketID": "b"}, kind="Bucket", api="objectstorage.k8s.io/v1alpha1")),
        ("abfss://c@acct.dfs.core.windows.net/p", resource({"storageAccount": "acct", "container": "c"})),
        ("hf://org/atlas", resource({"hf": {"namespace": "org", "modelName": "atlas"}})),
        ("hf://org/atlas", resource({"huggingFace": {"owner": "Org", "repo": "Atlas"}})),
    ],
)
def test_a_store_by_its_fields(uri, document):
    assert related(parse_uri(uri).locations, locations(document)) is Relation.SAME


@pytest.mark.parametrize(
    ("uri", "document"),
    [
        ("s3://b/atlas", resource({"s3": {"bucket": "b", "prefix": "photos"}})),
        ("s3://b/atlas", resource({"bucket": "b2"})),
        ("s3://x/atlas", resource({}, kind="BucketClaim", api="objectstorage.k8s.io/v1alpha1", name="x")),
        ("hf://org/atlas", resource({"ref": {"namespace": "org", "name": "atlas"}})),
        ("abfss://c@acct.dfs.core.windows.net/p", resource({"container": "c", "image": "acct"})),
    ],
)
def test_other_fields_name_other_stores(uri, document):
    assert related(parse_uri(uri).locations, locations(document)) is Relation.OTHER


def test_an_image_in_parts():
    document = resource({"image": {"registry": "r.example.com/", "repository": "models/atlas", "tag": "1"}})
    assert [store.image for store in named_stores(document)] == ["r.example.com/models/atlas:1"]
