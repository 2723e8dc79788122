"""Attestations about a model: every form, the signers, the subject, and what is too large to be bound whole."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.support.signed_models import FILES, NOW, key_of, signed, signer_of, statement, text64, trust_in
from webhook.provenance.errors import MalformedError, ProvenanceError, TamperedError, WrongSignerError
from webhook.provenance.model_attestations import provenance_of
from webhook.provenance.models import PAYLOAD_TYPE, pae, verify
from webhook.provenance.signatures import fingerprint

KEY, OTHER = key_of(), key_of()
MODEL = verify(signed(statement(), KEY), trust_in(KEY), NOW)
SLSA = "https://slsa.dev/provenance/v1"


def about(digest=None, kind=SLSA, predicate=None):
    digest = digest or MODEL.signature.root_digest.removeprefix("sha256:")
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": digest}}],
        "predicateType": kind,
        "predicate": predicate or {"runDetails": {"builder": {"id": "ci"}}},
    }


def envelope(document, key):
    payload = json.dumps(document).encode()
    return {
        "payload": text64(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": "", "sig": text64(signer_of(key)(pae(PAYLOAD_TYPE, payload)))}],
    }


def read(*documents, trust=None):
    files = [
        (f"a{number}.json", item if isinstance(item, bytes) else json.dumps(item).encode())
        for number, item in enumerate(documents)
    ]
    return provenance_of(MODEL, files, trust or trust_in(KEY), NOW)


def test_bundle_envelope_and_bare_statement():
    bundle = signed(json.dumps(about()).encode(), KEY)
    provenance, notes = read(bundle, envelope(about(), KEY), about())
    assert notes == []
    keys = [[signer.key for signer in item.signers] for item in provenance.attestations]
    trusted = fingerprint(KEY.public_key())
    assert keys == [[trusted], [trusted], []]
    assert {item.type for item in provenance.attestations} == {SLSA}
    assert provenance.attestations[0].predicate == about()["predicate"]


def test_json_lines_and_documents():
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"type": "machine-learning-model"}]}
    lines = b"\n".join(json.dumps(item).encode() for item in (bom, {"spdxVersion": "SPDX-2.3"}, about()))
    provenance, _ = read(lines)
    assert [item.type for item in provenance.attestations] == [
        "https://cyclonedx.org/bom",
        "https://spdx.dev/Document",
        SLSA,
    ]


def test_a_file_of_the_model_is_a_subject():
    read(about(hashlib.sha256(FILES["w.safetensors"]).hexdigest()))


@pytest.mark.parametrize("digest", ["00" * 32, hashlib.sha256(b"other").hexdigest()])
def test_another_subject(digest):
    with pytest.raises(TamperedError, match="not about this model"):
        read(signed(json.dumps(about(digest)).encode(), KEY))


def test_a_signed_one_never_counts_as_unsigned():
    for document in (json.loads(signed(json.dumps(about()).encode(), OTHER)), envelope(about(), OTHER)):
        with pytest.raises(WrongSignerError):
            read(document)
    changed = envelope(about(), KEY) | {"payload": text64(json.dumps(about(kind="x")).encode())}
    with pytest.raises(WrongSignerError):
        read(changed)


@pytest.mark.parametrize(
    "document",
    [b"", b"[1]", b"x", b"{}", {"_type": "x"}, {**about(), "predicateType": 1}, {**about(), "subject": {}}],
)
def test_other_documents(document):
    with pytest.raises(ProvenanceError):
        read(document)


def test_too_many():
    with pytest.raises(MalformedError, match="more than"):
        read(b"\n".join([json.dumps(about()).encode()] * 33))


def test_large_predicates_are_bound_by_digest():
    large = about(predicate={"text": "x" * 200_000})
    long = about(predicate={"components": [1] * 5000})
    provenance, notes = read(large, about(), long)
    assert [item.predicate is None for item in provenance.attestations] == [True, False, True]
    assert len(notes) == 2


@pytest.mark.parametrize("depth", [90, 110, 500, 1000, 5000])
def test_deep_predicates(depth):
    """Deeper than a rule can read: bound by digest, or not JSON for the parser; never an error of Python."""
    fields = json.dumps(about(predicate={"x": 0})).replace('{"x": 0}', "[" * depth + "]" * depth)
    if depth > 1000:
        with pytest.raises(MalformedError):
            read(fields.encode())
        return
    provenance, notes = read(fields.encode())
    assert (provenance.attestations[0].predicate is None) == bool(notes) == (depth > 100)


def test_the_digest_is_that_of_the_file():
    raw = json.dumps(about(), indent=3).encode()
    assert read(raw)[0].attestations[0].digest == "sha256:" + hashlib.sha256(raw).hexdigest()
