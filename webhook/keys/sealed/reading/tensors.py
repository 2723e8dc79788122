"""Tensors of sealed safetensors files, with the interface of ``safetensors.safe_open``.

A tensor is decrypted straight into the memory of its array. For an accelerator that memory is pinned, and one copy
moves it to the device. Sharded models are opened by their index or by their directory.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
from contextlib import ExitStack, closing
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.sealed.format.paths import KEYS, MANIFEST_NAME
from webhook.keys.sealed.reading.client import Tensors, open_weights

if TYPE_CHECKING:
    from types import TracebackType

    from webhook.keys.sealed.reading.client import Weights

INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_MAX_INDEX = 64 << 20
_MAX_PARENTS = 32
_FORBIDDEN = 403
# Element types of the safetensors format: bytes, NumPy's name (ml_dtypes has the last ones), and torch's name.
_TYPES = {
    "BOOL": (1, "bool", "bool"),
    "U8": (1, "uint8", "uint8"),
    "I8": (1, "int8", "int8"),
    "U16": (2, "uint16", "uint16"),
    "I16": (2, "int16", "int16"),
    "U32": (4, "uint32", "uint32"),
    "I32": (4, "int32", "int32"),
    "U64": (8, "uint64", "uint64"),
    "I64": (8, "int64", "int64"),
    "F16": (2, "float16", "float16"),
    "F32": (4, "float32", "float32"),
    "F64": (8, "float64", "float64"),
    "BF16": (2, "bfloat16", "bfloat16"),
    "F8_E4M3": (1, "float8_e4m3fn", "float8_e4m3fn"),
    "F8_E5M2": (1, "float8_e5m2", "float8_e5m2"),
    "C64": (8, "complex64", "complex64"),
}
_Index = Any


class safe_open:  # noqa: N801 - the name of the interface that it replaces
    """Open a sealed safetensors file, an index of shards, or a directory with one of them.

    ``filename`` is a path in a sealed directory, or a URL. ``framework`` is ``pt`` or ``np``. ``device`` is for ``pt``.
    The other options are those of `open_weights`.

    Raises:
        KeysError: as `open_weights`; or the file does not exist, or is not safetensors.
    """

    def __init__(
        self,
        filename: str | Path,
        framework: str = "pt",
        device: str | int = "cpu",
        *,
        keys: str | Path = KEYS,
        key_file: str | Path | None = None,
        generation: int = 0,
        threads: int | None = None,
    ) -> None:
        self._arrays = _arrays(framework, device)
        root, path = _locate(str(filename))
        with ExitStack() as stack:
            weights = stack.enter_context(
                open_weights(root, keys=keys, key_file=key_file, generation=generation, threads=threads)
            )
            self._shards = _shards(weights, path, stack)
            self._stack = stack.pop_all()

    def keys(self) -> list[str]:
        """The names of all tensors."""
        return list(self._shards)

    def offset_keys(self) -> list[str]:
        """The names of all tensors in the order in which they are stored: the fastest order to read them."""
        shards = list(dict.fromkeys(self._shards.values()))
        return sorted(
            self._shards, key=lambda name: (shards.index(self._shards[name]), self._shards[name].offset(name))
        )

    def metadata(self) -> dict[str, str] | None:
        """The metadata of the file; for shards, of the first one."""
        for tensors in self._shards.values():
            return tensors.metadata or None
        return None

    def get_tensor(self, name: str) -> Any:
        """One tensor.

        Raises:
            KeyError: it does not exist.
            SealedDataError: a segment is damaged.
        """
        return self.get_slice(name)[...]

    def get_slice(self, name: str) -> TensorSlice:
        """One tensor, of which an index expression reads only the rows that it selects. Raises `KeyError`."""
        return TensorSlice(self._shards[name], name, self._arrays)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class TensorSlice:
    """A tensor that is not read yet. Indexing reads the selected range of the first dimension."""

    def __init__(self, tensors: Tensors, name: str, arrays: NumpyArrays | TorchArrays) -> None:
        self._tensors, self._name, self._arrays = tensors, name, arrays
        self._dtype, self._shape = tensors.info(name)
        if self._dtype not in _TYPES:
            raise SealedDataError(f"tensor {name[:100]!r} has the unknown element type {self._dtype[:20]!r}")
        self._item = _TYPES[self._dtype][0]
        if prod(self._shape) * self._item != tensors.size(name):
            raise SealedDataError(f"the size of tensor {name[:100]!r} does not match its shape")

    def get_shape(self) -> list[int]:
        """The shape."""
        return list(self._shape)

    def get_dtype(self) -> str:
        """The element type in the names of safetensors."""
        return self._dtype

    def __getitem__(self, index: _Index) -> Any:
        parts = index if isinstance(index, tuple) else (index,)
        if not self._shape or not parts or parts[0] is Ellipsis:
            array = self._read(0, self._shape[0] if self._shape else 1, whole=True)
            return self._arrays.place(array if parts == (Ellipsis,) or not parts else array[parts])
        first, rest = parts[0], parts[1:]
        if isinstance(first, slice):
            start, stop, step = first.indices(self._shape[0])
            if step != 1:
                raise ValueError("a step is not supported in the first dimension")
            array = self._read(start, max(stop, start))
            return self._arrays.place(array[(slice(None), *rest)] if rest else array)
        row = int(first)
        if not -self._shape[0] <= row < self._shape[0]:
            raise IndexError(f"index {row} exceeds dimension {self._shape[0]}")
        row %= self._shape[0]
        array = self._read(row, row + 1)[0]
        return self._arrays.place(array[rest] if rest else array)

    def _read(self, start: int, stop: int, *, whole: bool = False) -> Any:
        row = prod(self._shape[1:]) * self._item
        shape = self._shape if whole else (stop - start, *self._shape[1:])
        size = prod(shape) * self._item
        array, view = self._arrays.empty(size)
        if size:
            self._tensors.read_into(self._name, view, start * row)
        return self._arrays.shaped(array, self._dtype, shape)


class NumpyArrays:
    """Arrays of NumPy."""

    def __init__(self) -> None:
        self._numpy = _load("numpy", "np")

    def empty(self, size: int) -> tuple[Any, memoryview]:
        """An array of bytes and its memory."""
        array = self._numpy.empty(size, "uint8")
        return array, memoryview(array)

    def shaped(self, array: Any, dtype: str, shape: tuple[int, ...]) -> Any:
        """The same memory as an array of elements."""
        name = _TYPES[dtype][1]
        if hasattr(self._numpy, name) or name == "bool":
            kind = self._numpy.dtype(name)
        else:
            kind = getattr(_load("ml_dtypes", f"np and {dtype}"), name)
        return array.view(kind).reshape(shape)

    def place(self, array: Any) -> Any:
        """The array itself: NumPy has no devices."""
        return array


class TorchArrays:
    """Tensors of torch, on a device."""

    def __init__(self, device: str | int) -> None:
        self._torch = _load("torch", "pt")
        self._device = self._torch.device(device)
        self._pinned = self._device.type == "cuda" and self._torch.cuda.is_available()

    def empty(self, size: int) -> tuple[Any, memoryview]:
        """A tensor of bytes, pinned if it will move to an accelerator, and its memory."""
        tensor = self._torch.empty(size, dtype=self._torch.uint8, pin_memory=self._pinned)
        if not size:
            return tensor, memoryview(b"")
        return tensor, memoryview((ctypes.c_char * size).from_address(tensor.data_ptr())).cast("B")

    def shaped(self, array: Any, dtype: str, shape: tuple[int, ...]) -> Any:
        """The same memory as a tensor of elements."""
        kind = getattr(self._torch, _TYPES[dtype][2], None)
        if kind is None:
            raise BadInputError(f"this version of torch has no element type for {dtype}")
        return array.view(kind).reshape(shape)

    def place(self, array: Any) -> Any:
        """The tensor on its device."""
        return array if self._device.type == "cpu" else array.to(self._device, non_blocking=self._pinned)


def load_file(filename: str | Path, framework: str = "pt", **options: Any) -> dict[str, Any]:
    """Load all tensors of a sealed safetensors file or of a sharded model. ``options`` are those of `safe_open`."""
    with safe_open(filename, framework, **options) as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.offset_keys()}


def _arrays(framework: str, device: str | int) -> NumpyArrays | TorchArrays:
    if framework in {"pt", "torch", "pytorch"}:
        return TorchArrays(device)
    if framework in {"np", "numpy"}:
        return NumpyArrays()
    raise BadInputError(f"framework {framework!r} is not supported: use 'pt' or 'np'")


def _load(module: str, framework: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise BadInputError(f"framework {framework} needs the package {module}") from None


def _locate(filename: str) -> tuple[str, str]:
    """The sealed directory that contains ``filename``, and the path inside it; empty for the directory itself."""
    if "://" in filename:
        return _locate_url(filename)
    path = Path(os.path.normpath(filename))
    if (path / MANIFEST_NAME).exists():
        return filename, ""
    for parent in list(path.parents)[:_MAX_PARENTS]:
        if (parent / MANIFEST_NAME).exists():
            return str(parent), path.relative_to(parent).as_posix()
    raise BadInputError(
        f"{filename} is not in a sealed directory: no directory above it has a {MANIFEST_NAME}"
    )


def _locate_url(filename: str) -> tuple[str, str]:
    from webhook.keys.sealed.storage.directory import read_manifest  # noqa: PLC0415
    from webhook.keys.sealed.storage.remote import StatusError, open_store  # noqa: PLC0415 - only URLs need it

    if filename.startswith("oci://"):
        from webhook.keys.sealed.storage.oci import split  # noqa: PLC0415 - only this kind of URL needs it

        return split(filename)
    root, path = filename.rstrip("/"), ""
    base = root.index("://") + 3
    denied: StatusError | None = None
    for _ in range(_MAX_PARENTS):
        try:
            with closing(open_store(root)) as store:
                if read_manifest(store) is not None:
                    return root, path
        except StatusError as error:
            if error.status != _FORBIDDEN:
                raise
            denied = denied or error  # a bucket without the right to list responds so for each missing object
        if "/" not in root[base:]:
            break
        root, _, name = root.rpartition("/")
        path = f"{name}/{path}" if path else name
    if denied is not None:
        raise denied
    raise BadInputError(
        f"{filename} is not in a sealed directory: no directory above it has a {MANIFEST_NAME}"
    )


def _shards(weights: Weights, path: str, stack: ExitStack) -> dict[str, Tensors]:
    files = frozenset(weights.files)
    if path not in files:
        prefix = f"{path}/" if path else ""
        path = next((name for name in (f"{prefix}{INDEX}", f"{prefix}{_SINGLE}") if name in files), path)
    if path not in files:
        raise BadInputError(f"the sealed directory has no file {path or _SINGLE!r}")
    if not path.endswith(".json"):
        tensors = stack.enter_context(weights.safetensors(path))
        return dict.fromkeys(tensors, tensors)
    return _indexed(weights, path, stack)


def _indexed(weights: Weights, path: str, stack: ExitStack) -> dict[str, Tensors]:
    if weights.size(path) > _MAX_INDEX:
        raise SealedDataError(f"{path!r} is too large to be an index of shards")
    try:
        index = json.loads(weights.read(path))["weight_map"]
        pairs = [(str(name), str(shard)) for name, shard in index.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SealedDataError(f"{path!r} is not an index of shards") from None
    directory, slash, _ = path.rpartition("/")
    files: dict[str, Tensors] = {}
    for _, shard in pairs:
        if shard not in files:
            files[shard] = stack.enter_context(weights.safetensors(f"{directory}{slash}{shard}"))
    for name, shard in pairs:
        if name not in files[shard]:
            raise SealedDataError(f"{shard!r} has no tensor {name[:100]!r}, although the index lists it")
    return {name: files[shard] for name, shard in pairs}
