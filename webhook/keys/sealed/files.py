"""Where segments come from and where they go: plain and sealed files, read and written a segment at a time.

A file under construction has a hidden name until it is complete, on disk and checked; only then does it take its
own. Nothing here holds more than a few segments in memory, and no plaintext is written but by `PlainSink`.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cryptography.exceptions import InvalidTag

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.rawio import directory_mode, make_directory, read_at, write_at
from webhook.keys.sealed.paths import partial_path
from webhook.keys.sealed.streaming import (
    HEADER_SIZE,
    SEGMENT_SIZE,
    TAG_SIZE,
    Layout,
    SegmentCipher,
    Span,
    stream_digest,
)

if TYPE_CHECKING:
    from pathlib import Path

    from webhook.keys.sealed.manifest import Entry
    from webhook.keys.secret import Secret


class Scratch:
    """One worker's buffers, a segment each: they are allocated once and reused for every segment."""

    __slots__ = ("plain", "sealed", "spare")

    def __init__(self) -> None:
        self.plain = memoryview(bytearray(SEGMENT_SIZE))
        self.sealed = memoryview(bytearray(SEGMENT_SIZE))
        self.spare = memoryview(bytearray(SEGMENT_SIZE))


class Source(Protocol):
    """Gives the plaintext of a file's segments, in any order and from several threads."""

    layout: Layout

    def open(self) -> None:
        """Open the file and check what can be checked before reading."""

    def read(self, span: Span, scratch: Scratch) -> memoryview:
        """The plaintext of one segment, in one of the scratch buffers."""

    def check(self) -> None:
        """After every segment was read: is the whole what it should be?"""

    def close(self) -> None:
        """Close the file."""


class Sink(Protocol):
    """Takes the plaintext of a file's segments, in any order and from several threads."""

    def open(self) -> None:
        """Make ready for writing."""

    def write(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Take one segment. ``plain`` lies in ``scratch.plain``."""

    def commit(self) -> dict[str, Any]:
        """After every segment was written and the source checked: make it durable and give it its name."""

    def close(self, *, discard: bool) -> None:
        """Close; with ``discard`` what was written so far is worthless and is removed."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Tells whether a plain file was touched: its ctime cannot be set back by its owner."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        """The fingerprint of a file by its ``stat``."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class PlainSource:
    """A plain file that must not change while it is read."""

    def __init__(self, path: Path, expected: Fingerprint) -> None:
        self._path, self._expected, self._fd = path, expected, -1
        self.layout = Layout(expected.size)

    def open(self) -> None:
        """Open it and compare it with what was seen when the run was planned."""
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.check()

    def read(self, span: Span, scratch: Scratch) -> memoryview:
        """Read one segment."""
        plain = scratch.plain[: span.plain_size]
        if read_at(self._fd, plain, span.plain_offset) != span.plain_size:
            raise self._changed()
        return plain

    def check(self) -> None:
        """Refuse a file that was touched since the run was planned."""
        if Fingerprint.of(os.fstat(self._fd)) != self._expected:
            raise self._changed()

    def close(self) -> None:
        """Close it."""
        self._fd = _closed(self._fd)

    def _changed(self) -> BadInputError:
        return BadInputError(f"{self._path} changed while it was being read; run the same command again")


class SealedSource:
    """A sealed file: every segment is authenticated, and at the end the whole against the manifest's digest."""

    def __init__(self, path: Path, entry: Entry, key: Secret, bound_to: bytes) -> None:
        self._path, self._entry, self._key, self._bound_to, self._fd = path, entry, key, bound_to, -1
        self.layout = Layout(entry.size)
        self._tags = bytearray(TAG_SIZE * self.layout.count)
        self._cipher: SegmentCipher | None = None

    def open(self) -> None:
        """Open it; its size must be exactly what its manifest entry asks for."""
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise SealedDataError(f"{self._path} is missing") from None
        size, expected = os.fstat(self._fd).st_size, self.layout.sealed_size
        if size != expected:
            fault = "cut short" if size < expected else "too long"
            raise SealedDataError(
                f"{self._path} is {fault}: {size} bytes where the manifest asks for {expected}"
            )
        header = os.pread(self._fd, HEADER_SIZE, 0)
        try:
            self._cipher = SegmentCipher(self._key, header, self._bound_to)
        except BadInputError as error:
            raise SealedDataError(f"{self._path} is damaged: {error}") from None

    def read(self, span: Span, scratch: Scratch, out: memoryview | None = None) -> memoryview:
        """Read, authenticate and decrypt one segment, into ``out`` where it is given."""
        if self._cipher is None:
            raise RuntimeError("read before open")
        sealed = scratch.sealed[: span.sealed_size]
        if read_at(self._fd, sealed, span.sealed_offset) != span.sealed_size:
            raise SealedDataError(f"{self._path} was cut short while it was being read")
        try:
            plain = self._cipher.open(span, sealed, scratch.plain if out is None else out)
        except InvalidTag:
            raise SealedDataError(self._damage(span)) from None
        self._tags[span.index * TAG_SIZE : (span.index + 1) * TAG_SIZE] = sealed[-TAG_SIZE:]
        return plain

    def check(self) -> None:
        """Compare with the manifest's digest: a whole and authentic file may still be another version."""
        header = b"" if self._cipher is None else self._cipher.header
        if not hmac.compare_digest(stream_digest(header, self._tags), self._entry.digest):
            raise SealedDataError(
                f"{self._path} is a whole sealed file, but not the one in the manifest: it was swapped or rolled back"
            )

    def close(self) -> None:
        """Close it and drop the derived key."""
        self._cipher = None
        self._fd = _closed(self._fd)

    def _damage(self, span: Span) -> str:
        end = span.sealed_offset + span.sealed_size
        where = f"segment {span.index + 1} of {self.layout.count} (bytes {span.sealed_offset} to {end})"
        return f"{self._path} is damaged or was swapped: {where} does not authenticate"


class _PartialFile:
    """A file written under a hidden name; what an interrupted run left there is reused where it is right."""

    def __init__(self, final: Path, mode: int) -> None:
        self._final, self._partial, self._mode, self._fd = final, partial_path(final), mode, -1
        self._left = 0

    def open_partial(self, *, keep: bool) -> None:
        """Open it; with ``keep`` what is there counts as left by an interrupted run."""
        make_directory(self._final.parent, directory_mode(self._mode))
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if keep else os.O_TRUNC)
        self._fd = os.open(self._partial, flags, 0o600)
        self._left = os.fstat(self._fd).st_size

    def left(self, offset: int, size: int, buffer: memoryview) -> memoryview | None:
        """What an interrupted run left at ``offset``; None where it did not get that far."""
        if offset + size > self._left:
            return None
        found = buffer[:size]
        return found if read_at(self._fd, found, offset) == size else None

    def commit_partial(self, size: int) -> dict[str, Any]:
        """Cut to ``size``, make durable, rename. Gives what identifies the file as left by this run."""
        os.ftruncate(self._fd, size)
        os.fchmod(self._fd, self._mode)
        os.fsync(self._fd)
        self._partial.replace(self._final)
        status = os.fstat(self._fd)
        return {"size": status.st_size, "modified": status.st_mtime_ns, "inode": status.st_ino}

    def close(self, *, discard: bool) -> None:
        """Close it, removing what is worthless."""
        if self._fd >= 0 and discard:
            self._partial.unlink(missing_ok=True)
        self._fd = _closed(self._fd)


class PlainSink(_PartialFile):
    """Writes a plain file."""

    def __init__(self, final: Path, size: int, mode: int) -> None:
        super().__init__(final, mode)
        self._size = size

    def open(self) -> None:
        """Open the partial file; whatever is in it is compared before it is kept."""
        self.open_partial(keep=True)

    def write(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Write one segment unless it is there already."""
        if self.left(span.plain_offset, span.plain_size, scratch.spare) != plain:
            write_at(self._fd, plain, span.plain_offset)

    def commit(self) -> dict[str, Any]:
        """Finish the file."""
        return self.commit_partial(self._size)


class SealedSink(_PartialFile):
    """Writes a sealed file.

    With ``resume`` it goes on with what an interrupted run left under ``header``; without it ``header`` must be fresh.
    One header must never encrypt two different contents at one place (that would repeat a GCM nonce), and whoever can
    write the storage can put any header there. So the caller takes it from an authenticated record and asks to go on
    only when the source is untouched, and any segment that authenticates and yet differs ends the run.
    """

    def __init__(
        self, final: Path, layout: Layout, key: Secret, bound_to: bytes, header: bytes, *, resume: bool
    ) -> None:
        super().__init__(final, 0o644)
        self._layout, self._key, self._bound_to, self._resume = layout, key, bound_to, resume
        self._header = header
        self._tags = bytearray(TAG_SIZE * layout.count)
        self._cipher: SegmentCipher | None = None

    def open(self) -> None:
        """Open the partial file, which begins with the header or is empty."""
        self.open_partial(keep=self._resume)
        if not self._resume:
            write_at(self._fd, self._header, 0)
        elif os.pread(self._fd, HEADER_SIZE, 0) != self._header:
            raise BadInputError(
                f"{self._partial} was changed by somebody else; run the same command again to begin this file anew"
            )
        self._cipher = SegmentCipher(self._key, self._header, self._bound_to)

    def write(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Encrypt and write one segment unless it is there already."""
        if self._cipher is None:
            raise RuntimeError("write before open")
        sealed = self._cipher.seal(span, plain, scratch.sealed)
        self._tags[span.index * TAG_SIZE : (span.index + 1) * TAG_SIZE] = sealed[-TAG_SIZE:]
        left = self.left(span.sealed_offset, span.sealed_size, scratch.spare)
        if left == sealed:
            return
        if left is not None:
            self._refuse_nonce_reuse(self._cipher, span, left)
        write_at(self._fd, sealed, span.sealed_offset)

    def _refuse_nonce_reuse(self, cipher: SegmentCipher, span: Span, left: memoryview) -> None:
        try:
            cipher.open(span, left, memoryview(bytearray(SEGMENT_SIZE)))
        except InvalidTag:
            return
        raise BadInputError(
            f"the source of {self._final} changed since the interrupted run; run the same command again to seal it anew"
        )

    def commit(self) -> dict[str, Any]:
        """Finish the file; the record holds its stream digest."""
        digest = stream_digest(self._header, self._tags)
        return {**self.commit_partial(self._layout.sealed_size), "digest": digest}

    def close(self, *, discard: bool) -> None:
        """Close it and drop the derived key."""
        self._cipher = None
        super().close(discard=discard)


class NullSink:
    """Writes nothing: for checking."""

    def open(self) -> None:
        """Nothing to do."""

    def write(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Nothing to do."""

    def commit(self) -> dict[str, Any]:
        """Nothing to say."""
        return {}

    def close(self, *, discard: bool) -> None:
        """Nothing to do."""


def partial_header(final: Path) -> bytes:
    """The first bytes that an interrupted run, or anybody else, left for ``final``; empty where there is nothing."""
    try:
        fd = os.open(partial_path(final), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(fd, HEADER_SIZE, 0)
    except OSError:
        return b""
    finally:
        os.close(fd)


def _closed(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1
