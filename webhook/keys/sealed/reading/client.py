"""Read sealed weights in a training script, without plaintext on any disk.

    import weightlock

    with weightlock.open_weights("/weights/atlas-70b") as weights:
        with weights.open("config.json") as stream:                # a seekable binary stream
            config = json.load(stream)
        state = safetensors.torch.load(weights.read("model.safetensors"))    # a whole file, in memory
        with weights.safetensors("model.safetensors") as tensors:             # or one tensor at a time
            data = tensors.bytes("model.layers.0.weight")

Every segment is authenticated before a byte of it is returned, and must be the version in the manifest. The key is the
one that the sidecar delivered, in the directory where the sidecar delivers it.
"""

from __future__ import annotations

import ctypes
import io
import itertools
import json
import mmap
import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.sealed.format.paths import KEYS, check_key_id, check_model
from webhook.keys.sealed.format.pins import NO_PINS, Pins
from webhook.keys.sealed.format.streaming import SEGMENT_SIZE
from webhook.keys.sealed.reading.opening import Sealed, read_key_file, read_pins, verified
from webhook.keys.sealed.reading.source import Scratch, SealedSource
from webhook.keys.sealed.storage.directory import require_manifest
from webhook.keys.sealed.storage.store import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from webhook.keys.sealed.format.manifest import Entry
    from webhook.keys.sealed.format.streaming import Span
    from webhook.keys.sealed.storage.store import Store

_CACHED_SEGMENTS = 4
_MAX_HEADER = 100_000_000  # the limit of the safetensors format
_REMOTE_THREADS = 16  # requests that wait for a server at the same time
_PARALLEL = 4 * SEGMENT_SIZE  # smaller reads are faster in one thread
# CPython documents that a new bytes object may be filled before it is used. A bytearray would have to be copied.
_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.restype, _new_bytes.argtypes = ctypes.py_object, (ctypes.c_char_p, ctypes.c_ssize_t)
_BYTES_HEADER = bytes.__basicsize__ - 1
_numbers = itertools.count()
_Tensor = tuple[str, tuple[int, ...], int, int]  # element type, shape, first byte and the one after the last


@contextmanager
def open_weights(
    sealed: str | Path,
    *,
    model: str = "",
    keys: str | Path = KEYS,
    generation: int = 0,
    key_file: str | Path | None = None,
    threads: int | None = None,
) -> Iterator[Weights]:
    """Open a sealed directory with the key that the sidecar delivered below ``keys``, or with ``key_file``.

    ``sealed`` is a directory or a URL (``https://``, ``s3://``, ``gs://``, ``oci://``, or any that fsspec supports).
    ``model``, if given, must be the sealed one, and ``generation`` is the oldest accepted one. The pins of the
    ModelWeights object, which the sidecar delivers beside the key, always apply. ``threads`` decrypt large reads; the
    default is the number of cores, at most 4, and 16 for a URL.

    Raises:
        KeysError: it is not sealed, the key is missing or does not match, the manifest was changed, or it is too old.
    """
    store: Store = LocalStore(Path(sealed))
    if "://" in str(sealed):
        from webhook.keys.sealed.storage.remote import open_store  # noqa: PLC0415 - only URLs need it

        store = open_store(str(sealed))
    with closing(store):
        manifest = require_manifest(Path(sealed) if isinstance(store, LocalStore) else store)
        claims = manifest.claims
        if model and model != claims.model:
            raise BadInputError(f'{store.where("")} contains model "{claims.model}", not "{model}"')
        if key_file is None:
            directory = Path(keys) / check_model(claims.model)
            path, pins = directory / check_key_id(claims.key.id), read_pins(directory)
        else:
            path, pins = Path(key_file), NO_PINS
        with read_key_file(path) as key:
            sealed_weights = verified(manifest, store, key, pins)
            del manifest  # the stored form, as large as all entries together
            Pins(generation).check(sealed_weights.manifest, store.where(""))
            usual = min(os.cpu_count() or 1, 4) if isinstance(store, LocalStore) else _REMOTE_THREADS
            with closing(Weights(sealed_weights, usual if threads is None else threads)) as weights:
                yield weights


class Weights:
    """The files of one model. Created by `open_weights`."""

    def __init__(self, sealed: Sealed, threads: int = 1) -> None:
        self._sealed = sealed
        self._entries = {entry.path: entry for entry in sealed.manifest.files}
        self._pool = ThreadPoolExecutor(threads, "weightlock") if threads > 1 else None

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all files."""
        return tuple(self._entries)

    @property
    def generation(self) -> int:
        """The generation of the sealed directory."""
        return self._sealed.manifest.generation

    def size(self, path: str) -> int:
        """Bytes of plaintext in a file. Raises `BadInputError` if it does not exist."""
        return self._entry(path).size

    def open(self, path: str) -> io.BufferedReader:
        """Open a file as a seekable binary stream.

        Raises:
            BadInputError: it does not exist.
            SealedDataError: it is damaged or another version; reading raises the same for a damaged segment.
        """
        return io.BufferedReader(self.raw(path), buffer_size=1 << 20)

    def raw(self, path: str, cache: SegmentCache | None = None) -> SealedFile:
        """As `open`, without a buffer around it. Several files may share one ``cache`` of segments."""
        return SealedFile(self._sealed.source(self._entry(path)), self._pool, cache)

    def read(self, path: str) -> bytes:
        """Read a whole file into memory, without a second copy."""
        with self.raw(path) as stream:
            return stream.readall()

    def map(self, path: str) -> mmap.mmap:
        """Read a whole file into anonymous memory; close it when done. Not for empty files."""
        with self.raw(path) as stream:
            memory = mmap.mmap(-1, stream.size)
            with memoryview(memory) as view:
                stream.readinto(view)
            return memory

    @contextmanager
    def safetensors(self, path: str) -> Iterator[Tensors]:
        """Open a safetensors file, to read tensor by tensor."""
        with self.raw(path) as stream:
            yield Tensors(stream)

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _entry(self, path: str) -> Entry:
        try:
            return self._entries[path]
        except KeyError:
            raise BadInputError(f"model {self._sealed.manifest.model!r} has no file {path!r}") from None


class SegmentCache:
    """The plaintext of the last ``limit`` segments that were read in part. Several files and threads may share it."""

    def __init__(self, limit: int = _CACHED_SEGMENTS) -> None:
        self._limit = limit
        self._segments: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: tuple[int, int]) -> bytes | None:
        """A segment, by the number of its file and its index."""
        with self._lock:
            plain = self._segments.get(name)
            if plain is not None:
                self._segments.move_to_end(name)
            return plain

    def put(self, name: tuple[int, int], plain: bytes) -> None:
        """Keep a segment, and drop the one that was not read for the longest time."""
        with self._lock:
            self._segments[name] = plain
            if len(self._segments) > self._limit:
                self._segments.popitem(last=False)

    def drop(self, file: int) -> None:
        """Drop the segments of one file."""
        with self._lock:
            for name in [name for name in self._segments if name[0] == file]:
                del self._segments[name]


class SealedFile(io.RawIOBase):
    """A sealed file as a raw stream: each read decrypts the segments that it covers.

    Whole segments are decrypted straight into the caller's memory, by several threads if the read is large. The last
    segments that were read in part are cached. Several threads may use `read_at` at once, and none waits for another;
    the position of a stream belongs to one of them.
    """

    def __init__(
        self, source: SealedSource, pool: ThreadPoolExecutor | None = None, cache: SegmentCache | None = None
    ) -> None:
        self._source, self._pool = source, pool
        self._local = threading.local()
        self._cache = SegmentCache() if cache is None else cache
        self._number = next(_numbers)
        self._position = 0
        try:
            self._source.open()
            if self._source.layout.count == 1:
                # The digest of a single segment is known only with the segment: read it now, and keep it.
                self._segment(self._source.layout.span(0))
        except BaseException:
            self._source.close()
            raise

    @property
    def size(self) -> int:
        """Bytes of plaintext."""
        return self._source.layout.size

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """The position in the plaintext."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in the plaintext. Raises `ValueError` for a negative one."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` from the position, across segments. Raises `SealedDataError` for a damaged one."""
        count = self.read_at(self._position, buffer)
        self._position += count
        return count

    def read_at(self, offset: int, buffer: Any) -> int:
        """Fill ``buffer`` from ``offset``, and leave the position unchanged. Returns the number of bytes.

        Raises:
            SealedDataError: a segment is damaged.
            ValueError: ``offset`` is negative.
        """
        if offset < 0:
            raise ValueError("negative offset")
        with memoryview(buffer).cast("B") as view:
            stop = min(offset + len(view), self.size)
            spans = list(self._source.layout.covering(offset, stop))
            if self._pool is None or stop - offset < _PARALLEL:
                self._fill(spans, offset, stop, view)
            else:
                workers = self._pool._max_workers  # noqa: SLF001 - there is no public name for it
                share = -(-len(spans) // workers)
                parts = [spans[first : first + share] for first in range(0, len(spans), share)]
                waiting = [self._pool.submit(self._fill, part, offset, stop, view) for part in parts[1:]]
                try:
                    self._fill(parts[0], offset, stop, view)
                finally:
                    errors = [error for part in waiting if (error := part.exception()) is not None]
                if errors:
                    raise errors[0]
            return max(stop - offset, 0)

    def readall(self) -> bytes:
        """Read everything from the position to the end, without a second copy."""
        size = max(self.size - self._position, 0)
        if size < 2:  # CPython shares the objects of these sizes
            buffer = bytearray(size)
            self.readinto(buffer)
            return bytes(buffer)
        content: bytes = _new_bytes(None, size)
        with memoryview((ctypes.c_char * size).from_address(id(content) + _BYTES_HEADER)) as view:
            self.readinto(view)
        return content

    def close(self) -> None:
        """Close the file and drop the cached segments."""
        if not self.closed:
            self._source.close()
            self._cache.drop(self._number)
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self, spans: list[Span], offset: int, stop: int, view: memoryview) -> None:
        for span in spans:
            first, last = max(offset, span.plain_offset), min(stop, span.plain_offset + span.plain_size)
            part = view[first - offset : last - offset]
            if len(part) == span.plain_size and self._source.layout.count > 1:
                self._whole(span, part)
                continue
            plain = self._segment(span)
            part[:] = memoryview(plain)[first - span.plain_offset : last - span.plain_offset]

    def _whole(self, span: Span, part: memoryview) -> None:
        try:
            self._source.read(span, self._scratch(), part)
        except SealedDataError:
            # The cipher writes before it verifies: the caller must not see what did not authenticate.
            part[:] = bytes(len(part))
            raise

    def _segment(self, span: Span) -> bytes:
        name = (self._number, span.index)
        plain = self._cache.get(name)
        if plain is None:
            plain = bytes(self._source.read(span, self._scratch()))
            self._cache.put(name, plain)
        return plain

    def _scratch(self) -> Scratch:
        scratch = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = Scratch()
        return scratch


class Tensors:
    """A safetensors file: eight bytes of header length, a JSON header, the tensors' bytes.

    Several threads may read tensors at once.
    """

    def __init__(self, stream: SealedFile) -> None:
        self._stream = stream
        size = int.from_bytes(_exactly(stream, 0, 8), "little")
        if size > min(_MAX_HEADER, stream.size - 8):
            raise SealedDataError("the file is not safetensors: its header is longer than the file")
        try:
            header = json.loads(_exactly(stream, 8, size))
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            self._tensors = {name: _tensor(item) for name, item in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise SealedDataError("the file is not safetensors: its header is damaged") from None
        self._start = 8 + size
        _refuse_misplaced(self._tensors, stream.size - self._start)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __len__(self) -> int:
        return len(self._tensors)

    def info(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Element type, in the names of safetensors, and shape. Raises `KeyError`."""
        dtype, shape, _, _ = self._tensors[name]
        return dtype, shape

    def offset(self, name: str) -> int:
        """The position of a tensor in the file. Raises `KeyError`."""
        return self._tensors[name][2]

    def size(self, name: str) -> int:
        """Bytes of a tensor. Raises `KeyError`."""
        _, _, begin, end = self._tensors[name]
        return end - begin

    def bytes(self, name: str) -> bytearray:
        """The bytes of one tensor, for example for ``numpy.frombuffer``. Raises `KeyError`, `SealedDataError`."""
        _, _, begin, end = self._tensors[name]
        return _exactly(self._stream, self._start + begin, end - begin)

    def read_into(self, name: str, buffer: Any, skip: int = 0) -> None:
        """Fill ``buffer`` with the bytes of one tensor, from byte ``skip`` on.

        Raises:
            KeyError: the tensor does not exist.
            ValueError: ``buffer`` is larger than the rest of the tensor.
            SealedDataError: a segment is damaged.
        """
        _, _, begin, end = self._tensors[name]
        with memoryview(buffer).cast("B") as view:
            if skip < 0 or skip + len(view) > end - begin:
                raise ValueError("the buffer is larger than the tensor")
            if len(view) and self._stream.read_at(self._start + begin + skip, view) != len(view):
                raise SealedDataError("the file is not safetensors: it is truncated")


def _tensor(item: dict[str, Any]) -> _Tensor:
    shape, (begin, end) = item["shape"], item["data_offsets"]
    if not isinstance(item["dtype"], str) or not isinstance(shape, list):
        raise TypeError("not a tensor")
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError("not a number")
    return item["dtype"], tuple(shape), begin, end


def _refuse_misplaced(tensors: dict[str, _Tensor], size: int) -> None:
    """Reject a tensor that exceeds the file or overlaps another one, as the format requires."""
    free = 0
    for name, (_, _, begin, end) in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if not free <= begin <= end <= size:
            where = f"tensor {name[:100]!r}, bytes {begin} to {end} of {size}"
            raise SealedDataError(
                f"the file is not safetensors: {where}, exceeds the file or overlaps another tensor"
            )
        free = end


def _exactly(stream: SealedFile, offset: int, size: int) -> bytearray:
    buffer = bytearray(size)
    if size and stream.read_at(offset, buffer) != size:
        raise SealedDataError("the file is not safetensors: it is truncated")
    return buffer
