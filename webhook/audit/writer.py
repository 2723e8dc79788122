"""The writer of one log: a bounded queue, a thread that appends, and a signed checkpoint for each batch.

`LogWriter.submit` never blocks and does no I/O, so it is safe on the event loop. The thread writes entry bundles and
tiles, makes them durable, and only then signs and writes the checkpoint. A crash loses unsigned entries only.

A signed checkpoint that a witness or a reader may have is never taken back, because another tree of its size would be a
fork. Before witnesses receive a checkpoint, it is stored as ``.pending``, and a restart continues from it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import Counter, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from webhook.audit.errors import AuditError, LockedError, NotLoggedError, UncertainError
from webhook.core.audit.checkpoint import Checkpoint, SignedCheckpoint, parse_checkpoint
from webhook.core.audit.entries import canonical, envelope, kind_of, timestamp
from webhook.core.audit.merkle import Frontier, consistency_proof, fold, inclusion_proof, leaf_hash, root_of
from webhook.core.audit.notes import NoteError
from webhook.core.audit.proof import Proof
from webhook.core.audit.tiles import (
    CHECKPOINT,
    ENTRIES,
    MAX_ENTRY_BYTES,
    WIDTH,
    Tile,
    TileError,
    TileNodes,
    decode_bundle,
    encode_bundle,
    split_hashes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from webhook.audit.bucket import Bucket
    from webhook.audit.storage import Directory
    from webhook.core.audit.notes import Signature, Signer

    Cosign = Callable[[SignedCheckpoint, Callable[[int], Sequence[bytes]]], tuple[Signature, ...]]


PENDING = ".pending"
_RETRY_SECONDS = 1.0
_LOCK_SECONDS = 0.1
_COSIGN_SECONDS = 1.0
_PRUNE_SECONDS = 3600.0
_UUID7_RANDOM = 10
# The thread lets go of the interpreter after so many entries, some 0.2 ms. Otherwise verdicts would wait for 5 ms.
_SLICE = 16
_PAUSE_SECONDS = 0.0001

log = logging.getLogger(__name__)


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562)."""
    stamp = time.time_ns() // 1_000_000
    raw = bytearray(stamp.to_bytes(6, "big") + os.urandom(_UUID7_RANDOM))
    raw[6] = 0x70 | raw[6] & 0x0F
    raw[8] = 0x80 | raw[8] & 0x3F
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _compact(raw: bytes) -> bytes:
    """Copy the bytes. Those of orjson 3.13 keep its buffer of 4 KiB, and a full queue would take 40 MiB."""
    return bytes(memoryview(raw))


class Receipt(NamedTuple):
    """An entry that is in a signed checkpoint, with its proof file."""

    entry: int
    proof: str


class _Waiting(NamedTuple):
    raw: bytes
    kind: str
    done: Callable[[Receipt | Exception], None] | None


class Stats:
    """The writer's figures, for metrics."""

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        self.entries = 0
        self.checkpoint_time = 0.0
        self.failures = 0
        self.cosignatures = 0


class LogWriter:
    """One open log. Use `open`, then `submit` or `append`, then `close`."""

    def __init__(
        self,
        storage: Directory | Bucket,
        signer: Signer,
        *,
        limit: int,
        interval: float,
        cosign: Cosign | None = None,
        quorum: int = 0,
        witnesses: int = 0,
        retention_seconds: float = 0,
        compress: bool = False,
        version: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.origin = signer.name
        self.stats = Stats()
        self._version = version
        self._compress = compress
        self._retention, self._prune_at, self._pruned = retention_seconds, 0.0, 0
        self._wanted, self._tried = max(witnesses, quorum), 0.0
        self._storage, self._signer, self._cosign, self._quorum = storage, signer, cosign, quorum
        self._limit, self._interval, self._clock = limit, interval, clock
        self._queue: deque[_Waiting] = deque()
        self._wake = threading.Event()
        self._stopping = self._locked = False
        self._broken = ""
        self._thread: threading.Thread | None = None
        self._reported: Counter[str] = Counter()
        self._tree = Frontier()
        # The hashes of the last tile of each level, and the entries of the last bundle.
        self._edge: list[list[bytes]] = [[]]
        self._bundle: list[bytes] = []
        # Full tiles whose partial tiles can go, once a checkpoint covers them.
        self._obsolete: list[str] = []
        self._signed: SignedCheckpoint | None = None
        # Whether others may have the checkpoint of the tree, and whether the storage lacks it.
        self._exposed = self._unpublished = False

    @property
    def size(self) -> int:
        """The number of entries in the last checkpoint."""
        return self._signed.checkpoint.size if self._signed is not None else 0

    @property
    def queued(self) -> int:
        """The number of entries that wait."""
        return len(self._queue)

    @property
    def place(self) -> Path | str:
        """The directory of the log, or its URL."""
        return self._storage.root

    def gauges(self) -> dict[str, float | None]:
        """Return the figures of this log by the names of their metrics."""
        return {
            "weightlock_audit_queue_entries": len(self._queue),
            "weightlock_audit_lost_entries": self.stats.lost.total(),
            "weightlock_audit_checkpoint_timestamp_seconds": self.stats.checkpoint_time or None,
            "weightlock_audit_witness_cosignatures": self.stats.cosignatures,
            "weightlock_audit_witness_quorum": self._quorum,
        }

    def open(self) -> None:
        """Lock the log, read its state and start the thread.

        If another process writes the log, such as the worker that this one replaces, entries wait until it stops.

        Raises:
            AuditError: the log is damaged, cannot be used, or belongs to another key or origin.
        """
        try:
            self._begin()
        except LockedError:
            log.info("waiting for the audit log", extra={"fields": {"log": self.origin}})
        self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)
        self._thread.start()

    def _begin(self) -> None:
        self._storage.lock()
        try:
            unclean = self._load()
        except (AuditError, TileError, NoteError, ValueError) as error:
            self._storage.unlock()
            raise AuditError(f"cannot continue the log {self._storage.root}: {error}") from None
        data: dict[str, Any] = {"event": "start", "version": self._version, "unclean": unclean}
        if self._signed is not None:
            data["head"] = head_of(self._signed.checkpoint)
        self._queue.appendleft(_Waiting(canonical(self.entry("log", data)), "log", None))
        self._locked = True
        self._wake.set()

    def _wait_for_lock(self) -> bool:
        """Wait until this process is the only writer. False if the log cannot be used, or a stop came first."""
        while not self._locked:
            try:
                self._begin()
            except LockedError:
                if self._stopping:
                    return False
                time.sleep(_LOCK_SECONDS)
            except AuditError as error:
                log.error("the audit log cannot be used", extra={"fields": {"reason": str(error)}})  # noqa: TRY400
                self._broken = str(error)
                self._fail(self._take(), error)
                return False
        return True

    def close(self, seconds: float = 10.0) -> None:
        """Write what waits and a stop entry, and release the lock."""
        if self._thread is None:
            return
        self._put("log", {"event": "stop", "version": self._version})
        self._stopping = True
        self._wake.set()
        self._thread.join(seconds)
        if not self._thread.is_alive() and self._locked:
            self._storage.unlock()

    def entry(
        self,
        kind: str,
        data: Mapping[str, Any],
        *,
        identifier: str = "",
        subject: str = "",
        now: datetime | None = None,
    ) -> dict[str, Any]:
        """Build an entry of this log."""
        moment = timestamp(now or datetime.fromtimestamp(self._clock(), UTC))
        return envelope(kind, self.origin, identifier or new_id(), moment, data, subject)

    def submit(self, entry: Mapping[str, Any]) -> bool:
        """Queue an entry. False if the queue is full: then the loss is counted, and an entry will report it."""
        return self._enqueue(entry, None)

    async def append(self, entry: Mapping[str, Any], seconds: float) -> Receipt:
        """Queue an entry and wait until it is in a signed, sufficiently cosigned checkpoint.

        Raises:
            NotLoggedError: the queue is full, the storage failed, witnesses are missing, or the time is over.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Receipt] = loop.create_future()

        def done(result: Receipt | Exception) -> None:
            loop.call_soon_threadsafe(_settle, future, result)

        if not self._enqueue(entry, done):
            raise NotLoggedError("the queue of the audit log is full")
        self._wake.set()
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            raise NotLoggedError(f"the audit log has no checkpoint after {seconds:g} s") from None

    @property
    def full(self) -> bool:
        """Whether an entry would be lost now."""
        return len(self._queue) >= self._limit or bool(self._broken)

    def _enqueue(self, entry: Mapping[str, Any], done: Callable[[Receipt | Exception], None] | None) -> bool:
        kind = kind_of(entry)
        raw = _compact(canonical(entry))
        if len(self._queue) >= self._limit or len(raw) > MAX_ENTRY_BYTES or self._stopping or self._broken:
            self.stats.lost[kind] += 1
            return False
        self._queue.append(_Waiting(raw, kind, done))
        return True

    def _put(self, kind: str, data: Mapping[str, Any]) -> None:
        self._queue.append(_Waiting(_compact(canonical(self.entry(kind, data))), kind, None))

    # The thread.

    def _run(self) -> None:
        if not self._wait_for_lock():
            return
        while True:
            self._wake.wait(self._interval)
            self._wake.clear()
            stopping = self._stopping
            batch = self._take()
            if not batch and not stopping:
                self._publish_again()
                self._prune()
            if batch and not self._write(batch):
                time.sleep(min(_RETRY_SECONDS, self._interval))
                if not stopping:
                    continue
            if stopping and not self._queue:
                if self._unpublished:
                    self._publish_again()
                return
            if stopping and self.stats.failures:
                return

    def _take(self) -> list[_Waiting]:
        losses = self.stats.lost - self._reported
        if losses:
            self._reported = self.stats.lost.copy()
            self._put("log", {"event": "loss", "lost": dict(losses)})
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._limit:
            batch.append(self._queue.popleft())
        return batch

    def _write(self, batch: list[_Waiting]) -> bool:
        """Append a batch and publish a checkpoint. On a failure, keep the entries for another attempt."""
        tree, edge, bundle = self._tree.copy(), [list(hashes) for hashes in self._edge], list(self._bundle)
        first, obsolete = tree.size, list(self._obsolete)
        self._exposed = False
        try:
            self._integrate([item.raw for item in batch])
            self._storage.sync()
            signed = self._publish(self._sign())
        except (OSError, AuditError, NoteError) as error:
            self.stats.failures += 1
            if self._exposed:
                # The entries are in a checkpoint that others may have, and only its publication is missing.
                self.stats.entries += len(batch)
                self._fail([item for item in batch if item.done is not None], error)
            else:
                self._tree, self._edge, self._bundle, self._obsolete = tree, edge, bundle, obsolete
                self._fail(batch, error)
            return False
        self.stats.entries += len(batch)
        self._settle(batch, first, signed)
        return True

    def _fail(self, batch: list[_Waiting], error: Exception) -> None:
        reason = getattr(error, "strerror", None) or str(error)
        log.error("cannot write the audit log", extra={"fields": {"reason": reason, "entries": len(batch)}})
        remaining = []
        for item in batch:
            if item.done is not None:
                # The caller receives an error for this entry, so it must not be logged later.
                item.done(NotLoggedError(f"cannot write the audit log: {reason}"))
            else:
                remaining.append(item)
        self._queue.extendleft(reversed(remaining))

    def _settle(self, batch: list[_Waiting], first: int, signed: SignedCheckpoint) -> None:
        waiting = [(first + n, item) for n, item in enumerate(batch) if item.done is not None]
        if not waiting:
            return
        names = {signature.name for signature in signed.note.signatures} - {self.origin}
        nodes = TileNodes(self._hashes, signed.checkpoint.size)
        for index, item in waiting:
            if item.done is None:
                continue
            if len(names) < self._quorum:
                item.done(
                    NotLoggedError(
                        f"{len(names)} of {self._quorum} required witnesses cosigned the checkpoint"
                    )
                )
                continue
            hashes = tuple(inclusion_proof(nodes, index, signed.checkpoint.size))
            item.done(Receipt(index, Proof(index, hashes, signed, item.raw).render()))

    def _integrate(self, entries: list[bytes]) -> None:
        """Add entries to the tree and write all tiles that change."""
        changed: set[int] = set()
        for number, raw in enumerate(entries, 1):
            if number % _SLICE == 0 and not self._stopping:
                time.sleep(_PAUSE_SECONDS)
            if len(self._bundle) == WIDTH:
                self._bundle = []
            self._bundle.append(raw)
            leaf = leaf_hash(raw)
            self._tree.append(leaf)
            self._add(0, leaf, changed)
            if len(self._bundle) == WIDTH:
                index = self._tree.size // WIDTH - 1
                self._storage.write(Tile(None, index).path, encode_bundle(self._bundle))
                self._obsolete.append(Tile(None, index).path)
        if self._tree.size % WIDTH:
            tile = Tile(None, self._tree.size // WIDTH, self._tree.size % WIDTH)
            self._storage.write(tile.path, encode_bundle(self._bundle))
        for level in changed:
            count = self._tree.size >> (8 * level)
            if count % WIDTH:
                self._storage.write(
                    Tile(level, count // WIDTH, count % WIDTH).path, b"".join(self._edge[level])
                )

    def _add(self, level: int, value: bytes, changed: set[int]) -> None:
        if len(self._edge) <= level:
            self._edge.append([])
        if len(self._edge[level]) == WIDTH:
            self._edge[level] = []
        self._edge[level].append(value)
        changed.add(level)
        if len(self._edge[level]) == WIDTH:
            index = (self._tree.size >> (8 * (level + 1))) - 1
            tile = Tile(level, index)
            self._storage.write(tile.path, b"".join(self._edge[level]))
            self._obsolete.append(tile.path)
            self._add(level + 1, fold(self._edge[level]), changed)

    def _sign(self) -> SignedCheckpoint:
        """Sign the tree. With witnesses, store the checkpoint first: they remember what they cosigned."""
        checkpoint = Checkpoint(self.origin, self._tree.size, self._tree.root())
        if self._signed is not None and checkpoint.size < self._signed.checkpoint.size:
            raise AuditError("the log would shrink")
        signed = SignedCheckpoint(checkpoint, self._signer.sign(checkpoint.text(), int(self._clock())))
        if self._cosign is not None:
            self._storage.write(PENDING, signed.note.render().encode())
            self._storage.sync()
        return signed

    def _publish(self, signed: SignedCheckpoint) -> SignedCheckpoint:
        """Collect cosignatures and write the checkpoint."""
        if self._cosign is not None:
            self._exposed = self._unpublished = True
            signatures = self._cosign(signed, self._consistency)
            self.stats.cosignatures = len({signature.name for signature in signatures})
            note = signed.note
            signed = SignedCheckpoint(
                signed.checkpoint, type(note)(note.text, (*note.signatures, *signatures))
            )
        try:
            self._storage.write(CHECKPOINT, signed.note.render().encode())
        except UncertainError:
            self._exposed = self._unpublished = True
            raise
        self._exposed = self._unpublished = True
        self._storage.sync()
        self._unpublished = False
        self._signed = signed
        self.stats.failures = 0
        self.stats.checkpoint_time = self._clock()
        obsolete, self._obsolete = self._obsolete, []
        for path in obsolete:
            self._storage.delete_partials(path)
            if self._compress and path.startswith(f"tile/{ENTRIES}/"):
                self._storage.compress(path)
        return signed

    def _prune(self) -> None:
        """Remove whole tiles of old entries, after a signed entry has stated it. The level above keeps their hashes."""
        if not self._retention or self._clock() < self._prune_at or self.stats.failures:
            return
        self._prune_at = self._clock() + _PRUNE_SECONDS
        limit = timestamp(datetime.fromtimestamp(self._clock() - self._retention, UTC))
        number = self._pruned
        while (number + 1) * WIDTH < self._tree.size and self._newest(number) < limit:
            number += 1
        if number == self._pruned:
            return
        entry = self.entry("log", {"event": "pruned", "first": number * WIDTH, "version": self._version})
        if self._write([_Waiting(canonical(entry), "log", None)]):
            for index in range(self._pruned, number):
                for level in (None, 0):
                    self._storage.delete(Tile(level, index).path)
            self._pruned = number

    def _newest(self, number: int) -> str:
        """Return the time of the last entry of a full bundle; the empty text for one that is removed already."""
        data = self._storage.read(Tile(None, number).path)
        return str(orjson.loads(decode_bundle(data, WIDTH)[-1][1])["time"]) if data is not None else ""

    def _publish_again(self) -> None:
        """Publish the last checkpoint of an idle log again, if that failed or cosignatures are missing."""
        missing = (
            self._cosign is not None
            and self._signed is not None
            and self.stats.cosignatures < self._wanted
            and self._clock() - self._tried >= _COSIGN_SECONDS
        )
        if not missing and not self._unpublished:
            return
        self._tried = self._clock()
        try:
            self._publish(self._sign())
        except (OSError, AuditError, NoteError) as error:
            log.warning("cannot write the audit log", extra={"fields": {"reason": str(error)}})

    def _consistency(self, old: int) -> Sequence[bytes]:
        return consistency_proof(TileNodes(self._hashes, self._tree.size), old, self._tree.size)

    def _hashes(self, tile: Tile) -> Sequence[bytes]:
        level = tile.level or 0
        count = self._tree.size >> (8 * level)
        last = (count - 1) // WIDTH
        if tile.number == last and len(self._edge) > level:
            return self._edge[level]
        data = self._storage.read(tile.path)
        if data is None:
            raise AuditError(f"{tile.path} is missing")
        return split_hashes(data, tile.width)

    def _load(self) -> bool:
        """Read the state of an existing log. Return whether its last run ended without a stop entry."""
        raw = self._storage.read(CHECKPOINT)
        published = None
        if raw is not None:
            published = parse_checkpoint(raw)
            if published.checkpoint.origin != self.origin:
                raise AuditError(f"it is the log {published.checkpoint.origin}, not {self.origin}")
            published.verify(self._signer.keys)
        elif self._storage.read(Tile(0, 0).path) is not None:
            raise AuditError("the checkpoint is missing")
        pending = self._pending(published.checkpoint if published is not None else None)
        self._signed, self._unpublished = pending or published, pending is not None
        if self._signed is None:
            return False
        self._restore(self._signed.checkpoint)
        size = self._signed.checkpoint.size
        self._discard_tail(size)
        if not size:
            return False
        width = size % WIDTH or WIDTH
        data = self._storage.read(Tile(None, (size - 1) // WIDTH, width).path)
        if data is None:
            raise AuditError("the last entry bundle is missing")
        self._bundle = [entry for _, entry in decode_bundle(data, width)]
        if [leaf_hash(entry) for entry in self._bundle] != self._edge[0]:
            raise AuditError("the last entry bundle does not match its hashes")
        return b'"event":"stop"' not in self._bundle[-1]

    def _pending(self, published: Checkpoint | None) -> SignedCheckpoint | None:
        """Return a checkpoint that witnesses may have and that was not published, if the tiles are its tree."""
        raw = self._storage.read(PENDING)
        if raw is None:
            return None
        try:
            signed = parse_checkpoint(raw)
            signed.verify(self._signer.keys)
            state = signed.checkpoint
            if state.origin != self.origin or (published is not None and state.size <= published.size):
                return None
            self._restore(state)
            nodes = TileNodes(self._stored, state.size)
            continues = published is None or root_of(nodes, published.size) == published.root
        except (AuditError, TileError, NoteError, ValueError):
            return None
        return signed if continues else None

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Read the edge of the tree of a checkpoint."""
        size = checkpoint.size
        self._edge = [[] for _ in range(max(1, (size.bit_length() + 7) // 8))]
        for level in range(len(self._edge)):
            count = size >> (8 * level)
            if count:
                width = count % WIDTH or WIDTH
                self._edge[level] = self._tile(Tile(level, (count - 1) // WIDTH, width))
        self._tree = Frontier() if not size else Frontier.read(TileNodes(self._stored, size), size)
        if self._tree.root() != checkpoint.root:
            raise AuditError("the tiles do not match the checkpoint")

    def _discard_tail(self, size: int) -> None:
        """Delete the files of entries that were never signed."""
        for level in (None, *range(len(self._edge) + 1)):
            count = size >> (8 * (level or 0))
            for width in range(count % WIDTH + 1, WIDTH + 1):
                self._storage.delete(Tile(level, count // WIDTH, width).path)
            # A batch may have reached into the following tiles.
            number = count // WIDTH + 1
            while self._storage.discard(Tile(level, number).path):
                number += 1

    def _tile(self, tile: Tile) -> list[bytes]:
        data = self._storage.read(tile.path)
        if data is None:
            raise AuditError(f"{tile.path} is missing")
        return split_hashes(data, tile.width)

    def _stored(self, tile: Tile) -> Sequence[bytes]:
        return self._tile(tile)


def head_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a checkpoint as the data of a ``log`` entry."""
    return {"origin": checkpoint.origin, "size": checkpoint.size, "root": f"sha256:{checkpoint.root.hex()}"}


def _settle(future: asyncio.Future[Receipt], result: Receipt | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
