"""Search: the same matches with and without an index, with part of one, and after retention."""

from __future__ import annotations

import itertools
import os
import sqlite3

import orjson
import pytest

from tests.unit.audit.conftest import KEY, Clock, write
from webhook.audit import search as searching
from webhook.audit.errors import AuditError
from webhook.audit.keys import signer_of
from webhook.audit.search import Filter, search
from webhook.audit.storage import Directory
from webhook.audit.writer import LogWriter
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.entries import parse_entry
from webhook.core.audit.tiles import TileError, encode_bundle, entry_at
from webhook.core.audit.verify import entries_of

NAMES = [
    "a",
    "user-1",
    "user-17",
    'quo"te',
    "bücher@example.com",
    "back\\slash",
    "system:serviceaccount:ns:sa",
]
DATA = [
    *({"user": {"username": name}, "namespace": "ns", "name": f"pod-{n}"} for n, name in enumerate(NAMES)),
    {"pod": {"namespace": "ns", "name": "a/b", "serviceAccount": "sa"}, "model": "user-1", "code": "WL101"},
    {"pod": {"name": "ns/pod-1"}, "model": "atlas"},
    {"requester": {"username": "user-1"}, "approvers": ["user-17", 'quo"te'], "codes": ["WL101", "WL7"]},
    {"subject": {"kind": "ServiceAccount", "name": "a"}, "name": "user-1"},
]
CONDITIONS = [
    *({"user": name} for name in [*NAMES, "absent", "system:serviceaccount:", "user"]),
    *({"target": name} for name in ["ns/pod-1", "ns/a/b", "user-1", "ns", "a/", "/"]),
    *({"model": name} for name in ["user-1", "atlas", "at"]),
    {"code": "WL101"},
    {"code": "WL101", "user": "user-17"},
    {"types": frozenset({"release"})},
    {"types": frozenset({"release", "grant"}), "user": "user-1"},
    {},
]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A log of four bundles, the last one partial, with every shape of entry."""
    place = tmp_path_factory.mktemp("log")
    writer = LogWriter(
        Directory(place, fsync=False),
        signer_of(KEY, "cluster/webhook/a", ""),
        limit=10_000,
        interval=0.01,
        clock=Clock(),
    )
    writer.open()
    kinds = itertools.cycle(["verdict", "release", "grant"])
    for number, data in enumerate(itertools.islice(itertools.cycle(DATA), 900)):
        assert writer.submit(writer.entry(next(kinds), data, identifier=str(number)))
    writer.close()
    return place


@pytest.fixture
def place(original, tmp_path):
    """A copy without an index."""
    for path in Directory(original).paths():
        if not path.startswith("index/"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(Directory(original).read(path))
    return tmp_path


def entries(place):
    size = parse_checkpoint(Directory(place).read("checkpoint")).checkpoint.size
    return [(index, parse_entry(raw)) for index, raw in entries_of(Directory(place), size)]


def indexes(place, **conditions):
    return [index for _, index, _ in search(place, Filter(**conditions))]


def covered(place):
    with sqlite3.connect(place / "index" / "search.sqlite") as connection:
        return connection.execute("SELECT count(*) FROM bundle").fetchone()[0]


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_an_index_changes_no_result(place, conditions, monkeypatch):
    """The matches are those of a comparison with each entry: without an index, and while it grows."""
    expected = [index for index, document in entries(place) if Filter(**conditions).matches(document)]
    monkeypatch.setattr(searching, "_ADDED", 1)
    for count in (1, 2, 3, 3):
        assert indexes(place, **conditions) == expected
        assert covered(place) == count
    monkeypatch.setattr(searching, "_own", lambda _: None)
    assert indexes(place, **conditions) == expected


def test_the_whole_index_on_request(place, monkeypatch):
    monkeypatch.setattr(searching, "_ADDED", 1)
    expected = indexes(place, user="user-1")
    matches = search(place, Filter(user="user-1"), complete=True)
    assert [index for _, index, _ in matches] == expected
    assert covered(place) == 3


def test_a_time_range_crosses_bundles(place):
    times = {index: document["time"] for index, document in entries(place)}
    for _ in range(2):
        assert indexes(place, since=times[250], until=times[600]) == list(range(250, 600))
        assert indexes(place, since=times[880]) == list(range(880, 902))
        assert indexes(place, until=times[3], user="a") == [1]


def test_entries_that_cannot_match_are_not_parsed(place, monkeypatch):
    """A search parses the matches and the entries that contain the same text elsewhere."""
    monkeypatch.setattr(searching, "_ADDED", 0)
    count = 0

    def counting(raw):
        nonlocal count
        count += 1
        return parse_entry(raw)

    monkeypatch.setattr(searching, "parse_entry", counting)
    matches = indexes(place, user="user-17")
    assert len(matches) == count
    assert indexes(place, user="absent") == []
    assert len(matches) == count


def test_a_condition_that_is_not_text_has_no_match(place):
    """An argument of a command may contain bytes that are not UTF-8."""
    assert indexes(place, user=os.fsdecode(b"user-\xff")) == []


def test_removed_bundles_are_skipped(place):
    """Retention removes the first bundles, also those in the index. Another missing bundle is an error."""
    expected = indexes(place, user="user-1")
    later = [index for index in expected if index >= 512]
    assert later != expected
    content = (place / "tile/entries/000").read_bytes()
    for number in (0, 1):
        (place / f"tile/entries/{number:03d}").unlink()
    assert indexes(place, user="user-1") == later
    searching._remove(place / "index" / "search.sqlite")
    assert indexes(place, user="user-1") == later
    searching._remove(place / "index" / "search.sqlite")
    (place / "tile/entries/000").write_bytes(content)
    with pytest.raises(AuditError, match="001 is missing"):
        indexes(place, user="user-1")


@pytest.mark.parametrize("change", [b"not a database", b"SQLite format 3\0" + bytes(4096), None])
def test_an_index_that_is_damaged_or_old_is_built_again(place, change):
    """A damaged file, and the tables of another version, change no result."""
    expected = indexes(place, user="user-1")
    path = place / "index" / "search.sqlite"
    if change is None:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 1")
            connection.execute("DELETE FROM term")
    else:
        searching._remove(path)
        path.write_bytes(change)
    for _ in range(2):
        assert indexes(place, user="user-1") == expected
    assert covered(place) == 3


def test_an_index_of_a_longer_log_is_built_again(place, tmp_path):
    assert indexes(place, user="user-1")
    other = tmp_path / "other"
    write(other, 300)
    (other / "index").mkdir(exist_ok=True)
    (place / "index" / "search.sqlite").rename(other / "index" / "search.sqlite")
    assert len(indexes(other, user="user-2")) == 60
    assert covered(other) == 1


def test_a_directory_without_space_needs_no_index(place, monkeypatch):
    """A search whose index cannot be written reads every bundle."""
    expected = indexes(place, user="user-1")

    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(searching, "_extend", full)
    assert indexes(place, user="user-1") == expected


def test_an_empty_bundle_beyond_the_index_is_an_error(place, monkeypatch):
    monkeypatch.setattr(searching, "_ADDED", 1)
    (place / "tile/entries/002").write_bytes(b"")
    with pytest.raises(AuditError, match="002 is empty"):
        indexes(place, user="absent")


def test_malformed_bundles_are_errors(place):
    """Lengths that lead beyond the bundle, and entries of another form, never end a search without a report."""
    path = place / "tile/entries/001"
    original = path.read_bytes()
    documents = [b"[]", b'{"data":1,"x":"user-1"}', orjson.dumps({"data": {}, "user": "user-1"})]
    for content in (
        original[:-7],
        b"",
        b"\0",
        b"\xff\xff" + original[2:],
        *(encode_bundle([d] * 256) for d in documents),
    ):
        path.write_bytes(content)
        with pytest.raises(AuditError):
            indexes(place, user="user-1")


def test_entry_at():
    """The entry of a byte, from any entry before it. The two bytes of a length belong to their entry."""
    bundle = encode_bundle([b"", b"abc", b"d" * 300])
    places = {0: (0, 0, 2), 1: (0, 0, 2), 2: (1, 2, 7), 6: (1, 2, 7), 7: (2, 7, 309), 308: (2, 7, 309)}
    for place, expected in places.items():
        assert entry_at(bundle, place) == expected
    assert entry_at(bundle, 308, 1, 2) == (2, 7, 309)
    for data, place in ((bundle[:-1], 307), (bundle, 309), (b"", 0), (b"\0", 0)):
        with pytest.raises(TileError):
            entry_at(data, place)
