"""Reading sealed weights from a training script, without plaintext on any disk.

    from webhook.keys.sealed.client import open_weights

    with open_weights("/weights/atlas-70b") as weights:
        for name in weights.files:
            ...
        with weights.open("config.json") as stream:          # a seekable binary stream
            config = json.load(stream)
        tensors = safetensors.torch.load(weights.read("model.safetensors"))     # the whole file, in memory
        with weights.safetensors("model.safetensors") as tensors:              # or one tensor at a time
            data = tensors.bytes("model.layers.0.weight")

Every segment is authenticated before a byte of it is given out, and a file that is not the version in the manifest does
not open at all. The key is the one that the sidecar delivered; it is looked for where the sidecar puts it.
"""

from __future__ import annotations

import io
import mmap
import threading
from collections import OrderedDict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.sealed import operations
from webhook.keys.sealed.directory import require_manifest
from webhook.keys.sealed.files import Scratch, SealedSource
from webhook.keys.sealed.paths import check_key_id, check_model
from webhook.keys.sealed.unsealing import check_tags

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from webhook.keys.sealed.manifest import Entry
    from webhook.keys.sealed.streaming import Span
    from webhook.keys.sealed.unsealing import Sealed

KEYS = Path("/var/run/weightlock/keys")
_KEPT_SEGMENTS = 4
_MAX_HEADER = 100_000_000  # as the safetensors format bounds it
_Tensor = tuple[str, tuple[int, ...], int, int]  # element type, shape, first byte and the one after the last


@contextmanager
def open_weights(
    sealed: str | Path, *, model: str = "", keys: Path = KEYS, generation: int = 0
) -> Iterator[Weights]:
    """A sealed directory, opened with the key that the sidecar delivered below ``keys``.

    ``model``, if given, must be the one that is sealed there; ``generation`` is the oldest that is good enough, and
    without it an older state of the whole directory under the same key is not noticed.

    Raises:
        KeysError: it is not sealed, the key is not there or does not fit, it is too old, or the manifest was changed.
    """
    directory = Path(sealed)
    claims = require_manifest(directory).claims
    path = keys / check_model(model or claims.model) / check_key_id(claims.key.id)
    key = operations.read_key_file(path)
    with operations.open_sealed(directory, key, model=model, generation=generation) as opened:
        yield Weights(opened)


class Weights:
    """The files of one model. Made by `open_weights`."""

    def __init__(self, sealed: Sealed) -> None:
        self._sealed = sealed
        self._entries = {entry.path: entry for entry in sealed.manifest.files}

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all files."""
        return tuple(self._entries)

    def size(self, path: str) -> int:
        """Bytes of plaintext in a file. Raises `BadInputError` where there is no such file."""
        return self._entry(path).size

    def open(self, path: str) -> io.BufferedReader:
        """A file as a seekable binary stream.

        Raises:
            BadInputError: there is no such file.
            SealedDataError: it is damaged or another version; reading raises the same for a damaged segment.
        """
        return io.BufferedReader(self.raw(path), buffer_size=1 << 20)

    def raw(self, path: str) -> SealedFile:
        """As `open`, without a buffer around it."""
        entry = self._entry(path)
        check_tags(self._sealed.directory / entry.file, entry)
        return SealedFile(self._sealed.source(entry))

    def read(self, path: str) -> bytes:
        """A whole file."""
        with self.raw(path) as stream:
            return stream.readall()

    def map(self, path: str) -> mmap.mmap:
        """A whole file in anonymous memory, which no file system sees; close it when done. Not for empty files."""
        with self.raw(path) as stream:
            memory = mmap.mmap(-1, stream.size)
            with memoryview(memory) as view:
                stream.readinto(view)
            return memory

    @contextmanager
    def safetensors(self, path: str) -> Iterator[Tensors]:
        """A safetensors file, tensor by tensor."""
        with self.raw(path) as stream:
            yield Tensors(stream)

    def _entry(self, path: str) -> Entry:
        try:
            return self._entries[path]
        except KeyError:
            raise BadInputError(f"model {self._sealed.manifest.model!r} has no file {path!r}") from None


class SealedFile(io.RawIOBase):
    """A sealed file as a raw stream: each read opens the segments it touches.

    Whole segments are decrypted straight into the caller's memory. The last few that were read in part are kept.
    Several threads may use `read_at` at once; the position of a stream is for one of them alone.
    """

    def __init__(self, source: SealedSource) -> None:
        self._source = source
        self._source.open()
        self._scratch = Scratch()
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._position = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of plaintext."""
        return self._source.layout.size

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position in the plaintext."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in the plaintext. Raises `ValueError` for one before the beginning."""
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
        """Fill ``buffer`` from ``offset``, wherever the position is, which stays. Gives the number of bytes there were.

        Raises:
            SealedDataError: a segment is damaged.
            ValueError: ``offset`` is negative.
        """
        if offset < 0:
            raise ValueError("negative offset")
        with memoryview(buffer).cast("B") as view, self._lock:
            stop = min(offset + len(view), self.size)
            for span in self._source.layout.covering(offset, stop):
                first, last = max(offset, span.plain_offset), min(stop, span.plain_offset + span.plain_size)
                wanted = view[first - offset : last - offset]
                if len(wanted) == span.plain_size:
                    self._whole(span, wanted)
                    continue
                plain = self._segment(span.index)
                wanted[:] = plain[first - span.plain_offset : last - span.plain_offset]
            return max(stop - offset, 0)

    def readall(self) -> bytes:
        """Everything from the position to the end."""
        buffer = bytearray(max(self.size - self._position, 0))
        self.readinto(buffer)
        return bytes(buffer)

    def close(self) -> None:
        """Close the file and forget what was kept of it."""
        if not self.closed:
            self._source.close()
            self._kept.clear()
        super().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _whole(self, span: Span, wanted: memoryview) -> None:
        try:
            self._source.read(span, self._scratch, wanted)
        except SealedDataError:
            # The cipher writes before it knows; nobody shall see what did not authenticate.
            wanted[:] = bytes(len(wanted))
            raise

    def _segment(self, index: int) -> bytes:
        plain = self._kept.pop(index, None)
        if plain is None:
            plain = bytes(self._source.read(self._source.layout.span(index), self._scratch))
        self._kept[index] = plain
        if len(self._kept) > _KEPT_SEGMENTS:
            self._kept.popitem(last=False)
        return plain


class Tensors:
    """A safetensors file: eight bytes of header length, a JSON header, the tensors' bytes.

    Several threads may read tensors at once.
    """

    def __init__(self, stream: SealedFile) -> None:
        self._stream = stream
        size = int.from_bytes(_exactly(stream, 0, 8), "little")
        if size > min(_MAX_HEADER, stream.size - 8):
            raise SealedDataError("the file is not safetensors: its header is longer than itself")
        try:
            header = orjson.loads(_exactly(stream, 8, size))
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            self._tensors = {name: _tensor(item) for name, item in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SealedDataError("the file is not safetensors: its header cannot be read") from None
        self._start = 8 + size
        _refuse_misplaced(self._tensors, stream.size - self._start)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def info(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Element type, as safetensors names it, and shape. Raises `KeyError`."""
        dtype, shape, _, _ = self._tensors[name]
        return dtype, shape

    def bytes(self, name: str) -> bytearray:
        """The bytes of one tensor, such as ``numpy.frombuffer`` takes. Raises `KeyError`, `SealedDataError`."""
        _, _, begin, end = self._tensors[name]
        return _exactly(self._stream, self._start + begin, end - begin)


def _tensor(item: dict[str, Any]) -> _Tensor:
    shape, (begin, end) = item["shape"], item["data_offsets"]
    if not isinstance(item["dtype"], str) or not isinstance(shape, list):
        raise TypeError("no tensor")
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError("not a number")
    return item["dtype"], tuple(shape), begin, end


def _refuse_misplaced(tensors: dict[str, _Tensor], size: int) -> None:
    """No tensor may reach beyond the file or into another one, as the format has it."""
    free = 0
    for name, (_, _, begin, end) in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if not free <= begin <= end <= size:
            where = f"the place of tensor {name[:100]!r}, bytes {begin} to {end} of {size}"
            raise SealedDataError(f"the file is not safetensors: {where}, is outside it or overlaps another")
        free = end


def _exactly(stream: SealedFile, offset: int, size: int) -> bytearray:
    buffer = bytearray(size)
    if stream.read_at(offset, buffer) != size:
        raise SealedDataError("the file is not safetensors: it ends too early")
    return buffer
