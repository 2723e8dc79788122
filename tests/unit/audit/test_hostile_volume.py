"""The owner of the volume puts links, FIFOs and bombs among the files: no command waits for them or follows them."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import zlib
from contextlib import contextmanager

import orjson
import pytest
from harness.waiting import slowness

from tests.unit.audit.conftest import write
from webhook.audit import search as searching
from webhook.audit.errors import AuditError
from webhook.audit.search import Filter, search
from webhook.audit.storage import Directory
from webhook.cli.main import main

PERIOD = ["--from", "2020-01-01", "--to", "2040-01-01"]
COMMANDS = {
    "verify": ["audit", "verify"],
    "search": ["audit", "search", "--user", "user-2"],
    "tail": ["audit", "tail"],
    "export": ["audit", "export"],
    "prove": ["audit", "prove"],
    "run": ["detections", "run"],
    "evidence": ["evidence", *PERIOD, "--log"],
}
BOMB_MIB = 64


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    place = tmp_path_factory.mktemp("logs") / "webhook" / "a"
    signer = write(place, 300)
    (place / "keys.txt").write_text("".join(f"{key.render()}\n" for key in signer.keys))
    return place


@pytest.fixture
def place(original, tmp_path):
    """A copy of the log that a test changes."""
    shutil.copytree(original.parents[1], tmp_path / "logs")
    return tmp_path / "logs" / "webhook" / "a"


@contextmanager
def no_wait(seconds=20):
    """Raise `TimeoutError` if the context does not end."""

    def late(*_):
        raise TimeoutError("the command waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds * slowness())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fifo(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def directory(path):
    path.unlink()
    path.mkdir()


def link(path):
    """Move a file or directory out of the log, and leave a link to it."""
    elsewhere = path.parents[[each.name for each in path.parents].index("logs")].with_name("elsewhere")
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def huge(path):
    with path.open("r+b") as stream:
        stream.truncate(1 << 40)


def bomb(path):
    engine = zlib.compressobj(9, wbits=31)
    packed = b"".join(engine.compress(bytes(1 << 20)) for _ in range(BOMB_MIB)) + engine.flush()
    path.with_name(f"{path.name}.gz").write_bytes(packed)
    path.unlink()


FILES = (
    "checkpoint",
    "keys.txt",
    "tile/entries/000",
    "tile/0/000",
    "tile/entries/001.p/46",
    "tile/1/000.p/1",
)
CHANGES = {
    f"{change.__name__} at {path}": (change, path)
    for change in (fifo, directory, link, huge)
    for path in FILES
}
CHANGES |= {"a linked directory": (link, "tile"), "a compressed bomb": (bomb, "tile/entries/000")}


@pytest.mark.parametrize("name", CHANGES)
def test_the_verification_finds_it_and_no_command_waits(place, name, capsys):
    change, path = CHANGES[name]
    change(place / path)
    root = str(place.parents[1])
    with no_wait():
        codes = {
            verb: main([*command, root, *(["5"] if verb == "prove" else [])])
            for verb, command in COMMANDS.items()
        }
    output = capsys.readouterr()
    # Without keys, no signature is valid, and a file of other content is bad input.
    assert codes["verify"] == (2 if name == "huge at keys.txt" else 1), output
    assert set(codes.values()) <= {0, 1, 2}
    assert "Traceback" not in output.out + output.err


def test_names_of_files_cannot_control_a_terminal(place, capsys):
    """A name can contain escape sequences, ends of lines and bytes that are not UTF-8."""
    evil = "\x1b[2J\nwebhook: WHOLE"
    (place / evil).touch()
    os.close(os.open(os.fsencode(place) + b"/\xff\xfe", os.O_CREAT, 0o600))
    other = place.with_name(evil)
    shutil.copytree(place, other)
    (other / "checkpoint").write_bytes(b"x")
    root = str(place.parents[1])
    assert main(["audit", "verify", root]) == 1
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert text.isascii()
    assert not any(line.startswith("webhook:") for line in text.splitlines())
    assert main(["audit", "verify", root, "-o", "json"]) == 1
    assert len(orjson.loads(capsys.readouterr().out)) == 2
    assert main(["audit", "search", root]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_foreign_files_are_counted(place, capsys):
    """A million names do not fill the output."""
    for number in range(300):
        (place / "tile" / f"extra-{number}").touch()
    (place / "loop").symlink_to(place)
    assert main(["audit", "verify", str(place), "-o", "json"]) == 0
    (result,) = orjson.loads(capsys.readouterr().out)
    assert "201 more files are not part of the log" in result["notes"]
    assert len(result["notes"]) < 110


def count(place):
    return sum(1 for _ in search(place, Filter(user="user-2")))


def test_an_index_of_another_user_hides_nothing(place, monkeypatch):
    """The index names entries, so its writer could leave some out."""
    assert count(place) == 60
    with sqlite3.connect(place / "index" / "search.sqlite") as connection:
        connection.execute("DELETE FROM term")
    # Only the entries of the last, partial bundle are left.
    assert 0 < count(place) < 60
    monkeypatch.setattr(searching.os, "geteuid", lambda: 4_711)
    assert count(place) == 60
    monkeypatch.undo()
    (place / "index").chmod(0o777)
    assert count(place) == 60


@pytest.mark.parametrize("name", ["index", "index/search.sqlite", "index/search.sqlite-wal"])
def test_an_index_writes_through_no_link(place, name, tmp_path):
    victim = tmp_path / "victim"
    (place / name).parent.mkdir(exist_ok=True)
    if name == "index":
        victim.mkdir()
    (place / name).symlink_to(victim)
    assert count(place) == 60
    assert not victim.is_file()
    assert not victim.is_dir() or not list(victim.iterdir())


def test_a_missing_permission_is_not_reported_as_tampering(place, monkeypatch):
    """An auditor without the right to read gets an error, and no verdict about the log."""

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("webhook.audit.storage.os.open", denied)
    with pytest.raises(AuditError, match="Permission denied"):
        Directory(place).read("checkpoint")
