"""Read the logs for detection: all entries of a finished log, or the new entries since the last time.

Entries of several logs are merged by their time, because correlations need their order.
"""

from __future__ import annotations

from collections import Counter
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from webhook.audit.errors import AuditError
from webhook.audit.kubernetes import Follower as FileFollower
from webhook.audit.storage import Directory, logs_below
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.notes import NoteError
from webhook.core.audit.tiles import CHECKPOINT, WIDTH, Tile, TileError
from webhook.core.audit.verify import entries_of
from webhook.core.detection.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from webhook.core.audit.notes import VerifierKey
    from webhook.core.detection.alert import Alert
    from webhook.core.detection.rule import RuleSet

    Item = tuple[str, str, int, dict[str, Any]]

MAX_LINE = 1024 * 1024
_CHUNK = 8 * 1024 * 1024
_END = "9999"
_TIME = itemgetter(0)


def evaluate_logs(rules: RuleSet, root: Path, audit_events: Iterable[Path] = ()) -> Iterator[Alert]:
    """Evaluate the rules on finished logs. Yield the alerts in the order of their time.

    Raises:
        AuditError: a log cannot be read.
    """
    engine = Engine(rules)
    sources = [_log(place) for place in logs_below(root)]
    sources += [_sorted(path) for path in audit_events]
    for _, origin, index, document in merge(*sources, key=_TIME):
        yield from engine.feed(document, origin, index)


def _log(place: Path) -> Iterator[Item]:
    reader = Directory(place)
    raw = reader.read(CHECKPOINT)
    if raw is None:
        return
    try:
        state = parse_checkpoint(raw).checkpoint
        yield from items_of(reader, state.origin, state.size, 0)
    except NoteError as error:
        raise AuditError(f"{place}: {error}") from None


def items_of(reader: Directory, origin: str, size: int, first: int) -> Iterator[Item]:
    """Yield the entries of a log from an index on, with their time and origin.

    Raises:
        AuditError: an entry cannot be read.
    """
    first = _first_kept(reader, size, first)
    try:
        for index, raw in entries_of(reader, size, first):
            document = orjson.loads(raw)
            yield str(document["time"]), origin, index, document
    except (TileError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise AuditError(f"log {origin}: {error}") from None


def _first_kept(reader: Directory, size: int, first: int) -> int:
    """Skip the tiles that retention removed."""
    while first < size:
        number = first // WIDTH
        if reader.read(Tile(None, number, min(WIDTH, size - number * WIDTH)).path) is not None:
            break
        first = (number + 1) * WIDTH
    return first


def _sorted(path: Path) -> Iterator[Item]:
    return iter(sorted(audit_items(path), key=_TIME))


def audit_items(path: Path) -> Iterator[Item]:
    """Yield the events of an API server audit log. Lines that are not events are skipped.

    Raises:
        AuditError: the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream):
                event = parse_event(line)
                if event is not None:
                    yield str(event.get("requestReceivedTimestamp", "")), path.name, number, event
    except OSError as error:
        raise AuditError(f"cannot read {path}: {error.strerror or error}") from None


def parse_event(line: bytes) -> dict[str, Any] | None:
    """Return one audit event without the objects that it may contain, or None."""
    if len(line) > MAX_LINE:
        return None
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(event, dict) or event.get("kind") != "Event":
        return None
    return {key: value for key, value in event.items() if key not in ("requestObject", "responseObject")}


class Follower:
    """The new entries of all logs below a directory, and of audit files, since the last read.

    ``positions`` is the next index of each log. An audit file is read from its end, because its positions are not
    stored. An entry is delivered when it is older than ``settle``, in the order of the times.
    """

    def __init__(
        self,
        root: Path,
        keys: Callable[[str], Sequence[VerifierKey]],
        audit_files: Sequence[Path] = (),
        positions: Mapping[str, int] | None = None,
    ) -> None:
        self._root, self._keys = root, keys
        self.positions: dict[str, int] = dict(positions or {})
        self._files = [_Tail(path) for path in audit_files]
        self._waiting: list[Item] = []
        self.faults: dict[str, str] = {}

    def read(self, until: str, limit: int) -> list[Item]:
        """Return entries up to a time (RFC 3339), oldest first, from at most ``limit`` new entries of each log.

        A log that cannot be read is in ``faults``, and the others continue. If a log has more entries than the limit,
        later entries of the other logs wait for it.
        """
        self.faults = {}
        waiting: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for time, origin, _, _ in self._waiting:
            waiting[origin] = max(waiting.get(origin, ""), time)
            counts[origin] += 1
        for place in logs_below(self._root):
            try:
                until = min(until, self._advance(place, limit, counts, waiting))
            except (AuditError, NoteError, OSError) as error:
                self.faults[place.relative_to(self._root).as_posix()] = str(error)[:200]
        for tail in self._files:
            try:
                self._waiting += tail.read()
            except OSError as error:
                self.faults[tail.path.name] = error.strerror or str(error)
            except AuditError as error:
                self.faults[tail.path.name] = str(error)[:200]
        self._waiting.sort(key=_TIME)
        ready = [item for item in self._waiting if item[0] <= until]
        self._waiting = self._waiting[len(ready) :]
        return ready

    def _advance(self, place: Path, limit: int, counts: Mapping[str, int], waiting: Mapping[str, str]) -> str:
        """Read the new entries of one log. Return the time up to which all of its entries are read."""
        reader = Directory(place)
        raw = reader.read(CHECKPOINT)
        if raw is None:
            return _END
        signed = parse_checkpoint(raw)
        state = signed.checkpoint
        first = self.positions.get(state.origin, 0)
        if state.size == first:
            return _END
        signed.verify(self._keys(state.origin))
        if state.size < first:
            raise AuditError(f"log {state.origin} has fewer entries than before")
        if counts.get(state.origin, 0) >= limit:
            return waiting[state.origin]
        items = list(islice(items_of(reader, state.origin, state.size, first), limit))
        if not items:
            self.positions[state.origin] = state.size
            return _END
        self._waiting += items
        self.positions[state.origin] = items[-1][2] + 1
        return _END if items[-1][2] + 1 == state.size else items[-1][0]

    def stored(self) -> dict[str, int]:
        """Return the positions to store: entries that wait are read again after a restart."""
        positions = dict(self.positions)
        for _, origin, index, _ in self._waiting:
            if origin in positions:
                positions[origin] = min(positions[origin], index)
        return positions


class _Tail:
    """The new events of an API server's audit log, from its end on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._follower: FileFollower | None = None
        self._number = 0

    def read(self) -> list[Item]:
        """Return the new events, from at most `_CHUNK` bytes of lines. Raises `OSError` and `AuditError`."""
        self.path.stat()
        if self._follower is None:
            self._follower = FileFollower.at_end(self.path)
        items: list[Item] = []
        size = 0
        for line in self._follower.lines():
            size += len(line)
            event = parse_event(line)
            if event is not None:
                self._number += 1
                time = str(event.get("requestReceivedTimestamp", ""))
                items.append((time, self.path.name, self._number, event))
            if size >= _CHUNK:
                break
        return items


def logged_alerts(root: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of alerts in the controllers' logs, so that a restart raises none of them again.

    Raises:
        AuditError: a log cannot be read.
    """
    for place in logs_below(root):
        reader = Directory(place)
        raw = reader.read(CHECKPOINT)
        if raw is None or b"/controller/" not in raw.split(b"\n", 1)[0]:
            continue
        try:
            state = parse_checkpoint(raw).checkpoint
            first = _first_kept(reader, state.size, 0)
            for _, entry in entries_of(reader, state.size, first):
                if b'"type":"dev.weightlock.detection"' in entry:
                    yield orjson.loads(entry)
        except (NoteError, TileError, orjson.JSONDecodeError) as error:
            raise AuditError(f"{place}: {error}") from None
