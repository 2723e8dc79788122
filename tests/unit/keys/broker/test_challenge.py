from __future__ import annotations

import base64
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.keys.broker.challenge import LIFETIME, SKEW, Challenges, evidence_nonce
from webhook.keys.broker.refusal import RefusedError
from webhook.keys.secret import Secret

KEY, PUBLIC, NOW = bytes(range(32)), b"p" * 32, 1_800_000_000.0
CHALLENGES = Challenges(Secret(KEY))


def test_any_replica_accepts_it_for_its_lifetime():
    nonce = CHALLENGES.issue(PUBLIC, NOW)
    for now in (NOW, NOW + LIFETIME - 1, NOW - SKEW):
        Challenges(Secret(KEY)).check(nonce, PUBLIC, now)


@pytest.mark.parametrize("now", [NOW + LIFETIME + 1, NOW - SKEW - 1])
def test_too_old_or_from_the_future(now):
    with pytest.raises(RefusedError, match="older than 120 seconds"):
        CHALLENGES.check(CHALLENGES.issue(PUBLIC, NOW), PUBLIC, now)


def test_for_one_public_key_and_one_challenge_key():
    nonce = CHALLENGES.issue(PUBLIC, NOW)
    for challenges, public in ((CHALLENGES, b"q" * 32), (Challenges(Secret(os.urandom(32))), PUBLIC)):
        with pytest.raises(RefusedError, match="was not issued by this broker for this agent's key"):
            challenges.check(nonce, public, NOW)


@given(st.text(max_size=100) | st.binary(max_size=80).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_anything_else_is_refused(nonce):
    with pytest.raises(RefusedError):
        CHALLENGES.check(nonce, PUBLIC, NOW)


@given(st.integers(0, 55), st.integers(1, 255))
def test_every_changed_byte_is_noticed(place, change):
    raw = bytearray(base64.urlsafe_b64decode(CHALLENGES.issue(PUBLIC, NOW)))
    raw[place] ^= change
    with pytest.raises(RefusedError):
        CHALLENGES.check(base64.urlsafe_b64encode(raw).decode(), PUBLIC, NOW)


def test_one_spelling_of_a_nonce_counts():
    nonce = CHALLENGES.issue(PUBLIC, NOW)
    raw = base64.urlsafe_b64decode(nonce)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    body = nonce.rstrip("=")
    spellings = {body[:-1] + letter + nonce[len(body) :] for letter in alphabet} - {nonce}
    same = {other for other in spellings if base64.urlsafe_b64decode(other) == raw}
    assert len(same) == 3, "what base64 does not tell apart"
    for other in (*same, base64.b64encode(raw).decode().replace("-", "+"), body):
        if other != nonce:
            with pytest.raises(RefusedError):
                CHALLENGES.check(other, PUBLIC, NOW)


def test_nonces_differ_and_so_does_their_evidence():
    nonces = {CHALLENGES.issue(PUBLIC, NOW) for _ in range(50)}
    assert len(nonces) == len({evidence_nonce(nonce) for nonce in nonces}) == 50
    assert all(len(evidence_nonce(nonce)) == 64 for nonce in nonces)
