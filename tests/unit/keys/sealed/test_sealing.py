"""What somebody who can write the storage may put in the way of a run, and what is on disk when one ends."""

from __future__ import annotations

import pytest

from webhook.keys import rawio
from webhook.keys.errors import BadInputError
from webhook.keys.sealed import operations
from webhook.keys.sealed.paths import JOURNAL_NAME, partial_path
from webhook.keys.sealed.streaming import HEADER_SIZE
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


def test_a_half_file_goes_on_under_the_header_in_the_journal(cut, tree, sealed, service, work):
    header = header_of(partial_path(cut))
    operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    assert header_of(cut) == header
    assert sound(sealed, service, work)


@pytest.mark.parametrize("rest", [b"", None], ids=["header only", "header before our segments"])
def test_a_header_put_there_by_somebody_else_encrypts_nothing(cut, tree, sealed, service, work, rest):
    """The older generation's header, with the same key and path, would repeat its nonces."""
    old, partial = header_of(sealed / f"{THREE}.sealed"), partial_path(cut)
    began = header_of(partial)
    partial.write_bytes(old + (partial.read_bytes()[HEADER_SIZE:] if rest is None else rest))
    operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    assert header_of(cut) not in {old, began}
    assert sound(sealed, service, work)


def test_a_header_whose_record_was_cut_off_encrypts_nothing(cut, tree, sealed, service, work):
    journal, began = sealed / JOURNAL_NAME, header_of(partial_path(cut))
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(b'{"use"')]
    assert len(kept) < len(lines)
    journal.write_bytes(b"".join(kept))
    operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    assert header_of(cut) != began
    assert sound(sealed, service, work)


def test_a_header_changed_while_the_run_begins_ends_it(cut, tree, sealed, service, work, monkeypatch):
    old, partial = header_of(sealed / f"{THREE}.sealed"), partial_path(cut)
    swapped = work.progress

    class Swap:
        def start(self, what, size, files):
            if what == "sealing":
                monkeypatch.setattr(operations.Sealing, "_begun", lambda *_: True)
                partial.write_bytes(old)

        advance = swapped.advance

    with pytest.raises(BadInputError, match="was changed by somebody else"):
        operations.seal(
            tree, sealed, service, "atlas-70b", "k1", operations.Work(1, Swap(), work.now), update=True
        )
    assert not partial.exists()
    monkeypatch.undo()
    operations.seal(tree, sealed, service, "atlas-70b", "k1", work, update=True)
    assert header_of(cut) != old
    assert sound(sealed, service, work)


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
    synced, seen = [], []
    sync, replace = rawio.sync_directory, rawio.replace_file
    monkeypatch.setattr(rawio, "sync_directory", lambda path: (synced.append(path), sync(path)))
    monkeypatch.setattr(
        "webhook.keys.sealed.sealing.replace_file", lambda *given: (seen.extend(synced), replace(*given))
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
