"""Addresses of object stores, and what they name."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.core.storage.drivers import iscsi, nfs, smb
from webhook.core.storage.locations import Relation, related
from webhook.core.storage.uris import https_image, parse_bare, parse_uri, uris_in

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
        ("gs://b/x", "https://commondatastorage.googleapis.com/b/x"),
        ("gs://b/x", "https://b.storage-download.googleapis.com/x"),
        ("gs://b/x", "https://storage.us-central1.rep.googleapis.com/b/x"),
        ("s3://b/x", "https://bucket.vpce-1a2b-5e6f.s3.us-east-1.vpce.amazonaws.com/b/x"),
        ("s3://b/x", "https://b.bucket.vpce-1a2b-5e6f.s3.us-east-1.vpce.amazonaws.com/x"),
        ("s3://b/x", "s3://user:key@b:443/x"),
        ("abfss://c@acct.dfs.core.windows.net/p", "https://acct-secondary.blob.core.windows.net/c/p"),
        ("abfss://c@acct.dfs.core.windows.net/p", "https://acct.z13.blob.storage.azure.net/c/p"),
        ("abfss://c@acct.dfs.core.windows.net/p", "as://acct/c/p"),
        ("oss://b/x", "https://oss-cn-hangzhou.aliyuncs.com/b/x"),
        ("hf://org/atlas", "https://hub-ci.huggingface.co/org%2Fatlas"),
        ("hf://org/atlas", "ssh://git@hf.co/org/atlas.git"),
        ("s3://b/x", "newclient://b/x"),
    ],
)
def test_one_store_by_two_addresses(one, other):
    assert related(parse_uri(one).locations, parse_uri(other).locations) is Relation.SAME


@pytest.mark.parametrize(
    ("declarations", "address"),
    [
        ("s3://b/x", "s3://arn:aws:s3:us-east-1:1:accesspoint/point/x"),
        ("s3://b/x", "https://point-1.s3-accesspoint.us-west-2.amazonaws.com/x"),
        ("s3://b/x", "https://mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com/x"),
    ],
)
def test_the_bucket_of_an_access_point_is_unknown(declarations, address):
    assert related(parse_uri(declarations).locations, parse_uri(address).locations) is Relation.POSSIBLE


@pytest.mark.parametrize(
    ("declarations", "text"),
    [
        ("hf://org/atlas", "hf.co/org/atlas:Q4_K_M"),
        ("hf://org/atlas", "git@hf.co:org/atlas"),
        ("s3://bkt/x", "remote:bkt/x/y"),
        ("s3://bkt/x", ":s3,provider=AWS:bkt/x"),
        ("s3://bkt/x", "bkt:/x"),
        ("s3://bkt/x", "s3:bkt"),
    ],
)
def test_addresses_without_a_scheme(declarations, text):
    assert related(parse_uri(declarations).locations, parse_bare(text).locations) is Relation.SAME


@pytest.mark.parametrize(
    "text", ["redis:6379/0", "application/json", "localhost:8080/bkt", "a:bkt", "list", "C:/bkt"]
)
def test_other_texts_name_no_store(text):
    assert related(parse_uri("s3://bkt/x").locations, parse_bare(text).locations) is Relation.OTHER


@pytest.mark.parametrize("scheme", ["postgres", "redis", "kafka", "grpc", "unix"])
def test_protocols_without_objects_name_no_bucket(scheme):
    assert related(parse_uri("s3://b/x").locations, parse_uri(f"{scheme}://b/x").locations) is Relation.OTHER


@pytest.mark.parametrize(
    "host",
    ["s3-" + "a-" * 900, "storage." * 200 + "googleapis.com", "a." * 900 + "amazonaws.com", "-" * 1900],
)
def test_hosts_are_read_in_linear_time(host):
    started = time.process_time()
    for _ in range(100):
        parse_uri(f"https://{host}/x")
    assert time.process_time() - started < 1


def test_registries_are_compared_as_images():
    assert parse_uri("oci://r.example.com/a:1").image == "r.example.com/a:1"
    assert parse_uri("oras://r.example.com/a:1").image == "r.example.com/a:1"
    assert https_image("https://r.example.com/v2/a/b/blobs/sha256:1") == "r.example.com/a/b"
    assert https_image("https://r.example.com/v3/a/b/blobs/sha256:1") == ""


def test_addresses_inside_texts():
    text = 'serve --model=s3://a/b,gs://c "hf://d/e" plain'
    assert list(uris_in(text)) == ["s3://a/b", "gs://c", "hf://d/e"]


@given(st.text(max_size=80))
def test_any_text_is_parsed(text):
    """No text raises, and a text that is not an address names no bucket."""
    for uri in uris_in(f"x://{text}"):
        parse_uri(uri)
    parse_uri(text)


@pytest.mark.parametrize(
    "text",
    [
        "$(aws s3 cp --recursive s3://bkt/x)",
        "[s3://bkt/x]",
        "{uri: s3://bkt/x}",
        "${U:-s3://bkt/x}",
        "aws s3 sync s3://bkt/x&& ls",
        "s3://bkt?region=eu&prefix=x",
        '{"uri":"s3:\\/\\/bkt\\/x"}',
        "zip://m::s3://bkt/x/m.zip",
        "https://proxy.example.com/?u=s3://bkt/x",
        "s3://bkt/x/" + "y" * 5000,
        "https://" + "u" * 5000 + "@bkt.s3.amazonaws.com/x",
    ],
)
def test_an_address_inside_of_a_text(text):
    locations = [place for uri in uris_in(text) for place in parse_uri(uri).locations]
    assert related(parse_uri("s3://bkt/x").locations, locations) is Relation.SAME


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ("s3://bkt/x", "s3:/bkt/x"),
        ("s3://bkt/x", "s3:s3.amazonaws.com/bkt/x"),
        ("s3://bkt/x", "remote:/bkt/x"),
        ("s3://bkt/x", "minio/bkt/x"),
        ("hf://org/atlas", "hf-hub:org/atlas"),
        ("https://files.example.com/w", "files.example.com/w/x"),
        ("https://files.example.com/w", "//files.example.com/w/x"),
    ],
)
def test_an_address_without_a_scheme(declared, text):
    assert related(parse_uri(declared).locations, parse_bare(text).locations) is Relation.SAME


@pytest.mark.parametrize(
    ("declared", "uri"),
    [
        ("s3://bkt/x", "s3:///bkt/x"),
        ("s3://bkt/x", "s3://bkt.s3.amazonaws.com/x"),
        ("s3://bkt/x", "s3://s3.eu-west-1.amazonaws.com/bkt/x"),
        ("s3://bkt/x", "s3://minio.svc:9000/bkt/x"),
        ("s3://bkt/x", "s3+https://bkt/x"),
    ],
)
def test_an_endpoint_inside_of_an_address(declared, uri):
    assert related(parse_uri(declared).locations, parse_uri(uri).locations) is Relation.SAME


def test_an_address_of_network_storage_is_the_storage_of_a_volume():
    assert (
        related(nfs("10.0.0.9", "/export"), parse_uri("nfs://10.0.0.9/export/x").locations) is Relation.SAME
    )
    assert related(smb("//nas/share"), parse_uri("smb://NAS/share/x").locations) is Relation.SAME
    assert related(
        iscsi("iqn.2001-04.com.x:a", "1"), parse_uri("iscsi://p:3260/iqn.2001-04.com.x:a/1").locations
    ) is (Relation.SAME)


def test_many_addresses_inside_of_one_another_take_linear_time():
    text = "s3://" * 200_000
    start = time.perf_counter()
    count = sum(1 for _ in uris_in(text))
    assert count <= 128
    assert time.perf_counter() - start < 5
