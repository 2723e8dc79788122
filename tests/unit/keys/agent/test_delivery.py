from __future__ import annotations

import mmap
import os
import time

import pytest

from webhook.cli.processes import agent
from webhook.core.injection.sidecar import KEYS_PATH, WEIGHTS_PATH
from webhook.keys.agent.delivery import Target, erase
from webhook.keys.agent.marks import LEASE, MARKER, MAX_LEASE_SECONDS, complete
from webhook.keys.errors import BadInputError
from webhook.keys.secret import Secret


@pytest.fixture
def target(tmp_path):
    directory = tmp_path / "keys" / "m"
    directory.mkdir(parents=True)
    return Target("m", directory)


def test_the_probe_looks_where_admission_mounts():
    assert f"{agent.ROOT}/keys" == KEYS_PATH
    assert f"{agent.ROOT}/weights" == WEIGHTS_PATH


def test_keys_are_private_and_replaced_whole(target):
    target.put_keys({"k1": Secret(b"a" * 32), "k2": Secret(b"b" * 32)})
    target.put_keys({"k2": Secret(b"c" * 32), "k3": Secret(b"d" * 32)})
    assert sorted(path.name for path in target.directory.iterdir()) == ["k2", "k3"]
    assert (target.directory / "k2").read_bytes() == b"c" * 32
    assert all(path.stat().st_mode & 0o777 == 0o400 for path in target.directory.iterdir())


def test_the_pods_group_may_read_where_there_is_one(target):
    target.directory.chmod(0o2770)
    target.put_keys({"k1": Secret(b"a" * 32)})
    assert (target.directory / "k1").stat().st_mode & 0o777 == 0o440


@pytest.mark.parametrize("key_id", ["../x", "a/b", "", ".hidden"])
def test_a_key_id_is_never_a_path(target, key_id):
    with pytest.raises(BadInputError):
        target.put_keys({key_id: Secret(b"a" * 32)})
    assert list(target.directory.iterdir()) == []


def ready(target, seconds=60.0, version=""):
    target.write_lease_note(time.monotonic() + seconds, version)
    target.mark()


def test_complete_is_when_every_model_is_marked_under_a_lease(tmp_path, target):
    other = Target("n", tmp_path / "weights" / "n")
    assert not complete(tmp_path / "nothing")
    assert not complete(tmp_path)
    target.write_lease_note(time.monotonic() + 60)
    assert not complete(tmp_path)
    target.mark()
    assert complete(tmp_path)
    other.directory.mkdir(parents=True)
    assert not complete(tmp_path)
    ready(other, version="v")
    assert complete(tmp_path)
    assert other.marked()
    assert other.lease_note(time.monotonic()).version == "v"
    ready(other, seconds=-1)
    assert not complete(tmp_path), "its lease has terminated, whether or not anybody noticed"
    ready(other)
    assert target.clear() == 0, "what vouches for the rest is not counted"
    assert not complete(tmp_path)
    assert not target.marked()
    assert target.lease_note(time.monotonic()) is None


@pytest.mark.parametrize("note", ["", "soon", "nan", "inf", "-inf", "1e300", "\udcff", "9" * 400])
def test_a_note_that_cannot_be_a_lease_is_none(target, note):
    target.mark()
    (target.directory / LEASE).write_bytes(note.encode(errors="surrogateescape"))
    assert target.lease_note(time.monotonic()) is None
    assert not complete(target.directory.parents[1])


def test_a_lease_of_another_clock_is_none(target):
    target.write_lease_note(1000.0 + MAX_LEASE_SECONDS)
    assert target.lease_note(1001.0) is not None
    assert target.lease_note(999.0) is None


def test_clearing_takes_everything_and_follows_no_link(tmp_path, target):
    outside = tmp_path / "precious"
    outside.write_bytes(b"precious")
    outside.chmod(0o640)
    (target.directory / "deep").mkdir()
    (target.directory / "deep" / "w.bin").write_bytes(b"w" * 100_000)
    (target.directory / "link").symlink_to(outside)
    target.put_keys({"k1": Secret(b"a" * 32)})
    (target.directory / "link").unlink(missing_ok=True)
    (target.directory / "link").symlink_to(outside)
    target.mark()
    target.clear()
    assert [path for path in target.directory.rglob("*") if not path.is_dir()] == []
    assert outside.read_bytes() == b"precious"
    assert outside.stat().st_mode & 0o777 == 0o640
    target.clear()


def test_a_reader_with_the_key_open_loses_it(tmp_path):
    path = tmp_path / "k"
    path.write_bytes(b"secret-secret-secret-secret-secret")
    path.chmod(0o400)
    descriptor = os.open(path, os.O_RDONLY)
    erase(path)
    assert os.pread(descriptor, 100, 0) == b""
    os.close(descriptor)


def test_a_file_is_overwritten_before_it_is_truncated(tmp_path, monkeypatch):
    path = tmp_path / "k"
    path.write_bytes(b"s" * 32)
    seen = []
    cut = os.ftruncate
    monkeypatch.setattr(
        os,
        "ftruncate",
        lambda fd, size: (seen.append(os.pread(os.open(path, os.O_RDONLY), 64, 0)), cut(fd, size)),
    )
    erase(path)
    assert seen == [bytes(32)]
    assert mmap.PAGESIZE


def test_the_check_command(tmp_path, target):
    import argparse

    parser = argparse.ArgumentParser()
    agent.add_parser(parser.add_subparsers())
    options = parser.parse_args(["agent", "--check", f"--root={tmp_path}"])
    assert options.run(options) == 1
    ready(target)
    assert options.run(options) == 0
    assert MARKER == ".weightlock-ready"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--broker=https://b", "--token=/t"],
        ["--broker=https://b", "--key=m:/d"],
        ["--token=/t", "--key=m:/d"],
        ["--broker=https://b", "--token=/t", "--key=m"],
        ["--broker=https://b", "--token=/t", "--plaintext=m:/d"],
        ["--broker=https://b", "--token=/t", "--key=m:"],
    ],
)
def test_arguments_that_are_not_enough(words, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    agent.add_parser(parser.add_subparsers())
    options = parser.parse_args(["agent", *words])
    assert options.run(options) == 2
    assert "give --broker, --token and at least one of" in capsys.readouterr().err
