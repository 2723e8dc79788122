"""Ed25519ph: the vector of RFC 8032 (section 7.3), damaged signatures, and its use for keys of signers only."""

from __future__ import annotations

import hashlib
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support.sigstore_world import IN_TOTO, NOW, World, new_key, pae, pem
from webhook.provenance import ed25519ph
from webhook.provenance.errors import TamperedError
from webhook.provenance.signatures import load_public_key, verify, verify_signer
from webhook.provenance.trust import Trust, TrustedKey
from webhook.provenance.verify import verify_bundle

KEY = bytes.fromhex("ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf")
SIGNATURE = bytes.fromhex(
    "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41"
    "31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406"
)
ORDER = 2**252 + 27742317777372353535851937790883648493


def sign_ph(key, message: bytes) -> bytes:
    """Sign as RFC 8032 describes, with the arithmetic of the verifier."""
    seed = hashlib.sha512(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())).digest()
    scalar = int.from_bytes(seed[:32], "little") & ((1 << 254) - 8) | 1 << 254
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    domain, content = b"SigEd25519 no Ed25519 collisions\x01\x00", hashlib.sha512(message).digest()

    def number(*parts: bytes) -> int:
        return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER

    nonce = number(domain, seed[32:], content)
    point = ed25519ph._encode(ed25519ph._sum_of(nonce, ed25519ph._BASE, 0, ed25519ph._NEUTRAL))
    challenge = number(domain, point, public, content)
    return point + ((nonce + challenge * scalar) % ORDER).to_bytes(32, "little")


def test_the_vector_of_the_standard():
    assert ed25519ph.verifies(KEY, SIGNATURE, b"abc")


@pytest.mark.parametrize("position", range(0, 64, 7))
def test_a_damaged_signature(position):
    damaged = bytearray(SIGNATURE)
    damaged[position] ^= 1
    assert not ed25519ph.verifies(KEY, bytes(damaged), b"abc")


@pytest.mark.parametrize(
    ("key", "signature", "message"),
    [
        (KEY, SIGNATURE, b"abd"),
        (KEY, SIGNATURE[:-1], b"abc"),
        (KEY[:-1], SIGNATURE, b"abc"),
        (KEY, b"", b"abc"),
        # S + L is the same scalar in another encoding, and makes a second signature of one.
        (
            KEY,
            SIGNATURE[:32] + (int.from_bytes(SIGNATURE[32:], "little") + ORDER).to_bytes(32, "little"),
            b"abc",
        ),
        # Not the encoding of a point: y is not below the prime, or x has no square root.
        (b"\xff" * 32, SIGNATURE, b"abc"),
        (b"\x02" + bytes(31), SIGNATURE, b"abc"),
    ],
)
def test_other_input(key, signature, message):
    assert not ed25519ph.verifies(key, signature, message)


def test_plain_and_prehashed_signatures_differ():
    key = new_key("ed25519")
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert ed25519ph.verifies(raw, sign_ph(key, b"message"), b"message")
    assert not ed25519ph.verifies(raw, key.sign(b"message"), b"message")
    public = load_public_key(pem(key))
    verify_signer(public, sign_ph(key, b"message"), b"message")
    verify_signer(public, key.sign(b"message"), b"message")
    # Logs and certificates use the plain form only.
    with pytest.raises(TamperedError):
        verify(public, sign_ph(key, b"message"), b"message")


def test_a_bundle_by_a_prehashed_key():
    world, key = World(logged=False), new_key("ed25519")
    payload = json.dumps({"_type": "https://in-toto.io/Statement/v1"}).encode()
    item = world.by_key(key, pae(IN_TOTO, payload), payload)
    item.signature = sign_ph(key, item.signed)
    trust = Trust(keys=(TrustedKey(load_public_key(pem(key))),))
    assert verify_bundle(json.dumps(world.bundle(item)).encode(), trust, NOW).payload == payload
    other = Trust(keys=(TrustedKey(load_public_key(pem(new_key("ed25519")))),))
    with pytest.raises(Exception, match="none of the trusted keys"):
        verify_bundle(json.dumps(world.bundle(item)).encode(), other, NOW)
