"""Signatures of `model-signing` from PyPI are accepted here, and ours there: files, shards, one file, certificates."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.support import signed_models
from tests.support.signed_models import certificate, key_of
from webhook.cli.main import main

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    model_signing = pytest.importorskip("model_signing", reason="model-signing is not installed")


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tmp_path / "model"
    (model / "sub").mkdir(parents=True)
    (model / ".git").mkdir()
    (model / ".git/HEAD").write_text("x")
    (model / "config.json").write_text("{}")
    (model / "sub/w.bin").write_bytes(bytes(range(256)) * 12_000)
    key = key_of()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "key.pub").write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    root_key = key_of()
    monkeypatch.setattr(signed_models, "NOW", datetime.now(UTC))
    root = certificate("root", root_key, ca=True)
    leaf = certificate("leaf", key, root, root_key)
    for name, item in (("root", root), ("leaf", leaf)):
        (tmp_path / f"{name}.pem").write_bytes(item.public_bytes(Encoding.PEM))
    return model


def seal(model, sealed, *words):
    kms = f"local://{model.parent}/keyset.json"
    return main(
        [
            "weights",
            "seal",
            "-q",
            "--kms",
            kms,
            "--model",
            "atlas",
            "--verify-signature",
            *words,
            str(model),
            sealed,
        ]
    )


def hashing(shard):
    config = model_signing.hashing.Config().set_ignored_paths(paths=["model.sig"], ignore_git_paths=True)
    return config.use_shard_serialization(shard_size=shard) if shard else config


@pytest.mark.parametrize("shard", [0, 1_000_000])
@pytest.mark.parametrize("signer", ["key", "certificate"])
def test_theirs_here(world, shard, signer, capsys):
    signing = model_signing.signing.Config()
    if signer == "key":
        signing.use_elliptic_key_signer(private_key="key.pem")
    else:
        signing.use_certificate_signer(
            private_key="key.pem", signing_certificate="leaf.pem", certificate_chain=["root.pem"]
        )
    signing.set_hashing_config(hashing(shard)).sign("model", "model/model.sig")
    trust = ["--public-key", "key.pub"] if signer == "key" else ["--ca-certificate", "root.pem"]
    assert seal(world, "sealed", *trust) == 0
    (world / "sub/w.bin").write_bytes(bytes(range(256)) * 11_999 + b"x" * 256)
    assert seal(world, "other", *trust) == 1
    assert "is not the signed file" in capsys.readouterr().err


@pytest.mark.parametrize("shard", [0, 1_000_000])
@pytest.mark.parametrize("signer", ["key", "certificate"])
def test_ours_there(world, shard, signer):
    words = ["weights", "sign", "model", "-q", "--signing-key", "key.pem"]
    if signer == "certificate":
        words += ["--certificate", "leaf.pem"]
    assert main([*words, *(["--shard-size", str(shard)] if shard else [])]) == 0
    verifying = model_signing.verifying.Config()
    if signer == "key":
        verifying.use_elliptic_key_verifier(public_key="key.pub")
    else:
        verifying.use_certificate_verifier(certificate_chain=["root.pem"])
    verifying.verify("model", "model/model.sig")
    (world / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="mismatch"):
        verifying.verify("model", "model/model.sig")


def test_a_single_file(world):
    file = world / "sub/w.bin"
    model_signing.signing.Config().use_elliptic_key_signer(private_key="key.pem").sign(
        str(file), "theirs.sig"
    )
    assert seal(file, "one", "--public-key", "key.pub", "--signature", "theirs.sig") == 0
    assert (
        main(["weights", "sign", str(file), "-q", "--signing-key", "key.pem", "--signature", "ours.sig"]) == 0
    )
    model_signing.verifying.Config().use_elliptic_key_verifier(public_key="key.pub").verify(file, "ours.sig")
    assert seal(file, "two", "--public-key", "key.pub", "--signature", "ours.sig") == 0
