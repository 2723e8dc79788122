"""The files of a log: paths of tiles and entry bundles, and the encoding of bundles (c2sp.org/tlog-tiles).

A tile holds up to 256 consecutive hashes of one level. A tree of 70,000 entries has 273 full tiles and a partial tile
of 112 hashes on level 0, one full and one partial tile (17) on level 1, and a partial tile (1) on level 2.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from webhook.core.audit.merkle import HASH_SIZE, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

HEIGHT = 8
WIDTH = 1 << HEIGHT
MAX_ENTRY_BYTES = 65_535
CHECKPOINT = "checkpoint"
ENTRIES = "entries"
_LENGTH = struct.Struct(">H")


class TileError(ValueError):
    """A tile or bundle is malformed. ``offset`` is the first wrong byte, where it is known."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset


class Tile(NamedTuple):
    """One tile of a tree. ``level`` is None for an entry bundle."""

    level: int | None
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """The path below the log's directory, such as ``tile/0/x001/234`` or ``tile/entries/000.p/17``."""
        level = ENTRIES if self.level is None else str(self.level)
        partial = f".p/{self.width}" if self.width < WIDTH else ""
        return f"tile/{level}/{index_path(self.number)}{partial}"


def index_path(index: int) -> str:
    """Encode the index of a tile: 1234067 is ``x001/x234/067``."""
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.append(f"x{index % 1000:03d}")
    return "/".join(reversed(parts))


def tiles_of(size: int) -> Iterator[Tile]:
    """Yield the last tile of every level and of the entries: those that a tree of ``size`` leaves does not fill."""
    level, count = 0, size
    while count:
        if count % WIDTH:
            if level == 0:
                yield Tile(None, count // WIDTH, count % WIDTH)
            yield Tile(level, count // WIDTH, count % WIDTH)
        count, level = count // WIDTH, level + 1


def all_tiles(size: int) -> Iterator[Tile]:
    """Yield every tile and entry bundle of a tree of ``size`` leaves, level by level."""
    level: int | None = None
    count = size
    while count:
        for index in range(count // WIDTH):
            yield Tile(level, index)
        if count % WIDTH:
            yield Tile(level, count // WIDTH, count % WIDTH)
        if level is not None:
            count //= WIDTH
        level = 0 if level is None else level + 1


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Encode entries, each with its length as a big-endian uint16.

    Raises:
        TileError: an entry is longer than 65,535 bytes.
    """
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise TileError(f"an entry has {len(entry)} bytes, the limit is {MAX_ENTRY_BYTES}")
        parts += (_LENGTH.pack(len(entry)), entry)
    return b"".join(parts)


def decode_bundle(data: bytes, count: int) -> list[tuple[int, bytes]]:
    """Decode exactly ``count`` entries, each with the offset of its first byte.

    Raises:
        TileError: the bundle is too short or too long.
    """
    entries, offset, end = [], 0, len(data)
    for number in range(count):
        if offset + 2 > end:
            raise TileError(f"the bundle has {number} entries instead of {count}", offset)
        (length,) = _LENGTH.unpack_from(data, offset)
        start = offset + 2
        offset = start + length
        if offset > end:
            raise TileError(f"entry {number} of the bundle is incomplete", start - 2)
        entries.append((start, data[start:offset]))
    if offset != end:
        raise TileError(f"the bundle has {end - offset} extra bytes", offset)
    return entries


def entry_at(data: bytes, place: int, position: int = 0, offset: int = 0) -> tuple[int, int, int]:
    """Return the entry of a bundle that contains the byte ``place``: its position, the offset of its length, its end.

    The search begins at entry ``position``, whose length is at ``offset``.

    Raises:
        TileError: the bundle is malformed there.
    """
    end, stop = len(data), offset
    while stop <= place and stop < end - 1:
        offset = stop
        stop = offset + 2 + (data[offset] << 8 | data[offset + 1])
        position += 1
    if not place < stop <= end:
        raise TileError(f"entry {position - 1} of the bundle is incomplete", offset)
    return position - 1, offset, stop


def split_hashes(data: bytes, width: int) -> list[bytes]:
    """Decode a tile of ``width`` hashes.

    Raises:
        TileError: the tile has another size.
    """
    if len(data) != width * HASH_SIZE:
        raise TileError(
            f"the tile has {len(data)} bytes instead of {width * HASH_SIZE}",
            min(len(data), width * HASH_SIZE),
        )
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]


class TileNodes:
    """Read perfect subtrees from the tiles of a log of ``size`` entries. It is a `NodeReader`.

    ``read`` returns the hashes of a tile. A partial tile stands in for a full one that does not exist yet.
    """

    def __init__(self, read: Callable[[Tile], Sequence[bytes]], size: int) -> None:
        self._read = read
        self._size = size

    def __call__(self, level: int, index: int) -> bytes:
        """Return the root of one subtree. Raises whatever ``read`` raises."""
        tile_level, inner = divmod(level, HEIGHT)
        first = index << inner
        tile_index, offset = divmod(first, WIDTH)
        count = self._size >> (tile_level * HEIGHT)
        width = WIDTH if (tile_index + 1) * WIDTH <= count else count % WIDTH
        hashes = self._read(Tile(tile_level, tile_index, width))
        return fold(hashes[offset : offset + (1 << inner)])
