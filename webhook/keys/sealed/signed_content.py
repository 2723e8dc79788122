"""The signed digests of a model's files, and their comparison in the pass that encrypts.

`SignedContent` says which digests the files must have. `CheckedSource` reads each file once, and hashes every segment
in the buffer from which it is encrypted. A sealed file gets its name only after its digest was compared. So no byte is
sealed that was not hashed, and no file is read twice. The verification of the signature itself is the caller's: this
module has no keys, certificates or identities.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook.keys.errors import BadInputError, SignatureMismatchError
from webhook.keys.rawio import open_regular, read_at
from webhook.keys.sealed.files import Identity
from webhook.keys.sealed.format.streaming import SEGMENT_SIZE, Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from webhook.core.provenance.models import ModelProvenance
    from webhook.keys.sealed.format.streaming import Span
    from webhook.keys.sealed.reading.source import Scratch
    from webhook.keys.sealed.sealing import Item

_POLL_SECONDS = 0.2
_MAX_WAITING = 4
_MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class FileDigests:
    """The signed digests of one file: of all its bytes, or of each ``shard`` bytes if that is not 0.

    ``size``: the signed size, None if only the digest fixes it.
    """

    algorithm: str
    digests: tuple[bytes, ...]
    shard: int = 0
    size: int | None = None

    def fingerprint(self) -> str:
        """The text that a journal records for a file that has these digests."""
        content = hashlib.sha256(f"{self.algorithm}/{self.shard}/".encode())
        for digest in self.digests:
            content.update(digest)
        return content.hexdigest()


_EMPTY = FileDigests("sha256", (hashlib.sha256().digest(),), 0, 0)


@dataclass(frozen=True, slots=True)
class SignedContent:
    """A verified signature over files, and what the manifest states about it.

    ``files`` is by path. ``ignores`` says which other files the signer excluded; they are not sealed. ``skip_empty``:
    False if an empty file has no digest and is therefore accepted unlisted, as with shards.
    """

    files: Mapping[str, FileDigests]
    ignores: Callable[[str], bool]
    allow_symlinks: bool
    provenance: ModelProvenance
    skip_empty: bool = True

    def admit(self, items: list[Item]) -> tuple[list[Item], list[str]]:
        """Return the signed files, and the paths of the files that the signer excluded.

        Raises:
            SignatureMismatchError: a signed file is missing or has another size, or a file is neither signed nor
                excluded, or is a symbolic link although the signer did not follow links.
        """
        signed: list[Item] = []
        excluded: list[str] = []
        unsigned: list[str] = []
        for item in items:
            expected = self.files.get(item.path)
            if expected is None and not self.skip_empty and not item.size and not self.ignores(item.path):
                signed.append(item)
                continue
            if expected is None:
                (excluded if self.ignores(item.path) else unsigned).append(item.path)
                continue
            if expected.size is not None and expected.size != item.size:
                raise SignatureMismatchError(
                    f"{item.path} has {item.size} bytes, but the signature is over {expected.size}"
                )
            if not self.allow_symlinks and Path(str(item.origin)).is_symlink():
                raise SignatureMismatchError(f"{item.path} is a symbolic link, which the signature excludes")
            signed.append(item)
        if unsigned:
            raise SignatureMismatchError(f"the signature does not cover {_named(unsigned)}")
        missing = self.files.keys() - {item.path for item in signed}
        if missing:
            raise SignatureMismatchError(
                f"the signature covers {_named(sorted(missing))}, which does not exist"
            )
        return signed, excluded

    def of(self, path: str) -> FileDigests:
        """Return the digests of a file that `admit` returned."""
        return self.files.get(path, _EMPTY)


def whole_file(content: bytes) -> FileDigests:
    """Return the digest of a file that was read and verified as a whole."""
    return FileDigests("sha256", (hashlib.sha256(content).digest(),), 0, len(content))


class Digester:
    """Compares the bytes of one file, given in order, with its signed digests.

    Raises:
        BadInputError: the hash algorithm is not available.
    """

    __slots__ = ("_expected", "_hash", "_left", "_new", "_next", "_path", "_total")

    def __init__(self, path: str, size: int, expected: FileDigests) -> None:
        self._path, self._expected = path, expected
        self._new = _algorithm(expected.algorithm)
        self._hash, self._next = self._new(), 0
        self._total = size
        self._left = min(expected.shard, size) if expected.shard else size

    def update(self, data: memoryview) -> None:
        """Add bytes.

        Raises:
            SignatureMismatchError: a shard that is complete has another digest.
        """
        while len(data) > self._left:
            part, data = data[: self._left], data[self._left :]
            self._hash.update(part)
            self._total -= len(part)
            self._compare()
            self._left = min(self._expected.shard, self._total)
            if not self._left:
                raise self._mismatch()
        self._hash.update(data)
        self._left -= len(data)
        self._total -= len(data)

    def finish(self) -> None:
        """Compare the last digest.

        Raises:
            SignatureMismatchError: it differs, or the file is shorter than the signed one.
        """
        self._compare()
        if self._next != len(self._expected.digests) or self._total:
            raise self._mismatch()

    def _compare(self) -> None:
        digests = self._expected.digests
        if self._next >= len(digests) or not hmac.compare_digest(self._hash.digest(), digests[self._next]):
            raise self._mismatch()
        self._next += 1
        self._hash = self._new()

    def _mismatch(self) -> SignatureMismatchError:
        return SignatureMismatchError(
            f"{self._path} is not the signed file: its {self._expected.algorithm} digest differs"
        )


class CheckedSource:
    """A plain file that is read once, and whose content must have its signed digests.

    Segments are read by any thread, and hashed in order by one thread at a time. A segment that is not next waits in
    its buffer, and the thread that hashes takes it. So no thread waits for the hash of another one, up to
    `_MAX_WAITING` buffers. When all threads have left the file, all segments are hashed.
    """

    def __init__(self, path: Path, identity: Identity, name: str, expected: FileDigests) -> None:
        self._path, self._identity, self._name, self._expected = path, identity, name, expected
        self._fd = -1
        self.layout = Layout(identity.size)
        self.stop: threading.Event | None = None
        self._turn = threading.Condition()
        self._next = 0
        self._hashing = False
        self._waiting: dict[int, tuple[memoryview, memoryview]] = {}  # the segment and its buffer, by index
        self._free: list[memoryview] = []
        self._buffers = 0
        self._digester: Digester | None = None

    def open(self) -> None:
        """Open the file, and compare it with its identity when the run was planned."""
        self._fd = open_regular(self._path)
        self._check_identity()
        self._digester = Digester(self._name, self.layout.size, self._expected)

    def read(self, span: Span, scratch: Scratch) -> memoryview:
        """Read one segment.

        Raises:
            BadInputError: the file changed since the run was planned.
        """
        plain = scratch.plain[: span.plain_size]
        if read_at(self._fd, plain, span.plain_offset) != span.plain_size:
            raise self._changed()
        return plain

    def hash(self, span: Span, plain: memoryview, scratch: Scratch) -> None:
        """Hash the segment in ``scratch.plain`` and those that wait for it; or leave it, and replace the buffer.

        Raises:
            SignatureMismatchError: the file is not the signed one.
        """
        with self._turn:
            self._waiting[span.index] = plain, scratch.plain
            if self._hashing or self._next != span.index:
                scratch.plain = self._other_buffer()
                return
            self._hashing = True
        while True:
            with self._turn:
                segment = self._waiting.pop(self._next, None)
                if segment is None:
                    self._hashing = False
                    return
            if self._digester is not None:
                self._digester.update(segment[0])
            with self._turn:
                self._next += 1
                if segment[1] is not scratch.plain:
                    self._free.append(segment[1])
                    self._turn.notify()

    def _other_buffer(self) -> memoryview:
        while not self._free and self._buffers >= _MAX_WAITING:
            if self.stop is not None and self.stop.is_set():
                break  # another thread failed, and the output is not used
            self._turn.wait(_POLL_SECONDS)
        if self._free:
            return self._free.pop()
        self._buffers += 1
        return memoryview(bytearray(SEGMENT_SIZE))

    def check(self) -> None:
        """After the last segment, compare the digest of the whole file."""
        self._check_identity()
        if self._digester is not None:
            self._digester.finish()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _check_identity(self) -> None:
        if Identity.of(os.fstat(self._fd)) != self._identity:
            raise self._changed()

    def _changed(self) -> BadInputError:
        return BadInputError(f"{self._path} changed while it was read: run the same command again")


def _algorithm(name: str) -> Callable[[], Any]:
    if name == "blake3":
        try:
            constructor: Callable[[], Any] = importlib.import_module("blake3").blake3
        except ImportError:
            raise BadInputError("the signature uses blake3: pip install blake3") from None
        return constructor
    return lambda: hashlib.new(name)


def _named(paths: list[str]) -> str:
    more = f" and {len(paths) - _MAX_NAMED} more" if len(paths) > _MAX_NAMED else ""
    return ", ".join(paths[:_MAX_NAMED]) + more
