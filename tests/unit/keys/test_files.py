"""Sources and sinks, one at a time: what each refuses, and what of an interrupted run each keeps."""

from __future__ import annotations

import os

import pytest

from webhook.keys import files as files_module
from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.files import (
    Fingerprint,
    NullSink,
    PlainSink,
    PlainSource,
    Scratch,
    SealedSink,
    SealedSource,
)
from webhook.keys.manifest import Entry
from webhook.keys.paths import partial_path
from webhook.keys.secret import Secret
from webhook.keys.streaming import HEADER_SIZE, SEGMENT_SIZE, Layout

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


def source_of(path):
    return PlainSource(path, Fingerprint.of(path.stat()))


@pytest.fixture
def sealed(tmp_path, plain):
    path = tmp_path / "w.sealed"
    record = copy(source_of(plain), SealedSink(path, Layout(len(PLAIN)), Secret(KEY), BOUND, resume=False))
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
    copy(source_of(plain), SealedSink(path, Layout(len(PLAIN)), Secret(KEY), BOUND, resume=False))
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
    path, layout = tmp_path / "w.sealed", Layout(len(PLAIN))
    copy(source_of(plain), SealedSink(path, layout, Secret(KEY), BOUND, resume=False), indices=[0, 1])
    header = partial_path(path).read_bytes()[:HEADER_SIZE]
    offsets = written(monkeypatch)
    record = copy(source_of(plain), SealedSink(path, layout, Secret(KEY), BOUND, resume=True))
    assert offsets == [2 * SEGMENT_SIZE]
    assert path.read_bytes()[:HEADER_SIZE] == header
    copy(
        SealedSource(path, Entry("w", len(PLAIN), "w.sealed", record["digest"]), Secret(KEY), BOUND),
        NullSink(),
    )


def test_a_torn_segment_of_an_interrupted_seal_is_written_again(tmp_path, plain, monkeypatch):
    path, layout = tmp_path / "w.sealed", Layout(len(PLAIN))
    copy(source_of(plain), SealedSink(path, layout, Secret(KEY), BOUND, resume=False), indices=[0, 1])
    with partial_path(path).open("r+b") as stream:
        stream.seek(SEGMENT_SIZE + 1000)
        stream.write(bytes(4096))
    offsets = written(monkeypatch)
    copy(source_of(plain), SealedSink(path, layout, Secret(KEY), BOUND, resume=True))
    assert offsets == [SEGMENT_SIZE, 2 * SEGMENT_SIZE]


def test_one_header_never_encrypts_two_contents(tmp_path, plain):
    path, layout = tmp_path / "w.sealed", Layout(len(PLAIN))
    copy(source_of(plain), SealedSink(path, layout, Secret(KEY), BOUND, resume=False), indices=[0, 1])
    before = partial_path(path).read_bytes()
    plain.write_bytes(os.urandom(len(PLAIN)))
    sink = SealedSink(path, layout, Secret(KEY), BOUND, resume=True)
    with pytest.raises(BadInputError, match="changed since the interrupted run"):
        copy(source_of(plain), sink)
    assert partial_path(path).read_bytes() == before
    sink.close(discard=True)
    assert not partial_path(path).exists()


def test_without_resume_a_fresh_header_is_made(tmp_path, plain):
    path, layout = tmp_path / "w.sealed", Layout(len(PLAIN))
    copy(source_of(plain), SealedSink(path, layout, Secret(KEY), BOUND, resume=False), indices=[0])
    header = partial_path(path).read_bytes()[:HEADER_SIZE]
    copy(source_of(plain), SealedSink(path, layout, Secret(KEY), BOUND, resume=False))
    assert path.read_bytes()[:HEADER_SIZE] != header


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
