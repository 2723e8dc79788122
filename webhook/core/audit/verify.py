"""Verify a whole log: recompute the tree from the entries, compare it with every tile and with the checkpoint.

The verification trusts nothing but the given keys. It reports the first wrong byte of a tile, or the first wrong entry
and where its bytes are. It cannot detect a truncation to an older checkpoint without a later one to compare with: an
earlier copy's checkpoint, a receipt, the log of heads, or a witness.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from webhook.core.audit.checkpoint import SignedCheckpoint, parse_checkpoint
from webhook.core.audit.entries import EntryError, kind_of, parse_entry
from webhook.core.audit.merkle import HASH_SIZE, fold, leaf_hash, root_of
from webhook.core.audit.notes import NoteError
from webhook.core.audit.tiles import (
    CHECKPOINT,
    WIDTH,
    Tile,
    TileError,
    TileNodes,
    decode_bundle,
    split_hashes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from webhook.core.audit.checkpoint import Checkpoint
    from webhook.core.audit.notes import VerifierKey

    OnEntry = Callable[[int, dict[str, Any]], None]

MAX_FAULTS = 100
_MAX_FOREIGN = 100
_PATH = re.compile(
    r"tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?"
)


class LogReader(Protocol):
    """Where the files of a log are. Paths are relative, with slashes."""

    def read(self, path: str) -> bytes | None:
        """Return a file, or None if it does not exist."""

    def paths(self) -> Iterable[str]:
        """Return the paths of all files."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``offset`` is a byte of the file ``path``, ``index`` an entry of the log."""

    path: str
    message: str
    offset: int | None = None
    index: int | None = None

    def __str__(self) -> str:
        """Return one line that names the place."""
        place = f"{self.path}, byte {self.offset}" if self.offset is not None else self.path
        return f"{place}: {self.message}"


@dataclass(slots=True)
class Report:
    """The result for one log. ``notes`` are facts that an auditor must know and that are not faults."""

    origin: str = ""
    size: int = 0
    root: bytes = b""
    pruned: int = 0
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    witnesses: tuple[str, ...] = ()
    types: dict[str, int] = field(default_factory=dict)
    first_time: str = ""
    last_time: str = ""
    heads: list[tuple[str, int, bytes, int]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether the log has no fault."""
        return not self.faults

    def fault(self, path: str, message: str, offset: int | None = None, index: int | None = None) -> None:
        """Add a fault, up to `MAX_FAULTS`."""
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(path, message, offset, index))


def verify_log(
    reader: LogReader,
    keys: Sequence[VerifierKey],
    *,
    witnesses: Sequence[VerifierKey] = (),
    quorum: int = 0,
    earlier: Iterable[Checkpoint] = (),
    on_entry: OnEntry | None = None,
) -> Report:
    """Verify one log. The log must be consistent with the checkpoints ``earlier``. ``on_entry`` gets each entry."""
    report = Report()
    signed = _checkpoint(reader, keys, witnesses, quorum, report)
    if signed is None:
        return report
    walk = _Walk(reader, report, on_entry)
    walk.run(signed.checkpoint)
    if report.whole:
        nodes = TileNodes(walk.hashes, report.size)
        for other in earlier:
            if other.origin == report.origin:
                compare(report, nodes, other.size, other.root, "an earlier checkpoint")
    return report


def compare(report: Report, nodes: TileNodes, size: int, root: bytes, what: str) -> None:
    """Check that the log contains the tree of another checkpoint."""
    if size > report.size:
        report.fault(
            CHECKPOINT, f"the log is truncated: {what} has {size} entries, the log has {report.size}"
        )
    elif size >= report.pruned and root_of(nodes, size) != root:
        report.fault(
            CHECKPOINT, f"the log is forked: {what} with {size} entries has another root", index=size - 1
        )


def first_difference(one: LogReader, one_size: int, other: LogReader, other_size: int) -> int | None:
    """Return the first entry that differs between two copies of a log, each with its own size."""
    copies = (entries_of(one, one_size), entries_of(other, other_size))
    for (index, left), (_, right) in zip(*copies, strict=False):
        if left != right:
            return index
    return None


def entries_of(reader: LogReader, size: int, first: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield the raw entries of a log from ``first`` on, without verification. Raises `TileError`."""
    for number in range(first // WIDTH, (size + WIDTH - 1) // WIDTH):
        count = min(WIDTH, size - number * WIDTH)
        for offset, entry in enumerate(_entries(reader, number, count)):
            if number * WIDTH + offset >= first:
                yield number * WIDTH + offset, entry


def _entries(reader: LogReader, number: int, count: int) -> list[bytes]:
    data, _, width = read_tile(reader, Tile(None, number, count))
    if data is None:
        raise TileError(f"{Tile(None, number, count).path} is missing")
    return [entry for _, entry in decode_bundle(data, width)][:count]


def read_tile(reader: LogReader, tile: Tile) -> tuple[bytes | None, str, int]:
    """Read a tile. The full tile stands in for a partial one that was deleted. Return bytes, path and width."""
    data = reader.read(tile.path)
    if data is None and tile.width < WIDTH:
        full = Tile(tile.level, tile.number)
        data = reader.read(full.path)
        if data is not None:
            width = WIDTH if tile.level is None or len(data) == WIDTH * HASH_SIZE else len(data) // HASH_SIZE
            return data, full.path, width
    return data, tile.path, tile.width


def _checkpoint(
    reader: LogReader,
    keys: Sequence[VerifierKey],
    witnesses: Sequence[VerifierKey],
    quorum: int,
    report: Report,
) -> SignedCheckpoint | None:
    raw = reader.read(CHECKPOINT)
    if raw is None:
        report.fault(CHECKPOINT, "the file is missing")
        return None
    try:
        signed = parse_checkpoint(raw)
        report.origin, report.size = signed.checkpoint.origin, signed.checkpoint.size
        report.root = signed.checkpoint.root
        report.witnesses = signed.verify(keys, witnesses)
    except NoteError as error:
        report.fault(CHECKPOINT, str(error))
        return None
    if signed.note.render().encode() != raw:
        report.fault(CHECKPOINT, "the file has extra bytes")
        return None
    if len(report.witnesses) < quorum:
        report.fault(CHECKPOINT, f"{len(report.witnesses)} known witnesses cosigned, {quorum} are required")
    return signed


class _Walk:
    """One pass over all tiles and entries of a log."""

    def __init__(self, reader: LogReader, report: Report, on_entry: OnEntry | None) -> None:
        self._reader, self._report, self._on_entry = reader, report, on_entry
        # The recomputed hashes of level 1 and above, and the leaf hashes of the last tile.
        self._levels: list[list[bytes]] = []
        self._last: tuple[int, list[bytes]] = (-1, [])
        self._partials: dict[tuple[str, int], list[int]] = {}
        self._time = ""
        self._running = False
        self._statements: list[int] = []
        # Entries that do not match their hash: file, entry, first and last byte, tile, byte of the tile.
        self._mismatches: list[tuple[str, int, int, int, str, int]] = []

    def run(self, checkpoint: Checkpoint) -> None:
        """Check everything up to the checkpoint's size."""
        report, size = self._report, checkpoint.size
        self._index_paths(size)
        report.pruned = self._pruned(size)
        for number in range((size + WIDTH - 1) // WIDTH):
            count = min(WIDTH, size - number * WIDTH)
            pruned = (number + 1) * WIDTH <= report.pruned
            hashes = None if pruned else self._bundle(number, count)
            self._push(number, count, hashes)
            if len(report.faults) >= MAX_FAULTS:
                return
        if self._mismatches:
            self._explain(checkpoint)
            return
        self._upper_levels(size)
        if not report.whole:
            return
        if root_of(TileNodes(self.hashes, size), size) != checkpoint.root:
            report.fault(CHECKPOINT, "the root does not match the entries")
        # A crash may leave some of the files that a statement removes.
        if report.pruned > max(self._statements, default=0):
            report.fault(
                "tile/entries/000",
                f"the entries below {report.pruned} are missing without a signed statement",
            )
        if self._running:
            report.notes.append("the last run has no stop entry: the writer is running or was killed")

    def hashes(self, tile: Tile) -> Sequence[bytes]:
        """Return recomputed hashes where they are in memory, and verified tiles otherwise."""
        if tile.level == 0:
            if tile.number == self._last[0]:
                return self._last[1]
            data, path, width = read_tile(self._reader, tile)
            if data is None:
                raise TileError(f"{path} is missing")
            return split_hashes(data, width)
        return self._levels[(tile.level or 1) - 1][tile.number * WIDTH : tile.number * WIDTH + tile.width]

    def _index_paths(self, size: int) -> None:
        tail, foreign = 0, 0
        for path in self._reader.paths():
            match = _PATH.fullmatch(path)
            if match is None:
                if path not in (CHECKPOINT, "keys.txt") and not path.startswith("index/"):
                    foreign += 1
                    if foreign <= _MAX_FOREIGN:
                        self._report.notes.append(f"{path} is not part of the log")
                continue
            index = int(match[2].replace("x", "").replace("/", ""))
            width = int(match[3] or WIDTH)
            level = 0 if match[1] == "entries" else int(match[1])
            if index * WIDTH + width > size >> (8 * level) and not (
                width == WIDTH and index * WIDTH < size >> (8 * level)
            ):
                tail += 1
            elif width < WIDTH:
                self._partials.setdefault((match[1], index), []).append(width)
        if foreign > _MAX_FOREIGN:
            self._report.notes.append(f"{foreign - _MAX_FOREIGN} more files are not part of the log")
        if tail:
            self._report.notes.append(f"{tail} files beyond the checkpoint: entries that were not signed yet")

    def _pruned(self, size: int) -> int:
        """Count the entries at the start whose bundles and level 0 tiles are both missing."""
        number = 0
        while (number + 1) * WIDTH <= size and all(
            self._reader.read(Tile(level, number).path) is None for level in (None, 0)
        ):
            number += 1
        return number * WIDTH if number * WIDTH < size else 0

    def _bundle(self, number: int, count: int) -> list[bytes] | None:
        """Check one entry bundle. Return the leaf hashes."""
        data, path, width = read_tile(self._reader, Tile(None, number, count))
        if data is None:
            self._report.fault(path, "the file is missing", index=number * WIDTH)
            return None
        try:
            entries = decode_bundle(data, width)[:count]
        except TileError as error:
            self._report.fault(path, str(error), error.offset, number * WIDTH)
            return None
        hashes = [leaf_hash(entry) for _, entry in entries]
        stored = self._stored(number, count)
        for offset, (start, entry) in enumerate(entries):
            index = number * WIDTH + offset
            if stored is not None and stored[offset] != hashes[offset]:
                place = offset * HASH_SIZE + _first_difference(stored[offset], hashes[offset])
                tile = Tile(0, number, count)
                self._mismatches.append((path, index, start, start + len(entry) - 1, tile.path, place))
                continue
            try:
                self._entry(index, parse_entry(entry))
            except EntryError as error:
                self._report.fault(path, f"entry {index}: {error}", start, index)
        if not self._mismatches:
            self._bundle_partials(number, data, entries)
        return hashes

    def _bundle_partials(self, number: int, data: bytes, entries: list[tuple[int, bytes]]) -> None:
        """Check the partial bundles that are still there against the current one."""
        for partial in self._partials.get(("entries", number), ()):
            if partial < len(entries):
                start, entry = entries[partial - 1]
                self._prefix(Tile(None, number, partial), data[: start + len(entry)])

    def _explain(self, checkpoint: Checkpoint) -> None:
        """Report entries that do not match their hashes: the signed root tells which of the two is wrong."""
        hashes_wrong = self._report.whole and self._root() == checkpoint.root
        for path, index, start, end, tile_path, place in self._mismatches[:MAX_FAULTS]:
            if hashes_wrong:
                self._report.fault(
                    tile_path, f"the hash of entry {index} does not match the entry", place, index
                )
            else:
                message = f"entry {index} (bytes {start} to {end}) does not match its hash"
                self._report.fault(path, message, start, index)

    def _root(self) -> bytes:
        """Return the root of the recomputed tree."""
        levels = [list(hashes) for hashes in self._levels]
        number = 0
        while number < len(levels):
            full = [
                fold(levels[number][i : i + WIDTH])
                for i in range(0, len(levels[number]) // WIDTH * WIDTH, WIDTH)
            ]
            if full:
                levels.append(full)
            number += 1

        def hashes(tile: Tile) -> Sequence[bytes]:
            if tile.level == 0:
                return self._last[1]
            return levels[(tile.level or 1) - 1][tile.number * WIDTH : tile.number * WIDTH + tile.width]

        return root_of(TileNodes(hashes, self._report.size), self._report.size)

    def _stored(self, number: int, count: int) -> list[bytes] | None:
        """Read the level 0 tile of a bundle."""
        data, path, width = read_tile(self._reader, Tile(0, number, count))
        if data is None:
            self._report.fault(path, "the file is missing", index=number * WIDTH)
            return None
        try:
            return split_hashes(data, width)[:count]
        except TileError as error:
            self._report.fault(path, str(error), error.offset, number * WIDTH)
            return None

    def _entry(self, index: int, document: dict[str, Any]) -> None:
        report, kind = self._report, kind_of(document)
        report.types[kind] = report.types.get(kind, 0) + 1
        if document["source"] != report.origin:
            report.fault(
                "tile/entries", f"entry {index} has the source {document['source'][:200]!r}", index=index
            )
        time = document["time"]
        if not report.first_time:
            report.first_time = time
        if time < self._time:
            report.notes.append(f"the clock went back at entry {index}: {self._time} to {time}") if len(
                report.notes
            ) < MAX_FAULTS else None
        self._time = report.last_time = time
        if kind == "log":
            self._log_event(index, document["data"])
        if self._on_entry is not None:
            self._on_entry(index, document)

    def _log_event(self, index: int, data: dict[str, Any]) -> None:
        report, event = self._report, data.get("event")
        if event == "start":
            if self._running:
                report.notes.append(f"a run without a stop entry ended before entry {index}")
            self._running = True
        elif event == "stop":
            self._running = False
        elif event == "loss":
            losses = ", ".join(f"{count} {kind}" for kind, count in sorted((data.get("lost") or {}).items()))
            report.notes.append(f"entry {index} reports lost entries: {losses}")
        elif event == "pruned":
            self._statements.append(int(data.get("first", 0)))
        elif event == "gap":
            report.notes.append(f"entry {index} reports missing events: {data.get('detail', '')}")
        elif event == "silent":
            report.notes.append(
                f"entry {index} reports a silent log: {(data.get('head') or {}).get('origin', '')}"
            )
        if event == "head" and isinstance(head := data.get("head"), dict):
            report.heads.append(
                (str(head["origin"]), int(head["size"]), bytes.fromhex(str(head["root"])[7:]), index)
            )

    def _push(self, number: int, count: int, hashes: list[bytes] | None) -> None:
        """Add one tile of leaf hashes to the tree, and check its level 0 tile."""
        if hashes is None:
            # Pruned, or already a fault: the level above stands in, so that other faults are found as well.
            if count == WIDTH:
                self._level(0).append(self._upper(number))
            return
        data = b"".join(hashes)
        for partial in () if self._mismatches else self._partials.get(("0", number), ()):
            if partial < count:
                self._prefix(Tile(0, number, partial), data[: partial * HASH_SIZE])
        if count == WIDTH:
            self._level(0).append(fold(hashes))
        self._last = (number, hashes)

    def _upper(self, number: int) -> bytes:
        """The stored hash of a full level 0 tile, from level 1."""
        count = self._report.size // WIDTH
        index, offset = divmod(number, WIDTH)
        tile = Tile(1, index, WIDTH if (index + 1) * WIDTH <= count else count % WIDTH)
        data, _, _ = read_tile(self._reader, tile)
        return (data or b"")[offset * HASH_SIZE : (offset + 1) * HASH_SIZE].ljust(HASH_SIZE, b"\0")

    def _level(self, number: int) -> list[bytes]:
        while len(self._levels) <= number:
            self._levels.append([])
        return self._levels[number]

    def _upper_levels(self, size: int) -> None:
        """Compute and check the tiles of level 1 and above."""
        level = 1
        while count := size >> (8 * level):
            hashes = self._levels[level - 1]
            for index in range((count + WIDTH - 1) // WIDTH):
                part = hashes[index * WIDTH : (index + 1) * WIDTH]
                data = b"".join(part)
                self._prefix(Tile(level, index, len(part)), data)
                for partial in self._partials.get((str(level), index), ()):
                    if partial != len(part):
                        self._prefix(Tile(level, index, partial), data[: partial * HASH_SIZE])
                if len(part) == WIDTH:
                    self._level(level).append(fold(part))
            level += 1

    def _prefix(self, tile: Tile, expected: bytes) -> None:
        stored, path, _ = read_tile(self._reader, tile)
        if stored is None:
            self._report.fault(path, "the file is missing")
        elif path == tile.path and stored != expected:
            offset = _first_difference(stored, expected)
            self._report.fault(path, "the tile does not match the entries", offset)


def _first_difference(one: bytes, other: bytes) -> int:
    """The offset of the first byte that differs."""
    for offset, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return offset
    return min(len(one), len(other))


def load_checkpoint(raw: bytes, keys: Sequence[VerifierKey]) -> Checkpoint:
    """Read an earlier checkpoint to compare with, and check its signatures. Raises `NoteError`."""
    signed = parse_checkpoint(raw)
    signed.verify(keys)
    return signed.checkpoint
