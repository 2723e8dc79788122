"""The state of a worker's watches in memory that outlives it, so that its successor need not read the cluster again.

Each worker appends what its watches deliver to a file without a name that the supervising process holds: objects as
they are kept, removals, and the resource version up to which a kind is known. A successor replays the file of its
predecessor and continues each watch from there, as after a disconnect. A file has two halves that are written in turn:
when one has grown to twice its content, the content is written to the other. A record that is incomplete because its
writer was killed ends the replay.
"""

from __future__ import annotations

import logging
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from webhook.core.kube.objects import ObjectKey, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.core.kube.fields import Document

_HEAD: Final = struct.Struct("<QB")
_RECORD: Final = struct.Struct("<BBdI")
_PUT, _REMOVE, _VERSION = 1, 2, 3
_LEAST_BYTES: Final = 4 * 1024 * 1024
# Older state is not replayed: resource versions may have been compacted, and a list is as fast.
MAX_AGE_SECONDS: Final = 120.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class KindState:
    """What was known of one kind: objects by key, the resource version, and when (monotonic) it was current."""

    documents: dict[ObjectKey, Document] = field(default_factory=dict)
    version: str = ""
    seen: float = 0.0


class Journal:
    """One worker's file. ``halves`` are two descriptors; ``kinds`` are the names of the kinds, in a fixed order."""

    def __init__(self, halves: tuple[int, int], kinds: Sequence[str]) -> None:
        self._halves = halves
        self._kinds = list(kinds)
        self._numbers = {name: number for number, name in enumerate(self._kinds)}
        self._half = 0
        self._size = 0
        # Where the content of each object stands in the current half: its offset and its length.
        self._live: dict[tuple[int, ObjectKey], tuple[int, int]] = {}
        self._live_bytes = 0
        self._versions: dict[int, tuple[str, float]] = {}
        self._generation = 1 + max(_head(half)[0] for half in halves)
        self._begin()

    def put(self, kind: str, key: ObjectKey, document: Document) -> None:
        """Append an object."""
        number, content = self._numbers[kind], orjson.dumps(document)
        place = (number, key)
        self._live_bytes += len(content) - self._live.get(place, (0, 0))[1]
        self._live[place] = (self._size + _RECORD.size, len(content))
        self._append(number, _PUT, 0.0, content)

    def remove(self, kind: str, key: ObjectKey) -> None:
        """Append a removal."""
        number = self._numbers[kind]
        before = self._live.pop((number, key), None)
        if before is not None:
            self._live_bytes -= before[1]
            self._append(number, _REMOVE, 0.0, orjson.dumps(list(key)))

    def current(self, kind: str, version: str, seen: float) -> None:
        """Append up to where a kind is known, and when it was."""
        number = self._numbers[kind]
        self._versions[number] = (version, seen)
        self._append(number, _VERSION, seen, version.encode())

    def _append(self, number: int, operation: int, seen: float, content: bytes) -> None:
        record = _RECORD.pack(operation, number, seen, len(content)) + content
        self._write(record)
        if self._size > _LEAST_BYTES and self._size > 2 * self._live_bytes:
            before = self._halves[self._half]
            self._half = 1 - self._half
            self._generation += 1
            self._begin(os.pread(before, self._size, 0))

    def _begin(self, before: bytes = b"") -> None:
        """Write all content, from the half before, to the current half; it counts once it is complete."""
        half = self._halves[self._half]
        os.ftruncate(half, 0)
        self._size = 0
        self._write(_HEAD.pack(self._generation, 0))
        for (number, key), (offset, length) in self._live.items():
            self._live[number, key] = (self._size + _RECORD.size, length)
            self._write(_RECORD.pack(_PUT, number, 0.0, length) + before[offset : offset + length])
        for number, (version, time) in self._versions.items():
            self._write(_RECORD.pack(_VERSION, number, time, len(version)) + version.encode())
        os.pwrite(half, _HEAD.pack(self._generation, 1), 0)

    def _write(self, content: bytes) -> None:
        self._size += os.pwrite(self._halves[self._half], content, self._size)


def replay(files: Sequence[tuple[int, int]], kinds: Sequence[str], now: float) -> dict[str, KindState]:
    """Return the most recent state of all files by kind; ``now`` is monotonic. Empty if there is none."""
    best: dict[str, KindState] = {}
    newest = now - MAX_AGE_SECONDS
    for halves in files:
        half = max(halves, key=_head)
        generation, complete = _head(half)
        if not complete:
            half = min(halves, key=_head)
            generation, complete = _head(half)
        if not generation or not complete:
            continue
        state = _replayed(half, kinds)
        time = max((each.seen for each in state.values()), default=0.0)
        if time > newest and len(state) == len(kinds):
            best, newest = state, time
    return best


def _replayed(half: int, kinds: Sequence[str]) -> dict[str, KindState]:
    documents: dict[int, dict[ObjectKey, Document]] = {}
    states: dict[int, KindState] = {}
    for operation, number, time, content in _records(half):
        if number >= len(kinds):
            return {}
        if operation == _VERSION:
            states[number] = KindState(version=content.decode(), seen=time)
        elif operation == _REMOVE:
            documents.setdefault(number, {}).pop(ObjectKey(*orjson.loads(content)), None)
        else:
            document = orjson.loads(content)
            documents.setdefault(number, {})[key_of(document)] = document
    for number, state in states.items():
        state.documents = documents.get(number, {})
    return {kinds[number]: state for number, state in states.items()}


def _records(half: int) -> Iterator[tuple[int, int, float, bytes]]:
    size = os.fstat(half).st_size
    content = os.pread(half, size, 0)
    at = _HEAD.size
    while at + _RECORD.size <= len(content):
        operation, number, time, length = _RECORD.unpack_from(content, at)
        end = at + _RECORD.size + length
        if end > len(content) or operation not in (_PUT, _REMOVE, _VERSION):
            return
        yield operation, number, time, content[at + _RECORD.size : end]
        at = end


def _head(half: int) -> tuple[int, int]:
    head: Any = os.pread(half, _HEAD.size, 0)
    return _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)


def memory_files(count: int) -> list[tuple[int, int]]:
    """Return so many files of two halves each, without names; none if the system has no such files."""
    create = getattr(os, "memfd_create", None)
    if create is None:
        return []
    return [(create(f"weightlock-{number}-a"), create(f"weightlock-{number}-b")) for number in range(count)]
