"""Signed notes (c2sp.org/signed-note): texts with signature lines, their keys, and cosignatures of witnesses.

Three kinds of signature: Ed25519 over the note (0x01), the log's own; a timestamped Ed25519 cosignature (0x04), a
witness's; and the timestamped ML-DSA-44 form (0x06), which both use (c2sp.org/tlog-cosignature). A signature by an
unknown key is ignored. A signature by a known key must be valid.
"""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ED25519 = 0x01
COSIGNATURE_ED25519 = 0x04
COSIGNATURE_MLDSA44 = 0x06
MAX_NOTE_BYTES = 256 * 1024
MAX_SIGNATURES = 64
_DASH = "— "
_TIME = struct.Struct(">Q")
_KEY_BYTES = {ED25519: 32, COSIGNATURE_ED25519: 32, COSIGNATURE_MLDSA44: 1312}
_SIGNATURE_BYTES = {ED25519: 64, COSIGNATURE_ED25519: 72, COSIGNATURE_MLDSA44: 2428}


class NoteError(ValueError):
    """A note or a key is malformed, or a signature is invalid. The message is one line."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: ``key_id`` and the bytes behind it."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """Return the line with its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.value).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, which ends with a newline, and its signatures."""

    text: str
    signatures: tuple[Signature, ...]

    def render(self) -> str:
        """Return the signed note."""
        return self.text + "\n" + "".join(signature.line() for signature in self.signatures)


def b64decode(text: str) -> bytes:
    """Decode base64 strictly: one encoding for each value. Raises `NoteError`."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("invalid base64") from None
    if base64.b64encode(raw).decode() != text:
        raise NoteError("non-canonical base64")
    return raw


def parse_note(raw: bytes) -> Note:
    """Read a signed note. Raises `NoteError`."""
    if len(raw) > MAX_NOTE_BYTES:
        raise NoteError(f"the note is larger than {MAX_NOTE_BYTES} bytes")
    try:
        whole = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteError(f"the note is not UTF-8 (byte {error.start})") from None
    if any(ord(character) < 0x20 and character != "\n" for character in whole):
        raise NoteError("the note contains a control character")
    text, separator, block = whole.rpartition("\n\n")
    if not separator or not block.endswith("\n"):
        raise NoteError("the note has no signature block")
    lines = block[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"the note has more than {MAX_SIGNATURES} signatures")
    return Note(text + "\n", tuple(map(parse_signature, lines)))


def parse_signature(line: str) -> Signature:
    """Read a signature line without its newline. Raises `NoteError`."""
    if not line.startswith(_DASH):
        raise NoteError("a signature line does not start with an em dash and a space")
    name, separator, encoded = line.removeprefix(_DASH).partition(" ")
    if not separator or not _is_name(name):
        raise NoteError("a signature line has no key name")
    value = b64decode(encoded)
    if len(value) < 5:
        raise NoteError("a signature is too short")
    return Signature(name, value[:4], value[4:])


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def key_id(name: str, kind: int, key: bytes) -> bytes:
    """Return the id of a key."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + key).digest()[:4]


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key of a log or a witness, as in a vkey."""

    name: str
    kind: int
    key: bytes
    id: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Compute the id."""
        object.__setattr__(self, "id", key_id(self.name, self.kind, self.key))

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a vkey ``<name>+<hex id>+<base64 of type and key>``. Raises `NoteError`."""
        name, _, rest = text.partition("+")
        identifier, _, encoded = rest.partition("+")
        raw = b64decode(encoded)
        if not _is_name(name) or not raw or _KEY_BYTES.get(raw[0]) != len(raw) - 1:
            raise NoteError(f"{text[:80]!r} is not a verifier key of type 1, 4 or 6")
        key = cls(name, raw[0], raw[1:])
        if key.id.hex() != identifier:
            raise NoteError(f"the id of verifier key {name} does not match its key")
        return key

    def render(self) -> str:
        """Return the vkey."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([self.kind]) + self.key).decode()}"

    def matches(self, signature: Signature) -> bool:
        """Return whether the signature claims to be by this key."""
        return signature.name == self.name and signature.key_id == self.id

    def verify(self, note_text: str, signature: Signature) -> int:
        """Check one signature and return its time in Unix seconds, 0 without one. Raises `NoteError`."""
        if len(signature.value) != _SIGNATURE_BYTES[self.kind]:
            raise NoteError(f"the signature by {self.name} has a wrong length")
        try:
            if self.kind == ED25519:
                Ed25519PublicKey.from_public_bytes(self.key).verify(signature.value, note_text.encode())
                return 0
            (time,) = _TIME.unpack_from(signature.value)
            if self.kind == COSIGNATURE_ED25519:
                message = cosignature_message(note_text, time)
                Ed25519PublicKey.from_public_bytes(self.key).verify(signature.value[8:], message)
            else:
                message = subtree_message(self.name, note_text, time)
                MLDSA44PublicKey.from_public_bytes(self.key).verify(signature.value[8:], message)
        except (InvalidSignature, ValueError):
            raise NoteError(f"the signature by {self.name} is invalid") from None
        return int(time)


def cosignature_message(note_text: str, time: int) -> bytes:
    """Return the message of a timestamped Ed25519 cosignature."""
    return f"cosignature/v1\ntime {time}\n{note_text}".encode()


def subtree_message(name: str, note_text: str, time: int) -> bytes:
    """Return the message of a timestamped ML-DSA-44 signature over a checkpoint. Raises `NoteError`."""
    lines = note_text.split("\n")
    if len(lines) < 4 or not lines[1].isascii() or not lines[1].isdecimal():
        raise NoteError("the note is not a checkpoint")
    origin, size, root = lines[0].encode(), int(lines[1]), b64decode(lines[2])
    cosigner = name.encode()
    if not 0 < len(origin) < 256 or not 0 < len(cosigner) < 256 or size >= 1 << 63:
        raise NoteError("the origin, the name of a key or the size is too long")
    return b"".join(
        (
            b"subtree/v1\n\0",
            bytes([len(cosigner)]),
            cosigner,
            _TIME.pack(time),
            bytes([len(origin)]),
            origin,
            _TIME.pack(0),
            _TIME.pack(size),
            root,
        )
    )


@dataclass(frozen=True, slots=True)
class Signer:
    """The private keys of one log. Every checkpoint gets one signature of each kind."""

    name: str
    ed25519: Ed25519PrivateKey
    mldsa44: MLDSA44PrivateKey | None = None

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        """The public halves."""
        keys = [VerifierKey(self.name, ED25519, self.ed25519.public_key().public_bytes_raw())]
        if self.mldsa44 is not None:
            raw = self.mldsa44.public_key().public_bytes_raw()
            keys.append(VerifierKey(self.name, COSIGNATURE_MLDSA44, raw))
        return tuple(keys)

    def sign(self, text: str, time: int) -> Note:
        """Sign the text of a checkpoint. ``time`` is in Unix seconds."""
        ed25519, *others = self.keys
        signatures = [Signature(self.name, ed25519.id, self.ed25519.sign(text.encode()))]
        if self.mldsa44 is not None:
            value = _TIME.pack(time) + self.mldsa44.sign(subtree_message(self.name, text, time))
            signatures.append(Signature(self.name, others[0].id, value))
        return Note(text, tuple(signatures))


def verified(note: Note, keys: Iterable[VerifierKey]) -> tuple[tuple[VerifierKey, int], ...]:
    """Return the known keys with a valid signature, each with the time of its signature.

    Raises:
        NoteError: a signature by a known key is invalid.
    """
    matches = []
    for key in keys:
        for signature in note.signatures:
            if key.matches(signature):
                matches.append((key, key.verify(note.text, signature)))
                break
    return tuple(matches)


def parse_keys(text: str) -> tuple[VerifierKey, ...]:
    """Read vkeys, one a line. Empty lines and lines that start with # are ignored. Raises `NoteError`."""
    lines: Sequence[str] = [line.strip() for line in text.splitlines()]
    return tuple(VerifierKey.parse(line) for line in lines if line and not line.startswith("#"))
