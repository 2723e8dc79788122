"""The manifest: what a change to it, or the wrong key, leads to; and that no bytes make reading it crash."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import os
import tracemalloc
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.keys.errors import SealedDataError, WrongKeyError
from webhook.keys.sealed.format import manifest as manifest_module
from webhook.keys.sealed.format.manifest import Entry, KeyRef, Manifest, manifest_key, parse
from webhook.keys.secret import Secret

KEY = bytes(range(32))
MANIFEST = Manifest(
    "atlas-70b",
    3,
    "2026-11-23T00:00:00Z",
    KeyRef("k1", "vault://transit/atlas", b"wrapped"),
    (Entry("a/w.bin", 10, "a/w.bin.sealed", "sha256:aa"), Entry("b.json", 0, "b.json.3.sealed", "sha256:bb")),
)
STORED = MANIFEST.encode(Secret(KEY))


def signed_again(document):
    """The document with a valid MAC, as a holder of the key can make it."""
    if "mac" in document:
        body = manifest_module._body_2({name: value for name, value in document.items() if name != "mac"})
        mac = hmac.digest(manifest_key(Secret(KEY), "atlas-70b"), body, "sha256")
        document = {**document, "mac": base64.b64encode(mac).decode()}
    return parse(orjson.dumps(document))


def test_round_trip():
    saved = parse(STORED).verify(Secret(KEY))
    assert replace(saved, digest="") == MANIFEST
    assert saved.digest == "sha256:" + hashlib.sha256(STORED).hexdigest()
    assert MANIFEST.size == 10


def test_another_key_does_not_fit():
    with pytest.raises(WrongKeyError, match='the key does not match the manifest of model "atlas-70b"'):
        parse(STORED).verify(Secret(os.urandom(32)))


def _changes():
    yield "size", lambda doc: doc["files"][0].update(size=11)
    yield "digest", lambda doc: doc["files"][0].update(digest="sha256:cc")
    yield "swapped", lambda doc: doc["files"].reverse()
    yield "dropped", lambda doc: doc["files"].pop()
    yield (
        "added",
        lambda doc: doc["files"].append({"path": "c", "size": 1, "file": "c.sealed", "digest": "x"}),
    )
    yield "renamed", lambda doc: doc["files"][0].update(path="a/v.bin")
    yield "generation", lambda doc: doc.update(generation=4)
    yield "created", lambda doc: doc.update(created="2027")
    yield "model", lambda doc: doc.update(model="atlas-8b")
    yield "key id", lambda doc: doc["key"].update(id="k2")
    yield "service", lambda doc: doc["key"].update(kms="vault://evil/atlas")
    yield "wrapped key", lambda doc: doc["key"].update(wrapped="AAAA")
    yield "a field more", lambda doc: doc.update(extra=1)


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in _changes()])
def test_every_change_is_found(change):
    document = orjson.loads(STORED)
    change(document)
    with pytest.raises(WrongKeyError):
        parse(orjson.dumps(document)).verify(Secret(KEY))


def test_formatting_may_change():
    document = orjson.loads(STORED)
    again = parse(orjson.dumps(document, option=orjson.OPT_INDENT_2)).verify(Secret(KEY))
    assert replace(again, digest="") == MANIFEST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda doc: doc.pop("mac"), "'mac' is missing"),
        (lambda doc: doc.update(format="weightlock.dev/sealed/v9"), "has format"),
        (lambda doc: doc.update(segmentSize=4096), "segment size"),
        (lambda doc: doc["files"][0].update(path="../etc/passwd"), "is not valid"),
        (lambda doc: doc["files"][0].update(file="/etc/passwd"), "is not valid"),
        (lambda doc: doc["files"][0].update(path="b.json"), "two files have the same name"),
        (lambda doc: doc["files"][0].update(path="b.json/x"), "both a file and a directory"),
        (lambda doc: doc["files"][0].update(size=-1), "a number is missing"),
        (lambda doc: doc["files"][0].update(size=True), "a number is missing"),
        (lambda doc: doc["files"][0].update(digest=None), "a text is missing"),
        (lambda doc: doc["key"].update(wrapped="A" * 100_000), "too long"),
        (lambda doc: doc["files"][0].update(path="a/.weightlock-ready"), "reserved for Weightlock's own"),
        (lambda doc: doc["files"][0].update(file=".weightlock.journal"), "reserved for Weightlock's own"),
        (lambda doc: doc["files"][0].update(path="w.weightlock-partial"), "reserved for Weightlock's own"),
        (lambda doc: doc["files"][0].update(file="weightlock.json"), "the manifest's own name"),
        (lambda doc: doc["key"].update(kms="vault://a\x1b[2J"), "not printable"),
        (lambda doc: doc.update(created="2026\u202e"), "not printable"),
        (lambda doc: doc.update(created="2" * 3000), "too long"),
        (lambda doc: doc.update(model="../x"), "is not a valid model name"),
    ],
)
def test_a_malformed_manifest_is_refused(change, message):
    document = copy.deepcopy(orjson.loads(STORED))
    change(document)
    with pytest.raises(SealedDataError, match=message):
        signed_again(document).verify(Secret(KEY))


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"3", b"\xff", b'{"mac": 3}'])
def test_an_invalid_manifest_is_rejected(raw):
    with pytest.raises(SealedDataError, match="the manifest is damaged"):
        parse(raw)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    field=st.sampled_from(["mac", "format", "model", "generation", "created", "segmentSize", "key", "files"]),
    new=JSON,
)
def test_no_value_in_any_field_crashes_the_reader(field, new):
    document = orjson.loads(STORED)
    document[field] = new
    try:
        parse(orjson.dumps(document)).verify(Secret(KEY))
    except (SealedDataError, WrongKeyError):
        return
    assert document == orjson.loads(STORED)


def test_rewrapping_changes_key_and_generation_only():
    ref = KeyRef("k2", "aws://eu-west-1/alias/atlas", b"other")
    after = MANIFEST.rewrapped(ref)
    assert (after.key, after.generation, after.files) == (ref, 4, MANIFEST.files)


def test_manifest_keys_differ_by_model():
    assert manifest_key(Secret(KEY), "a") != manifest_key(Secret(KEY), "b")


@pytest.mark.parametrize("file", ["a/w.bin.sealed", "a/w.bin.3.sealed", "other"])
@pytest.mark.parametrize("digest", [f"sha256:{'0f' * 32}", f"sha256:{'0F' * 32}", "sha256:aa", ""])
def test_an_entry_keeps_its_names_and_its_digest(file, digest):
    entry = Entry("a/w.bin", 10, file, digest, tags=True)
    assert (entry.file, entry.digest) == (file, digest)
    assert entry == Entry("a/w.bin", 10, file, digest, tags=True)
    assert hash(entry) == hash(Entry("a/w.bin", 10, file, digest, tags=True))
    assert entry != Entry("a/w.bin", 10, file, digest)
    assert file in repr(entry)


def test_a_file_costs_little_memory():
    """100,000 files must fit into 100 MiB, with the interpreter and the threads of a run."""
    count = 20_000
    files = tuple(
        Entry(
            f"d{number // 100}/{number}.bin",
            4096,
            f"d{number // 100}/{number}.bin.sealed",
            f"sha256:{number:064x}",
        )
        for number in range(count)
    )
    with Secret(KEY) as key:
        matches = parse(replace(MANIFEST, files=files).encode(key))
        tracemalloc.start()
        try:
            opened = matches.verify(key)
            remaining, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert opened.files == files
    assert remaining / count < 350
    assert peak / count < 500
