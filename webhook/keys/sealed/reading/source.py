"""Sealed files as a source of authenticated plaintext, a segment at a time.

The tags of all segments are read once, compared with the manifest's digest, and every segment must then have exactly
its tag. So it does not matter what the storage returns later: a file that is replaced, rolled back or changed between
two reads is detected at the first segment that differs.
"""

from __future__ import annotations

import hmac
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.sealed.format.paths import tags_name
from webhook.keys.sealed.format.streaming import (
    HEADER_SIZE,
    SEGMENT_SIZE,
    TAG_SIZE,
    Layout,
    SegmentCipher,
    Span,
    stream_digest,
)

if TYPE_CHECKING:
    from webhook.keys.sealed.format.manifest import Entry
    from webhook.keys.sealed.storage.store import Blob, Store
    from webhook.keys.secret import Secret

_TAG_READERS = 16


class Scratch:
    """One worker's buffers, one segment each: allocated once and reused for every segment."""

    __slots__ = ("plain", "sealed", "spare")

    def __init__(self) -> None:
        self.plain = memoryview(bytearray(SEGMENT_SIZE))
        self.sealed = memoryview(bytearray(SEGMENT_SIZE))
        self.spare = memoryview(bytearray(SEGMENT_SIZE))


class SealedSource:
    """A sealed file. `read` may be called by several threads at once.

    With ``pinned``, all tags are known before the first segment is decrypted. Without it, a file without tag list is
    compared with its digest only after its last segment: for runs that read everything and use nothing before the end.
    """

    def __init__(
        self, store: Store, entry: Entry, key: Secret, bound_to: bytes, *, pinned: bool = True
    ) -> None:
        self._store, self._entry, self._key, self._bound_to = store, entry, key, bound_to
        self._pinned = pinned
        self._blob: Blob | None = None
        self.layout = Layout(entry.size)
        self._expected: bytes | None = None
        self._seen = bytearray(0 if self.layout.count == 1 else TAG_SIZE * self.layout.count)
        self._cipher: SegmentCipher | None = None

    def open(self) -> None:
        """Open the file; its size must match its manifest entry.

        Raises:
            SealedDataError: it is missing, truncated, too long, or not the version in the manifest.
        """
        blob = self._blob = self._store.open(self._entry.file)
        size, expected = blob.size, self.layout.sealed_size
        if size != expected:
            fault = "truncated" if size < expected else "too long"
            raise SealedDataError(
                f"{self._where()} is {fault}: {size} bytes, but the manifest requires {expected}"
            )
        if self.layout.count == 1:
            return  # header, segment and tag are one read
        header = self._tag_list() or (self._read_tags(blob) if self._pinned else self._header(blob))
        self._cipher = self._make_cipher(header)

    def read(self, span: Span, scratch: Scratch, out: memoryview | None = None) -> memoryview:
        """Read, authenticate and decrypt one segment, into ``out`` if it is given.

        Raises:
            SealedDataError: the segment is damaged, or not the version in the manifest.
        """
        blob = self._blob
        if blob is None:
            raise RuntimeError("read before open")
        skip = HEADER_SIZE if span.index == 0 else 0
        raw = scratch.sealed[: skip + span.sealed_size]
        if blob.read_at(raw, span.sealed_offset - skip) != len(raw):
            raise SealedDataError(f"{self._where()} was truncated while it was being read")
        sealed = raw[skip:]
        tag = bytes(sealed[-TAG_SIZE:])
        single = self.layout.count == 1
        cipher = self._single(bytes(raw[:HEADER_SIZE]), tag) if single else self._cipher_for(span, tag)
        try:
            return cipher.open(span, sealed, scratch.plain if out is None else out)
        except InvalidTag:
            raise SealedDataError(self._damage(span)) from None

    def check(self) -> None:
        """After the last segment, compare the tags with the manifest's digest if that did not happen before.

        Raises:
            SealedDataError: the file is authentic, but another version.
        """
        if self._expected is not None or self.layout.count == 1:
            return
        header = b"" if self._cipher is None else self._cipher.header
        self._require_digest(header, bytes(self._seen))

    def check_header(self) -> None:
        """Compare the stored header with the manifest, which `read` does not need: for a complete verification."""
        if (
            self._blob is not None
            and self._cipher is not None
            and self._header(self._blob) != self._cipher.header
        ):
            raise SealedDataError(f"{self._where()} is damaged: its header is not the one in the manifest")

    def close(self) -> None:
        """Close the file and drop the derived key."""
        self._cipher = None
        blob, self._blob = self._blob, None
        if blob is not None:
            blob.close()

    def _single(self, header: bytes, tag: bytes) -> SegmentCipher:
        self._require_digest(header, tag)
        if self._cipher is None:
            self._cipher = self._make_cipher(header)
        return self._cipher

    def _cipher_for(self, span: Span, tag: bytes) -> SegmentCipher:
        cipher = self._cipher
        if cipher is None:
            raise RuntimeError("read before open")
        begin = span.index * TAG_SIZE
        if self._expected is None:
            self._seen[begin : begin + TAG_SIZE] = tag
        elif not hmac.compare_digest(self._expected[begin : begin + TAG_SIZE], tag):
            raise SealedDataError(
                f"{self._segment(span)} is not the one in the manifest: it was damaged, swapped or rolled back"
            )
        return cipher

    def _tag_list(self) -> bytes:
        """The header from the tag list, whose tags are then expected; empty without a usable list."""
        if not self._entry.tags:
            return b""
        size = HEADER_SIZE + TAG_SIZE * self.layout.count
        content = self._store.read(tags_name(self._entry.file), size)
        if (
            content is None
            or len(content) != size
            or not self._matches(content[:HEADER_SIZE], content[HEADER_SIZE:])
        ):
            return b""  # the file has the same tags, and they are compared with the same digest
        self._expected = content[HEADER_SIZE:]
        return content[:HEADER_SIZE]

    def _read_tags(self, blob: Blob) -> bytes:
        """The header and all tags from the file itself, with one small read for each segment."""
        layout = self.layout
        tags = memoryview(bytearray(TAG_SIZE * layout.count))

        def read(index: int) -> None:
            span = layout.span(index)
            end = span.sealed_offset + span.sealed_size
            blob.read_at(tags[index * TAG_SIZE : (index + 1) * TAG_SIZE], end - TAG_SIZE)

        if layout.count <= _TAG_READERS:
            for index in range(layout.count):
                read(index)
        else:  # slow storage answers several requests in the time of one
            with ThreadPoolExecutor(_TAG_READERS) as pool:
                for _ in pool.map(read, range(layout.count)):
                    pass
        header = self._header(blob)
        self._require_digest(header, bytes(tags))
        self._expected = bytes(tags)
        return header

    def _header(self, blob: Blob) -> bytes:
        header = memoryview(bytearray(HEADER_SIZE))
        blob.read_at(header, 0)
        return bytes(header)

    def _make_cipher(self, header: bytes) -> SegmentCipher:
        try:
            return SegmentCipher(self._key, header, self._bound_to)
        except BadInputError as error:
            raise SealedDataError(f"{self._where()} is damaged: {error}") from None

    def _matches(self, header: bytes, tags: bytes) -> bool:
        return hmac.compare_digest(stream_digest(header, tags).encode(), self._entry.digest.encode())

    def _require_digest(self, header: bytes, tags: bytes) -> None:
        if not self._matches(header, tags):
            raise SealedDataError(
                f"{self._where()} is not the file in the manifest: it was damaged, swapped or rolled back"
            )

    def _where(self) -> str:
        return self._store.where(self._entry.file)

    def _segment(self, span: Span) -> str:
        end = span.sealed_offset + span.sealed_size
        return f"{self._where()}: segment {span.index + 1} of {self.layout.count} (bytes {span.sealed_offset} to {end})"

    def _damage(self, span: Span) -> str:
        return f"{self._segment(span)} does not authenticate: it was damaged or swapped"
