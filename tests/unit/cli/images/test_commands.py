"""``weightlock image verify`` and ``weightlock review --registry-layout``: exit codes, output, and no registry."""

import json

import pytest
import yaml

from tests.support.signed_images import SIGN, SLSA, Store
from tests.support.sigstore_world import ISSUER, SUBJECT, World, new_key, pem
from webhook.cli.main import main

REPOSITORY = "registry.example.com/acme/trainer"
WORLD, KEY = World(), new_key()
ROOT = WORLD.trusted_root()


@pytest.fixture
def made(tmp_path):
    """A layout with a signed image ``v1`` and an unsigned image ``v2``, a key file and a trusted root."""
    store = Store()
    signed, unsigned = store.image("v1", "one"), store.image("v2", "two")
    store.sign(WORLD, signed, "bundle", SIGN, key=KEY)
    store.sign(WORLD, signed, "annotations", SLSA)
    store.layout(tmp_path / "layout", REPOSITORY)
    (tmp_path / "key.pem").write_bytes(pem(KEY))
    (tmp_path / "other.pem").write_bytes(pem(new_key()))
    (tmp_path / "root.json").write_bytes(ROOT)
    return tmp_path, signed, unsigned


def verify(made, reference, *options):
    return main(["image", "verify", reference, "--registry-layout", str(made[0] / "layout"), *options])


def test_key(made, capsys):
    assert verify(made, f"{REPOSITORY}:v1", "--key", str(made[0] / "key.pem")) == 0
    assert "signed by key sha256:" in capsys.readouterr().out
    assert verify(made, f"{REPOSITORY}:v1", "--key", str(made[0] / "other.pem")) == 1
    assert "WrongSigner" in capsys.readouterr().out
    assert verify(made, f"{REPOSITORY}@{made[2]}", "--key", str(made[0] / "key.pem")) == 1
    assert "Unsigned" in capsys.readouterr().out


def test_identity_and_attestation(made, capsys):
    options = [
        "--certificate-identity-regexp",
        r"https://github\.com/acme/.*",
        "--certificate-oidc-issuer",
        ISSUER,
    ]
    options += ["--trusted-root", str(made[0] / "root.json"), "-o", "json"]
    assert verify(made, f"{REPOSITORY}:v1", *options, "--attestation", "slsa") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["signers"] == [{"issuer": ISSUER, "subject": SUBJECT}]
    assert result["attestations"][SLSA][0]["runDetails"]["builder"]["id"]
    assert verify(made, f"{REPOSITORY}:v1", *options, "--attestation", "spdx") == 1
    assert json.loads(capsys.readouterr().out)["missingAttestations"] == ["https://spdx.dev/Document"]


def test_bad_input(made, capsys):
    key = ["--key", str(made[0] / "key.pem")]
    (made[0] / "bad.pem").write_text("nothing")
    (made[0] / "empty").mkdir()
    for arguments in (
        ["image", "verify", "UPPER/../x", *key],
        ["image", "verify", REPOSITORY],
        ["image", "verify", REPOSITORY, "--key", str(made[0] / "bad.pem")],
        ["image", "verify", REPOSITORY, "--key", str(made[0] / "none.pem")],
        ["image", "verify", REPOSITORY, "--certificate-identity", "a", "--certificate-oidc-issuer", "b"],
        ["image", "verify", REPOSITORY, *key, "--registry-layout", str(made[0] / "empty")],
    ):
        assert main(arguments) == 2, arguments
        assert capsys.readouterr().err.count("\n") == 1


def test_incomplete(made):
    assert verify(made, f"{REPOSITORY}:none", "--key", str(made[0] / "key.pem")) == 3


def test_review_with_a_layout(made, capsys):
    directory, signed, unsigned = made
    state = directory / "state"
    state.mkdir()
    trust = {
        "apiVersion": "weightlock.dev/v1alpha1", "kind": "ImageTrust", "metadata": {"name": "acme"},
        "spec": {"images": ["registry.example.com/acme/*"], "signers": [{"key": pem(KEY).decode()}]},
    }  # fmt: skip
    (state / "trust.yaml").write_text(yaml.safe_dump(trust))
    policies = directory / "policies"
    policies.mkdir()
    policy = {
        "apiVersion": "weightlock.dev/v1alpha1", "kind": "WeightPolicy", "metadata": {"name": "signed"},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["CREATE"]}]},
            "validations": [{
                "expression": "images.all(i, i.verified)",
                "messageExpression": "images.map(i, i.reason + ' ' + i.message).join(', ')"}],
        },
    }  # fmt: skip
    (policies / "policy.yaml").write_text(yaml.safe_dump(policy))

    def review(reference, *options):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "research"},
               "spec": {"containers": [{"name": "main", "image": reference}]}}  # fmt: skip
        (directory / "pod.yaml").write_text(yaml.safe_dump(pod))
        arguments = [
            "review",
            str(directory / "pod.yaml"),
            "--state",
            str(state),
            "--policies",
            str(policies),
        ]
        code = main([*arguments, "-o", "json", *options])
        return code, json.loads(capsys.readouterr().out)[0]

    layout = ["--registry-layout", str(directory / "layout")]
    assert review(f"{REPOSITORY}@{signed}", *layout)[0] == 0
    code, verdict = review(f"{REPOSITORY}@{unsigned}", *layout)
    assert code == 1
    assert "Unsigned" in verdict["reasons"][0]["message"]
    code, verdict = review(f"{REPOSITORY}@{signed}")
    assert code == 1
    assert "RegistryUnavailable" in verdict["reasons"][0]["message"]
    code, verdict = review(f"{REPOSITORY}:v1", *layout)
    assert code == 1
    assert "Tag" in verdict["reasons"][0]["message"]
    # An image without a rule, and no rule at all: nothing is verified.
    assert review("docker.io/library/python:3", *layout)[0] == 1
    (state / "trust.yaml").write_text("")
    assert review(f"{REPOSITORY}@{signed}", *layout)[0] == 1
    # Pinning resolves the tag to the digest, and the pod is then verified by it.
    (state / "trust.yaml").write_text(yaml.safe_dump(trust))
    (directory / "config.yaml").write_text("settings: {pinImages: true}\n")
    code, verdict = review(f"{REPOSITORY}:v1", *layout, "--config", str(directory / "config.yaml"))
    assert code == 0
    assert {
        "op": "replace",
        "path": "/spec/containers/0/image",
        "value": f"{REPOSITORY}:v1@{signed}",
    } in verdict["patch"]
    code, verdict = review(f"{REPOSITORY}:none", *layout, "--config", str(directory / "config.yaml"))
    assert code == 1
    assert "RegistryUnavailable" in verdict["reasons"][0]["message"]
