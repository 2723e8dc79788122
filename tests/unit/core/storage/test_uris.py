"""Addresses of object stores, and what they name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.core.storage.locations import Relation, related
from webhook.core.storage.uris import parse_uri, uris_in

DECLARED = "s3://weights/atlas/*"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://weights/atlas",
        "S3://Weights//atlas/x",
        "s3a://weights/atlas/70b/",
        "s3://weights",
        "https://weights.s3.eu-west-1.amazonaws.com/atlas/x?versionId=1",
        "https://s3.amazonaws.com:443/weights/atlas",
        "https://s3-eu-west-1.amazonaws.com./weights/./atlas",
    ],
)
def test_spellings_of_one_bucket(uri):
    assert related(parse_uri(DECLARED).locations, parse_uri(uri).locations) is Relation.SAME


@pytest.mark.parametrize(
    "uri", ["s3://weights2/atlas", "s3://weights/photos", "gs://weights/atlas", "https://x/atlas"]
)
def test_other_buckets(uri):
    assert related(parse_uri(DECLARED).locations, parse_uri(uri).locations) is Relation.OTHER


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("hf://org/atlas", "https://huggingface.co/Org/Atlas/resolve/main/x.safetensors"),
        ("hf://org/atlas", "hf://org/atlas:rev"),
        ("gs://b/x", "https://storage.googleapis.com/b/x/y"),
        ("gs://b/x", "https://b.storage.googleapis.com/x"),
        ("abfss://c@acct.dfs.core.windows.net/p", "https://acct.blob.core.windows.net/c/p/q"),
        ("oss://b/x", "https://b.oss-cn-hangzhou-internal.aliyuncs.com/x"),
        ("https://files.example.com/w", "https://FILES.example.com.:443/w/x"),
    ],
)
def test_one_store_by_two_addresses(one, other):
    assert related(parse_uri(one).locations, parse_uri(other).locations) is Relation.SAME


def test_registries_are_compared_as_images():
    assert parse_uri("oci://r.example.com/a:1").image == "r.example.com/a:1"


def test_addresses_inside_texts():
    text = 'serve --model=s3://a/b,gs://c "hf://d/e" plain'
    assert list(uris_in(text)) == ["s3://a/b", "gs://c", "hf://d/e"]


@given(st.text(max_size=80))
def test_any_text_is_parsed(text):
    """No text raises, and a text that is no address names nothing."""
    for uri in uris_in(f"x://{text}"):
        parse_uri(uri)
    parse_uri(text)
