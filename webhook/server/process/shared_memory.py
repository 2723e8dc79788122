"""Counters that outlive the process that counted: memory that a parent shares with its children, a slot for each.

A child adds to what the child before it left in the slot, and exposes the other slots, too. A counter therefore never
goes back because a worker was replaced, nor jumps while two of them answer. A child that is killed loses only the
counts since its last save. Each slot also holds the number of the review that its child evaluates. Only the owner
of a slot writes it, and nothing here blocks.
"""

from __future__ import annotations

import mmap
import struct
import zlib

# At most two workers and two frontends live at a time.
SLOTS = 5
_HALF_BYTES = 4 * 1024 * 1024
_HEAD = struct.Struct("<II")
_MARK = struct.Struct("<Q")
_SLOT_BYTES = 1 + _MARK.size + 2 * _HALF_BYTES
_TRIES = 8


class Slot:
    """One child's part of the memory: two halves that are written in turn, so that a reader finds a complete one."""

    def __init__(self, memory: mmap.mmap, index: int) -> None:
        self._memory = memory
        self.index = index
        self._begin = index * _SLOT_BYTES

    def mark(self, number: int) -> None:
        """Note which review is evaluated now."""
        _MARK.pack_into(self._memory, self._begin + 1, number)

    def marked(self) -> int:
        """Return the number of the review that was evaluated last."""
        (number,) = _MARK.unpack_from(self._memory, self._begin + 1)
        return int(number)

    def write(self, content: bytes) -> bool:
        """Replace the content; return False if it is too large, and then nothing changed."""
        if len(content) > _HALF_BYTES - _HEAD.size:
            return False
        half = 1 - self._memory[self._begin]
        place = self._place(half)
        self._memory[place + _HEAD.size : place + _HEAD.size + len(content)] = content
        self._memory[place : place + _HEAD.size] = _HEAD.pack(len(content), zlib.crc32(content))
        self._memory[self._begin] = half
        return True

    def read(self) -> bytes:
        """Return the last complete content, or nothing."""
        for _ in range(_TRIES):
            place = self._place(self._memory[self._begin])
            length, checksum = _HEAD.unpack(self._memory[place : place + _HEAD.size])
            if length > _HALF_BYTES - _HEAD.size:
                continue
            content = self._memory[place + _HEAD.size : place + _HEAD.size + length]
            if zlib.crc32(content) == checksum:
                return content
        return b""

    def _place(self, half: int) -> int:
        return self._begin + 1 + _MARK.size + half * _HALF_BYTES


class SharedCounters:
    """The memory, made by the parent before it has children. Pages that no child writes take no room."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, SLOTS * _SLOT_BYTES)
        self.slots = tuple(Slot(memory, index) for index in range(SLOTS))
