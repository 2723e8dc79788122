"""The signing keys of a configuration: the keys that are read, and the errors of invalid files."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from webhook.api.config import Signing
from webhook.app.errors import UsageError
from webhook.app.signing import load_signing


def private(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def public(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_without_keys_nothing_signs_and_nothing_counts():
    signer, verifier = load_signing(Signing())
    assert signer is None
    assert verifier.keys == {}


def test_the_own_key_counts_beside_those_being_rotated(tmp_path):
    own, old, older = (Ed25519PrivateKey.generate() for _ in range(3))
    (tmp_path / "key").write_bytes(private(own))
    (tmp_path / "keys").write_bytes(public(old) + public(older))
    signer, verifier = load_signing(Signing(key=str(tmp_path / "key"), keys=str(tmp_path / "keys")))
    assert signer is not None
    assert signer.id in verifier.keys
    assert len(verifier.keys) == 3


def test_a_key_that_was_made_counts_as_one_of_a_file(tmp_path):
    own, old = (Ed25519PrivateKey.generate() for _ in range(2))
    (tmp_path / "keys").write_bytes(public(old))
    signer, verifier = load_signing(Signing(keys=str(tmp_path / "keys")), private(own))
    assert signer is not None
    assert signer.id in verifier.keys
    assert len(verifier.keys) == 2
    with pytest.raises(UsageError, match="the controller's signing key"):
        load_signing(Signing(), b"no key")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        private(generate_private_key(SECP256R1())),
        private(Ed25519PrivateKey.generate(), BestAvailableEncryption(b"x")),
    ],
    ids=["empty", "text", "another kind of key", "encrypted"],
)
def test_a_wrong_key_file_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=str(path)) as caught:
        load_signing(Signing(key=str(path)))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="nowhere"):
        load_signing(Signing(keys=str(tmp_path / "nowhere")))
