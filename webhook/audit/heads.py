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
    """The state of one observer. ``keys`` returns the verifier keys of an origin.

    ``is_free`` returns whether no process writes the log at a path below ``root``, and its checkpoint is the given one.
    Without it, the locks of the directories decide.
    """

    def __init__(
        self,
        root: Path,
        own: str,
        keys: Callable[[str], Sequence[VerifierKey]],
        is_free: Callable[[str, bytes], bool] | None = None,
    ) -> None:
        self._root, self._own, self._keys = root, own, keys
        self._is_free = is_free or self._is_unlocked
        self._started: set[Path] = set()
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
            if place in self._started:
                raise AuditError("the checkpoint is missing")
            # Its writer has just begun.
            return
        self._started.add(place)
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
        if self._silent.get(state.origin) == state.size or not _is_running(reader, state.size):
            return
        if self._is_free(place.relative_to(self._root).as_posix(), raw):
            self._silent[state.origin] = state.size
            yield {"event": "silent", "head": head, "detail": "the writer is gone and left no stop entry"}

    def _is_unlocked(self, path: str, raw: bytes) -> bool:
        place = self._root / path
        try:
            descriptor = os.open(place / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        # A writer that stopped since then wrote its stop entry.
        return Directory(place).read(CHECKPOINT) == raw


def _contains(reader: Directory, state: Checkpoint, before: Checkpoint) -> bool:
    def read(tile: Tile) -> Sequence[bytes]:
        data, path, width = read_tile(reader, tile)
        if data is None:
            raise AuditError(f"{path} is missing")
        return split_hashes(data, width)

    return before.size <= state.size and root_of(TileNodes(read, state.size), before.size) == before.root


def _is_running(reader: Directory, size: int) -> bool:
    """Return whether the last entry is not a stop entry."""
    return size > 0 and all(_STOP not in entry for _, entry in entries_of(reader, size, size - 1))
