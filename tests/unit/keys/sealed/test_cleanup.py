"""Runs that were cut short when their manifest was in force already: the next one clears up, and all is well."""

from __future__ import annotations

import pytest
from sealedfiles import partial_path

from webhook.keys.errors import BadInputError
from webhook.keys.sealed import operations
from webhook.keys.sealed.cleanup import clean_up, finish_interrupted_run
from webhook.keys.sealed.format.manifest import manifest_key
from webhook.keys.sealed.format.paths import JOURNAL_NAME
from webhook.keys.sealed.journal import open_journal
from webhook.keys.sealed.operations import KeyService
from webhook.keys.sealed.unsealing import verify

CUT = "from webhook.keys.sealed import sealing\nsealing.clean_up = lambda *_: os._exit(9)\n"
NEVER = 1 << 40


def seal_code(tree, out, more=""):
    return f"{CUT}operations.seal(Path({str(tree)!r}), Path({str(out)!r}), service, 'm', 'k1', work{more})"


def names(directory):
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def expected(manifest):
    lists = (f"{entry.file}.tags" for entry in manifest.files if entry.tags)
    return {"weightlock.json", *(entry.file for entry in manifest.files), *lists}


def faults(directory, service, work):
    with operations.open_sealed(directory, service) as sealed:
        return verify(sealed, work.jobs, work.progress)


@pytest.fixture
def out(tree, tmp_path, crash):
    """A first seal that was cut short after its manifest got its name."""
    crash(seal_code(tree, tmp_path / "out"), NEVER)
    assert (tmp_path / "out" / JOURNAL_NAME).stat().st_size
    return tmp_path / "out"


def test_a_first_seal_is_ended_by_the_same_command(out, tree, service, work):
    manifest = operations.seal(tree, out, service, "m", "k1", work)
    assert (manifest.generation, names(out)) == (1, expected(manifest))
    (tree / "config.json").write_bytes(b"changed again")
    with pytest.raises(BadInputError, match="is already sealed"):
        operations.seal(tree, out, service, "m", "k1", work)


def test_a_source_that_changed_since_asks_for_an_update(out, tree, service, work):
    (tree / "config.json").write_bytes(b"changed")
    (tree / "config.json").write_bytes(b"changed again")
    with pytest.raises(BadInputError, match="is already sealed"):
        operations.seal(tree, out, service, "m", "k1", work)
    assert not (out / JOURNAL_NAME).exists()
    assert operations.seal(tree, out, service, "m", "k1", work, update=True).generation == 2


def test_an_update_is_ended_by_the_same_command(tree, tmp_path, service, work, crash):
    out = tmp_path / "out"
    operations.seal(tree, out, service, "m", "k1", work)
    (tree / "config.json").write_bytes(b"changed")
    (tree / "empty.txt").unlink()
    crash(seal_code(tree, out, ", update=True"), NEVER)
    assert {"config.json.sealed", "empty.txt.sealed", JOURNAL_NAME} <= names(out)
    manifest = operations.seal(tree, out, service, "m", "k1", work, update=True)
    assert (manifest.generation, names(out)) == (2, expected(manifest))
    assert faults(out, service, work) == []


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same service", "another service"])
def test_a_reencryption_is_ended_by_the_same_command(tree, tmp_path, service, work, crash, elsewhere):
    out = tmp_path / "out"
    operations.seal(tree, out, service, "m", "k1", work)
    new = KeyService(f"local://{tmp_path}/new.json") if elsewhere else service
    crash(
        f"{CUT}operations.reencrypt(Path({str(out)!r}), service, KeyService({new.url!r}), 'k2', work)", NEVER
    )
    assert "config.json.sealed" in names(out)
    manifest = operations.reencrypt(out, service, new, "k2", work)
    assert (manifest.generation, manifest.key.id, names(out)) == (2, "k2", expected(manifest))
    assert faults(out, new, work) == []
    with pytest.raises(BadInputError, match="needs a new id"):
        operations.reencrypt(out, new, new, "k2", work)


def test_an_update_is_not_taken_for_a_reencryption(out, service, work):
    with pytest.raises(BadInputError, match="needs a new id"):
        operations.reencrypt(out, service, service, "k1", work)
    assert not (out / JOURNAL_NAME).exists()


def test_rewrapping_and_verifying_clean_up_too(tree, tmp_path, service, work, crash):
    for number, act in enumerate(("rewrap", "verify")):
        out = tmp_path / f"out-{number}"
        operations.seal(tree, out, service, "m", "k1", work)
        (tree / "config.json").write_bytes(bytes([number]))
        crash(seal_code(tree, out, ", update=True"), NEVER)
        if act == "rewrap":
            operations.rewrap(out, service, service, "", work)
        else:
            with operations.open_sealed(out, service) as sealed:
                operations.finish(sealed)
        assert faults(out, service, work) == []
        assert not (out / JOURNAL_NAME).exists()


def test_clearing_up_that_was_cut_short_itself_goes_on(tree, tmp_path, service, work, crash):
    out = tmp_path / "out"
    operations.seal(tree, out, service, "m", "k1", work)
    for name in ("config.json", "empty.txt"):
        (tree / name).write_bytes(b"changed")
    crash(seal_code(tree, out, ", update=True"), NEVER)
    (out / "config.json.sealed").unlink()
    operations.seal(tree, out, service, "m", "k1", work, update=True)
    assert faults(out, service, work) == []


def test_partial_files_of_a_removed_source_are_removed(tree, tmp_path, service, work, crash):
    out = tmp_path / "out"
    crash(f"operations.seal(Path({str(tree)!r}), Path({str(out)!r}), service, 'm', 'k1', work)", 2 << 20)
    left = names(out)
    assert {"config.json.sealed", "shards/deep/.three.bin.sealed.weightlock-partial"} <= left
    (tree / "config.json").unlink()
    (tree / "shards/deep/three.bin").unlink()
    manifest = operations.seal(tree, out, service, "m", "k1", work)
    assert names(out) == expected(manifest)


def test_only_a_journal_of_the_same_key_is_trusted(out, service, work):
    """A planted journal deletes nothing: neither under another key, nor of another generation, nor what is in use."""
    with operations.open_sealed(out, service) as sealed:
        mac_key = manifest_key(sealed.key, "m")
        for key, generation, operation in (
            (bytes(32), 1, "seal"),
            (mac_key, 2, "seal"),
            (mac_key, 1, "unseal"),
        ):
            with open_journal(out) as journal:
                journal.begin(key, {"operation": operation, "generation": generation})
                journal.drop(["config.json.sealed", "other"])
                assert not finish_interrupted_run(out, sealed.manifest, sealed.key, journal)
        (out / "other").write_bytes(b"x")
        partial_path(out / "other").write_bytes(b"x")
        with open_journal(out) as journal:
            journal.begin(mac_key, {"operation": "seal", "generation": 1})
            journal.drop(["config.json.sealed", "other", "missing/too"])
            assert finish_interrupted_run(out, sealed.manifest, sealed.key, journal) == "seal"
    assert faults(out, service, work) == []
    assert not partial_path(out / "other").exists()


def test_a_name_that_climbs_is_refused(tmp_path, out, service):
    (tmp_path / "precious").write_bytes(b"x")
    with operations.open_sealed(out, service) as sealed, open_journal(out) as journal:
        journal.begin(b"k" * 32, {"operation": "seal"})
        journal.drop(["../precious"])
        with pytest.raises(BadInputError, match="is not valid"):
            clean_up(out, sealed.manifest, journal)
    assert (tmp_path / "precious").exists()


def test_where_one_may_only_read_nothing_is_cleared_up(out, service, monkeypatch):
    def refused(_directory):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(operations, "open_journal", refused)
    with operations.open_sealed(out, service) as sealed:
        operations.finish(sealed)
    assert (out / JOURNAL_NAME).exists()
