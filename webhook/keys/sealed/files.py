"""Plain files as a source, and the sinks of a run: plain and sealed files, written a segment at a time.

A file under construction has a hidden name until it is complete, verified and durable. Memory is a few segments for
each thread. `PlainSink` is the only code that writes plaintext.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from webhook.keys.errors import BadInputError
from webhook.keys.rawio import open_regular, read_at, write_at
from webhook.keys.sealed.format.paths import partial_name, tags_name
from webhook.keys.sealed.format.streaming import (
    HEADER_SIZE,
    TAG_SIZE,
    Fingerprinter,
    Layout,
    SegmentCipher,
    Span,
    content_header,
    stream_digest,
)

if TYPE_CHECKING:
    from pathlib import Path

    from webhook.keys.sealed.reading.source import Scratch
    from webhook.keys.sealed.storage.tree import Tree
    from webhook.keys.secret import Secret

_FINGERPRINT = 16


class Source(Protocol):
    """Provides the plaintext of a file's segments, in any order and to several threads."""

    layout: Layout

    def open(self) -> None:
        """Open the file, and check everything that can be checked before reading."""

    def read(self, span: Span, scratch: Scratch) -> memoryview:
        """The plaintext of one segment, in one of the scratch buffers."""

    def check(self) -> None:
        """After the last segment, check the whole file."""

    def close(self) -> None:
        """Close the file."""


class Sink(Protocol):
    """Accepts the plaintext of a file's segments, in any order and from several threads."""

    def open(self) -> None:
        """Prepare for writing."""

    def write(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Accept one segment. ``plain`` is in ``scratch.plain``."""

    def commit(self) -> dict[str, Any]:
        """After the last segment and the source's check, make the file durable and give it its name."""

    def close(self, *, discard: bool) -> None:
        """Close the file; with ``discard``, remove the incomplete file."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a plain file at one time. An owner cannot reset its ctime."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """The identity of a file from its ``stat``."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class PlainSource:
    """A plain file that must not change while it is read.

    Writes through a memory mapping need not change a file's times. So every segment is read twice: `scan` records its
    fingerprint, and `read` requires the same one. All first reads precede all second reads, so what is read was the
    content of the whole file at one moment. Only a change that is undone between the two reads remains undetected.
    """

    def __init__(self, path: Path, expected: Identity, fingerprinter: Fingerprinter | None = None) -> None:
        self._path, self._expected, self._fingerprinter, self._fd = path, expected, fingerprinter, -1
        self.layout = Layout(expected.size)
        self._prints = bytearray(_FINGERPRINT * self.layout.count)

    def open(self) -> None:
        """Open the file, and compare it with its identity when the run was planned."""
        self._fd = open_regular(self._path)
        self.check()

    def scan(self, span: Span, scratch: Scratch) -> None:
        """Read one segment for the first time."""
        if self._fingerprinter is not None:
            begin = span.index * _FINGERPRINT
            print_ = self._fingerprinter.of(span.index, self._read(span, scratch))
            self._prints[begin : begin + _FINGERPRINT] = print_

    def content(self) -> bytes:
        """After all segments were scanned, the bytes that identify the content."""
        return self.layout.size.to_bytes(8) + self._prints

    def read(self, span: Span, scratch: Scratch) -> memoryview:
        """Read one segment.

        Raises:
            BadInputError: the file changed since it was planned or scanned.
        """
        plain = self._read(span, scratch)
        if self._fingerprinter is not None:
            begin = span.index * _FINGERPRINT
            if self._fingerprinter.of(span.index, plain) != self._prints[begin : begin + _FINGERPRINT]:
                raise self._changed()
        return plain

    def check(self) -> None:
        """Reject a file whose identity changed since the run was planned."""
        if Identity.of(os.fstat(self._fd)) != self._expected:
            raise self._changed()

    def close(self) -> None:
        """Close the file."""
        self._fd = _closed(self._fd)

    def _read(self, span: Span, scratch: Scratch) -> memoryview:
        plain = scratch.plain[: span.plain_size]
        if read_at(self._fd, plain, span.plain_offset) != span.plain_size:
            raise self._changed()
        return plain

    def _changed(self) -> BadInputError:
        return BadInputError(f"{self._path} changed while it was read: run the same command again")


class _PartialFile:
    """A file under a hidden name. Correct parts of an interrupted run are reused."""

    def __init__(self, tree: Tree, final: str, mode: int) -> None:
        self._tree, self._final, self._mode, self._fd = tree, final, mode, -1
        self._partial = partial_name(final)
        self._left = 0

    def open_partial(self, *, resume: bool) -> None:
        """Open the partial file; with ``resume``, keep the content of an interrupted run."""
        fd = self._tree.resume(self._partial) if resume else None
        self._fd = self._tree.create(self._partial) if fd is None else fd
        self._left = 0 if fd is None else os.fstat(fd).st_size

    def left(self, offset: int, size: int, buffer: memoryview) -> memoryview | None:
        """The content of an interrupted run at ``offset``; None if it did not get that far."""
        if offset + size > self._left:
            return None
        content = buffer[:size]
        return content if read_at(self._fd, content, offset) == size else None

    def commit_partial(self, size: int) -> dict[str, Any]:
        """Truncate the file to ``size``, make it durable and rename it. Returns its identity."""
        if self._left > size:
            os.ftruncate(self._fd, size)
        os.fchmod(self._fd, self._mode)
        os.fsync(self._fd)
        self._tree.rename(self._partial, self._final)
        status = os.fstat(self._fd)
        return {"size": status.st_size, "modified": status.st_mtime_ns, "inode": status.st_ino}

    def close(self, *, discard: bool) -> None:
        """Close the file, and remove it if it is to be discarded."""
        if self._fd >= 0 and discard:
            self._tree.unlink(self._partial)
        self._fd = _closed(self._fd)


class PlainSink(_PartialFile):
    """Writes a plain file."""

    def __init__(self, tree: Tree, final: str, size: int, mode: int, *, resume: bool = True) -> None:
        super().__init__(tree, final, mode)
        self._size, self._resume = size, resume

    def open(self) -> None:
        """Open the partial file. Its present content is compared before it is reused."""
        self.open_partial(resume=self._resume)

    def write(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Write one segment unless it is already there."""
        if not self._left or self.left(span.plain_offset, span.plain_size, scratch.spare) != plain:
            write_at(self._fd, plain, span.plain_offset)

    def commit(self) -> dict[str, Any]:
        """Complete the file."""
        return self.commit_partial(self._size)


@dataclass(slots=True)
class SealedSink:
    """Writes a sealed file and, if it has more than one segment, its tag list.

    The header is derived from the content, which ``content`` returns when the sink is opened. So the segments of an
    interrupted run are reused if the content is the same, and another content gets another header.
    """

    tree: Tree
    final: str
    layout: Layout
    key: Secret
    bound_to: bytes
    seed: bytes
    content: Any
    resume: bool

    _file: _PartialFile | None = None
    _tags: bytearray = field(default_factory=bytearray)
    _cipher: SegmentCipher | None = None
    _header: bytes = b""

    def open(self) -> None:
        """Open the partial file, and derive the header."""
        self._header = content_header(self.key, self.bound_to, self.seed, self.content())
        self._tags = bytearray(TAG_SIZE * self.layout.count)
        self._cipher = SegmentCipher(self.key, self._header, self.bound_to)
        self._file = file = _PartialFile(self.tree, self.final, 0o644)
        file.open_partial(resume=self.resume)
        if file._left and os.pread(file._fd, HEADER_SIZE, 0) != self._header:  # noqa: SLF001 - one class in two
            file.close(discard=False)
            file.open_partial(resume=False)

    def write(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Encrypt one segment, and write it unless it is already there."""
        cipher, file = self._cipher, self._file
        if cipher is None or file is None:
            raise RuntimeError("write before open")
        skip = HEADER_SIZE if span.index == 0 else 0
        raw = scratch.sealed[: skip + span.sealed_size]
        if skip:
            raw[:HEADER_SIZE] = self._header
        sealed = cipher.seal(span, plain, raw[skip:])
        self._tags[span.index * TAG_SIZE : (span.index + 1) * TAG_SIZE] = sealed[-TAG_SIZE:]
        offset = span.sealed_offset - skip
        if not file._left or file.left(offset, len(raw), scratch.spare) != raw:  # noqa: SLF001
            write_at(file._fd, raw, offset)  # noqa: SLF001

    def commit(self) -> dict[str, Any]:
        """Complete the file and its tag list. The record contains the stream digest."""
        if self._file is None:
            raise RuntimeError("commit before open")
        tags = self.layout.count > 1
        if tags:
            listing = _PartialFile(self.tree, tags_name(self.final), 0o644)
            listing.open_partial(resume=False)
            try:
                write_at(listing._fd, self._header + self._tags, 0)  # noqa: SLF001
                listing.commit_partial(HEADER_SIZE + len(self._tags))
            finally:
                listing.close(discard=False)
        digest = stream_digest(self._header, self._tags)
        return {**self._file.commit_partial(self.layout.sealed_size), "digest": digest, "tags": tags}

    def close(self, *, discard: bool) -> None:
        """Close the file and drop the derived key."""
        self._cipher = None
        if self._file is not None:
            self._file.close(discard=discard)


class NullSink:
    """Writes nothing: for verification."""

    def open(self) -> None:
        """Do nothing."""

    def write(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Do nothing."""

    def commit(self) -> dict[str, Any]:
        """Return no record."""
        return {}

    def close(self, *, discard: bool) -> None:
        """Do nothing."""


def _closed(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1
