"""Search entries by user, model, object, code and time. The index is a SQLite file that can be rebuilt at any time.

The index is not signed and decides nothing: it names entry bundles, and every match is read from the log. Another user
could hide entries by an index, or lead its file elsewhere by a link, so an index of another user is never opened.

A bundle that the index does not cover is searched for the bytes that each match contains, so a search needs no index.
For the user ``a@example.com`` these bytes are ``"a@example.com"``: only entries that contain them are parsed.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from webhook.api.entries import TYPE_PREFIX
from webhook.audit.errors import AuditError
from webhook.audit.storage import Directory, logs_below
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.entries import EntryError, kind_of, parse_entry
from webhook.core.audit.export import codes_of, user_of
from webhook.core.audit.notes import NoteError
from webhook.core.audit.tiles import CHECKPOINT, WIDTH, Tile, TileError, decode_bundle, entry_at
from webhook.core.audit.verify import read_tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    # Bytes of which an entry contains at least one. Empty if nothing is known about a match.
    Needles = tuple[bytes, ...]

_NAME = "index/search.sqlite"
# The version of the tables. An index with other tables is built again.
_VERSION = 2
# The bundles that one search adds to the index: 8,192 entries, some 0.1 s.
_ADDED = 32
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that an entry must meet; empty ones do not apply. Times are RFC 3339 UTC, ``until`` is exclusive."""

    types: frozenset[str] = frozenset()
    user: str = ""
    model: str = ""
    target: str = ""
    code: str = ""
    since: str = ""
    until: str = ""

    def matches(self, document: dict[str, Any]) -> bool:
        """Return whether an entry meets all conditions."""
        if self.types and kind_of(document) not in self.types:
            return False
        time = document["time"]
        if (self.since and time < self.since) or (self.until and time >= self.until):
            return False
        return self.terms() <= set(terms(document))

    def terms(self) -> set[tuple[str, str]]:
        """Return the (field, value) pairs that an entry must have."""
        return {
            (field, value) for field in ("user", "model", "target", "code") if (value := getattr(self, field))
        }


def terms(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the searchable (field, value) pairs of an entry."""
    data = document["data"]
    for name in (user_of(document), *data.get("approvers", ())):
        yield "user", str(name)
    if isinstance(data.get("subject"), dict):
        yield "user", str(data["subject"].get("name", ""))
    yield "model", str(data["name"] if kind_of(document) == "model" else data.get("model", ""))
    for code in codes_of(document):
        yield "code", code
    target = data["pod"] if isinstance(data.get("pod"), dict) else data
    yield (
        "target",
        "/".join(part for part in (str(target.get(key, "")) for key in ("namespace", "name")) if part),
    )


def search(
    root: Path, conditions: Filter, *, complete: bool = False
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield the matching entries of all logs below ``root``, log by log.

    ``complete`` completes the index first.

    Raises:
        AuditError: there is no log, or it cannot be read.
    """
    try:
        needles = _needles(conditions)
    except orjson.JSONEncodeError:
        # A condition is not Unicode text, and every entry is.
        return
    for place in logs_below(root):
        reader = Directory(place)
        raw = reader.read(CHECKPOINT)
        if raw is None:
            raise AuditError(f"{place} has no checkpoint")
        try:
            state = parse_checkpoint(raw).checkpoint
            for number, bundle, count in _bundles(place, reader, state.size, conditions, complete=complete):
                for position, entry in _entries_with(bundle, count, needles):
                    document = parse_entry(entry)
                    if conditions.matches(document):
                        yield state.origin, number * WIDTH + position, document
        except (NoteError, TileError, EntryError, KeyError, TypeError, AttributeError) as error:
            raise AuditError(f"{place}: {error}") from None


def _needles(conditions: Filter) -> list[Needles]:
    """Return what the bytes of a match contain. Each term is one text, or the end of one text, of an entry."""
    user, target = conditions.user, conditions.target
    groups = [
        (user, user.rpartition(":")[2]) if user.startswith(_SERVICE_ACCOUNT) else (user,),
        (conditions.model,),
        (conditions.code,),
        # NAMESPACE/NAME is two texts.
        (target, *(target.split("/", number)[-1] for number in range(1, target.count("/") + 1))),
        tuple(f"{TYPE_PREFIX}{kind}" for kind in conditions.types),
    ]
    return [tuple(map(orjson.dumps, group)) for group in groups if group and all(group)]


def _entries_with(bundle: bytes, count: int, needles: list[Needles]) -> Iterator[tuple[int, bytes]]:
    """Yield the position and the bytes of each entry of a bundle that contains one needle of each group."""
    if not needles:
        for position, (_, entry) in enumerate(decode_bundle(bundle, count)):
            yield position, entry
        return
    first, *others = needles
    position = offset = 0
    while (place := _find(bundle, first, offset)) >= 0:
        position, offset, stop = entry_at(bundle, place, position, offset)
        entry = bundle[offset + 2 : stop]
        if all(any(needle in entry for needle in group) for group in others):
            yield position, entry
        position, offset = position + 1, stop


def _find(data: bytes, needles: Needles, start: int) -> int:
    places = [place for needle in needles if (place := data.find(needle, start)) >= 0]
    return min(places, default=-1)


def _bundles(
    place: Path, reader: Directory, size: int, conditions: Filter, *, complete: bool
) -> Iterator[tuple[int, bytes, int]]:
    """Yield the bundles that may contain matches: number, bytes and the count of entries."""
    first: int | None = None
    for number in _candidates(place, reader, size, conditions, complete=complete):
        data, path, count = read_tile(reader, _bundle(size, number))
        if data:
            yield number, data, count
            continue
        if first is None:
            first = _first_bundle(reader, size)
        if number >= first:
            raise TileError(f"{path} is missing" if data is None else f"{path} is empty or no regular file")


def _bundle(size: int, number: int) -> Tile:
    return Tile(None, number, min(WIDTH, size - number * WIDTH))


def _first_bundle(reader: Directory, size: int) -> int:
    """Return the number of the first bundle that retention has not removed."""
    count = (size + WIDTH - 1) // WIDTH
    return next((n for n in range(count) if read_tile(reader, _bundle(size, n))[0] is not None), count)


def _candidates(
    place: Path, reader: Directory, size: int, conditions: Filter, *, complete: bool
) -> Iterable[int]:
    """Return the numbers of the bundles that may contain matches, in order. Without an index, all of them."""
    count = (size + WIDTH - 1) // WIDTH
    path = _own(place / _NAME)
    if path is None:
        return range(count)
    try:
        with closing(_open(path, size)) as connection:
            covered = _extend(connection, reader, size)
            while complete and covered < size // WIDTH:
                covered = _extend(connection, reader, size)
            return [*_covered(connection, conditions), *range(covered, count)]
    except sqlite3.Error as error:
        if not isinstance(error, sqlite3.OperationalError):
            # The file is damaged, so the next search builds it again.
            _remove(path)
        return range(count)


def _covered(connection: sqlite3.Connection, conditions: Filter) -> list[int]:
    """Return the numbers of the covered bundles that may contain matches."""
    query = "SELECT number FROM bundle WHERE last >= ? AND (? = '' OR first < ?)"
    values = [conditions.since, conditions.until, conditions.until]
    for pair in conditions.terms():
        query += " INTERSECT SELECT bundle FROM term WHERE field = ? AND value = ?"
        values += pair
    return [int(number) for (number,) in connection.execute(f"{query} ORDER BY 1", values)]


def _own(path: Path) -> Path | None:
    """Return the path if its directories and files belong to this user, and no link leads elsewhere."""
    folder = path.parent
    files = [path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-shm", "-journal")]
    try:
        if folder.parent.stat().st_uid != os.geteuid() or not os.access(folder.parent, os.W_OK):
            return None
        with suppress(FileExistsError):
            folder.mkdir(mode=0o755)
        owned = _is_own(folder, stat.S_ISDIR) and all(
            _is_own(each, stat.S_ISREG) for each in files if os.path.lexists(each)
        )
    except OSError:
        return None
    return path if owned else None


def _is_own(path: Path, kind: Callable[[int], bool]) -> bool:
    about = os.lstat(path)
    others = stat.S_IWGRP | stat.S_IWOTH
    return kind(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & others


def _open(path: Path, size: int) -> sqlite3.Connection:
    """Open the index of a log. An index with other tables, or of a longer log, is built again.

    Raises:
        sqlite3.Error: the file is damaged or cannot be written.
    """
    connection = _connect(path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != _VERSION or _next(connection) > size // WIDTH:
        connection.close()
        _remove(path)
        connection = _connect(path)
    with connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS bundle (number INTEGER PRIMARY KEY, first TEXT NOT NULL, last TEXT NOT NULL)"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS term (field TEXT, value TEXT, bundle INTEGER,"
            " PRIMARY KEY (field, value, bundle)) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30)
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;")
    return connection


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(f"{path.name}{suffix}").unlink(missing_ok=True)


def _next(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(number) + 1, 0) FROM bundle").fetchone()[0])


def _extend(connection: sqlite3.Connection, reader: Directory, size: int) -> int:
    """Add the next full bundles to the index. Return the number of the first bundle that it does not cover."""
    number, full = _next(connection), size // WIDTH
    if number == 0 and full:
        number = _first_bundle(reader, size)
    bundles: list[tuple[int, str, str]] = []
    rows: set[tuple[str, str, int]] = set()
    end = min(full, number + _ADDED)
    for each in range(number, end):
        data, path, count = read_tile(reader, _bundle(size, each))
        if data is None:
            raise TileError(f"{path} is missing")
        documents = [orjson.loads(raw) for _, raw in decode_bundle(data, count)]
        times = [document["time"] for document in documents]
        bundles.append((each, min(times), max(times)))
        rows |= {(*term, each) for document in documents for term in terms(document) if term[1]}
    if bundles:
        with connection:
            connection.executemany("INSERT OR IGNORE INTO bundle VALUES (?, ?, ?)", bundles)
            connection.executemany("INSERT OR IGNORE INTO term VALUES (?, ?, ?)", sorted(rows))
    return end
