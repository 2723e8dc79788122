"""The commands for signed models: sign, seal with a check, and the check of plain files in the sidecar."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support import sigstore_world
from tests.support.signed_models import key_of, statement
from webhook.cli.main import main
from webhook.keys.sealed.format.statement import read_statement
from webhook.provenance import models


def write(path, private):
    path.with_suffix(".pem").write_bytes(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, key in (("key", key_of()), ("other", key_of()), ("sealer", Ed25519PrivateKey.generate())):
        write(tmp_path / name, key)
    (tmp_path / "model/sub").mkdir(parents=True)
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "model/sub/w.bin").write_bytes(bytes(2_500_000))
    assert main(["weights", "sign", "model", "-q", "--signing-key", "key.pem"]) == 0
    return tmp_path


def seal(*words, model="model", sealed="sealed"):
    kms = ["--kms", f"local://{Path.cwd()}/keyset.json"]
    return main(["weights", "seal", model, sealed, "-q", "--model", "atlas", *kms, *words])


def test_seal_prints_a_statement(world, capsys):
    capsys.readouterr()
    (world / "slsa.json").write_text(
        json.dumps(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": json.loads(_payload(world))["subject"],
                "predicateType": "https://slsa.dev/provenance/v1",
                "predicate": {"builder": "ci"},
            }
        )
    )
    words = ["--verify-signature", "--public-key", "key.pub", "--attestation", "slsa.json"]
    assert seal(*words, "--signing-key", "sealer.pem", "-o", "json") == 0
    printed = json.loads(capsys.readouterr().out)
    matches = read_statement(printed["statement"], (printed["signer"],))
    assert matches.manifest == printed["digest"]
    assert matches.provenance.document() == printed["provenance"]
    assert matches.provenance.attestations[0].predicate == {"builder": "ci"}
    assert main(["weights", "inspect", "sealed"]) == 0
    assert "attestation https://slsa.dev/provenance/v1" in capsys.readouterr().out


def _payload(world):
    envelope = json.loads((world / "model/model.sig").read_bytes())["dsseEnvelope"]
    return base64.b64decode(envelope["payload"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--verify-signature", "--public-key", "other.pub"], 1, "key that is not trusted"),
        (["--verify-signature"], 2, "name the trusted signers"),
        (["--public-key", "key.pub"], 2, "add --verify-signature"),
        (["--attestation", "x"], 2, "add --verify-signature"),
        (["--verify-signature", "--public-key", "key.pem"], 2, "cannot use a trusted signer"),
        (["--verify-signature", "--public-key", "key.pub", "--signature", "none"], 2, "cannot read none"),
        (["--verify-signature", "--public-key", "key.pub", "--signature", "key.pem"], 1, "not JSON"),
        (["--verify-signature", "--identity", "x"], 2, "ISSUER=SUBJECT"),
        (["--verify-signature", "--identity", "https://i=s"], 2, "trusted root"),
    ],
)
def test_refusals(world, capsys, words, code, message):
    assert seal(*words) == code
    captured = capsys.readouterr().err
    assert message in captured
    assert "Traceback" not in captured
    assert not (world / "sealed/weightlock.json").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "name the signer"),
        (["--signing-key", "sealer.pem"], 2, "not an elliptic curve key"),
        (["--signing-key", "none.pem"], 2, "cannot read the signing key"),
        (["--signing-key", "local:///k"], 2, "not a signing key"),
        (["--signing-key", "key.pem", "--keyless"], 2, "excludes"),
        (["--signing-key", "key.pem", "--certificate", "key.pub"], 2, "not in PEM form"),
        (["--signing-key", "key.pem", "--certificate-chain", "key.pub"], 2, "needs --certificate"),
        (["--signing-key", "key.pem", "--ignore-path", "../x"], 2, "not a relative path"),
        (["--keyless", "--identity-token", "key.pub"], 2, "cannot sign without a key"),
    ],
)
def test_signing_that_is_refused(world, capsys, words, code, message):
    if "--keyless" in words:
        pytest.importorskip("sigstore", reason="the provenance extra is not installed")
    trust = world / "trust.json"
    trust.write_text("{}")
    extra = ["--trust-config", "trust.json"] if "--identity-token" in words else []
    assert main(["weights", "sign", "model", "-q", *words, *extra]) == code
    assert message in capsys.readouterr().err


def test_a_sealed_directory_is_signed_as_before(world, capsys):
    assert seal() == 0
    kms = f"local://{world}/keyset.json"
    command = ["weights", "sign", "sealed", "-q", "--kms", kms]
    assert main([*command, "--signing-key", "sealer.pem"]) == 0
    assert "signers: [" in capsys.readouterr().out
    assert main([*command, "--signing-key", "sealer.pem", "--shard-size", "1000000"]) == 2
    assert "its manifest is signed with --signing-key only" in capsys.readouterr().err


def test_keyless_of_a_private_sigstore(world):
    instance = sigstore_world.World()
    payload = statement(
        {
            "config.json": b"{}",
            "sub/w.bin": bytes(2_500_000),
        },
        ignored=["model.sig"],
    )
    bundle = instance.bundle(instance.by_certificate(models.pae(models.PAYLOAD_TYPE, payload), payload))
    (world / "model/model.sig").write_text(json.dumps(bundle))
    (world / "root.json").write_bytes(instance.trusted_root())
    trust = ["--trusted-root", "root.json", "--verify-signature"]
    exact = f"{sigstore_world.ISSUER}={sigstore_world.SUBJECT}"
    assert seal(*trust, "--identity", exact) == 0
    assert seal(*trust, "--identity-pattern", f"{sigstore_world.ISSUER}=.*", sealed="two") == 0
    assert seal(*trust, "--identity", f"{sigstore_world.ISSUER}=other", sealed="three") == 1


def test_the_sidecar_checks_plain_files(world, capsys):
    check = ["agent", "--verify-model", "model", "--public-key", "key.pub"]
    assert main(check) == 0
    assert "are signed by key sha256:" in capsys.readouterr().err
    assert main([*check[:-1], "other.pub"]) == 1
    assert main(check[:3]) == 2
    (world / "model/sub/w.bin").write_bytes(bytes(2_499_999) + b"x")
    assert main(check) == 1
    assert "w.bin is not the signed file" in capsys.readouterr().err
    (world / "model/sub/w.bin").write_bytes(bytes(2_500_000))
    (world / "model/evil.py").write_text("x")
    assert main(check) == 1
    assert "does not cover evil.py" in capsys.readouterr().err


def test_the_sidecar_delivers_nothing_before(world, capsys):
    words = ["--broker", "https://x", "--token", "t", "--key", f"m:{world}/keys"]
    assert main(["agent", "--verify-model", "model", "--public-key", "other.pub", *words]) == 1
    assert not (world / "keys").exists()


def test_the_slim_image_names_the_other(world, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "webhook.cli.weights.plain_models", None)
    assert main(["agent", "--verify-model", "model", "--public-key", "key.pub"]) == 2
    assert "needs the image weightlock" in capsys.readouterr().err
