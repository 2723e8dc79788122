"""Sources and sinks, one at a time: what each refuses, and what of an interrupted run each keeps."""

from __future__ import annotations

import os

import pytest

from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.sealed import files as files_module
from webhook.keys.sealed.files import (
    Fingerprint,
    NullSink,
    PlainSink,
    PlainSource,
    Scratch,
    SealedSink,
    SealedSource,
    partial_header,
)
from webhook.keys.sealed.manifest import Entry
from webhook.keys.sealed.paths import partial_path
from webhook.keys.sealed.streaming import HEADER_SIZE, SEGMENT_SIZE, Layout, new_header
from webhook.keys.secret import Secret

KEY = bytes(range(32))
BOUND = b"m/w"
PLAIN = os.urandom(2 * SEGMENT_SIZE)


def copy(source, sink, indices=None):
    """Move all segments, or those given and then stop without committing."""
    scratch = Scratch()
    source.open()
    sink.open()
    for index in range(source.layout.count) if indices is None else indices:
        span = source.layout.span(index)
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


HEADER = new_header()


def sink_of(path, header=HEADER, *, resume=False):
    return SealedSink(path, Layout(len(PLAIN)), Secret(KEY), BOUND, header, resume=resume)


def source_of(path):
    return PlainSource(path, Fingerprint.of(path.stat()))


@pytest.fixture
def sealed(tmp_path, plain):
    path = tmp_path / "w.sealed"
    record = copy(source_of(plain), sink_of(path))
    return path, Entry("w", len(PLAIN), "w.sealed", record["digest"])


def test_there_and_back(tmp_path, sealed):
    path, entry = sealed
    back = tmp_path / "back" / "w"
    copy(SealedSource(path, entry, Secret(KEY), BOUND), PlainSink(back, entry.size, 0o440))
    assert back.read_bytes() == PLAIN
    assert back.stat().st_mode & 0o777 == 0o440
    assert not partial_path(back).exists()


def test_a_plain_file_that_changes_is_refused(plain):
    source = source_of(plain)
    source.open()
    with plain.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(BadInputError, match="changed while it was being read"):
        source.check()
    os.truncate(plain, 10)
    with pytest.raises(BadInputError, match="changed while it was being read"):
        source.read(source.layout.span(1), Scratch())
    source.close()


def test_a_change_with_the_old_time_put_back_is_noticed(plain):
    seen = Fingerprint.of(plain.stat())
    plain.write_bytes(os.urandom(len(PLAIN)))
    os.utime(plain, ns=(seen.modified_ns, seen.modified_ns))
    with pytest.raises(BadInputError, match="changed"):
        PlainSource(plain, seen).open()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda raw: None, "is missing"),
        (lambda raw: raw[:-1], "is cut short"),
        (lambda raw: raw + b"x", "is too long"),
        (lambda raw: b"\0" + raw[1:], "is damaged: the file does not begin with the header"),
        (
            lambda raw: raw[:100] + bytes([raw[100] ^ 1]) + raw[101:],
            r"segment 1 of 3 \(bytes 40 to 1048576\)",
        ),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "segment 3 of 3"),
    ],
)
def test_a_spoilt_sealed_file_is_refused(tmp_path, sealed, spoil, message):
    path, entry = sealed
    raw = spoil(path.read_bytes())
    path.unlink() if raw is None else path.write_bytes(raw)
    source = SealedSource(path, entry, Secret(KEY), BOUND)
    with pytest.raises(SealedDataError, match=message):
        copy(source, PlainSink(tmp_path / "back", entry.size, 0o600))
    source.close()
    assert not (tmp_path / "back").exists()


def test_another_version_of_the_same_file_is_refused(tmp_path, plain, sealed):
    path, entry = sealed
    copy(source_of(plain), sink_of(path, new_header()))
    source = SealedSource(path, entry, Secret(KEY), BOUND)
    with pytest.raises(SealedDataError, match="swapped or rolled back"):
        copy(source, NullSink())
    source.close()


def test_a_file_cut_while_it_is_read_is_refused(sealed):
    path, entry = sealed
    source = SealedSource(path, entry, Secret(KEY), BOUND)
    source.open()
    os.truncate(path, 100)
    with pytest.raises(SealedDataError, match="cut short while"):
        source.read(source.layout.span(2), Scratch())
    source.close()


def written(monkeypatch):
    """Offsets at which anything is written from now on."""
    offsets, write = [], files_module.write_at

    def spy(fd, data, offset):
        offsets.append(offset)
        write(fd, data, offset)

    monkeypatch.setattr(files_module, "write_at", spy)
    return offsets


def test_an_interrupted_seal_goes_on_under_the_same_header(tmp_path, plain, monkeypatch):
    path = tmp_path / "w.sealed"
    copy(source_of(plain), sink_of(path), indices=[0, 1])
    header = partial_path(path).read_bytes()[:HEADER_SIZE]
    offsets = written(monkeypatch)
    record = copy(source_of(plain), sink_of(path, resume=True))
    assert offsets == [2 * SEGMENT_SIZE]
    assert path.read_bytes()[:HEADER_SIZE] == header
    copy(
        SealedSource(path, Entry("w", len(PLAIN), "w.sealed", record["digest"]), Secret(KEY), BOUND),
        NullSink(),
    )


def test_a_torn_segment_of_an_interrupted_seal_is_written_again(tmp_path, plain, monkeypatch):
    path = tmp_path / "w.sealed"
    copy(source_of(plain), sink_of(path), indices=[0, 1])
    with partial_path(path).open("r+b") as stream:
        stream.seek(SEGMENT_SIZE + 1000)
        stream.write(bytes(4096))
    offsets = written(monkeypatch)
    copy(source_of(plain), sink_of(path, resume=True))
    assert offsets == [SEGMENT_SIZE, 2 * SEGMENT_SIZE]


def test_one_header_never_encrypts_two_contents(tmp_path, plain):
    path = tmp_path / "w.sealed"
    copy(source_of(plain), sink_of(path), indices=[0, 1])
    before = partial_path(path).read_bytes()
    plain.write_bytes(os.urandom(len(PLAIN)))
    sink = sink_of(path, resume=True)
    with pytest.raises(BadInputError, match="changed since the interrupted run"):
        copy(source_of(plain), sink)
    assert partial_path(path).read_bytes() == before
    sink.close(discard=True)
    assert not partial_path(path).exists()


def test_without_resume_what_lies_there_is_overwritten(tmp_path, plain):
    path, fresh = tmp_path / "w.sealed", new_header()
    copy(source_of(plain), sink_of(path), indices=[0])
    copy(source_of(plain), sink_of(path, fresh))
    assert path.read_bytes()[:HEADER_SIZE] == fresh


@pytest.mark.parametrize("planted", [None, b"", HEADER[:-1], new_header()])
def test_a_header_that_is_not_the_recorded_one_is_never_gone_on_with(tmp_path, plain, planted):
    path = tmp_path / "w.sealed"
    if planted is not None:
        partial_path(path).write_bytes(planted)
    sink = sink_of(path, resume=True)
    with pytest.raises(BadInputError, match="was changed by somebody else; run the same command again"):
        sink.open()
    sink.close(discard=True)
    assert not partial_path(path).exists()


def test_the_header_of_a_half_file(tmp_path, plain):
    path = tmp_path / "w.sealed"
    assert partial_header(path) == b""
    copy(source_of(plain), sink_of(path), indices=[0])
    assert partial_header(path) == HEADER
    partial_path(path).unlink()
    partial_path(path).symlink_to(plain)
    assert partial_header(path) == b""
    partial_path(path).unlink()
    partial_path(path).mkdir()
    assert partial_header(path) == b""


@pytest.mark.parametrize(("mode", "bits"), [(0o440, 0o750), (0o600, 0o700), (0o444, 0o755)])
def test_who_may_read_a_file_may_enter_its_directories(tmp_path, sealed, mode, bits):
    path, entry = sealed
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume").chmod(0o2770)  # as a volume with an fsGroup is
    back = tmp_path / "volume" / "a" / "b" / "w"
    copy(SealedSource(path, entry, Secret(KEY), BOUND), PlainSink(back, entry.size, mode))
    for directory in (back.parent, back.parent.parent):
        assert directory.stat().st_mode & 0o7777 == bits | 0o2000
    assert (tmp_path / "volume").stat().st_mode & 0o7777 == 0o2770


def test_an_interrupted_unseal_keeps_only_what_is_right(tmp_path, sealed, monkeypatch):
    path, entry = sealed
    back = tmp_path / "back"
    partial_path(back).write_bytes(PLAIN[: SEGMENT_SIZE - 56] + b"wrong" * 10)
    offsets = written(monkeypatch)
    copy(SealedSource(path, entry, Secret(KEY), BOUND), PlainSink(back, entry.size, 0o600))
    assert back.read_bytes() == PLAIN
    assert 0 not in offsets
    assert len(offsets) == 2


def test_what_an_older_run_left_beyond_the_end_is_cut_off(tmp_path, sealed):
    path, entry = sealed
    back = tmp_path / "back"
    partial_path(back).write_bytes(bytes(5 * SEGMENT_SIZE))
    copy(SealedSource(path, entry, Secret(KEY), BOUND), PlainSink(back, entry.size, 0o600))
    assert back.read_bytes() == PLAIN


def test_a_link_in_place_of_the_partial_file_is_not_followed(tmp_path, sealed):
    _path, entry = sealed
    back, target = tmp_path / "back", tmp_path / "target"
    target.write_bytes(b"precious")
    partial_path(back).symlink_to(target)
    sink = PlainSink(back, entry.size, 0o600)
    with pytest.raises(OSError, match="symbolic links"):
        sink.open()
    assert target.read_bytes() == b"precious"
