"""Search entries by user, model, object, code and time. The index is a SQLite file that can be rebuilt at any time.

The index is not signed and decides nothing: it names entries, and every match is read from the log. Another user could
hide entries by an index, or lead its file elsewhere by a link, so an index of another user is never opened.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from webhook.audit.errors import AuditError
from webhook.audit.storage import Directory, logs_below
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.entries import kind_of
from webhook.core.audit.export import codes_of, user_of
from webhook.core.audit.notes import NoteError
from webhook.core.audit.tiles import CHECKPOINT, WIDTH, Tile, TileError, entry_in
from webhook.core.audit.verify import entries_of, read_tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_NAME = "index/search.sqlite"
_BATCH = 50_000


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
        conditions = {
            ("user", self.user),
            ("model", self.model),
            ("target", self.target),
            ("code", self.code),
        }
        return {(key, value) for key, value in conditions if value} <= set(terms(document))


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


def search(root: Path, conditions: Filter) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield the matching entries of all logs below ``root``, log by log.

    Raises:
        AuditError: there is no log, or it cannot be read.
    """
    for place in logs_below(root):
        reader = Directory(place)
        raw = reader.read(CHECKPOINT)
        if raw is None:
            raise AuditError(f"{place} has no checkpoint")
        try:
            state = parse_checkpoint(raw).checkpoint
            number, bundle = -1, b""
            for index in _candidates(place, reader, state.size, conditions):
                if index // WIDTH != number:
                    number = index // WIDTH
                    bundle = _bundle(reader, state.size, number)
                document = orjson.loads(entry_in(bundle, index % WIDTH))
                if conditions.matches(document):
                    yield state.origin, index, document
        except (NoteError, TileError, orjson.JSONDecodeError, KeyError) as error:
            raise AuditError(f"{place}: {error}") from None


def _candidates(place: Path, reader: Directory, size: int, conditions: Filter) -> Iterator[int]:
    keys = [
        (name, value)
        for name, value in (
            ("user", conditions.user),
            ("model", conditions.model),
            ("target", conditions.target),
            ("code", conditions.code),
        )
        if value
    ]
    with_index = open_index(place, reader, size)
    try:
        if keys:
            queries = " INTERSECT ".join("SELECT entry FROM term WHERE field = ? AND value = ?" for _ in keys)
            rows = with_index.execute(f"{queries} ORDER BY entry", [part for key in keys for part in key])
        else:
            rows = with_index.execute(
                "SELECT entry FROM entry WHERE time >= ? AND (? = '' OR time < ?) ORDER BY entry",
                (conditions.since, conditions.until, conditions.until),
            )
        for (index,) in rows.fetchall():
            yield int(index)
    finally:
        with_index.close()


def _bundle(reader: Directory, size: int, number: int) -> bytes:
    data, path, _ = read_tile(reader, Tile(None, number, min(WIDTH, size - number * WIDTH)))
    if data is None:
        raise TileError(f"{path} is missing")
    return data


def open_index(place: Path, reader: Directory, size: int) -> sqlite3.Connection:
    """Open the index of a log and bring it up to date. A damaged index is built again.

    The index of a log that is read-only or belongs to another user is in a temporary file.
    """
    path = _own(place / _NAME)
    if path is None:
        return _temporary(reader, size)
    try:
        connection = _connect(path)
        next_entry = connection.execute("SELECT coalesce(max(entry) + 1, 0) FROM entry").fetchone()[0]
    except sqlite3.DatabaseError:
        path.unlink(missing_ok=True)
        connection = _connect(path)
        next_entry = 0
    if next_entry > size:
        connection.close()
        path.unlink(missing_ok=True)
        connection, next_entry = _connect(path), 0
    _fill(connection, reader, size, next_entry)
    return connection


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


def _temporary(reader: Directory, size: int) -> sqlite3.Connection:
    """Build an index in a temporary file without a name, which SQLite deletes."""
    connection = _connect("")
    _fill(connection, reader, size, 0)
    return connection


def _connect(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30)
    connection.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"
        "CREATE TABLE IF NOT EXISTS entry (entry INTEGER PRIMARY KEY, time TEXT NOT NULL);"
        "CREATE TABLE IF NOT EXISTS term (field TEXT, value TEXT, entry INTEGER, PRIMARY KEY (field, value, entry))"
        " WITHOUT ROWID;"
    )
    return connection


def _fill(connection: sqlite3.Connection, reader: Directory, size: int, next_entry: int) -> None:
    if next_entry >= size:
        return
    rows: list[tuple[int, str]] = []
    keys: list[tuple[str, str, int]] = []
    first = next_entry
    while (
        first < size
        and reader.read(Tile(None, first // WIDTH, min(WIDTH, size - first // WIDTH * WIDTH)).path) is None
    ):
        # Removed by retention.
        first = (first // WIDTH + 1) * WIDTH
    for index, raw in entries_of(reader, size, first):
        document = orjson.loads(raw)
        rows.append((index, document["time"]))
        keys.extend((name, value, index) for name, value in set(terms(document)) if value)
        if len(rows) >= _BATCH:
            _insert(connection, rows, keys)
            rows, keys = [], []
    _insert(connection, rows, keys)


def _insert(
    connection: sqlite3.Connection, rows: list[tuple[int, str]], keys: list[tuple[str, str, int]]
) -> None:
    with connection:
        connection.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?)", rows)
        connection.executemany("INSERT OR IGNORE INTO term VALUES (?, ?, ?)", keys)
