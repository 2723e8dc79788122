from __future__ import annotations

import errno
import os
import threading

import pytest

from webhook.keys import rawio
from webhook.keys.errors import BadInputError
from webhook.keys.rawio import (
    create_file,
    make_directory,
    no_space,
    read_at,
    replace_file,
    storage_error,
    write_at,
)


@pytest.fixture
def fd(tmp_path):
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


def test_short_writes_and_reads_are_finished(fd, monkeypatch):
    pwrite, preadv = os.pwrite, os.preadv
    monkeypatch.setattr(rawio.os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
    monkeypatch.setattr(rawio.os, "preadv", lambda fd, buffers, offset: preadv(fd, [buffers[0][:2]], offset))
    write_at(fd, b"0123456789", 5)
    buffer = memoryview(bytearray(10))
    assert read_at(fd, buffer, 5) == 10
    assert bytes(buffer) == b"0123456789"


def test_reading_past_the_end_says_how_much_there_was(fd):
    write_at(fd, b"abc", 0)
    assert read_at(fd, memoryview(bytearray(8)), 1) == 2


def test_replacing_a_file(tmp_path):
    path = tmp_path / "x"
    replace_file(path, b"one", 0o644)
    replace_file(path, b"two", 0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_failed_replacement_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "x"
    replace_file(path, b"one", 0o644)

    def full(fd, data, offset):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rawio, "write_at", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"two", 0o644)
    assert path.read_bytes() == b"one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_link_in_the_way_of_the_new_file_is_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    beside = tmp_path / f".x.{os.getpid()}.{threading.get_native_id()}.new"
    beside.symlink_to(target)
    replace_file(tmp_path / "x", b"new", 0o644)
    assert target.read_bytes() == b"precious"
    assert (tmp_path / "x").read_bytes() == b"new"
    assert not beside.is_symlink(), "it was in the way"


def test_creating_a_file_leaves_one_that_is_there(tmp_path):
    path = tmp_path / "x"
    assert create_file(path, b"one", 0o600)
    assert not create_file(path, b"two", 0o644)
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_directory_is_made_with_all_above_it(tmp_path, monkeypatch):
    synced, sync = [], rawio.sync_directory
    monkeypatch.setattr(rawio, "sync_directory", lambda path: (synced.append(path), sync(path)))
    make_directory(tmp_path / "a/b", 0o750)
    assert synced == [tmp_path, tmp_path / "a"]
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a/b")] == [0o750, 0o750]
    make_directory(tmp_path / "a/b", 0o700)
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o750, "one that was there is left as it is"
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "file/below", "link", "link/below"):
        with pytest.raises(BadInputError, match=f"{name.partition('/')[0]} is not a directory$"):
            make_directory(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_a_parent_that_may_not_be_read_does_not_stop_it(tmp_path, monkeypatch):
    def refused(_path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(rawio, "sync_directory", refused)
    make_directory(tmp_path / "a")
    assert (tmp_path / "a").is_dir()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_how_to_go_on(number):
    message = str(storage_error(OSError(number, "No space left on device"), "model.bin"))
    assert message == str(no_space("model.bin", "No space left on device"))
    assert "run the same command again" in message


def test_other_failures_name_file_and_reason():
    assert (
        str(storage_error(PermissionError(13, "Permission denied", "/x/y"), "model.bin"))
        == "/x/y: Permission denied"
    )
    assert (
        str(storage_error(OSError(5, "Input/output error"), "model.bin")) == "model.bin: Input/output error"
    )
    assert str(storage_error(OSError("odd"), "")) == "odd"
