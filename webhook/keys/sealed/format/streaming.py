"""Tink's AES-GCM-HKDF streaming layout with 32-byte keys, SHA-256 and 1 MiB segments (AES256_GCM_HKDF_1MB).

Pure computation on buffers: it never opens a file and never needs a whole one. Any segment can be decrypted alone. A
stream that was truncated, reordered or extended fails to decrypt, because each nonce contains the segment's index and
whether it is the last. The specification is Tink's "AES-GCM-HKDF Streaming AEAD" wire format.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from webhook.keys.errors import BadInputError
from webhook.keys.secret import KEY_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.keys.secret import Secret

SEGMENT_SIZE = 1 << 20
TAG_SIZE = 16
HEADER_SIZE = 40

_SALT_SIZE = 32
_FIRST = SEGMENT_SIZE - HEADER_SIZE - TAG_SIZE
_REST = SEGMENT_SIZE - TAG_SIZE


@dataclass(frozen=True, slots=True)
class Span:
    """The position of one segment: offsets and sizes in bytes, in the plaintext and in the sealed stream."""

    index: int
    last: bool
    plain_offset: int
    plain_size: int
    sealed_offset: int
    sealed_size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The segments of a plaintext of ``size`` bytes.

    The first segment has 40 bytes less than the others, so that header and segment together fill 1 MiB. An empty
    plaintext has one empty segment.
    """

    size: int

    @property
    def count(self) -> int:
        """Number of segments, at least one."""
        return 1 if self.size <= _FIRST else 1 + -(-(self.size - _FIRST) // _REST)

    @property
    def sealed_size(self) -> int:
        """Size of the sealed stream in bytes, header included."""
        return HEADER_SIZE + self.size + TAG_SIZE * self.count

    def span(self, index: int) -> Span:
        """Segment ``index``, counted from 0.

        Raises:
            IndexError: the segment does not exist.
        """
        count = self.count
        if not 0 <= index < count:
            raise IndexError(f"segment {index} of {count}")
        start = 0 if index == 0 else _FIRST + (index - 1) * _REST
        size = min(self.size - start, _FIRST if index == 0 else _REST)
        offset = HEADER_SIZE if index == 0 else index * SEGMENT_SIZE
        return Span(index, index == count - 1, start, size, offset, size + TAG_SIZE)

    def covering(self, start: int, stop: int) -> Iterator[Span]:
        """The segments that contain plaintext bytes ``start`` to ``stop`` (exclusive), in order."""
        stop = min(stop, self.size)
        if start >= stop:
            return
        first = 0 if start < _FIRST else 1 + (start - _FIRST) // _REST
        for index in range(first, self.count):
            span = self.span(index)
            if span.plain_offset >= stop:
                return
            yield span


def new_header() -> bytes:
    """A random header: length byte, 32 bytes of salt, 7 bytes of nonce prefix."""
    return bytes([HEADER_SIZE]) + os.urandom(HEADER_SIZE - 1)


def content_header(key: Secret, bound_to: bytes, seed: bytes, content: bytes) -> bytes:
    """The header for one content of one file: a pseudorandom function of both, under the data key.

    ``content`` identifies the plaintext: its fingerprints, or the digest of the sealed file that it comes from. Two
    contents therefore never share a header, and no nonce encrypts two contents. This holds for a resumed run, and also
    if the storage returns an older journal or an older partial file. ``seed`` makes the headers of two runs differ.
    """
    mac = hmac.new(_derive(key, b"weightlock header v1"), digestmod="sha512")
    for part in (seed, bound_to, content):
        mac.update(len(part).to_bytes(8) + part)
    return bytes([HEADER_SIZE]) + mac.digest()[: HEADER_SIZE - 1]


class Fingerprinter:
    """Keyed fingerprints of plaintext segments (GMAC): much faster than a hash, and they never leave the process.

    They show whether a source changed between two reads, and they are the input of `content_header`.
    """

    __slots__ = ("_gmac",)

    def __init__(self, key: Secret) -> None:
        self._gmac = AESGCM(_derive(key, b"weightlock fingerprint v1"))

    def of(self, index: int, plain: memoryview) -> bytes:
        """The 16 bytes that identify ``plain`` as segment ``index``."""
        return self._gmac.encrypt(index.to_bytes(12), b"", plain)


def _derive(key: Secret, info: bytes) -> bytes:
    hkdf = HKDF(algorithm=hashes.SHA256(), length=KEY_SIZE, salt=None, info=info)
    with key.view() as material:
        return hkdf.derive(material)


def associated_data(model: str, path: str) -> bytes:
    """The binding of a sealed file: ``model/path`` in UTF-8. It is unique, because model names contain no slash."""
    return f"{model}/{path}".encode()


class SegmentCipher:
    """Encrypts and decrypts the segments of one stream. Safe to use from several threads at once.

    Raises:
        BadInputError: the header is not one of this layout, or the key is not 32 bytes.
    """

    __slots__ = ("_aead", "_prefix", "header")

    def __init__(self, key: Secret, header: bytes, bound_to: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise BadInputError(f"a data key must have {KEY_SIZE} bytes, not {len(key)}")
        if len(header) != HEADER_SIZE or header[0] != HEADER_SIZE:
            raise BadInputError("the file has no header of a sealed file")
        self.header = header
        self._prefix = header[1 + _SALT_SIZE :]
        with key.view() as material:
            hkdf = HKDF(
                algorithm=hashes.SHA256(), length=KEY_SIZE, salt=header[1 : 1 + _SALT_SIZE], info=bound_to
            )
            self._aead = AESGCM(hkdf.derive(material))

    def _nonce(self, span: Span) -> bytes:
        return self._prefix + span.index.to_bytes(4) + bytes([span.last])

    def seal(self, span: Span, plain: memoryview, out: memoryview) -> memoryview:
        """Encrypt one segment from ``plain`` into ``out``. Returns the used part of ``out``, tag last."""
        used = out[: span.sealed_size]
        self._aead.encrypt_into(self._nonce(span), plain, None, used)
        return used

    def open(self, span: Span, sealed: memoryview, out: memoryview) -> memoryview:
        """Decrypt and verify one segment from ``sealed`` into ``out``. Returns the used part of ``out``.

        Raises:
            cryptography.exceptions.InvalidTag: this segment was not sealed at this index under this key.
        """
        used = out[: span.plain_size]
        self._aead.decrypt_into(self._nonce(span), sealed, None, used)
        return used


def stream_digest(header: bytes, tags: bytes | bytearray) -> str:
    """``sha256:<hex>`` over the header and every segment's tag in order.

    Under one key it pins the whole content: the header's salt makes the derived key unique to this stream, and each tag
    authenticates its segment.
    """
    return "sha256:" + hashlib.sha256(header + tags).hexdigest()
