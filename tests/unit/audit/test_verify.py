"""Verification: every change of a log is found, and the place of the first one is named."""

from __future__ import annotations

import random
import shutil

import pytest

from tests.unit.audit.conftest import KEY, Files, settle, verdict, write
from webhook.audit.keys import generate, signer_of
from webhook.audit.storage import Directory
from webhook.audit.writer import LogWriter
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.tiles import Tile, all_tiles, index_path, tiles_of
from webhook.core.audit.verify import first_difference, verify_log


def check(files, signer, **options):
    return verify_log(files, signer.keys, **options)


def test_a_whole_log(log):
    """An unchanged log has no fault, and its facts are reported."""
    files, signer = log
    report = check(files, signer)
    assert (report.faults, report.size, report.types) == ([], 20, {"log": 2, "verdict": 18})
    assert report.notes == []


def test_every_flipped_byte_is_found(small):
    """A single changed byte in any file of the log is a fault, in that file."""
    files, signer = small
    for path, data in list(files.files.items()):
        for place in range(len(data)):
            changed = bytearray(data)
            changed[place] ^= 0x20
            files.files[path] = bytes(changed)
            report = check(files, signer)
            assert not report.whole, (path, place)
            assert report.faults[0].path.partition(".p/")[0] == path.partition(".p/")[0]
        files.files[path] = data
    assert check(files, signer).whole


def test_a_wrong_byte_of_an_entry_and_of_a_tile_is_named(log):
    """The report names the entry and its bytes, or the exact byte of a tile."""
    files, signer = log
    bundle, tile = Tile(None, 0, 20).path, Tile(0, 0, 20).path
    data = files.files[bundle]
    place = data.index(b"train-7") + 6
    files.files[bundle] = data[:place] + b"8" + data[place + 1 :]
    fault = check(files, signer).faults[0]
    assert fault.index == 8
    assert fault.offset is not None
    assert fault.offset <= place
    assert "entry 8" in str(fault)
    files.files[bundle] = data
    hashes = bytearray(files.files[tile])
    hashes[3 * 32 + 5] ^= 1
    files.files[tile] = bytes(hashes)
    assert "entry 3 " in str(check(files, signer).faults[0])


def test_deletions_truncations_and_extra_bytes(log):
    """A missing, shortened or extended file is a fault."""
    files, signer = log
    for path, data in list(files.files.items()):
        for changed in (None, data[:-1], b"", data + b"\0", data + data):
            if changed is None:
                del files.files[path]
            else:
                files.files[path] = changed
            needed = path == "checkpoint" or path.endswith(".p/20") or changed is not None
            assert check(files, signer).whole is not needed, (path, changed and len(changed))
            files.files[path] = data


def test_reordered_entries(log):
    """Two entries in another order are a fault."""
    files, signer = log
    from webhook.core.audit.tiles import decode_bundle, encode_bundle

    path = Tile(None, 0, 20).path
    entries = [entry for _, entry in decode_bundle(files.files[path], 20)]
    entries[4], entries[5] = entries[5], entries[4]
    files.files[path] = encode_bundle(entries)
    assert check(files, signer).faults[0].index == 4


def test_a_log_signed_with_another_key(log):
    """A log that an attacker wrote and signed is not the log of the known key."""
    files, _ = log
    other = signer_of(generate(), "cluster/webhook/a", "other")
    assert "signature" in str(check(files, other).faults[0])
    unknown = signer_of(KEY, "cluster/webhook/b", "other")
    assert "no key is known" in str(check(files, unknown).faults[0])


def test_truncation_to_an_older_checkpoint(tmp_path):
    """An older state of a log is whole by itself, and a fault beside a later checkpoint."""
    signer = write(tmp_path / "log", 3)
    shutil.copytree(tmp_path / "log", tmp_path / "old")
    write(tmp_path / "log", 3)
    later = parse_checkpoint(Directory(tmp_path / "log").read("checkpoint")).checkpoint
    old = Files(tmp_path / "old")
    assert check(old, signer).whole
    assert "truncated" in str(check(old, signer, earlier=[later]).faults[0])
    earlier = parse_checkpoint(old.files["checkpoint"]).checkpoint
    assert check(Files(tmp_path / "log"), signer, earlier=[earlier]).whole


def test_a_split_view(tmp_path):
    """Two logs that continue one beginning differently are a fork."""
    signer = write(tmp_path / "one", 3)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    write(tmp_path / "one", 2)
    write(tmp_path / "two", 4, kinds=("verdict",))
    one, two = Files(tmp_path / "one"), Files(tmp_path / "two")
    state = parse_checkpoint(one.files["checkpoint"]).checkpoint
    report = check(two, signer, earlier=[state])
    assert "forked" in str(report.faults[0]) or "truncated" in str(report.faults[0])
    assert first_difference(one, state.size, two, report.size) is not None


def test_a_replayed_tail(tmp_path):
    """Files beyond the checkpoint are not part of the log and change nothing."""
    signer = write(tmp_path / "log", 3)
    files = Files(tmp_path / "log")
    files.files[Tile(None, 0, 9).path] = files.files[Tile(None, 0, 5).path]
    files.files["tile/0/007"] = b"x" * 8192
    report = check(files, signer)
    assert report.whole
    assert "beyond the checkpoint" in report.notes[0]


def test_kill_and_continue_leaves_a_visible_gap(tmp_path):
    """A run without a stop entry is noted, and the next start entry says so."""
    signer = signer_of(KEY, "cluster/webhook/a", "test")
    writer = LogWriter(Directory(tmp_path, fsync=False), signer, limit=100, interval=0.01)
    writer.open()
    writer.submit(verdict(writer, 1))
    settle(writer, 2)
    writer._storage.unlock()
    second = LogWriter(Directory(tmp_path, fsync=False), signer, limit=100, interval=0.01)
    second.open()
    second.close()
    report = check(Files(tmp_path), signer)
    assert report.whole
    assert report.notes == ["a run without a stop entry ended before entry 2"]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A log of 10,000 entries."""
    place = tmp_path_factory.mktemp("large")
    signer = write(place, 9_998, batch=2_500)
    return Files(place), signer


def test_flips_in_a_large_log(large):
    """In a log of 10,000 entries, one changed byte in any file is found."""
    files, signer = large
    assert check(files, signer).whole
    chance = random.Random(7)
    paths = [path for path in files.files if path != "checkpoint"]
    for path in chance.sample(paths, 40):
        data = files.files[path]
        place = chance.randrange(len(data))
        files.files[path] = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        report = check(files, signer)
        files.files[path] = data
        assert not report.whole, (path, place)
    assert check(files, signer).whole


def test_the_paths_of_tiles():
    """Paths are those of the specification's examples."""
    assert index_path(1234067) == "x001/x234/067"
    assert index_path(0) == "000"
    assert [(tile.level, tile.number, tile.width) for tile in tiles_of(70_000)] == [
        (None, 273, 112),
        (0, 273, 112),
        (1, 1, 17),
        (2, 0, 1),
    ]
    tiles = list(all_tiles(70_000))
    assert sum(tile.level == 0 for tile in tiles) == 274
    assert sum(tile.level == 1 for tile in tiles) == 2
    assert [tile.path for tile in all_tiles(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]
