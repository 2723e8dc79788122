"""Reading sealed weights from a training script, without plaintext on any disk.

    from webhook.keys.client import open_weights

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

from webhook.keys import operations
from webhook.keys.directory import require_manifest
from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.files import Scratch, SealedSource
from webhook.keys.paths import check_key_id, check_model
from webhook.keys.unsealing import check_tags

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from webhook.keys.manifest import Entry
    from webhook.keys.streaming import Span
    from webhook.keys.unsealing import Sealed

KEYS = Path("/var/run/weightlock/keys")
_KEPT_SEGMENTS = 4
_MAX_HEADER = 100_000_000  # as the safetensors format bounds it


@contextmanager
def open_weights(sealed: str | Path, *, model: str = "", keys: Path = KEYS) -> Iterator[Weights]:
    """A sealed directory, opened with the key that the sidecar delivered below ``keys``.

    ``model``, if given, must be the one that is sealed there.

    Raises:
        KeysError: it is not sealed, the key is not there or does not fit, or the manifest was changed.
    """
    directory = Path(sealed)
    claims = require_manifest(directory).claims
    path = keys / check_model(model or claims.model) / check_key_id(claims.key.id)
    with operations.open_sealed(directory, operations.read_key_file(path), model=model) as opened:
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
        with memoryview(buffer).cast("B") as view, self._lock:
            start = self._position
            stop = min(start + len(view), self.size)
            for span in self._source.layout.covering(start, stop):
                first, last = max(start, span.plain_offset), min(stop, span.plain_offset + span.plain_size)
                wanted = view[first - start : last - start]
                if len(wanted) == span.plain_size:
                    self._whole(span, wanted)
                    continue
                plain = self._segment(span.index)
                wanted[:] = plain[first - span.plain_offset : last - span.plain_offset]
            self._position = max(start, stop)
            return max(stop - start, 0)

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
    """A safetensors file: eight bytes of header length, a JSON header, the tensors' bytes."""

    def __init__(self, stream: SealedFile) -> None:
        self._stream = stream
        size = int.from_bytes(_exactly(stream, 8), "little")
        if size > min(_MAX_HEADER, stream.size - 8):
            raise SealedDataError("the file is not safetensors: its header is longer than itself")
        try:
            header = orjson.loads(_exactly(stream, size))
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            self._tensors: dict[str, tuple[str, tuple[int, ...], int, int]] = {
                name: (item["dtype"], tuple(item["shape"]), *item["data_offsets"])
                for name, item in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SealedDataError("the file is not safetensors: its header cannot be read") from None
        self._start = 8 + size

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def info(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Element type, as safetensors names it, and shape. Raises `KeyError`."""
        dtype, shape, _, _ = self._tensors[name]
        return dtype, shape

    def bytes(self, name: str) -> bytearray:
        """The bytes of one tensor, such as ``numpy.frombuffer`` takes. Raises `KeyError`, `SealedDataError`."""
        _, _, begin, end = self._tensors[name]
        self._stream.seek(self._start + begin)
        return _exactly(self._stream, end - begin)


def _exactly(stream: SealedFile, size: int) -> bytearray:
    buffer = bytearray(size)
    if stream.readinto(buffer) != size:
        raise SealedDataError("the file is not safetensors: it ends too early")
    return buffer
