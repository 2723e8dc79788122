"""Key material in memory: locked if the system allows it, excluded from core dumps, wiped after use.

A `Secret` never shows its content in ``repr``, tracebacks or pickles. It cannot wipe copies inside a library, such as
the key schedule of an AES-GCM object, which lives as long as that object.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import TYPE_CHECKING, NoReturn, Self

from webhook.keys.errors import SealedDataError

if TYPE_CHECKING:
    from types import TracebackType

# The bytes of a data key.
KEY_SIZE = 32
_MADV_DONTDUMP = getattr(mmap, "MADV_DONTDUMP", None)


def wipe(buffer: bytearray | memoryview) -> None:
    """Overwrite ``buffer`` with zeros in place."""
    buffer[:] = bytes(len(buffer))


def unpack_keys(packed: bytearray) -> dict[str, Secret]:
    """Read packed keys, by key id: for each key the length of its id, the id, and the key.

    Raises:
        SealedDataError: the content ends within a key.
    """
    keys: dict[str, Secret] = {}
    position = 0
    while position < len(packed):
        start = position + 1
        end = start + packed[position]
        position = end + KEY_SIZE
        if position > len(packed):
            raise SealedDataError("the broker's response is truncated")
        with memoryview(packed) as view:
            keys[bytes(view[start:end]).decode()] = Secret(view[end:position])
    return keys


class Secret:
    """Bytes on dedicated memory pages.

    A ``bytearray`` passed in is wiped once it is copied. Use as a context manager, or call `wipe`.
    """

    __slots__ = ("_locked", "_pages", "_size")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._size = len(data)
        self._pages = mmap.mmap(-1, max(self._size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if _MADV_DONTDUMP is not None:
            self._pages.madvise(_MADV_DONTDUMP)
        self._locked = _lock(self._pages)
        with memoryview(self._pages) as pages:
            pages[: self._size] = data  # no intermediate copy, which could not be wiped
        if isinstance(data, bytearray):
            wipe(data)

    @property
    def locked(self) -> bool:
        """Whether the pages are locked in memory; a low ``RLIMIT_MEMLOCK`` can forbid it."""
        return self._locked

    def view(self) -> memoryview:
        """A view of the bytes, not a copy. The caller releases the view before the secret is wiped.

        Raises:
            ValueError: the secret was wiped.
        """
        return memoryview(self._pages)[: self._size]

    def wipe(self) -> None:
        """Overwrite and release the pages. Safe to call twice."""
        if self._pages.closed:
            return
        self._pages[:] = bytes(len(self._pages))
        self._pages.close()

    def __len__(self) -> int:
        return self._size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return f"<{self._size} secret bytes>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is never pickled or copied")


def _lock(pages: mmap.mmap) -> bool:
    libc = ctypes.CDLL(None)
    anchor = ctypes.c_char.from_buffer(pages)
    try:
        return bool(libc.mlock(ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(len(pages))) == 0)
    finally:
        del anchor  # an exported buffer would keep the mapping from being closed
