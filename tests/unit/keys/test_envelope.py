from __future__ import annotations

import hashlib
import os

import pyhpke
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from webhook.keys.envelope import AgentKey, check_public_key, seal_keys
from webhook.keys.errors import SealedDataError
from webhook.keys.secret import Secret

LEASE = b'{"seconds":900}'


def test_the_agent_opens_keys_sealed_to_it():
    agent, keys = AgentKey.generate(), {"k1": os.urandom(32), "2026-11": os.urandom(32)}
    sealed = seal_keys({name: Secret(key) for name, key in keys.items()}, agent.public, "n", "m", LEASE)
    assert all(key not in sealed for key in keys.values())
    opened = agent.open(sealed, "n", "m", LEASE)
    assert {name: bytes(secret.view()) for name, secret in opened.items()} == keys


def test_no_keys_at_all():
    agent = AgentKey.generate()
    assert agent.open(seal_keys({}, agent.public, "n", "m", LEASE), "n", "m", LEASE) == {}


@pytest.mark.parametrize(
    "case",
    ["other agent", "other nonce", "other model", "other lease", "no lease", "changed", "cut", "empty"],
)
def test_no_other_key_and_no_other_purpose(case):
    agent = AgentKey.generate()
    sealed = seal_keys({"k1": Secret(bytes(32))}, agent.public, "n", "m", LEASE)
    opener = AgentKey.generate() if case == "other agent" else agent
    content = {"changed": sealed[:-1] + bytes([sealed[-1] ^ 1]), "cut": sealed[:40], "empty": b""}.get(
        case, sealed
    )
    with pytest.raises(SealedDataError, match="does not belong to this request"):
        opener.open(
            content,
            "other" if case == "other nonce" else "n",
            "other" if case == "other model" else "m",
            {"other lease": b'{"seconds":9000}', "no lease": None}.get(case, LEASE),
        )


@pytest.mark.parametrize(
    ("lease", "info"),
    [
        (None, b"weightlock.dev/release/v1\nn\nm"),
        (LEASE, b"weightlock.dev/release/v2\nn\nm\n" + hashlib.sha256(LEASE).hexdigest().encode()),
    ],
    ids=["agents of 0.2", "with the lease"],
)
def test_rfc_9180_as_another_implementation_reads_it(lease, info):
    agent = AgentKey.generate()
    sealed = seal_keys({"k": Secret(b"x" * 32)}, agent.public, "n", "m", lease)
    suite = pyhpke.CipherSuite.new(
        pyhpke.KEMId.DHKEM_X25519_HKDF_SHA256, pyhpke.KDFId.HKDF_SHA256, pyhpke.AEADId.AES256_GCM
    )
    private = suite.kem.deserialize_private_key(
        agent.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    )
    recipient = suite.create_recipient_context(sealed[:32], private, info=info)
    assert recipient.open(sealed[32:]) == b"\x01k" + b"x" * 32


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(32)])
def test_a_public_key_that_is_none(public):
    with pytest.raises(ValueError, match=r".*"):
        seal_keys({"k1": Secret(bytes(32))}, public, "n", "m", LEASE)
    with pytest.raises(ValueError, match=r".*"):
        check_public_key(public)


# RFC 7748, section 6.1, and https://cr.yp.to/ecdh.html: the points of low order.
@pytest.mark.parametrize(
    "point",
    [
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ],
)
def test_a_public_key_of_low_order_is_rejected(point):
    with pytest.raises(ValueError, match=r".*"):
        check_public_key(bytes.fromhex(point))
    check_public_key(AgentKey.generate().public)
