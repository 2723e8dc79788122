"""Attacks of a user who can write the storage during a run, and the files on disk after a run."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from sealedfiles import partial_path

from webhook.keys import rawio
from webhook.keys.errors import BadInputError
from webhook.keys.sealed import operations
from webhook.keys.sealed.files import PlainSource
from webhook.keys.sealed.format.paths import JOURNAL_NAME
from webhook.keys.sealed.format.streaming import HEADER_SIZE
from webhook.keys.sealed.unsealing import verify

SEAL = "operations.seal(Path({tree!r}), Path({out!r}), service, 'atlas-70b', 'k1', work, update=True)"
THREE = "shards/deep/three.bin"


def header_of(path):
    return path.read_bytes()[:HEADER_SIZE]


def sound(directory, service, work):
    with operations.open_sealed(directory, service) as sealed:
        return verify(sealed, work.jobs, work.progress) == []


@pytest.fixture
def cut(tree, sealed, crash):
    """An update that was cut short in the middle of its one changed file; gives that file's place."""
    changed = bytearray((tree / THREE).read_bytes())
    changed[0] ^= 1
    (tree / THREE).write_bytes(changed)
    compared = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    crash(SEAL.format(tree=str(tree), out=str(sealed)), compared + (2 << 20))
    final = sealed / f"{THREE}.2.sealed"
    assert partial_path(final).exists()
    return final


def headers(directory):
    return {header_of(path) for path in directory.rglob("*.sealed")}


def test_a_partial_file_is_resumed_under_its_header(cut, tree, sealed, service, work):
    header = header_of(partial_path(cut))
    operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    assert header_of(cut) == header
    assert sound(sealed, service, work)


@pytest.mark.parametrize("rest", [b"", None], ids=["header only", "header before our segments"])
def test_a_planted_header_encrypts_nothing(cut, tree, sealed, service, work, rest):
    """The older generation's header, with the same key and path, would repeat its nonces."""
    old, partial = header_of(sealed / f"{THREE}.sealed"), partial_path(cut)
    partial.write_bytes(old + (partial.read_bytes()[HEADER_SIZE:] if rest is None else rest))
    operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    assert header_of(cut) != old
    assert sound(sealed, service, work)


@pytest.mark.parametrize("journal", ["kept", "cut to its head", "removed"])
@pytest.mark.parametrize("partial", ["kept", "cut to its header", "removed"])
def test_a_changed_source_has_a_new_header_despite_equal_times(
    cut, tree, sealed, service, work, partial, journal
):
    """The times of a file that is written through a mapping need not change: they are restored here."""
    began = header_of(partial_path(cut))
    status = (tree / THREE).stat()
    with (tree / THREE).open("r+b") as stream:
        stream.seek(2_000_000)
        stream.write(b"other content")
    os.utime(tree / THREE, ns=(status.st_atime_ns, status.st_mtime_ns))
    if partial == "removed":
        partial_path(cut).unlink()
    elif partial == "cut to its header":
        os.truncate(partial_path(cut), HEADER_SIZE)
    lines = (sealed / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    if journal == "removed":
        (sealed / JOURNAL_NAME).unlink()
    elif journal == "cut to its head":
        (sealed / JOURNAL_NAME).write_bytes(lines[0])
    operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    assert header_of(cut) != began
    assert sound(sealed, service, work)


def test_a_source_written_through_a_mapping_is_detected(tree, tmp_path, service, work, monkeypatch):
    """A change between the two reads of a segment stops the run, although no time of the file changes."""
    path, scan = tree / THREE, PlainSource.scan
    status = path.stat()

    def change(source, span, scratch):
        scan(source, span, scratch)
        if span.index == 2 and source._path == path:
            with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as memory:
                memory[5] ^= 1
            monkeypatch.setattr(PlainSource, "check", lambda _: None)

    monkeypatch.setattr(PlainSource, "scan", change)
    with pytest.raises(BadInputError, match="changed while it was read"):
        operations.seal(tree, tmp_path / "s", service, "m", "k1", work)
    assert not (tmp_path / "s" / "weightlock.json").exists()
    assert status.st_size == path.stat().st_size


def test_no_header_is_used_for_two_contents(tree, tmp_path, service, work):
    seen = {}
    for number in range(4):
        (tree / THREE).write_bytes(os.urandom(3_000_000 + number % 2))
        operations.seal(tree, tmp_path / "s", service, "m", "k1", work, update=bool(number))
        header = header_of(next((tmp_path / "s").rglob("three.bin*.sealed")))
        assert header not in seen
        seen[header] = number


@pytest.mark.parametrize(
    "name",
    [".weightlock-ready", "shards/.weightlock.journal", "w.weightlock-partial", "a.WEIGHTLOCK-PARTIAL/w"],
)
def test_a_name_of_our_own_is_not_sealed(tree, tmp_path, service, work, name):
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    with pytest.raises(BadInputError, match="is reserved for Weightlock's own files"):
        operations.seal(tree, tmp_path / "s", service, "m", "k1", work)
    assert not (tmp_path / "s").exists()


def test_a_single_file_with_a_name_of_our_own_is_not_sealed(tmp_path, service, work):
    (tmp_path / ".weightlock-ready").write_bytes(b"x")
    with pytest.raises(BadInputError, match="is reserved for Weightlock's own files"):
        operations.seal(tmp_path / ".weightlock-ready", tmp_path / "s", service, "m", "k1", work)


def test_every_directory_is_on_disk_before_the_manifest_is(tree, tmp_path, service, work, monkeypatch):
    synced, seen, fsync, replace = [], [], os.fsync, rawio.replace_file
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").resolve()), fsync(fd))
    )
    monkeypatch.setattr(
        "webhook.keys.sealed.sealing.replace_file", lambda *inputs: (seen.extend(synced), replace(*inputs))
    )
    out = tmp_path / "new" / "sealed"
    operations.seal(tree, out, service, "atlas-70b", "k1", work)
    expected = {tmp_path, tmp_path / "new", out, out / "shards", out / "shards/deep"}
    assert expected <= set(seen)
    synced.clear()
    with operations.open_sealed(out, service) as sealed:
        operations.unseal(sealed, tmp_path / "back", [], work, mode=0o440, replace=False)
    assert {tmp_path, *(tmp_path / "back" / name for name in ("", "shards", "shards/deep"))} <= set(synced)
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o750
