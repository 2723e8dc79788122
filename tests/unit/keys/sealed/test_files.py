"""Sources and sinks, one at a time: what each rejects, and what each reuses of an interrupted run."""

from __future__ import annotations

import os

import pytest
from sealedfiles import partial_path

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.sealed import files as files_module
from webhook.keys.sealed.files import Identity, NullSink, PlainSink, PlainSource, SealedSink
from webhook.keys.sealed.format.manifest import Entry
from webhook.keys.sealed.format.streaming import HEADER_SIZE, SEGMENT_SIZE, Fingerprinter, Layout
from webhook.keys.sealed.reading.source import Scratch, SealedSource
from webhook.keys.sealed.storage.store import LocalStore
from webhook.keys.sealed.storage.tree import Tree
from webhook.keys.secret import Secret

KEY = bytes(range(32))
BOUND = b"m/w"
PLAIN = os.urandom(2 * SEGMENT_SIZE)


def copy(source, sink, indices=None):
    """Move all segments, or those given and then stop without a commit."""
    scratch = Scratch()
    source.open()
    spans = [source.layout.span(index) for index in range(source.layout.count)]
    if isinstance(source, PlainSource):
        for span in spans:
            source.scan(span, scratch)
    sink.open()
    for span in spans if indices is None else [spans[index] for index in indices]:
        sink.write(span, source.read(span, scratch), scratch)
    source.check()
    record = sink.commit() if indices is None else None
    source.close()
    sink.close(discard=False)
    return record


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(PLAIN)
    return path


@pytest.fixture
def tree(tmp_path):
    with Tree(tmp_path, 0o700) as tree:
        yield tree


def source_of(path):
    return PlainSource(path, Identity.of(path.stat()), Fingerprinter(Secret(KEY)))


def sink_of(tree, source, seed=b"seed", *, resume=False):
    layout = Layout(len(PLAIN))
    return SealedSink(tree, "w.sealed", layout, Secret(KEY), BOUND, seed, source.content, resume)


def seal(tree, plain, *args, indices=None, **options):
    source = source_of(plain)
    return copy(source, sink_of(tree, source, *args, **options), indices)


def opened(tmp_path, entry, *, pinned=True):
    return SealedSource(LocalStore(tmp_path), entry, Secret(KEY), BOUND, pinned=pinned)


@pytest.fixture
def sealed(tmp_path, tree, plain):
    record = seal(tree, plain)
    return tmp_path / "w.sealed", Entry("w", len(PLAIN), "w.sealed", record["digest"], record["tags"])


@pytest.fixture(params=["with a tag list", "as 0.2 wrote it"])
def either(request, sealed):
    path, entry = sealed
    if request.param == "with a tag list":
        return path, entry
    (path.parent / "w.sealed.tags").unlink()
    return path, Entry(entry.path, entry.size, entry.file, entry.digest)


def test_there_and_back(tmp_path, tree, either):
    _, entry = either
    copy(opened(tmp_path, entry), PlainSink(tree, "back/w", entry.size, 0o440))
    back = tmp_path / "back" / "w"
    assert back.read_bytes() == PLAIN
    assert back.stat().st_mode & 0o777 == 0o440
    assert not partial_path(back).exists()


def test_a_plain_file_that_changes_is_rejected(plain):
    source = source_of(plain)
    source.open()
    with plain.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(BadInputError, match="changed while it was read"):
        source.check()
    os.truncate(plain, 10)
    with pytest.raises(BadInputError, match="changed while it was read"):
        source.read(source.layout.span(1), Scratch())
    source.close()


def test_a_change_with_its_time_restored_is_detected(plain):
    before = Identity.of(plain.stat())
    plain.write_bytes(os.urandom(len(PLAIN)))
    os.utime(plain, ns=(before.modified_ns, before.modified_ns))
    with pytest.raises(BadInputError, match="changed"):
        PlainSource(plain, before).open()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: None, "is missing"),
        (lambda raw: raw[:-1], "is truncated"),
        (lambda raw: raw + b"x", "is too long"),
        (
            lambda raw: raw[:100] + bytes([raw[100] ^ 1]) + raw[101:],
            r"segment 1 of 3 \(bytes 40 to 1048576\)",
        ),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "segment 3 of 3|is not the file in the manifest"),
    ],
)
def test_a_damaged_sealed_file_is_rejected(tmp_path, tree, either, spoil, message):
    path, entry = either
    raw = spoil(path.read_bytes())
    path.unlink() if raw is None else path.write_bytes(raw)
    source = opened(tmp_path, entry)
    with pytest.raises(SealedDataError, match=message):
        copy(source, PlainSink(tree, "back", entry.size, 0o600))
    source.close()
    assert not (tmp_path / "back").exists()


def test_a_damaged_header_is_rejected_where_it_is_used(tmp_path, either):
    path, entry = either
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    source = opened(tmp_path, entry)
    if entry.tags:  # the header in the tag list is pinned, so the file's own is not needed
        copy(source, NullSink())
        source.open()
        with pytest.raises(SealedDataError, match="its header is not the one in the manifest"):
            source.check_header()
    else:
        with pytest.raises(SealedDataError, match="is not the file in the manifest"):
            source.open()
    source.close()


@pytest.mark.parametrize("pinned", [True, False])
def test_another_version_of_the_same_file_is_rejected(tmp_path, tree, plain, either, pinned):
    _path, entry = either
    seal(tree, plain, b"other seed")
    if not entry.tags:
        (tmp_path / "w.sealed.tags").unlink()
    source = opened(tmp_path, entry, pinned=pinned)
    with pytest.raises(SealedDataError, match="swapped or rolled back"):
        copy(source, NullSink())
    source.close()


@pytest.mark.parametrize("content", [None, b"", b"x" * 88, b"x" * 89])
def test_a_tag_list_that_is_damaged_or_missing_is_replaced_by_the_tags_themselves(tmp_path, sealed, content):
    path, entry = sealed
    listing = path.parent / "w.sealed.tags"
    listing.unlink() if content is None else listing.write_bytes(content)
    copy(opened(tmp_path, entry), NullSink())


def test_a_file_that_is_swapped_between_two_reads_is_rejected(tmp_path, tree, plain, either):
    """The storage returns the right file when it is opened, and an older one of the same key later."""
    path, entry = either
    source, scratch = opened(tmp_path, entry), Scratch()
    source.open()
    source.read(source.layout.span(0), scratch)
    older = tmp_path / "older"
    path.rename(older)
    plain.write_bytes(os.urandom(len(PLAIN)))
    seal(tree, plain)
    path.replace(tmp_path / "x")
    with older.open("r+b") as stream:
        stream.write((tmp_path / "x").read_bytes())  # the descriptor that is open now has another content
    for index in range(3):
        with pytest.raises(SealedDataError, match="damaged, swapped or rolled back"):
            source.read(source.layout.span(index), scratch)
    source.close()


def test_a_file_truncated_while_it_is_read_is_rejected(tmp_path, either):
    path, entry = either
    source = opened(tmp_path, entry)
    source.open()
    os.truncate(path, 100)
    with pytest.raises(SealedDataError, match="truncated while"):
        source.read(source.layout.span(2), Scratch())
    source.close()


def test_the_tag_list_is_one_read(tmp_path, sealed, monkeypatch):
    _, entry = sealed
    source, reads = opened(tmp_path, entry), []
    read_at = files_module.read_at
    monkeypatch.setattr(
        "webhook.keys.sealed.storage.store.read_at", lambda *args: (reads.append(args), read_at(*args))[1]
    )
    source.open()
    assert reads == [], "no read of the sealed file itself"
    source.read(source.layout.span(1), Scratch())
    assert len(reads) == 1
    source.close()


def written(monkeypatch):
    """Offsets at which any file is written from now on."""
    offsets, write = [], files_module.write_at

    def spy(fd, data, offset):
        offsets.append(offset)
        write(fd, data, offset)

    monkeypatch.setattr(files_module, "write_at", spy)
    return offsets


def test_an_interrupted_seal_is_resumed_under_the_same_header(tmp_path, tree, plain, monkeypatch):
    path = tmp_path / "w.sealed"
    seal(tree, plain, indices=[0, 1])
    header = partial_path(path).read_bytes()[:HEADER_SIZE]
    offsets = written(monkeypatch)
    record = seal(tree, plain, resume=True)
    assert offsets == [2 * SEGMENT_SIZE, 0], "the last segment and the tag list"
    assert path.read_bytes()[:HEADER_SIZE] == header
    copy(opened(tmp_path, Entry("w", len(PLAIN), "w.sealed", record["digest"])), NullSink())


def test_a_torn_segment_of_an_interrupted_seal_is_written_again(tmp_path, tree, plain, monkeypatch):
    seal(tree, plain, indices=[0, 1])
    with partial_path(tmp_path / "w.sealed").open("r+b") as stream:
        stream.seek(SEGMENT_SIZE + 1000)
        stream.write(bytes(4096))
    offsets = written(monkeypatch)
    seal(tree, plain, resume=True)
    assert offsets == [SEGMENT_SIZE, 2 * SEGMENT_SIZE, 0]


@pytest.mark.parametrize("left", [None, HEADER_SIZE, 2 * SEGMENT_SIZE])
def test_another_content_gets_another_header(tmp_path, tree, plain, left):
    path = tmp_path / "w.sealed"
    seal(tree, plain, indices=[0, 1])
    began = partial_path(path).read_bytes()[:HEADER_SIZE]
    if left is not None:
        os.truncate(partial_path(path), left)
    with plain.open("r+b") as stream:
        stream.seek(1_500_000)
        stream.write(b"other")
    seal(tree, plain, resume=True)
    assert path.read_bytes()[:HEADER_SIZE] != began


def test_the_same_content_of_another_run_or_path_gets_another_header(tmp_path, tree, plain):
    headers = set()
    for seed in (b"1", b"2"):
        seal(tree, plain, seed)
        headers.add((tmp_path / "w.sealed").read_bytes()[:HEADER_SIZE])
    source = source_of(plain)
    sink = sink_of(tree, source, b"1")
    sink.bound_to = b"m/other"
    copy(source, sink)
    headers.add((tmp_path / "w.sealed").read_bytes()[:HEADER_SIZE])
    assert len(headers) == 3


def test_without_resume_a_partial_file_is_replaced(tmp_path, tree, plain):
    partial = partial_path(tmp_path / "w.sealed")
    partial.write_bytes(b"x" * 100)
    seal(tree, plain)
    assert (tmp_path / "w.sealed").stat().st_size == Layout(len(PLAIN)).sealed_size


@pytest.mark.parametrize(("mode", "bits"), [(0o440, 0o750), (0o600, 0o700), (0o444, 0o755)])
def test_users_that_may_read_a_file_may_enter_its_directories(tmp_path, sealed, mode, bits):
    _path, entry = sealed
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume").chmod(0o2770)  # as a volume with an fsGroup is
    with Tree(tmp_path / "volume", bits) as volume:
        copy(opened(tmp_path, entry), PlainSink(volume, "a/b/w", entry.size, mode))
    for directory in ("a", "a/b"):
        assert (tmp_path / "volume" / directory).stat().st_mode & 0o7777 == bits | 0o2000
    assert (tmp_path / "volume").stat().st_mode & 0o7777 == 0o2770


def test_an_interrupted_unseal_reuses_only_correct_segments(tmp_path, tree, sealed, monkeypatch):
    _, entry = sealed
    back = tmp_path / "back"
    partial_path(back).write_bytes(PLAIN[: SEGMENT_SIZE - 56] + b"wrong" * 10)
    offsets = written(monkeypatch)
    copy(opened(tmp_path, entry), PlainSink(tree, "back", entry.size, 0o600))
    assert back.read_bytes() == PLAIN
    assert 0 not in offsets
    assert len(offsets) == 2


def test_bytes_of_an_older_run_beyond_the_end_are_cut_off(tmp_path, tree, sealed):
    _, entry = sealed
    partial_path(tmp_path / "back").write_bytes(bytes(5 * SEGMENT_SIZE))
    copy(opened(tmp_path, entry), PlainSink(tree, "back", entry.size, 0o600))
    assert (tmp_path / "back").read_bytes() == PLAIN


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "FIFO"])
def test_a_planted_partial_file_is_replaced_and_its_target_is_unchanged(tmp_path, tree, sealed, kind, resume):
    _, entry = sealed
    back, target = tmp_path / "back", tmp_path / "target"
    target.write_bytes(b"precious")
    if kind == "symbolic link":
        partial_path(back).symlink_to(target)
    elif kind == "hard link":
        partial_path(back).hardlink_to(target)
    else:
        os.mkfifo(partial_path(back))
    copy(opened(tmp_path, entry), PlainSink(tree, "back", entry.size, 0o600, resume=resume))
    assert target.read_bytes() == b"precious"
    assert back.read_bytes() == PLAIN


@pytest.mark.parametrize("kind", ["FIFO", "directory", "device"])
def test_a_sealed_file_of_another_kind_is_rejected(tmp_path, sealed, kind):
    path, entry = sealed
    path.unlink()
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(SealedDataError, match="is not a regular file"):
        opened(tmp_path, entry).open()
