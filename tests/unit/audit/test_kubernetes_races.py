"""Following the API server's audit log: rotations at the worst moment, links, reused inodes and huge lines."""

from __future__ import annotations

import os

import pytest

from webhook.audit import kubernetes
from webhook.audit.kubernetes import Follower, Position

ROTATED = "audit-2026-11-29T08-00-0{}.000.log"


def take(follower):
    return [int(line) for line in follower.lines()]


def append(path, *numbers):
    with path.open("ab") as stream:
        stream.write(b"".join(b"%d\n" % number for number in numbers))


def test_lines_written_between_the_last_read_and_the_rotation(tmp_path, monkeypatch):
    path = tmp_path / "audit.log"
    append(path, 1)
    follower = Follower(path)
    assert take(follower) == [1]
    real, done = os.read, []

    def read(descriptor, size):
        block = real(descriptor, size)
        if not block and not done:
            done.append(True)
            append(path, 2)
            path.rename(tmp_path / ROTATED.format(0))
            append(path, 3)
        return block

    monkeypatch.setattr(kubernetes.os, "read", read)
    assert take(follower) == [2, 3]
    assert follower.missed == 0


def test_a_rotation_between_the_search_and_the_opening(tmp_path, monkeypatch):
    path = tmp_path / "audit.log"
    append(path, 1, 2, 3)
    inode = path.stat().st_ino
    real, done = os.open, []

    def opened(name, flags):
        if not done:
            done.append(True)
            path.rename(tmp_path / ROTATED.format(0))
            append(path, 4, 5, 6)
        return real(name, flags)

    monkeypatch.setattr(kubernetes.os, "open", opened)
    follower = Follower(path, Position(inode, 2))
    assert take(follower) == [2, 3, 4, 5, 6]
    assert follower.missed == 0


def test_a_link_beside_the_log_is_not_followed(tmp_path):
    path, other = tmp_path / "audit.log", tmp_path / "shadow"
    append(other, 8, 9)
    append(path, 1)
    (tmp_path / ROTATED.format(0)).symlink_to(other)
    follower = Follower(path, Position(other.stat().st_ino, 0))
    assert take(follower) == [1]
    assert follower.missed == 1
    path.rename(tmp_path / ROTATED.format(1))
    (tmp_path / ROTATED.format(2)).symlink_to(other)
    append(path, 2)
    assert take(follower) == [2]


def test_the_log_itself_may_be_a_link(tmp_path):
    real, path = tmp_path / "real.log", tmp_path / "audit.log"
    append(real, 1)
    path.symlink_to(real)
    follower = Follower(path)
    assert take(follower) == [1]
    assert take(Follower(path, follower.position)) == []


def test_another_file_with_the_same_inode_is_read_from_its_start(tmp_path):
    path = tmp_path / "audit.log"
    append(path, 111, 222, 333)
    follower = Follower(path, Position(path.stat().st_ino, 6))
    assert take(follower) == [111, 222, 333]
    assert take(Follower(path, Position(path.stat().st_ino, 8))) == [333]


@pytest.mark.parametrize("offset", [-5, 1 << 62])
def test_an_impossible_position(tmp_path, offset):
    path = tmp_path / "audit.log"
    append(path, 1)
    assert take(Follower(path, Position(path.stat().st_ino, offset))) == [1]


def test_brackets_in_the_path(tmp_path):
    path = tmp_path / "audit[1].log"
    append(path, 1)
    follower = Follower(path)
    assert take(follower) == [1]
    append(path, 2)
    path.rename(tmp_path / "audit[1]-2026.log")
    append(path, 3)
    assert take(Follower(path, follower.position)) == [2, 3]


def test_huge_lines_are_skipped_and_counted_in_bounded_memory(tmp_path):
    path = tmp_path / "audit.log"
    with path.open("wb") as stream:
        stream.write(b"1\n" + b"x" * (5 * kubernetes.MAX_LINE_BYTES) + b"\n2\n")
    follower = Follower(path)
    assert take(follower) == [1, 2]
    assert follower.too_long == 1
    assert follower.position.offset == path.stat().st_size
    assert len(follower._rest) == 0
