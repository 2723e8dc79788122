"""Whole runs on real directories: sealing, unsealing, updating, rotating; crashes, damage, wrong keys, full disks."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import threading
from dataclasses import replace

import orjson
import pytest

from webhook.keys.errors import (
    BadInputError,
    KmsConfigError,
    KmsRefusedError,
    SealedDataError,
    StorageError,
    WrongKeyError,
)
from webhook.keys.sealed import files as files_module
from webhook.keys.sealed import operations
from webhook.keys.sealed.format.manifest import KeyRef
from webhook.keys.sealed.format.paths import JOURNAL_NAME, MANIFEST_NAME, PARTIAL_SUFFIX
from webhook.keys.sealed.format.streaming import HEADER_SIZE
from webhook.keys.sealed.journal import open_journal
from webhook.keys.sealed.operations import KeyService
from webhook.keys.sealed.unsealing import verify
from webhook.keys.secret import Secret


def faults(directory, service, work, *, quick=False):
    with operations.open_sealed(directory, service) as sealed:
        return verify(sealed, work.jobs, work.progress, quick=quick)


def unseal(directory, destination, service, work, patterns=(), **options):
    with operations.open_sealed(directory, service) as sealed:
        return operations.unseal(
            sealed, destination, list(patterns), work, **{"mode": 0o600, "replace": False, **options}
        )


def names(directory):
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def spoil(path, offset=100):
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte[0] ^ 1]))


def test_there_and_back(tree, sealed, tmp_path, service, work, same):
    assert unseal(sealed, tmp_path / "back", service, work) == 5
    assert same(tree, tmp_path / "back")
    lists = [f"{name}.sealed.tags" for name in ("shards/one-more.bin", "shards/deep/three.bin")]
    assert names(sealed) == sorted([*(f"{name}.sealed" for name in names(tree)), *lists, MANIFEST_NAME])
    assert faults(sealed, service, work) == faults(sealed, service, work, quick=True) == []


def test_sealed_files_contain_no_plaintext(tree, sealed):
    probe = (tree / "shards/deep/three.bin").read_bytes()[5000:5032]
    assert all(probe not in path.read_bytes() for path in sealed.rglob("*") if path.is_file())


def test_a_single_file_and_a_selection(tree, tmp_path, service, work):
    operations.seal(tree / "config.json", tmp_path / "one", service, "m", "k1", work)
    assert names(tmp_path / "one") == ["config.json.sealed", MANIFEST_NAME]
    operations.seal(tree, tmp_path / "all", service, "m", "k1", work)
    assert unseal(tmp_path / "all", tmp_path / "some", service, work, ["*.json", "shards/one*"]) == 2
    assert names(tmp_path / "some") == ["config.json", "shards/one-more.bin"]
    with pytest.raises(BadInputError, match="matches 'nothing\\*'"):
        unseal(tmp_path / "all", tmp_path / "none", service, work, ["nothing*"])


def test_links_to_files_are_followed_and_to_directories_refused(tree, tmp_path, service, work):
    (tree / "link.bin").symlink_to(tree / "config.json")
    operations.seal(tree, tmp_path / "s1", service, "m", "k1", work)
    unseal(tmp_path / "s1", tmp_path / "back", service, work)
    assert (tmp_path / "back/link.bin").read_bytes() == (tree / "config.json").read_bytes()
    (tree / "loop").symlink_to(tree)
    with pytest.raises(BadInputError, match="is a symbolic link to a directory"):
        operations.seal(tree, tmp_path / "s2", service, "m", "k1", work)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/nonexistent")])
def test_special_files_are_rejected(tree, tmp_path, service, work, make):
    make(tree / "odd")
    with pytest.raises(BadInputError, match="neither a file nor a directory"):
        operations.seal(tree, tmp_path / "s", service, "m", "k1", work)


def test_nothing_to_seal(tmp_path, service, work):
    (tmp_path / "empty").mkdir()
    for source, output in (("empty", "contains no files"), ("missing", "does not exist")):
        with pytest.raises(BadInputError, match=output):
            operations.seal(tmp_path / source, tmp_path / "s", service, "m", "k1", work)


@pytest.mark.parametrize("pair", [("plain", "plain"), ("plain", "plain/inside"), ("plain/shards", "plain")])
def test_source_and_output_may_not_overlap(tree, tmp_path, service, work, pair):
    with pytest.raises(BadInputError, match="overlap: use separate"):
        operations.seal(tmp_path / pair[0], tmp_path / pair[1], service, "m", "k1", work)


def test_another_keyset_is_refused_with_a_hint(sealed, tmp_path, work):
    other = KeyService(f"local://{tmp_path}/other.json")
    other.wrap(Secret(bytes(32)), "m", "k")
    with pytest.raises(KmsRefusedError, match=r"\(the manifest names local://.*keyset.json\)"):
        faults(sealed, other, work)


def test_a_wrong_key_file_differs_from_damage(sealed, tmp_path, work):
    path = tmp_path / "key"
    path.write_bytes(os.urandom(32))
    with pytest.raises(WrongKeyError, match="it is the wrong key, or the manifest was changed"):
        faults(sealed, operations.read_key_file(path), work)


@pytest.mark.parametrize("content", [b"", bytes(31), bytes(33), None])
def test_a_key_file_holds_32_bytes(tmp_path, content):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(BadInputError, match="key file"):
        operations.read_key_file(tmp_path / "key")


def test_the_key_file_opens_weights_sealed_with_the_kms(tree, sealed, tmp_path, service, work, same):
    with operations.open_sealed(sealed, service) as opened, opened.key.view() as view:
        (tmp_path / "key").write_bytes(view)
    with operations.open_sealed(
        sealed, operations.read_key_file(tmp_path / "key"), model="atlas-70b"
    ) as opened:
        operations.unseal(opened, tmp_path / "back", [], work, mode=0o400, replace=False)
    assert same(tree, tmp_path / "back")
    assert (tmp_path / "back/config.json").stat().st_mode & 0o777 == 0o400


def test_production_refuses_the_local_keyset(tree, sealed, work, service, tmp_path):
    with pytest.raises(KmsConfigError, match="not allowed in production"):
        operations.seal(tree, tmp_path / "s", KeyService(service.url, production=True), "m", "k1", work)
    assert not (tmp_path / "s" / JOURNAL_NAME).exists()


def _damages():
    yield (
        "damaged",
        lambda d: spoil(d / "shards/deep/three.bin.sealed", 1 << 20),
        "segment 2 of 4",
        "not the file",
    )
    yield "missing", lambda d: (d / "config.json.sealed").unlink(), "is missing", "is missing"
    yield (
        "cut",
        lambda d: os.truncate(d / "shards/deep/three.bin.sealed", 1 << 20),
        "is truncated",
        "has 1048576 bytes",
    )
    yield (
        "added",
        lambda d: (d / "new.sealed").write_bytes(b"x"),
        "is not in the manifest",
        "is not in the manifest",
    )
    yield (
        "emptied",
        lambda d: os.truncate(d / "shards/one-more.bin.sealed", 0),
        "is truncated: 0 bytes",
        "has 0 bytes",
    )


@pytest.mark.parametrize(
    ("damage", "output", "quickly"), [pytest.param(*rest, id=name) for name, *rest in _damages()]
)
def test_verify_finds_it(sealed, service, work, damage, output, quickly):
    damage(sealed)
    matches = faults(sealed, service, work)
    assert len(matches) == 1
    assert output in matches[0]
    if output != "segment 2 of 4":  # a quick look reads no content
        assert quickly in faults(sealed, service, work, quick=True)[0]


def test_verify_finds_reordered_segments(sealed, service, work):
    path = sealed / "shards/deep/three.bin.sealed"
    raw, segment = path.read_bytes(), 1 << 20
    path.write_bytes(
        raw[:segment] + raw[2 * segment : 3 * segment] + raw[segment : 2 * segment] + raw[3 * segment :]
    )
    assert "segment 2 of 4" in faults(sealed, service, work)[0]
    assert "swapped" in faults(sealed, service, work, quick=True)[0]


def test_verify_finds_swapped_files(sealed, service, work):
    one, other = sealed / "config.json.sealed", sealed / "empty.txt.sealed"
    shutil.copy(one, other)
    assert "is too long" in faults(sealed, service, work)[0]


def test_verify_finds_a_file_rolled_back(tree, sealed, tmp_path, service, work):
    old = (sealed / "config.json.sealed").read_bytes()
    (tree / "config.json").write_bytes(b"a newer version..")
    operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    (sealed / "config.json.2.sealed").write_bytes(old)
    assert "swapped or rolled back" in faults(sealed, service, work)[0]
    assert "rolled back" in faults(sealed, service, work, quick=True)[0]
    with pytest.raises(SealedDataError, match="rolled back"):
        unseal(sealed, tmp_path / "back", service, work, ["config.json"])
    assert names(tmp_path / "back") == [JOURNAL_NAME]


def test_a_whole_directory_rolled_back_is_found_by_its_generation(tree, sealed, tmp_path, service, work):
    shutil.copytree(sealed, tmp_path / "old")
    (tree / "config.json").write_bytes(b"new")
    operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    with operations.open_sealed(sealed, service, generation=2):
        pass
    rolled_back = pytest.raises(
        SealedDataError, match="rolled back: it contains generation 1, but generation 2 or newer"
    )
    with rolled_back, operations.open_sealed(tmp_path / "old", service, generation=2):
        pass


def test_a_changed_manifest_opens_nothing(sealed, tmp_path, service, work):
    path = sealed / MANIFEST_NAME
    document = orjson.loads(path.read_bytes())
    document["files"].pop()
    path.write_bytes(orjson.dumps(document))
    with pytest.raises(WrongKeyError):
        unseal(sealed, tmp_path / "back", service, work)
    path.write_bytes(b"{")
    with pytest.raises(SealedDataError, match="the manifest is damaged"):
        unseal(sealed, tmp_path / "back", service, work)
    path.unlink()
    with pytest.raises(BadInputError, match="is not a sealed directory"):
        unseal(sealed, tmp_path / "back", service, work)


def test_the_model_must_match_the_requested_one(sealed, service):
    another = pytest.raises(BadInputError, match='contains model "atlas-70b", not "atlas-8b"')
    with another, operations.open_sealed(sealed, service, model="atlas-8b"):
        pass


def test_a_damaged_file_leaves_no_partial_one_and_the_others_whole(tree, sealed, tmp_path, service, work):
    spoil(sealed / "shards/deep/three.bin.sealed", (3 << 20) + 3)
    # One file at a time: others in progress would be kept and resumed.
    with pytest.raises(SealedDataError, match="segment 4 of 4"):
        unseal(sealed, tmp_path / "back", service, replace(work, jobs=1))
    for name in names(tmp_path / "back"):
        if name != JOURNAL_NAME:
            assert (tmp_path / "back" / name).read_bytes() == (tree / name).read_bytes()
    assert not (tmp_path / "back/shards/deep/three.bin").exists()
    assert not list((tmp_path / "back").rglob(f"*{PARTIAL_SUFFIX}"))


def test_beside_a_damaged_file_nothing_half_done_is_taken_for_whole(tree, sealed, tmp_path, service, work):
    spoil(sealed / "shards/deep/three.bin.sealed", (3 << 20) + 3)
    with pytest.raises(SealedDataError, match="segment 4 of 4"):
        unseal(sealed, tmp_path / "back", service, work)
    assert not (tmp_path / "back/shards/deep/three.bin").exists()
    for name in names(tmp_path / "back"):
        if name != JOURNAL_NAME and not name.endswith(PARTIAL_SUFFIX):
            assert (tmp_path / "back" / name).read_bytes() == (tree / name).read_bytes()


def test_files_in_the_way_are_not_overwritten(tree, sealed, tmp_path, service, work, same):
    back = tmp_path / "back"
    back.mkdir()
    (back / "config.json").write_bytes(b"mine")
    with pytest.raises(BadInputError, match=r"config.json exists with other content.*nothing was changed"):
        unseal(sealed, back, service, work)
    assert names(back) in (["config.json"], [JOURNAL_NAME, "config.json"])
    assert (back / "config.json").read_bytes() == b"mine"
    unseal(sealed, back, service, work, replace=True)
    assert same(tree, back)


def test_sealing_changed_files_again_needs_update(tree, sealed, service, work):
    (tree / "config.json").write_bytes(b"changed")
    with pytest.raises(BadInputError, match=r"is already sealed \(generation 1\).*--update"):
        operations.seal(tree, sealed, service, "atlas-70b", "k1", work)
    with pytest.raises(BadInputError, match='contains model "atlas-70b"'):
        operations.seal(tree, sealed, service, "other", "k1", work, update=True)


def test_a_foreign_file_under_a_sealed_name_stops_the_run(tree, tmp_path, service, work):
    directory = tmp_path / "s"
    directory.mkdir()
    (directory / "config.json.sealed").write_bytes(b"somebody's")
    with pytest.raises(BadInputError, match="this run did not write it"):
        operations.seal(tree, directory, service, "m", "k1", work)
    assert (directory / "config.json.sealed").read_bytes() == b"somebody's"


def test_an_update_seals_only_changed_files(tree, sealed, tmp_path, service, work, same):
    before = {name: (sealed / name).stat().st_ino for name in names(sealed)}
    (tree / "config.json").write_bytes(b"changed")
    (tree / "added.bin").write_bytes(b"added")
    (tree / "empty.txt").unlink()
    manifest = operations.seal(tree, sealed, service, "atlas-70b", "", work, update=True)
    assert (manifest.generation, manifest.key.id) == (2, "k1")
    assert "config.json.2.sealed" in names(sealed)
    assert not {"config.json.sealed", "empty.txt.sealed"} & set(names(sealed))
    remaining = "shards/deep/three.bin.sealed"
    assert (sealed / remaining).stat().st_ino == before[remaining]
    unseal(sealed, tmp_path / "back", service, work)
    assert same(tree, tmp_path / "back")
    assert faults(sealed, service, work) == []


def test_an_update_without_changes_makes_no_generation(tree, sealed, service, work):
    before = (sealed / MANIFEST_NAME).read_bytes()
    assert operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True).generation == 1
    assert (sealed / MANIFEST_NAME).read_bytes() == before


def test_an_update_replaces_a_damaged_file(tree, sealed, tmp_path, service, work, same):
    spoil(sealed / "shards/deep/three.bin.sealed")
    (sealed / "config.json.sealed").unlink()
    assert operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True).generation == 2
    assert faults(sealed, service, work) == []


def test_rewrapping_touches_no_file(sealed, tmp_path, service, work):
    before = {name: (sealed / name).stat().st_mtime_ns for name in names(sealed) if name != MANIFEST_NAME}
    new = KeyService(f"local://{tmp_path}/new.json")
    manifest = operations.rewrap(sealed, service, new, "", work)
    assert (manifest.generation, manifest.key.id, manifest.key.kms) == (2, "k1", new.url)
    assert {name: (sealed / name).stat().st_mtime_ns for name in before} == before
    assert faults(sealed, new, work) == []
    with pytest.raises(KmsRefusedError):
        faults(sealed, service, work)


def test_reencrypting_changes_key_and_every_file(tree, sealed, tmp_path, service, work, same):
    def salts():
        return {path.read_bytes()[:HEADER_SIZE] for path in sealed.rglob("*.sealed")}

    before = salts()
    manifest = operations.reencrypt(sealed, service, service, "k2", work)
    assert (manifest.generation, manifest.key.id) == (2, "k2")
    assert not before & salts()
    assert len(names(sealed)) == 8, "the files of the generation before are gone"
    unseal(sealed, tmp_path / "back", service, work)
    assert same(tree, tmp_path / "back")
    assert operations.reencrypt(sealed, service, service, "k3", work).generation == 3
    assert faults(sealed, service, work) == []


def test_reencrypting_needs_a_new_id(sealed, service, work):
    with pytest.raises(BadInputError, match="needs a new id"):
        operations.reencrypt(sealed, service, service, "k1", work)


def test_reencrypting_a_damaged_directory_keeps_the_old_generation(sealed, service, work):
    spoil(sealed / "shards/deep/three.bin.sealed")
    before = (sealed / MANIFEST_NAME).read_bytes()
    with pytest.raises(SealedDataError, match="segment 1"):
        operations.reencrypt(sealed, service, service, "k2", work)
    assert (sealed / MANIFEST_NAME).read_bytes() == before
    assert all((sealed / f"{name}.sealed").exists() for name in ("config.json", "empty.txt"))


SEAL = "operations.seal(Path({tree!r}), Path({out!r}), service, 'atlas-70b', 'k1', work{more})"


@pytest.mark.parametrize("after", [1, 17, 1 << 20, 3 << 20, (5 << 20) - 100])
def test_a_seal_cut_by_a_crash_goes_on(tree, tmp_path, service, work, crash, same, after):
    out = tmp_path / "sealed"
    crash(SEAL.format(tree=str(tree), out=str(out), more=""), after)
    assert not (out / MANIFEST_NAME).exists()
    with pytest.raises(BadInputError, match="is not sealed completely: run the same seal command again"):
        unseal(out, tmp_path / "early", service, work)
    ready = {path: path.stat().st_ino for path in out.rglob("*.sealed")}
    operations.seal(tree, out, service, "atlas-70b", "k1", work)
    assert {path: path.stat().st_ino for path in ready} == ready, "what was finished was not sealed again"
    unseal(out, tmp_path / "back", service, work)
    assert same(tree, tmp_path / "back")
    assert faults(out, service, work) == []
    assert not (out / JOURNAL_NAME).exists()


def test_sealing_a_large_file_resumes_in_the_middle(tree, tmp_path, service, work, crash, monkeypatch):
    for name in ("config.json", "empty.txt", "shards/first-full.bin", "shards/one-more.bin"):
        (tree / name).unlink()
    out = tmp_path / "sealed"
    crash(SEAL.format(tree=str(tree), out=str(out), more=""), 2 << 20)
    header = next(out.rglob(f".*{PARTIAL_SUFFIX}")).read_bytes()[:HEADER_SIZE]
    offsets, write = [], files_module.write_at
    monkeypatch.setattr(
        files_module, "write_at", lambda fd, data, offset: (offsets.append(offset), write(fd, data, offset))
    )
    operations.seal(tree, out, service, "atlas-70b", "k1", work)
    assert sorted(offsets) == [0, 3 << 20], "only the tag list and the last segment were left to write"
    assert (out / "shards/deep/three.bin.sealed").read_bytes()[:HEADER_SIZE] == header


def test_a_file_changed_after_a_crash_is_sealed_again(tree, tmp_path, service, work, crash, same):
    out = tmp_path / "sealed"
    crash(SEAL.format(tree=str(tree), out=str(out), more=""), 4 << 20)
    old = [path.read_bytes()[:HEADER_SIZE] for path in out.rglob(f".*{PARTIAL_SUFFIX}")]
    for name in names(tree):
        (tree / name).write_bytes(os.urandom((tree / name).stat().st_size))
    operations.seal(tree, out, service, "atlas-70b", "k1", work)
    assert not set(old) & {path.read_bytes()[:HEADER_SIZE] for path in out.rglob("*.sealed")}
    unseal(out, tmp_path / "back", service, work)
    assert same(tree, tmp_path / "back")


def test_an_update_cut_by_a_crash_leaves_the_generation_before(
    tree, sealed, tmp_path, service, work, crash, same
):
    shutil.copytree(tree, tmp_path / "first")
    for name in names(tree):
        (tree / name).write_bytes(b"2" + (tree / name).read_bytes())
    crash(SEAL.format(tree=str(tree), out=str(sealed), more=", update=True"), 3 << 20)
    unseal(sealed, tmp_path / "still", service, work)
    assert same(tmp_path / "first", tmp_path / "still")
    assert operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True).generation == 2
    unseal(sealed, tmp_path / "new", service, work)
    assert same(tree, tmp_path / "new")
    assert faults(sealed, service, work) == []


def test_a_reencryption_cut_by_a_crash_goes_on_and_blocks_rewrapping(
    tree, sealed, tmp_path, service, work, crash, same
):
    crash(f"operations.reencrypt(Path({str(sealed)!r}), service, service, 'k2', work)", 3 << 20)
    unseal(sealed, tmp_path / "still", service, work)
    with pytest.raises(BadInputError, match="an unfinished run"):
        operations.rewrap(sealed, service, service, "", work)
    assert operations.reencrypt(sealed, service, service, "k2", work).key.id == "k2"
    unseal(sealed, tmp_path / "back", service, work)
    assert same(tree, tmp_path / "still")
    assert same(tree, tmp_path / "back")


@pytest.mark.parametrize("after", [1, 2 << 20, (5 << 20) - 100])
def test_an_unseal_cut_by_a_crash_goes_on(tree, sealed, tmp_path, service, work, crash, same, after):
    back = tmp_path / "back"
    code = (
        f"with operations.open_sealed(Path({str(sealed)!r}), service) as sealed:\n"
        f"    operations.unseal(sealed, Path({str(back)!r}), [], work, mode=0o600, replace=False)"
    )
    crash(code, after)
    complete = [name for name in names(back) if not name.endswith(PARTIAL_SUFFIX) and name != JOURNAL_NAME]
    for name in complete:
        assert (back / name).read_bytes() == (tree / name).read_bytes()
    inodes = {name: (back / name).stat().st_ino for name in complete}
    unseal(sealed, back, service, work)
    assert same(tree, back)
    assert {name: (back / name).stat().st_ino for name in complete} == inodes
    assert not (back / JOURNAL_NAME).exists()


def test_a_file_touched_after_a_crash_is_unsealed_again(tree, sealed, tmp_path, service, work, crash, same):
    back = tmp_path / "back"
    code = (
        f"with operations.open_sealed(Path({str(sealed)!r}), service) as sealed:\n"
        f"    operations.unseal(sealed, Path({str(back)!r}), [], work, mode=0o600, replace=False)"
    )
    crash(code, 4 << 20)
    (back / "config.json").write_bytes(b"spoilt in between")
    unseal(sealed, back, service, work)
    assert same(tree, back)


def test_a_journal_of_another_model_or_key_is_not_gone_on_with(tree, tmp_path, service, work, crash):
    out = tmp_path / "sealed"
    crash(SEAL.format(tree=str(tree), out=str(out), more=""), 1)
    with pytest.raises(BadInputError, match="unfinished run for model 'atlas-70b'"):
        operations.seal(tree, out, service, "other", "k1", work)
    other = KeyService(f"local://{tmp_path}/other.json")
    other.wrap(Secret(bytes(32)), "m", "k")
    with pytest.raises(KmsRefusedError, match="the manifest names"):
        operations.seal(tree, out, other, "atlas-70b", "k1", work)


def plant(directory, generation, ref, model="atlas-70b", operation="reencrypt"):
    """A journal that a user with write access to the storage can create. Its MAC is made with another key."""
    key = {"id": ref.id, "kms": ref.kms, "wrapped": ref.wrapped.hex()}
    directory.mkdir(exist_ok=True)
    with open_journal(directory) as journal:
        journal.begin(
            b"x" * 32, {"operation": operation, "model": model, "generation": generation, "key": key}
        )


def test_a_planted_journal_does_not_lead_back_to_a_leaked_key(tree, sealed, service, work):
    with operations.open_sealed(sealed, service) as opened:
        leaked = opened.manifest.key
    plant(sealed, 2, leaked)
    with pytest.raises(
        BadInputError, match=r"unfinished run with key id 'k1', not 'fresh-2'.*delete .*journal"
    ):
        operations.reencrypt(sealed, service, service, "fresh-2", work)
    (sealed / JOURNAL_NAME).unlink()
    assert operations.reencrypt(sealed, service, service, "fresh-2", work).key.id == "fresh-2"


def test_the_key_in_use_under_another_id_is_rejected_as_a_new_key(sealed, service, work):
    with operations.open_sealed(sealed, service) as opened:
        again = service.wrap(opened.key, "atlas-70b", "fresh-2")
    plant(sealed, 2, again)
    before = (sealed / MANIFEST_NAME).read_bytes()
    with pytest.raises(SealedDataError, match="names the present data key under another id"):
        operations.reencrypt(sealed, service, service, "fresh-2", work)
    assert (sealed / MANIFEST_NAME).read_bytes() == before


def test_a_planted_journal_does_not_choose_the_key_of_a_first_seal(tree, tmp_path, service, work):
    out = tmp_path / "new"
    plant(out, 1, service.wrap(Secret(b"l" * 32), "m", "leaked"), "m", "seal")
    with pytest.raises(BadInputError, match="with key id 'leaked', not 'k1'"):
        operations.seal(tree, out, service, "m", "k1", work)
    assert not (out / MANIFEST_NAME).exists()


def test_a_planted_journal_does_not_put_another_service_into_the_manifest(tree, tmp_path, service, work):
    out, ref = tmp_path / "new", service.wrap(Secret(b"l" * 32), "m", "k1")
    plant(out, 1, KeyRef("k1", "vault://theirs/key", ref.wrapped), "m", "seal")
    with pytest.raises(BadInputError, match=r"used KMS vault://theirs/key, not local://"):
        operations.seal(tree, out, service, "m", "k1", work)


@pytest.mark.parametrize("ref", [KeyRef("k1", "vault://\x1b[2J", b""), KeyRef("../k1", "vault://t/k", b"")])
def test_the_values_of_a_planted_journal_are_printed_only_if_valid(tree, tmp_path, service, work, ref):
    plant(tmp_path / "new", 1, ref, "m", "seal")
    with pytest.raises(SealedDataError, match="is damaged: remove it to start over"):
        operations.seal(tree, tmp_path / "new", service, "m", "k1", work)


def test_an_update_does_not_run_over_an_unfinished_reencryption(tree, sealed, service, work, crash):
    crash(f"operations.reencrypt(Path({str(sealed)!r}), service, service, 'k2', work)", 3 << 20)
    (tree / "config.json").write_bytes(b"changed")
    with pytest.raises(BadInputError, match="with key id 'k2', not 'k1'"):
        operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    assert operations.reencrypt(sealed, service, service, "k2", work).key.id == "k2"


@pytest.mark.parametrize(
    "rotate",
    [
        lambda path, service, work: operations.rewrap(path, service, service, "", work),
        lambda path, service, work: operations.reencrypt(path, service, service, "k2", work),
    ],
    ids=["rewrap", "reencrypt"],
)
def test_a_directory_that_is_not_there_is_said_to_be_missing(tmp_path, service, work, rotate):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "plain").mkdir()
    for name, output in (
        ("missing", "missing does not exist"),
        ("file", "file is not a directory"),
        ("plain", "is not a sealed directory"),
    ):
        with pytest.raises(BadInputError, match=output):
            rotate(tmp_path / name, service, work)
    assert names(tmp_path / "plain") == []


def test_a_journal_an_attacker_rewrote_is_not_believed(tree, tmp_path, service, work, crash):
    out = tmp_path / "sealed"
    crash(SEAL.format(tree=str(tree), out=str(out), more=""), 4 << 20)
    path = out / JOURNAL_NAME
    path.write_bytes(path.read_bytes().replace(b'"digest":"sha256:', b'"digest":"sha256:0'))
    operations.seal(tree, out, service, "atlas-70b", "k1", work)
    assert faults(out, service, work) == []


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(tree, tmp_path, service, work, monkeypatch, same):
    room = [3 << 20]
    write = files_module.write_at

    def limited(fd, data, offset):
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(fd, data, offset)

    monkeypatch.setattr(files_module, "write_at", limited)
    out = tmp_path / "sealed"
    with pytest.raises(
        StorageError, match=r"no space left for .*; free some space and run the same command again"
    ):
        operations.seal(tree, out, service, "atlas-70b", "k1", work)
    assert not (out / MANIFEST_NAME).exists()
    room[0] = 100 << 20
    operations.seal(tree, out, service, "atlas-70b", "k1", work)
    unseal(out, tmp_path / "back", service, work)
    assert same(tree, tmp_path / "back")


def test_a_disk_with_too_little_room_is_found_before_anything_is_written(
    tree, tmp_path, service, work, monkeypatch
):
    status = os.statvfs(tmp_path)

    class Small:
        f_bavail, f_frsize, f_blocks = 1, 4096, status.f_blocks

    monkeypatch.setattr(os, "statvfs", lambda path: Small)
    out = tmp_path / "sealed"
    with pytest.raises(StorageError, match=r"no space left .*GiB needed, 0.0 GiB free"):
        operations.seal(tree, out, service, "m", "k1", work)
    assert not list(out.rglob("*.sealed"))


def test_a_file_that_changes_under_our_eyes_is_refused(tree, tmp_path, service, work):
    victim = tree / "shards/deep/three.bin"

    class Meddle:
        def start(self, what, size, files):
            pass

        def advance(self, size):
            with victim.open("r+b") as stream:
                stream.write(b"meddled")

    with pytest.raises(BadInputError, match="changed while it was read"):
        operations.seal(tree, tmp_path / "s", service, "m", "k1", operations.Work(1, Meddle(), work.now))
    assert not (tmp_path / "s" / MANIFEST_NAME).exists()


def test_two_runs_at_once_are_refused(tree, tmp_path, service, work):
    entered, leave = threading.Event(), threading.Event()

    class Slow:
        def start(self, what, size, files):
            entered.set()
            leave.wait(10)

        def advance(self, size):
            pass

    arguments = (tree, tmp_path / "s", service, "m", "k1")
    first = threading.Thread(target=operations.seal, args=(*arguments, operations.Work(1, Slow(), work.now)))
    first.start()
    assert entered.wait(10)
    with pytest.raises(BadInputError, match="another run uses"):
        operations.seal(*arguments, work)
    leave.set()
    first.join()
    assert faults(tmp_path / "s", service, work) == []


def test_a_service_that_unwraps_nonsense_is_not_trusted(service):
    ref = service.wrap(Secret(b"short"), "m", "k")
    with pytest.raises(SealedDataError, match="not a data key"):
        service.unwrap(ref, "m")


def test_a_wrapped_key_serves_its_model_and_id_only(service):
    ref = service.wrap(Secret(bytes(32)), "m", "k")
    assert len(service.unwrap(ref, "m")) == 32
    for changed, model in ((ref, "other"), (KeyRef("k2", ref.kms, ref.wrapped), "m")):
        with pytest.raises(KmsRefusedError, match="another model or key id"):
            service.unwrap(changed, model)


def test_many_small_files(tmp_path, service, work):
    source = tmp_path / "many"
    for number in range(300):
        (source / f"d{number % 7}").mkdir(parents=True, exist_ok=True)
        (source / f"d{number % 7}" / f"f{number}").write_bytes(b"x" * number)
    manifest = operations.seal(source, tmp_path / "s", service, "m", "k1", work)
    assert len(manifest.files) == 300
    assert faults(tmp_path / "s", service, work) == []


def test_an_update_says_under_which_key_it_would_go_on(tree, sealed, service, work):
    (tree / "config.json").write_text("other")
    with pytest.raises(BadInputError, match='is sealed with key "k1", not "k2"'):
        operations.seal(tree, sealed, service, "atlas-70b", "k2", work, update=True)
    manifest = operations.seal(tree, sealed, service, "atlas-70b", "", work, update=True)
    assert (manifest.generation, manifest.key.id) == (2, "k1")


def test_a_data_key_without_a_name_has_the_days(tree, tmp_path, service, work):
    manifest = operations.seal(tree, tmp_path / "s", service, "m", "", work)
    assert manifest.key.id == work.now[:10]


def test_an_interrupt_while_the_loop_of_a_call_is_made_leaves_nothing_half_made(service, monkeypatch):
    """The signal arrives in the middle of the loop's construction, and is delivered after it."""
    produced, before = [], asyncio.new_event_loop

    def interrupted():
        # Another thread of the test's process would receive a signal to the process.
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        produced.append(before())
        return produced[-1]

    def stop(_number, _frame):
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio.events, "new_event_loop", interrupted)
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(KeyboardInterrupt), Secret(bytes(32)) as key:
            service.wrap(key, "atlas-70b", "k1")
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert [loop.is_closed() for loop in produced] == [True]
