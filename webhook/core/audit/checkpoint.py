"""Checkpoints (c2sp.org/tlog-checkpoint): the origin, the size and the root of a log, as the text of a signed note."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.core.audit.merkle import EMPTY_ROOT, HASH_SIZE
from webhook.core.audit.notes import Note, NoteError, b64decode, parse_note, verified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.core.audit.notes import VerifierKey

MAX_SIZE = 1 << 62


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log states about itself. ``origin`` is ``<cluster>/<component>/<instance>``."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the text of the note."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint with its note, as it was read."""

    checkpoint: Checkpoint
    note: Note

    def verify(self, keys: Sequence[VerifierKey], witnesses: Sequence[VerifierKey] = ()) -> tuple[str, ...]:
        """Check the signatures and return the names of the witnesses that cosigned it.

        Every key of ``keys`` that carries the origin's name must have signed.

        Raises:
            NoteError: a signature is missing or invalid.
        """
        own = [key for key in keys if key.name == self.checkpoint.origin]
        if not own:
            raise NoteError(f"no key is known for log {self.checkpoint.origin}")
        signers = {key for key, _ in verified(self.note, own)}
        missing = [key for key in own if key not in signers]
        if missing:
            raise NoteError(
                f"the checkpoint of {self.checkpoint.origin} lacks a signature by key {missing[0].id.hex()}"
            )
        return tuple(sorted({key.name for key, _ in verified(self.note, witnesses)}))


def parse_checkpoint(raw: bytes) -> SignedCheckpoint:
    """Read a signed checkpoint. Raises `NoteError`."""
    note = parse_note(raw)
    lines = note.text.split("\n")
    if len(lines) != 4:
        raise NoteError("a checkpoint has exactly three lines")
    origin, size_text, root_text, _ = lines
    if not origin:
        raise NoteError("the checkpoint has no origin")
    if not size_text.isascii() or not size_text.isdecimal() or str(int(size_text)) != size_text:
        raise NoteError("the size of the checkpoint is not a decimal number")
    size, root = int(size_text), b64decode(root_text)
    if size > MAX_SIZE or len(root) != HASH_SIZE:
        raise NoteError("the size or the root of the checkpoint is out of range")
    if size == 0 and root != EMPTY_ROOT:
        raise NoteError("the root of the empty checkpoint is wrong")
    return SignedCheckpoint(Checkpoint(origin, size, root), note)
