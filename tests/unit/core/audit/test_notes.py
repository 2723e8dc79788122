"""Signed notes: the example of the specification, both signatures of a log, and what is not a note."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from webhook.core.audit.checkpoint import Checkpoint, parse_checkpoint
from webhook.core.audit.merkle import EMPTY_ROOT
from webhook.core.audit.notes import (
    NoteError,
    Signer,
    VerifierKey,
    parse_keys,
    parse_note,
    parse_signature,
    verified,
)

VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
SIGNER = Signer("cluster/webhook/a", Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate())
SIGNED = SIGNER.sign(Checkpoint(SIGNER.name, 3, bytes(32)).text(), 1_800_000_000)


def test_the_example_of_the_specification():
    """The note of c2sp.org/signed-note is verified by its key."""
    key = VerifierKey.parse(VKEY)
    assert verified(parse_note(NOTE.encode()), [key]) == ((key, 0),)
    assert key.render() == VKEY


def test_a_checkpoint_has_both_signatures():
    """Each checkpoint is signed with Ed25519 and with ML-DSA-44, and both are required."""
    signed = parse_checkpoint(SIGNED.render().encode())
    assert signed.verify(SIGNER.keys) == ()
    assert [key.kind for key in SIGNER.keys] == [1, 6]
    for line in SIGNED.render().splitlines(keepends=True):
        if line.startswith("—"):
            with pytest.raises(NoteError, match="signature"):
                parse_checkpoint(SIGNED.render().replace(line, "").encode()).verify(SIGNER.keys)


def test_every_flipped_byte_of_a_checkpoint_is_found():
    """No byte of a signed checkpoint can change, neither of the text nor of the signatures."""
    raw = SIGNED.render().encode()
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        with pytest.raises(NoteError):
            parse_checkpoint(bytes(changed)).verify(SIGNER.keys)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no signature block"),
        (b"a\n", "no signature block"),
        (b"a\n\n- x AAAAAAAA\n", "em dash"),
        ("a\n\n— x\n".encode(), "no key name"),
        ("a\n\n— x AAAA\n".encode(), "too short"),
        ("a\n\n— x AAAAAAB=\n".encode(), "base64"),
        (b"\xff", "not UTF-8"),
        (b"a\r\n\n", "control character"),
        (b"x" * 300_000, "larger than"),
        (("a\n\n" + "— x AAAAAAAA\n" * 65).encode(), "more than 64"),
    ],
)
def test_malformed_notes(raw, reason):
    """A malformed note is an error in one line."""
    with pytest.raises(NoteError, match=reason):
        parse_note(raw)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\n1\n", "three lines"),
        ("\n1\nAAAA\n", "no origin"),
        ("a\n01\nAAAA\n", "decimal"),
        ("a\n1\nAAAA\n", "out of range"),
        (f"a\n{1 << 63}\n{'A' * 43}=\n", "out of range"),
        (f"a\n0\n{'A' * 43}=\n", "empty checkpoint"),
        (f"a\n1\n{'A' * 43}=\nmore\n", "three lines"),
    ],
)
def test_malformed_checkpoints(text, reason):
    """A checkpoint has an origin, a canonical size and a root."""
    with pytest.raises(NoteError, match=reason):
        parse_checkpoint(f"{text}\n— x AAAAAAAA\n".encode())


def test_the_empty_checkpoint():
    """A log without entries has the root of the empty tree."""
    note = SIGNER.sign(Checkpoint(SIGNER.name, 0, EMPTY_ROOT).text(), 1)
    assert parse_checkpoint(note.render().encode()).checkpoint.size == 0


@pytest.mark.parametrize(
    "text", ["", "a", "a+b", "a+00000000+AQ==", VKEY.replace("530d", "530e"), f" {VKEY[11:]}"]
)
def test_malformed_keys(text):
    """A verifier key is checked against its id."""
    with pytest.raises(NoteError):
        VerifierKey.parse(text)


def test_keys_in_a_file():
    """Comments and empty lines are ignored."""
    assert [key.name for key in parse_keys(f"# the log\n\n{VKEY}\n")] == ["example.com/foo"]


@given(st.binary(max_size=400))
def test_anything_is_a_note_or_an_error(raw):
    """No bytes raise anything but NoteError."""
    try:
        parse_note(raw)
        parse_signature(raw.decode("utf-8", "replace"))
    except NoteError:
        pass
