"""Following the API server's audit log: rotations, restarts, truncation, and lines without an end."""

from __future__ import annotations

import orjson

from webhook.audit import kubernetes
from webhook.audit.kubernetes import Follower, Position, load_position, store_position


def take(follower):
    return [int(line) for line in follower.lines()]


def append(path, *numbers):
    with path.open("ab") as stream:
        stream.write(b"".join(b"%d\n" % number for number in numbers))


def test_lines_come_when_they_are_complete(tmp_path):
    path = tmp_path / "audit.log"
    follower = Follower(path)
    assert take(follower) == []
    append(path, 1, 2)
    assert take(follower) == [1, 2]
    with path.open("ab") as stream:
        stream.write(b"3")
    assert take(follower) == []
    append(path, 4)
    assert take(follower) == [34]


def test_a_reader_that_stops_continues_with_the_next_line(tmp_path):
    path = tmp_path / "audit.log"
    append(path, *range(50))
    follower = Follower(path)
    read = [next(follower.lines()) for _ in range(30)]
    assert [*map(int, read), *take(Follower(path, follower.position))] == list(range(50))
    assert [*map(int, read), *take(follower)] == list(range(50))


def test_from_its_end_on_an_unfinished_line_comes_whole(tmp_path):
    path = tmp_path / "audit.log"
    append(path, 1, 2)
    assert take(Follower.at_end(path)) == []
    with path.open("ab") as stream:
        stream.write(b"3")
    follower = Follower.at_end(path)
    append(path, 4, 5)
    assert take(follower) == [34, 5]


def test_it_follows_several_rotations(tmp_path):
    """The API server renames a full file, perhaps more than once between two looks."""
    path = tmp_path / "audit.log"
    append(path, 1)
    follower = Follower(path)
    assert take(follower) == [1]
    append(path, 2)
    path.rename(tmp_path / "audit-2026-11-29T08-00-00.000.log")
    append(path, 3)
    path.rename(tmp_path / "audit-2026-11-29T08-00-01.000.log")
    append(path, 4)
    assert take(follower) == [2, 3, 4]
    assert follower.missed == 0


def test_it_continues_after_a_restart_in_a_rotated_file(tmp_path):
    path, state = tmp_path / "audit.log", tmp_path / "index" / "kubernetes.json"
    append(path, 1, 2)
    follower = Follower(path)
    lines = follower.lines()
    assert next(lines) == b"1"
    store_position(state, follower.position)
    follower.close()
    path.rename(tmp_path / "audit-2026-11-29T08-00-00.000.log")
    append(path, 3)
    assert take(Follower(path, load_position(state))) == [2, 3]


def test_a_file_that_is_gone_is_counted(tmp_path):
    path = tmp_path / "audit.log"
    append(path, 5)
    follower = Follower(path, Position(1, 100))
    assert take(follower) == [5]
    assert follower.missed == 1


def test_a_file_that_is_truncated_in_place_is_read_from_its_start(tmp_path):
    path = tmp_path / "audit.log"
    append(path, 100, 200)
    follower = Follower(path)
    assert take(follower) == [100, 200]
    path.write_bytes(b"7\n")
    assert take(follower) == [7]


def test_a_line_without_an_end_costs_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(kubernetes, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(kubernetes, "_BLOCK", 100)
    path = tmp_path / "audit.log"
    path.write_bytes(b"1\n" + b"9" * 10_000 + b"\n2\n")
    follower = Follower(path)
    assert take(follower) == [1, 2]
    assert follower.too_long == 1
    assert follower.position.offset == path.stat().st_size


def test_a_corrupt_position_is_ignored(tmp_path):
    state = tmp_path / "state.json"
    assert load_position(state) is None
    for text in (b"", b"[]", b"{}", orjson.dumps({"inode": "x", "offset": 1})):
        state.write_bytes(text)
        assert load_position(state) is None
