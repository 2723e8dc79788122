"""Read the logs for detection: all entries of a finished log, or the new entries since the last time.

Entries of several logs are merged by their time, because correlations need their order.
"""

from __future__ import annotations

from heapq import merge
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

from webhook.audit.errors import AuditError
from webhook.audit.storage import Directory, logs_below
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.notes import NoteError
from webhook.core.audit.tiles import CHECKPOINT, WIDTH, Tile, TileError
from webhook.core.audit.verify import entries_of
from webhook.core.detection.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from webhook.core.detection.alert import Alert
    from webhook.core.detection.rule import RuleSet

    Item = tuple[str, str, int, dict[str, Any]]

MAX_LINE = 1024 * 1024
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
