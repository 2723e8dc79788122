"""Proofs of inclusion as one text file (c2sp.org/tlog-proof): receipts of releases, and proofs for an auditor.

The extra line carries the entry itself, so that the file proves what it shows without access to the log.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from webhook.core.audit.checkpoint import SignedCheckpoint, parse_checkpoint
from webhook.core.audit.merkle import HASH_SIZE, leaf_hash, verify_inclusion
from webhook.core.audit.notes import NoteError, b64decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.core.audit.notes import VerifierKey

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PROOF_BYTES = 512 * 1024
_MAX_HASHES = 63
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,18})")


class ProofError(ValueError):
    """A proof is malformed or does not hold. The message is one line."""


@dataclass(frozen=True, slots=True)
class Proof:
    """``entry`` is the log entry, from the extra line."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: SignedCheckpoint
    entry: bytes

    def render(self) -> str:
        """Return the file."""
        lines = [HEADER, f"extra {base64.b64encode(self.entry).decode()}", f"index {self.index}"]
        lines += [base64.b64encode(value).decode() for value in self.hashes]
        return "\n".join([*lines, "", self.checkpoint.note.render()])

    def verify(
        self, keys: Sequence[VerifierKey], witnesses: Sequence[VerifierKey] = (), quorum: int = 0
    ) -> tuple[str, ...]:
        """Check signatures, witnesses and inclusion. Return the names of the witnesses that cosigned.

        Raises:
            ProofError: the proof does not hold.
        """
        try:
            names = self.checkpoint.verify(keys, witnesses)
        except NoteError as error:
            raise ProofError(str(error)) from None
        if len(names) < quorum:
            raise ProofError(f"{len(names)} known witnesses cosigned the checkpoint, {quorum} are required")
        state = self.checkpoint.checkpoint
        if not verify_inclusion(leaf_hash(self.entry), self.index, state.size, self.hashes, state.root):
            raise ProofError(f"the entry is not entry {self.index} of the log {state.origin}")
        return names


def parse_proof(raw: bytes) -> Proof:
    """Read a proof file with its entry. Raises `ProofError`."""
    if len(raw) > MAX_PROOF_BYTES:
        raise ProofError(f"the proof is larger than {MAX_PROOF_BYTES} bytes")
    head, separator, note = raw.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
        if not separator or lines[0] != HEADER:
            raise ProofError("the file is not a tlog-proof")
        if len(lines) < 3 or not lines[1].startswith("extra "):
            raise ProofError("the proof does not contain its entry")
        index = _INDEX.fullmatch(lines[2])
        if index is None:
            raise ProofError("the proof has no index")
        hashes = tuple(map(b64decode, lines[3:]))
        if len(hashes) > _MAX_HASHES or any(len(value) != HASH_SIZE for value in hashes):
            raise ProofError("the proof contains an invalid hash")
        return Proof(
            int(index[1]), hashes, parse_checkpoint(note), b64decode(lines[1].removeprefix("extra "))
        )
    except UnicodeDecodeError:
        raise ProofError("the proof is not ASCII") from None
    except NoteError as error:
        raise ProofError(str(error)) from None
