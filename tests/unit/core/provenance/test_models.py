"""Provenance as data: its form, its bounds, and the comparison with a requirement."""

from __future__ import annotations

import subprocess
import sys

import pytest

from webhook.api.modelweights import ModelSigner, Provenance
from webhook.core.provenance.models import (
    MAX_BYTES,
    Attestation,
    ModelProvenance,
    ModelSignature,
    Signer,
)
from webhook.core.provenance.rules import RuleError, compile_rule, fault_of

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
SIGSTORE = Signer(
    "sigstore",
    A,
    "https://accounts.example.com",
    "https://github.com/org/repo/.github/w.yaml@refs/heads/main",
)
CERTIFICATE = Signer("certificate", A, "CN=between", "ci@example.com", B)
KEY = Signer("key", A)


def provenance(signer=KEY, *attestations):
    return ModelProvenance(ModelSignature(signer, B, "m", "files", "sha256", 2, B), attestations)


def required(rule="", **signer):
    return Provenance(signers=[ModelSigner(**signer)] if signer else [], rule=rule)


@pytest.mark.parametrize(
    ("signer", "accepted"),
    [
        (KEY, {"key": A}),
        (CERTIFICATE, {"ca": B}),
        (CERTIFICATE, {"ca": B, "subject": "ci@example.com"}),
        (CERTIFICATE, {"ca": B, "subject": "*@example.com"}),
        (SIGSTORE, {"issuer": SIGSTORE.issuer, "subject": SIGSTORE.subject}),
        (SIGSTORE, {"issuer": SIGSTORE.issuer, "subject": "https://github.com/org/repo/*@refs/heads/main"}),
    ],
)
def test_accepted_signers(signer, accepted):
    assert fault_of(provenance(signer), required(**accepted)) == ""


@pytest.mark.parametrize(
    ("signer", "accepted"),
    [
        (KEY, {"key": B}),
        (CERTIFICATE, {"key": A}),  # a certificate's key is not a trusted key
        (SIGSTORE, {"key": A}),
        (KEY, {"ca": B}),
        (CERTIFICATE, {"ca": A}),
        (CERTIFICATE, {"ca": B, "subject": "ci@example.co"}),
        (CERTIFICATE, {"issuer": "CN=between", "subject": "ci@example.com"}),
        (SIGSTORE, {"issuer": "https://accounts.example.com.evil", "subject": "*"}),
        (SIGSTORE, {"issuer": SIGSTORE.issuer, "subject": "https://github.com/org/repo/*@refs/heads/dev"}),
        (SIGSTORE, {"issuer": "*", "subject": "*"}),
    ],
)
def test_other_signers(signer, accepted):
    assert "not in spec.provenance.signers" in fault_of(provenance(signer), required(**accepted))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"key": A, "ca": B},
        {"issuer": "https://i"},
        {"subject": "x"},
        {"key": A, "subject": "x"},
        {"ca": B, "issuer": "i", "subject": "s"},
    ],
)
def test_forms_of_a_signer(fields):
    with pytest.raises(ValueError, match="set key"):
        ModelSigner(**fields)


@pytest.mark.parametrize(
    "rule", ["object.signature.rootDigest == '" + B + "'", "size(object.attestations) == 0"]
)
def test_rules_that_hold(rule):
    assert fault_of(provenance(), required(rule)) == ""


@pytest.mark.parametrize(
    "rule", ["false", "object.none", "object.signature.files / 0 == 1", "request.name == 'x'", "'true'"]
)
def test_rules_that_do_not(rule):
    assert fault_of(provenance(), required(rule))


def test_a_rule_that_does_not_compile():
    with pytest.raises(RuleError):
        compile_rule("object.")


def test_there_and_back():
    inputs = provenance(
        SIGSTORE, Attestation("t", A, (KEY,), {"x": [1, None, {"y": "é"}]}), Attestation("u", B)
    )
    assert ModelProvenance.parse(inputs.document()) == inputs


@pytest.mark.parametrize(
    "change",
    [
        lambda doc: doc.pop("signature"),
        lambda doc: doc.pop("attestations"),
        lambda doc: doc.update(attestations=[{}] * 100),
        lambda doc: doc.update(attestations="x"),
        lambda doc: doc["signature"].update(kind="root"),
        lambda doc: doc["signature"].update(rootDigest="sha256:x"),
        lambda doc: doc["signature"].update(files=-1),
        lambda doc: doc["signature"].update(files=True),
        lambda doc: doc["signature"].update(name="a\nb"),
        lambda doc: doc["signature"].update(subject="s" * 5000),
        lambda doc: doc.update(
            attestations=[{"type": "t", "digest": A, "signers": [], "predicate": "x" * MAX_BYTES}]
        ),
    ],
)
def test_other_forms(change):
    document = provenance().document()
    change(document)
    with pytest.raises(ValueError, match=r".+"):
        ModelProvenance.parse(document)


@pytest.mark.parametrize("predicate", ["\0", [0] * 3000])
def test_a_predicate_that_the_engine_cannot_read(predicate):
    inputs = provenance(KEY, Attestation("t", A, (), predicate))
    assert "cannot be evaluated" in fault_of(ModelProvenance.parse(inputs.document()), required("true"))


def test_readers_of_sealed_files_do_not_import_the_engine():
    code = "import sys, webhook.keys.sealed.format.manifest; print([name for name in sys.modules if 'cel' in name])"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert loaded == "[]\n"
