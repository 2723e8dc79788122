"""Signatures of models: each kind of signer, each fault, and bundles of the shape of the specification's vectors."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support import sigstore_world
from tests.support.signed_models import (
    FILES,
    NOW,
    certificate,
    changed,
    key_of,
    resigned,
    rooted,
    signed,
    statement,
    text64,
    trust_in,
)
from webhook.provenance import models
from webhook.provenance.errors import (
    ExpiredError,
    MalformedError,
    ProvenanceError,
    TamperedError,
    UntrustedError,
    WrongSignerError,
)
from webhook.provenance.models import ModelTrust, verify
from webhook.provenance.signatures import fingerprint
from webhook.provenance.trust import Identity, Trust
from webhook.provenance.trusted_root import TrustedRoot

KEY = key_of()
OTHER = key_of()
ROOT_KEY, BETWEEN_KEY = key_of(), key_of(ec.SECP384R1())
ROOT = certificate("root", ROOT_KEY, ca=True)
BETWEEN = certificate("between", BETWEEN_KEY, ROOT, ROOT_KEY, ca=True)
WORLD = sigstore_world.World()


def chain(**options):
    issuer = options.pop("issuer", BETWEEN)
    leaf = certificate("signer", KEY, issuer, BETWEEN_KEY, **options)
    return signed(statement(), KEY, (leaf, issuer))


def keyless(payload=None, **root):
    payload = payload or statement()
    raw = json.dumps(WORLD.bundle(WORLD.by_certificate(models.pae(models.PAYLOAD_TYPE, payload), payload)))
    return raw.encode()


def identities(subject=sigstore_world.SUBJECT):
    return ModelTrust(
        Trust(
            identities=(Identity(issuer=sigstore_world.ISSUER, subject=subject),),
            root=TrustedRoot.from_json(WORLD.trusted_root()),
        )
    )


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_key(curve):
    key = key_of(curve)
    model = verify(signed(statement(), key), trust_in(OTHER, key), NOW)
    assert (model.signature.signer.kind, model.signature.signer.key) == ("key", fingerprint(key.public_key()))
    assert {path: file.digests[0] for path, file in model.files.items()} == {
        name: hashlib.sha256(content).digest() for name, content in FILES.items()
    }
    assert (
        model.signature.root_digest == "sha256:" + json.loads(statement())["subject"][0]["digest"]["sha256"]
    )


def test_certificate_chain():
    signer = verify(chain(email="ci@example.com"), trust_in(authorities=[ROOT]), NOW).signature.signer
    assert (signer.kind, signer.subject, signer.issuer) == ("certificate", "ci@example.com", "CN=between")
    assert signer.ca == "sha256:" + ROOT.fingerprint(hashes.SHA256()).hex()


def test_certificate_for_code_signing_without_key_usage():
    verify(chain(usage=False, code_signing=True), trust_in(authorities=[ROOT]), NOW)


def test_keyless_of_a_private_sigstore():
    """The certificate lived for minutes, and the log vouches for the time: it is valid a year later."""
    signer = verify(keyless(), identities(), NOW + timedelta(days=365)).signature.signer
    assert (signer.kind, signer.issuer, signer.subject) == (
        "sigstore",
        sigstore_world.ISSUER,
        sigstore_world.SUBJECT,
    )


def test_keyless_of_another_identity():
    with pytest.raises(WrongSignerError):
        verify(keyless(), identities("other@example.com"), NOW)


def test_keyless_without_a_log_entry():
    raw = changed(keyless(), lambda bundle: bundle["verificationMaterial"].pop("tlogEntries"))
    with pytest.raises(MalformedError, match="transparency log"):
        verify(raw, identities(), NOW)


def test_keyless_of_another_instance():
    trust = ModelTrust(
        Trust(
            identities=identities().signers.identities,
            root=TrustedRoot.from_json(sigstore_world.World().trusted_root()),
        )
    )
    with pytest.raises(UntrustedError):
        verify(keyless(), trust, NOW)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (chain(days=(-30, -1)), ExpiredError),
        (chain(days=(1, 30)), ExpiredError),
        (chain(signing=False), MalformedError),
        (chain(usage=False), MalformedError),
        (chain(issuer=certificate("between", BETWEEN_KEY, ROOT, ROOT_KEY, ca=False)), UntrustedError),
        (
            chain(issuer=certificate("between", BETWEEN_KEY, ROOT, ROOT_KEY, ca=True, days=(-9, -1))),
            UntrustedError,
        ),
        (chain(issuer=certificate("between", BETWEEN_KEY, ca=True)), UntrustedError),
    ],
    ids=["expired", "not yet", "no signing", "no usage", "issuer no CA", "issuer expired", "other root"],
)
def test_bad_certificates(raw, error):
    with pytest.raises(error):
        verify(raw, trust_in(authorities=[ROOT]), NOW)


def test_certificate_with_the_signature_of_another_key():
    leaf = certificate("signer", KEY, BETWEEN, BETWEEN_KEY)
    raw = changed(
        signed(statement(), OTHER, (certificate("x", OTHER),)),
        lambda bundle: bundle["verificationMaterial"].update(
            json.loads(signed(statement(), KEY, (leaf, BETWEEN)))["verificationMaterial"]
        ),
    )
    with pytest.raises(TamperedError):
        verify(raw, trust_in(authorities=[ROOT]), NOW)


def test_each_signer_needs_its_own_trust():
    for raw, trust in [
        (signed(statement(), KEY), trust_in(authorities=[ROOT])),
        (chain(), trust_in(KEY)),
        (keyless(), trust_in(KEY, authorities=[ROOT])),
        (signed(statement(), KEY), ModelTrust()),
    ]:
        with pytest.raises(WrongSignerError):
            verify(raw, trust, NOW)


def test_key_with_the_hint_of_another():
    raw = changed(
        signed(statement(), OTHER),
        lambda bundle: bundle["verificationMaterial"]["publicKey"].update(
            hint=models.key_hint(KEY.public_key())
        ),
    )
    with pytest.raises(TamperedError):
        verify(raw, trust_in(KEY), NOW)
    with pytest.raises(WrongSignerError):
        verify(signed(statement(), OTHER), trust_in(KEY), NOW)


def test_older_forms_of_the_key():
    """Section 11 of the specification: rawBytes without hint, a null key id, no log entries, no ignored paths."""

    def older(bundle):
        bundle["verificationMaterial"] = {
            "publicKey": {"rawBytes": "AA==", "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
        }
        bundle["dsseEnvelope"]["signatures"][0]["keyid"] = None

    raw = resigned(KEY, lambda doc: doc["predicate"]["serialization"].pop("ignore_paths"))
    assert verify(changed(raw, older), trust_in(KEY), NOW).ignored == models.IGNORED


def test_payload_of_another_signature():
    other = json.loads(signed(statement({"x": b"1"}), KEY))["dsseEnvelope"]["payload"]
    raw = changed(signed(statement(), KEY), lambda bundle: bundle["dsseEnvelope"].update(payload=other))
    with pytest.raises(TamperedError):
        verify(raw, trust_in(KEY), NOW)


SHAPES = {
    "empty": lambda bundle: bundle.clear(),
    "no envelope": lambda bundle: bundle.pop("dsseEnvelope"),
    "no material": lambda bundle: bundle.pop("verificationMaterial"),
    "no media type": lambda bundle: bundle.pop("mediaType"),
    "other media type": lambda bundle: bundle.update(mediaType="application/vnd.dev.sigstore.bundle.v9+json"),
    "empty material": lambda bundle: bundle.update(verificationMaterial={}),
    "key without hint": lambda bundle: bundle["verificationMaterial"].update(publicKey={}),
    "key is a text": lambda bundle: bundle["verificationMaterial"].update(publicKey="x"),
    "two kinds": lambda bundle: bundle["verificationMaterial"].update(certificate={"rawBytes": "AA=="}),
    "empty chain": lambda bundle: bundle.update(
        verificationMaterial={"x509CertificateChain": {"certificates": []}}
    ),
    "chain without bytes": lambda bundle: bundle.update(
        verificationMaterial={"x509CertificateChain": {"certificates": [{}]}}
    ),
    "no certificate": lambda bundle: bundle.update(
        verificationMaterial={"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}]}}
    ),
    "no signature": lambda bundle: bundle["dsseEnvelope"].update(signatures=[]),
    "two signatures": lambda bundle: bundle["dsseEnvelope"].update(
        signatures=bundle["dsseEnvelope"]["signatures"] * 2
    ),
    "signature not base64": lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig="*"),
    "payload missing": lambda bundle: bundle["dsseEnvelope"].pop("payload"),
    "other payload type": lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_malformed_bundles(name):
    raw = changed(signed(statement(), KEY), SHAPES[name])
    with pytest.raises(MalformedError):
        verify(raw, trust_in(KEY, authorities=[ROOT]), NOW)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 2000])
def test_files_that_are_not_bundles(raw):
    with pytest.raises(MalformedError):
        verify(raw, trust_in(KEY), NOW)


def _first(document):
    return document["predicate"]["resources"][0]


STATEMENTS = {
    "other type": lambda doc: doc.update(_type="https://in-toto.io/Statement/v0.1"),
    "other predicate": lambda doc: doc.update(predicateType="https://model_signing/Digests/v0.1"),
    "no predicate": lambda doc: doc.pop("predicate"),
    "no resources": lambda doc: doc["predicate"].update(resources=[]),
    "no serialization": lambda doc: doc["predicate"].pop("serialization"),
    "two subjects": lambda doc: doc.update(subject=doc["subject"] * 2),
    "no subject": lambda doc: doc.update(subject=[]),
    "empty subject name": lambda doc: doc["subject"][0].update(name=""),
    "no root digest": lambda doc: doc["subject"][0].update(digest={"sha512": "00"}),
    "wrong root digest": lambda doc: doc["subject"][0]["digest"].update(sha256="00" * 32),
    "unknown hash": lambda doc: doc["predicate"]["serialization"].update(hash_type="md5"),
    "other hash of a resource": lambda doc: _first(doc).update(algorithm="blake2b"),
    "short digest": lambda doc: _first(doc).update(digest="00"),
    "upper case": lambda doc: _first(doc).update(digest=_first(doc)["digest"].upper()),
    "unknown method": lambda doc: doc["predicate"]["serialization"].update(method="tree"),
    "files with shards": lambda doc: doc["predicate"]["serialization"].update(shard_size=100),
    "shards without size": lambda doc: doc["predicate"]["serialization"].update(method="shards"),
    "symlinks as text": lambda doc: doc["predicate"]["serialization"].update(allow_symlinks="false"),
    "absolute path": lambda doc: _first(doc).update(name="/etc/passwd"),
    "parent": lambda doc: _first(doc).update(name="a/../../b"),
    "dot": lambda doc: _first(doc).update(name="./a"),
    "directory as file": lambda doc: _first(doc).update(name="."),
    "double slash": lambda doc: _first(doc).update(name="a//b"),
    "control character": lambda doc: _first(doc).update(name="a\nb"),
    "very long": lambda doc: _first(doc).update(name="a" * 5000),
    "twice": lambda doc: _first(doc).update(name=doc["predicate"]["resources"][1]["name"]),
    "ignores the parent": lambda doc: doc["predicate"]["serialization"].update(ignore_paths=[".."]),
    "ignores a number": lambda doc: doc["predicate"]["serialization"].update(ignore_paths=[1]),
    "ignores a text": lambda doc: doc["predicate"]["serialization"].update(ignore_paths="abc"),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_statements_that_are_not_valid(name):
    """Every one of them is correctly signed, and consistent apart from its one fault."""

    def change(document):
        STATEMENTS[name](document)
        if name not in {"wrong root digest", "no root digest", "no predicate", "no resources", "no subject"}:
            rooted(document)

    with pytest.raises(ProvenanceError):
        verify(resigned(KEY, change), trust_in(KEY), NOW)


def test_ignored_paths():
    model = verify(signed(statement(ignored=["cache", "model.sig"]), KEY), trust_in(KEY), NOW)
    assert all(map(model.ignores, ["cache", "cache/x", "model.sig", ".git/HEAD"]))
    assert not any(map(model.ignores, ["cache2", "sub/cache", "sub/.git", "w.safetensors"]))


def test_a_signer_cannot_exclude_everything():
    raw = resigned(KEY, lambda doc: doc["predicate"]["serialization"].update(ignore_paths=["."]))
    assert not verify(raw, trust_in(KEY), NOW).ignores("unsigned.py")


def test_shards():
    content = os.urandom(2500)
    model = verify(signed(statement({"a:b": content, "c": b"x" * 1000}, 1000), KEY), trust_in(KEY), NOW)
    assert (model.files["a:b"].size, len(model.files["a:b"].digests)) == (2500, 3)
    assert (model.files["c"].size, model.shard_size) == (1000, 1000)


@pytest.mark.parametrize(
    "names",
    [
        ["w:0:1000", "w:2000:2500"],
        ["w:0:900", "w:1000:2000"],
        ["w:1000:2000"],
        ["w:0:1001"],
        ["w:0:0"],
        ["w:00:1000"],
        ["w"],
        ["w:0:1000", "w:0:1000"],
        ["w:0:500", "w:0:1000"],
        ["w:-1:1000"],
        ["../w:0:1000"],
    ],
)
def test_shards_that_do_not_tile_the_file(names):
    def change(document):
        document["predicate"]["serialization"].update(method="shards", shard_size=1000)
        document["predicate"]["resources"] = [
            {"name": name, "digest": "00" * 32, "algorithm": "sha256"} for name in names
        ]
        rooted(document)

    with pytest.raises(MalformedError):
        verify(resigned(KEY, change), trust_in(KEY), NOW)


def test_the_size_of_a_bundle_is_bounded(monkeypatch):
    raw = signed(statement(), KEY)
    monkeypatch.setattr(models, "MAX_BUNDLE", len(raw) - 1)
    with pytest.raises(MalformedError, match="larger"):
        verify(raw, trust_in(KEY), NOW)


def test_the_number_of_resources_is_bounded(monkeypatch):
    monkeypatch.setattr(models, "MAX_RESOURCES", 1)
    with pytest.raises(MalformedError, match="between 1 and 1"):
        verify(signed(statement(), KEY), trust_in(KEY), NOW)


def test_a_foreign_leaf_cannot_be_a_key():
    raw = changed(
        signed(statement(), KEY),
        lambda bundle: bundle["verificationMaterial"].update(
            publicKey={"hint": "", "rawBytes": text64(b"x")}, tlogEntries=None
        ),
    )
    verify(raw, trust_in(KEY), NOW)
    with pytest.raises(WrongSignerError):
        verify(raw, trust_in(OTHER), NOW)


CORPUS = Path(os.environ.get("WEIGHTLOCK_CORPORA", "/nonexistent")) / "model-signing-spec/test-vectors/v1.0"


@pytest.mark.skipif(not CORPUS.is_dir(), reason="WEIGHTLOCK_CORPORA holds no model-signing-spec")
def test_vectors_of_the_specification(monkeypatch):
    """Their keys are not published with the vectors, so the valid ones must fail at trust alone."""
    for path in sorted(CORPUS.glob("*/*.json")):
        raw = path.read_bytes()
        if path.parent.name == "valid":
            with pytest.raises(WrongSignerError):
                verify(raw, ModelTrust(), NOW)
            statement_ = models.parse_statement(base64.b64decode(json.loads(raw)["dsseEnvelope"]["payload"]))
            assert statement_["predicateType"] == models.PREDICATE
        else:
            monkeypatch.setattr(models, "_verify_key", lambda *_: models.Signer("key"))
            with pytest.raises(MalformedError):
                verify(raw, ModelTrust(), NOW)
            monkeypatch.undo()


THEIRS = Path(os.environ.get("WEIGHTLOCK_CORPORA", "/nonexistent")) / "model-transparency/scripts/tests"


@pytest.mark.skipif(not THEIRS.is_dir(), reason="WEIGHTLOCK_CORPORA holds no model-transparency")
def test_signatures_of_earlier_releases():
    root = x509.load_pem_x509_certificates((THEIRS / "keys/certificate/ca-cert.pem").read_bytes())
    for release in ("v1.0.0", "v1.0.1", "v1.1.0"):
        raw = (THEIRS / f"{release}-certificate/model.sig").read_bytes()
        verify(raw, ModelTrust(authorities=tuple(root)), root[0].not_valid_before_utc + timedelta(days=1))


@pytest.mark.parametrize("position", range(0, 700, 7))
def test_damaged_certificates(position):
    """A certificate with one other byte is rejected with one sentence."""
    document = json.loads(chain(email="ci@example.com"))
    listing = document["verificationMaterial"]["x509CertificateChain"]["certificates"]
    raw = bytearray(base64.b64decode(listing[0]["rawBytes"]))
    raw[position % len(raw)] ^= 0xFF
    listing[0]["rawBytes"] = text64(bytes(raw))
    with pytest.raises(ProvenanceError):
        verify(json.dumps(document).encode(), trust_in(authorities=[ROOT]), NOW)
