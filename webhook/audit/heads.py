"""The log of heads: record the checkpoints of all other logs on the volume, and the logs whose writer is gone.

A recorded checkpoint is a witness of its own: the other log can neither be truncated below it nor be forked unnoticed.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from webhook.audit.errors import AuditError
from webhook.audit.storage import LOCK, Directory, logs_below
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.merkle import root_of
from webhook.core.audit.notes import NoteError, VerifierKey
from webhook.core.audit.tiles import CHECKPOINT, TileError, TileNodes, split_hashes
from webhook.core.audit.verify import entries_of, read_tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from webhook.core.audit.checkpoint import Checkpoint
    from webhook.core.audit.tiles import Tile

_STOP = b'"event":"stop"'


class Heads:
    """The state of one observer. ``keys`` returns the verifier keys of an origin."""

    def __init__(self, root: Path, own: str, keys: Callable[[str], Sequence[VerifierKey]]) -> None:
        self._root, self._own, self._keys = root, own, keys
        self._known: dict[str, Checkpoint] = {}
        self._silent: dict[str, int] = {}

    def changes(self) -> Iterator[dict[str, Any]]:
        """Yield the data of one ``log`` entry for each change."""
        for place in logs_below(self._root):
            try:
                yield from self._look(place)
            except (AuditError, NoteError, TileError, OSError) as error:
                reason = f"{place.relative_to(self._root).as_posix()}: {error}"
                if self._silent.get(reason) is None:
                    self._silent[reason] = 1
                    yield {"event": "silent", "detail": reason[:1024]}

    def _look(self, place: Path) -> Iterator[dict[str, Any]]:
        reader = Directory(place)
        raw = reader.read(CHECKPOINT)
        if raw is None:
            raise AuditError("the checkpoint is missing")
        signed = parse_checkpoint(raw)
        state = signed.checkpoint
        if state.origin == self._own:
            return
        signed.verify(self._keys(state.origin))
        head = {"origin": state.origin, "size": state.size, "root": f"sha256:{state.root.hex()}"}
        before = self._known.get(state.origin)
        if before is None or before != state:
            if before is not None and not _contains(reader, state, before):
                raise AuditError(f"log {state.origin} is not a continuation of its recorded checkpoint")
            self._known[state.origin] = state
            yield {"event": "head", "head": head}
        if self._silent.get(state.origin) != state.size and _is_abandoned(place, reader, state.size):
            self._silent[state.origin] = state.size
            yield {"event": "silent", "head": head, "detail": "the writer is gone and left no stop entry"}


def _contains(reader: Directory, state: Checkpoint, before: Checkpoint) -> bool:
    def read(tile: Tile) -> Sequence[bytes]:
        data, path, width = read_tile(reader, tile)
        if data is None:
            raise AuditError(f"{path} is missing")
        return split_hashes(data, width)

    return before.size <= state.size and root_of(TileNodes(read, state.size), before.size) == before.root


def _is_abandoned(place: Path, reader: Directory, size: int) -> bool:
    """Return whether no process writes the log and its last entry is not a stop entry."""
    try:
        descriptor = os.open(place / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return size > 0 and all(_STOP not in entry for _, entry in entries_of(reader, size, size - 1))
