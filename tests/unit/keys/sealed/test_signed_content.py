"""Sealing of signed models: one read of each file, every difference found, and the signature in the manifest."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from webhook.core.provenance.models import Attestation, ModelProvenance, ModelSignature, Signer
from webhook.keys.errors import BadInputError, SignatureMismatchError, StorageError
from webhook.keys.sealed import files as files_module
from webhook.keys.sealed import operations, signed_content
from webhook.keys.sealed import transfer as transfer_module
from webhook.keys.sealed.files import Identity, NullSink
from webhook.keys.sealed.format.manifest import signer_id
from webhook.keys.sealed.format.paths import JOURNAL_NAME, MANIFEST_NAME
from webhook.keys.sealed.format.statement import read_statement, sign_statement
from webhook.keys.sealed.reading.source import Scratch
from webhook.keys.sealed.signed_content import CheckedSource, Digester, FileDigests, SignedContent
from webhook.keys.sealed.storage.directory import require_manifest
from webhook.keys.sealed.unsealing import verify

PROVENANCE = ModelProvenance(
    ModelSignature(
        Signer("key", "sha256:" + "a" * 64),
        "sha256:" + "b" * 64,
        "m",
        "files",
        "sha256",
        5,
        "sha256:" + "c" * 64,
    ),
    (Attestation("https://slsa.dev/provenance/v1", "sha256:" + "d" * 64, (), {"builder": {"id": "ci"}}),),
)


def content_of(tree, *, shard=0, provenance=PROVENANCE, without=(), ignored=()):
    files = {}
    for path in tree.rglob("*"):
        name = path.relative_to(tree).as_posix()
        if not path.is_file() or name in without or name in ignored:
            continue
        data = path.read_bytes()
        if shard and not data:
            continue  # the specification lists no shard of an empty file
        parts = [data[start : start + shard] for start in range(0, len(data), shard)] if shard else [data]
        files[name] = FileDigests(
            "sha256",
            tuple(hashlib.sha256(part).digest() for part in parts),
            shard,
            len(data) if shard else None,
        )
    return SignedContent(files, lambda name: name in ignored, False, provenance, skip_empty=not shard)


def seal(tree, directory, service, work, content, **options):
    return operations.seal(tree, directory, service, "atlas-70b", "", work, content=content, **options)


@pytest.mark.parametrize(("jobs", "shard"), [(1, 0), (2, 0), (8, 0), (2, 1000), (8, 1 << 20), (2, 3_000_000)])
def test_signed_files_are_sealed(tree, tmp_path, service, work, same, jobs, shard):
    (tree / "large.bin").write_bytes(os.urandom(20 << 20))
    content = content_of(tree, shard=shard)
    directory = tmp_path / "sealed"
    manifest = seal(tree, directory, service, replace(work, jobs=jobs), content)
    assert manifest.provenance == PROVENANCE
    with operations.open_sealed(directory, service) as sealed:
        assert sealed.manifest.provenance == PROVENANCE
        assert verify(sealed, 2, work.progress) == []
        operations.unseal(sealed, tmp_path / "back", [], work, mode=0o600, replace=False)
    assert same(tree, tmp_path / "back")


def test_each_byte_is_read_once(tree, tmp_path, service, work, monkeypatch):
    """Without a signature every file is read twice; with one, the pass that encrypts is the only one."""
    size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    read = []
    for module in (files_module, signed_content):
        real = module.read_at
        monkeypatch.setattr(
            module, "read_at", lambda fd, out, at, real=real: read.append(real(fd, out, at)) or read[-1]
        )
    seal(tree, tmp_path / "one", service, work, content_of(tree))
    assert sum(read) == size
    read.clear()
    operations.seal(tree, tmp_path / "two", service, "atlas-70b", "", work)
    assert sum(read) == 2 * size


@pytest.mark.parametrize("shard", [0, 1000])
@pytest.mark.parametrize("offset", [0, 1_500_000, -1])
def test_a_changed_byte_is_found(tree, tmp_path, service, work, shard, offset):
    content = content_of(tree, shard=shard)
    path = tree / "shards/deep/three.bin"
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.raises(SignatureMismatchError, match=r"three\.bin is not the signed file"):
        seal(tree, tmp_path / "sealed", service, work, content)
    assert not (tmp_path / "sealed" / MANIFEST_NAME).exists()
    assert not list((tmp_path / "sealed").rglob("*three*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: (tree / "new.py").write_text("x"), "does not cover new.py"),
        (lambda tree: (tree / "config.json").unlink(), "covers config.json, which does not exist"),
        (lambda tree: (tree / "config.json").write_bytes(b""), "is not the signed file"),
        (lambda tree: (tree / "empty.txt").write_bytes(b"x"), "is not the signed file"),
        (
            lambda tree: ((tree / "config.json").rename(tree / "x"), (tree / "config.json").symlink_to("x")),
            "does not cover x|symbolic link",
        ),
    ],
)
def test_other_files(tree, tmp_path, service, work, change, message):
    content = content_of(tree)
    change(tree)
    with pytest.raises(SignatureMismatchError, match=message):
        seal(tree, tmp_path / "sealed", service, work, content)


def test_excluded_files_are_not_sealed(tree, tmp_path, service, work):
    (tree / "notes.txt").write_text("x")
    manifest = seal(tree, tmp_path / "sealed", service, work, content_of(tree, ignored=["notes.txt"]))
    assert "notes.txt" not in {entry.path for entry in manifest.files}
    assert any("excludes" in note for note in work.notes)


def test_a_link_counts_as_the_signer_decided(tree, tmp_path, service, work):
    (tmp_path / "blob").write_bytes(b"content")
    (tree / "linked").symlink_to(tmp_path / "blob")
    content = content_of(tree)
    with pytest.raises(SignatureMismatchError, match="symbolic link"):
        seal(tree, tmp_path / "sealed", service, work, content)
    seal(tree, tmp_path / "sealed", service, work, replace(content, allow_symlinks=True))


def test_a_file_that_changes_while_it_is_read(tree, tmp_path, service, work, monkeypatch):
    content = content_of(tree)
    real = signed_content.read_at

    def read(fd, out, at):
        (tree / "config.json").write_bytes(os.urandom(17))
        return real(fd, out, at)

    monkeypatch.setattr(signed_content, "read_at", read)
    with pytest.raises((SignatureMismatchError, BadInputError)):
        seal(tree, tmp_path / "sealed", service, work, content)


def test_a_failing_disk_stops_every_thread(tree, tmp_path, service, work, monkeypatch):
    (tree / "large.bin").write_bytes(os.urandom(24 << 20))
    content, real, calls = content_of(tree), signed_content.read_at, []

    def read(fd, out, at):
        calls.append(at)
        if at > 18 << 20:
            raise OSError(5, "Input/output error")
        return real(fd, out, at)

    monkeypatch.setattr(signed_content, "read_at", read)
    with pytest.raises(StorageError):
        seal(tree, tmp_path / "sealed", service, replace(work, jobs=4), content)


def test_an_interrupted_run_resumes_only_verified_files(tree, tmp_path, service, work, monkeypatch):
    """Files that a run without the signature finished are read again; those that were compared with it are not."""
    directory, content = tmp_path / "sealed", content_of(tree)
    monkeypatch.setattr("webhook.keys.sealed.sealing.replace_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        operations.seal(tree, directory, service, "atlas-70b", "k1", work)
    monkeypatch.undo()
    assert (directory / JOURNAL_NAME).exists()
    (tree / "config.json").write_bytes((tree / "config.json").read_bytes())  # same content, another time
    opened = []
    real = signed_content.CheckedSource.open
    monkeypatch.setattr(
        signed_content.CheckedSource, "open", lambda self: (opened.append(self._name), real(self))[1]
    )
    operations.seal(tree, directory, service, "atlas-70b", "k1", work, content=content)
    assert len(opened) == 5


def test_a_run_with_the_signature_is_resumed(tree, tmp_path, service, work, monkeypatch):
    directory, content = tmp_path / "sealed", content_of(tree)
    monkeypatch.setattr("webhook.keys.sealed.sealing.replace_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        operations.seal(tree, directory, service, "atlas-70b", "k1", work, content=content)
    monkeypatch.undo()
    monkeypatch.setattr(signed_content.CheckedSource, "open", lambda _: pytest.fail("read again"))
    operations.seal(tree, directory, service, "atlas-70b", "k1", work, content=content)


def test_headers_never_repeat(tree, tmp_path, service, work, monkeypatch):
    """A failed run and its repetition encrypt a file under different headers, so no nonce has two contents."""
    directory, content, headers = tmp_path / "sealed", content_of(tree), []
    real = files_module.SealedSink.open

    def opened(sink):
        real(sink)
        headers.append(sink._header)

    monkeypatch.setattr(files_module.SealedSink, "open", opened)
    path = tree / "shards/deep/three.bin"
    data = path.read_bytes()
    status = path.stat()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(SignatureMismatchError):
        seal(tree, directory, service, work, content)
    path.write_bytes(data)
    seal(tree, directory, service, work, content)
    assert len(headers) == len(set(headers))


def test_a_signature_is_bound_later(tree, sealed, service, work):
    content = content_of(tree)
    with pytest.raises(BadInputError, match="without this signature"):
        seal(tree, sealed, service, work, content)
    manifest = seal(tree, sealed, service, work, content, update=True)
    assert (manifest.generation, manifest.provenance) == (2, PROVENANCE)
    assert seal(tree, sealed, service, work, content, update=True).generation == 2


def test_an_update_without_the_signature_drops_it(tree, sealed, service, work):
    seal(tree, sealed, service, work, content_of(tree), update=True)
    (tree / "config.json").write_text("{}")
    manifest = operations.seal(tree, sealed, service, "atlas-70b", "", work, update=True)
    assert manifest.provenance is None
    assert any("--verify-signature" in note for note in work.notes)


def test_an_unchanged_file_is_compared_too(tree, sealed, service, work):
    content = content_of(tree)
    wrong = dict(content.files) | {"config.json": FileDigests("sha256", (bytes(32),))}
    with pytest.raises(SignatureMismatchError):
        seal(tree, sealed, service, work, replace(content, files=wrong), update=True)


def test_rotation_keeps_it(tree, sealed, service, work):
    seal(tree, sealed, service, work, content_of(tree), update=True)
    assert operations.rewrap(sealed, service, service, "k2", work).provenance == PROVENANCE
    assert operations.reencrypt(sealed, service, service, "k3", work).provenance == PROVENANCE


def test_the_manifest_protects_it(tree, tmp_path, service, work):
    directory = tmp_path / "sealed"
    seal(tree, directory, service, work, content_of(tree))
    path = directory / MANIFEST_NAME
    path.write_bytes(path.read_bytes().replace(b'"kind":"key"', b'"kind":"sigstore"'))
    with (
        pytest.raises(Exception, match="the manifest was changed"),
        operations.open_sealed(directory, service),
    ):
        pass


def test_readers_of_earlier_versions_ignore_it(tree, tmp_path, service, work, monkeypatch):
    """They do not know the field, their MAC covers it, and what they write has none."""
    directory = tmp_path / "sealed"
    seal(tree, directory, service, work, content_of(tree))
    monkeypatch.setattr("webhook.keys.sealed.format.manifest._provenance", lambda _: None)
    with operations.open_sealed(directory, service) as sealed:
        assert verify(sealed, 2, work.progress) == []
    assert operations.rewrap(directory, service, service, "k2", work).provenance is None
    monkeypatch.undo()
    assert require_manifest(directory).claims.provenance is None


def test_a_reformatted_manifest(tree, tmp_path, service, work):
    directory = tmp_path / "sealed"
    seal(tree, directory, service, work, content_of(tree))
    path = directory / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))
    with operations.open_sealed(directory, service) as sealed:
        assert sealed.manifest.provenance == PROVENANCE


def test_statement(tree, tmp_path, service, work):
    signer, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    work = replace(work, signer=signer)
    manifest = seal(tree, tmp_path / "sealed", service, work, content_of(tree))
    text = sign_statement(manifest, signer)
    statement = read_statement(text, (signer_id(other), signer_id(signer)))
    assert (statement.model, statement.generation, statement.key_id) == ("atlas-70b", 1, "2026-11-23")
    assert (statement.manifest, statement.provenance) == (manifest.digest, PROVENANCE)
    with pytest.raises(ValueError, match="not in spec"):
        read_statement(text, (signer_id(other),))
    document, key, signature = text.split(".")
    forged = sign_statement(replace(manifest, generation=9), other).split(".")
    for parts in ((forged[0], key, signature), (document, key, forged[2])):
        with pytest.raises(ValueError, match="was changed"):
            read_statement(".".join(parts), (signer_id(signer),))
    for bad in ("", "a.b", "a.b.c", "..", text + ".x", "é.é.é"):
        with pytest.raises(ValueError, match=r"three parts|base64"):
            read_statement(bad, (signer_id(signer),))


def test_digester_in_any_portions():
    data = os.urandom(10_000)
    for shard in (0, 1, 7, 4096, 10_000, 20_000):
        size = shard or len(data)
        digests = tuple(
            hashlib.sha256(data[start : start + size]).digest() for start in range(0, len(data), size)
        )
        for portion in (1, 13, 4096, 10_000):
            digester = Digester("w", len(data), FileDigests("sha256", digests, shard))
            for start in range(0, len(data), portion):
                digester.update(memoryview(data)[start : start + portion])
            digester.finish()
        longer = Digester("w", len(data), FileDigests("sha256", (*digests, bytes(32)), shard))
        longer.update(memoryview(data))
        with pytest.raises(SignatureMismatchError):
            longer.finish()


def opened(path, digest=None):
    """An open source of a file, with its true digest or another one."""
    expected = FileDigests("sha256", (digest or hashlib.sha256(path.read_bytes()).digest(),))
    source = CheckedSource(path, Identity.of(path.stat()), path.name, expected)
    source.stop = threading.Event()
    source.open()
    return source


def take(source, index, scratch):
    """Read and hash one segment. Return the buffer that contained it."""
    buffer, span = scratch.plain, source.layout.span(index)
    source.hash(span, source.read(span, scratch), scratch)
    return buffer


@pytest.fixture
def segments(tmp_path):
    """A file of seven segments."""
    path = tmp_path / "seven.bin"
    path.write_bytes(os.urandom(6 << 20))
    return path


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5, 6), (1, 0, 2, 4, 3, 6, 5), (4, 3, 2, 1, 0, 6, 5)])
def test_segments_in_any_order(segments, order):
    """A segment that is early keeps its buffer until it is hashed, and the thread continues with another one."""
    source, scratch = opened(segments), Scratch()
    for position, index in enumerate(order):
        buffer = take(source, index, scratch)
        early = any(before not in order[:position] for before in range(index))
        assert (scratch.plain is buffer) is not early
        if early:
            scratch.plain[:] = bytes(len(scratch.plain))  # the next segment overwrites another buffer
    source.check()
    source.close()
    wrong = opened(segments, bytes(32))
    for index in order:
        take(wrong, index, scratch)
    with pytest.raises(SignatureMismatchError):
        wrong.check()
    wrong.close()


def test_a_segment_that_was_not_hashed_is_noticed(segments):
    source, scratch = opened(segments), Scratch()
    for index in (0, 1, 2, 3, 4, 6):
        take(source, index, scratch)
    with pytest.raises(SignatureMismatchError):
        source.check()
    source.close()


@pytest.mark.parametrize("stopped", [False, True])
def test_buffers_are_bounded(segments, stopped):
    """A fifth early segment waits for a buffer, until the missing one is hashed or another thread has failed."""
    source, scratch = opened(segments), Scratch()
    with ThreadPoolExecutor(1) as pool:

        def early():
            for index in (1, 2, 3, 4, 5):
                take(source, index, scratch)

        waiting = pool.submit(early)
        while len(source._waiting) < 5:
            assert not waiting.done()
        if stopped:
            source.stop.set()
        else:
            take(source, 0, Scratch())
            take(source, 6, Scratch())
            source.check()
        waiting.result(timeout=60)
    assert source._buffers == 4 + stopped
    source.close()


def test_files_in_parallel_before_segments(tmp_path):
    """Two threads take a file each: one file has one hash, so a second thread at it is worth less."""
    second, reads = threading.Event(), []

    class Source(CheckedSource):
        def open(self):
            super().open()
            if self._name == "b.bin":
                second.set()

        def read(self, span, scratch):
            if self._name == "a.bin" and not second.is_set():
                reads.append(span.index)
                assert second.wait(60)
            return super().read(span, scratch)

    tasks = []
    for name in ("a.bin", "b.bin"):
        path = tmp_path / name
        path.write_bytes(os.urandom(20 << 20))
        expected = FileDigests("sha256", (hashlib.sha256(path.read_bytes()).digest(),))
        source = Source(path, Identity.of(path.stat()), name, expected)
        tasks.append(transfer_module.Task(name, source, NullSink(), lambda _: None, ordered=source))
    transfer_module.transfer(tasks, 2, transfer_module.NoProgress())
    assert reads in ([], [0])
    assert second.is_set()
