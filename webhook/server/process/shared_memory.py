"""Counts that outlive the process that counted: memory which a parent shares with its children, a slot for each.

A child adds to what the child before it left in the slot, and shows what stands in the others besides. So a counter
never goes back because a worker was replaced, nor jumps while two of them answer. What is lost with a worker that is
killed is what it had not yet written. Only the owner of a slot writes it; nothing here blocks.
"""

from __future__ import annotations

import mmap
import struct
import zlib

# At most two children live at a time; a third slot is free whenever one is started.
SLOTS = 4
_HALF_BYTES = 4 * 1024 * 1024
_HEAD = struct.Struct("<II")
_TRIES = 8


class Slot:
    """One child's part of the memory: two halves in turn, so that whoever reads finds a whole one."""

    def __init__(self, memory: mmap.mmap, index: int) -> None:
        self._memory = memory
        self._begin = index * (1 + 2 * _HALF_BYTES)

    def write(self, content: bytes) -> bool:
        """Replace what stands here; False where it is too large, and then nothing changed."""
        if len(content) > _HALF_BYTES - _HEAD.size:
            return False
        half = 1 - self._memory[self._begin]
        place = self._place(half)
        self._memory[place + _HEAD.size : place + _HEAD.size + len(content)] = content
        self._memory[place : place + _HEAD.size] = _HEAD.pack(len(content), zlib.crc32(content))
        self._memory[self._begin] = half
        return True

    def read(self) -> bytes:
        """What was last written whole; empty where nothing was."""
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
        return self._begin + 1 + half * _HALF_BYTES


class Ledger:
    """The memory, made by the parent before it has children. What nobody wrote takes no room."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, SLOTS * (1 + 2 * _HALF_BYTES))
        self.slots = tuple(Slot(memory, index) for index in range(SLOTS))
