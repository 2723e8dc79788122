from __future__ import annotations

import os

import pyhpke
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from webhook.keys.envelope import AgentKey, seal_keys
from webhook.keys.errors import SealedDataError
from webhook.keys.secret import Secret


def test_the_agent_gets_what_was_sealed_to_it():
    agent, keys = AgentKey.generate(), {"k1": os.urandom(32), "2026-11": os.urandom(32)}
    sealed = seal_keys({name: Secret(key) for name, key in keys.items()}, agent.public, "n", "m")
    assert all(key not in sealed for key in keys.values())
    opened = agent.open(sealed, "n", "m")
    assert {name: bytes(secret.view()) for name, secret in opened.items()} == keys


def test_no_keys_at_all():
    agent = AgentKey.generate()
    assert agent.open(seal_keys({}, agent.public, "n", "m"), "n", "m") == {}


@pytest.mark.parametrize("case", ["other agent", "other nonce", "other model", "changed", "cut", "empty"])
def test_nobody_else_and_for_nothing_else(case):
    agent = AgentKey.generate()
    sealed = seal_keys({"k1": Secret(bytes(32))}, agent.public, "n", "m")
    opener = AgentKey.generate() if case == "other agent" else agent
    content = {"changed": sealed[:-1] + bytes([sealed[-1] ^ 1]), "cut": sealed[:40], "empty": b""}.get(
        case, sealed
    )
    with pytest.raises(SealedDataError, match="was not made for this request"):
        opener.open(
            content, "other" if case == "other nonce" else "n", "other" if case == "other model" else "m"
        )


def test_rfc_9180_as_another_implementation_reads_it():
    agent = AgentKey.generate()
    sealed = seal_keys({"k": Secret(b"x" * 32)}, agent.public, "n", "m")
    suite = pyhpke.CipherSuite.new(
        pyhpke.KEMId.DHKEM_X25519_HKDF_SHA256, pyhpke.KDFId.HKDF_SHA256, pyhpke.AEADId.AES256_GCM
    )
    private = suite.kem.deserialize_private_key(
        agent.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    )
    recipient = suite.create_recipient_context(sealed[:32], private, info=b"weightlock.dev/release/v1\nn\nm")
    assert recipient.open(sealed[32:]) == b"\x01k" + b"x" * 32


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(32)])
def test_a_public_key_that_is_none(public):
    with pytest.raises(ValueError, match=r".*"):
        seal_keys({"k1": Secret(bytes(32))}, public, "n", "m")
