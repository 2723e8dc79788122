"""The writer: bounded, durable before it signs, and one for each log."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from harness.waiting import slowness

from tests.unit.audit.conftest import KEY, Clock, Files, settle, verdict, write
from webhook.audit.errors import AuditError, LockedError, NotLoggedError
from webhook.audit.keys import generate, load_signer, signer_of
from webhook.audit.storage import Directory
from webhook.audit.writer import LogWriter, new_id
from webhook.core.audit.checkpoint import parse_checkpoint
from webhook.core.audit.merkle import verify_consistency
from webhook.core.audit.notes import Signature
from webhook.core.audit.proof import ProofError, parse_proof
from webhook.core.audit.verify import verify_log

ORIGIN = "cluster/webhook/a"
SIGNER = signer_of(KEY, ORIGIN, "test")


def writer_of(place, **options):
    return LogWriter(Directory(place, fsync=False), SIGNER, **{"limit": 100, "interval": 0.01, **options})


def test_logs_continue_across_runs_and_tiles(tmp_path):
    """Runs of any length continue the same tree, across the borders of tiles."""
    for count in (0, 1, 250, 3, 1, 0, 300):
        write(tmp_path, count)
        report = verify_log(Files(tmp_path), SIGNER.keys)
        assert report.faults == []
    assert report.size == 555 + 7 * 2
    assert report.types["log"] == 14


def test_a_full_queue_counts_and_reports_the_loss(tmp_path):
    """Entries beyond the limit are lost, counted by type, and an entry reports them."""
    writer = writer_of(tmp_path, limit=3, interval=60)
    writer._storage.lock()  # Another process writes: nothing is taken from the queue.
    writer.open()
    assert [writer.submit(verdict(writer, number)) for number in range(5)] == [True, True, True, False, False]
    assert writer.full
    assert writer.stats.lost == {"verdict": 2}
    writer._storage.unlock()
    settle(writer, 4)
    writer.close()
    report = verify_log(Files(tmp_path), SIGNER.keys)
    assert report.whole
    assert any("lost entries: 2 verdict" in note for note in report.notes)


async def test_a_receipt_proves_the_entry(tmp_path):
    """A receipt names a checkpoint that contains the entry, and fails for another key."""
    writer = writer_of(tmp_path, interval=30)
    writer.open()
    for number in range(300):
        writer.submit(verdict(writer, number)) or settle(writer, number)
    receipt = await writer.append(writer.entry("release", {"decision": "released", "model": "m"}), 20)
    writer.close()
    proof = parse_proof(receipt.proof.encode())
    assert proof.verify(SIGNER.keys) == ()
    assert b'"decision":"released"' in proof.entry
    with pytest.raises(ProofError, match="required"):
        proof.verify(SIGNER.keys, quorum=1)
    with pytest.raises(ProofError, match="signature"):
        proof.verify(signer_of(generate(), ORIGIN, "x").keys)
    for place in range(0, len(receipt.proof), 7):
        raw = bytearray(receipt.proof.encode())
        raw[place] ^= 1
        with pytest.raises(ProofError):
            parse_proof(bytes(raw)).verify(SIGNER.keys)


async def test_an_entry_that_cannot_be_written_is_not_logged(tmp_path, monkeypatch):
    """On a full disk an awaited entry fails, and is not written later. Other entries wait for room."""
    writer = writer_of(tmp_path)
    writer.open()
    settle(writer, 1)
    write_file = Directory.write

    def full(self, path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Directory, "write", full)
    with pytest.raises(NotLoggedError, match="No space left"):
        await writer.append(writer.entry("release", {"decision": "released", "model": "m"}), 20)
    writer.submit(verdict(writer, 1))
    monkeypatch.setattr(Directory, "write", write_file)
    await asyncio.to_thread(settle, writer, 2)
    writer.close()
    report = verify_log(Files(tmp_path), SIGNER.keys)
    assert (report.faults, report.types) == ([], {"log": 2, "verdict": 1})


async def test_missing_witnesses(tmp_path):
    """Below the quorum a release gets no receipt."""
    writer = writer_of(tmp_path, cosign=lambda signed, consistency: (), quorum=1)
    writer.open()
    with pytest.raises(NotLoggedError, match="0 of 1 required witnesses"):
        await writer.append(writer.entry("release", {"decision": "released", "model": "m"}), 20)
    writer.close()


async def test_an_entry_has_its_time(tmp_path):
    """An awaited entry fails when its time is over."""
    writer = writer_of(tmp_path)
    writer._storage.lock()
    writer.open()
    with pytest.raises(NotLoggedError, match="no checkpoint after"):
        await writer.append(writer.entry("release", {"decision": "released", "model": "m"}), 0.05)


def test_there_is_one_writer(tmp_path):
    """A second process waits, and continues the log when the first one stops."""
    first, second = writer_of(tmp_path), writer_of(tmp_path)
    first.open()
    second.open()
    assert second.submit(verdict(second, 2))
    assert first.submit(verdict(first, 1))
    settle(first, 2)
    with pytest.raises(LockedError):
        Directory(tmp_path).lock()
    first.close()
    settle(second, 5)
    second.close()
    report = verify_log(Files(tmp_path), SIGNER.keys)
    assert (report.faults, report.size, report.types) == ([], 6, {"log": 4, "verdict": 2})


@pytest.mark.parametrize(
    ("path", "change", "reason"),
    [
        ("checkpoint", None, "checkpoint is missing"),
        ("checkpoint", b"x", "signature block"),
        ("tile/0/000.p/5", b"x" * 160, "do not match"),
        ("tile/0/000.p/5", None, "is missing"),
        ("tile/entries/000.p/5", None, "bundle is missing"),
        ("tile/entries/000.p/5", b"\0\0" * 5, "does not match its hashes"),
    ],
)
def test_a_damaged_log_is_not_continued(tmp_path, path, change, reason):
    """A writer never continues what it cannot verify."""
    write(tmp_path, 3)
    place = tmp_path / path
    place.unlink() if change is None else place.write_bytes(change)
    if path == "checkpoint" and change is None:
        (tmp_path / "tile/0/000").write_bytes(bytes(8192))
    with pytest.raises(AuditError, match=reason):
        writer_of(tmp_path).open()


def test_a_log_belongs_to_its_origin_and_key(tmp_path):
    """Another origin or another key does not continue a log."""
    write(tmp_path, 1)
    for key, origin, reason in (
        (KEY, "cluster/webhook/b", "not cluster/webhook/b"),
        (generate(), ORIGIN, "signature"),
    ):
        other = LogWriter(Directory(tmp_path), signer_of(key, origin, "x"), limit=1, interval=1)
        with pytest.raises(AuditError, match=reason):
            other.open()


def test_a_clock_that_jumps(tmp_path):
    """A clock that goes back changes no tree. The verification notes it."""
    times = iter([100.0, 50.0, *[60.0 + n for n in range(100)]])
    writer = writer_of(tmp_path, clock=lambda: next(times))
    writer.open()
    writer.submit(verdict(writer, 1))
    settle(writer, 2)
    writer.close()
    report = verify_log(Files(tmp_path), SIGNER.keys)
    assert report.whole


def test_keys_are_generated_once(tmp_path):
    """The key file is private, and the same for all logs."""
    one = load_signer(tmp_path / "log.key", ORIGIN, create=True)
    two = load_signer(tmp_path / "log.key", ORIGIN, create=True)
    assert one.keys == two.keys
    assert (tmp_path / "log.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(AuditError, match="cannot read the log key"):
        load_signer(tmp_path / "none.key", ORIGIN)
    (tmp_path / "bad.key").write_text("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n")
    with pytest.raises(AuditError, match="not a private key"):
        load_signer(tmp_path / "bad.key", ORIGIN)


def test_ids_are_sorted_by_time():
    """A UUIDv7 has its version and variant, and sorts by time."""
    ids = []
    for _ in range(3):
        ids.append(new_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert all(each[14] == "7" and each[19] in "89ab" for each in ids)


CHILD = """
import sys, itertools
from pathlib import Path
from tests.unit.audit.conftest import KEY, verdict
from webhook.audit.keys import signer_of
from webhook.audit.storage import Directory
from webhook.audit.writer import LogWriter
import time
writer = LogWriter(Directory(Path(sys.argv[1])), signer_of(Path(sys.argv[2]).read_bytes(), "cluster/webhook/a", ""),
                   limit=100000, interval=0.005)
writer.open()
for number in itertools.count():
    writer.submit(verdict(writer, number))
    if number % 5 == 4:
        print(writer.size, flush=True)
        time.sleep(0.01)
"""


def test_a_killed_writer_loses_no_signed_entry(tmp_path):
    """After kill -9 while 500 entries a second are written, the log is whole and contains every signed entry."""
    key = tmp_path / "key"
    key.write_bytes(KEY)
    chance, signed = random.Random(3), 0
    for _ in range(100 if os.environ.get("WEIGHTLOCK_E2E_LONG") == "1" else 8):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "log"), str(key)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process:
            lines = chance.randrange(2, 40)
            # A log without a checkpoint cannot be verified.
            while lines > 0 or not signed:
                signed = int(process.stdout.readline())
                lines -= 1
            os.kill(process.pid, signal.SIGKILL)
            rest = process.stdout.read().split()
            signed = max([signed, *map(int, rest[:-1])])
        files = Files(tmp_path / "log")
        report = verify_log(files, SIGNER.keys)
        assert report.faults == []
        assert parse_checkpoint(files.read("checkpoint")).checkpoint.size >= signed


def test_retention_removes_whole_tiles_with_a_statement(tmp_path):
    """Old tiles go after a signed statement. The rest is whole, and a removal without a statement is a fault."""
    write(tmp_path, 700)
    now = Clock().now + 40 * 86_400
    writer = writer_of(tmp_path, retention_seconds=30 * 86_400, clock=lambda: now)
    writer.open()
    deadline = time.monotonic() + 20 * slowness()
    while Directory(tmp_path).read("tile/entries/001") is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    settle(writer, 704)
    writer.close()
    report = verify_log(Files(tmp_path), SIGNER.keys)
    assert (report.faults, report.pruned) == ([], 512)
    files = Files(tmp_path)
    del files.files["tile/1/000.p/2"]
    assert not verify_log(files, SIGNER.keys).whole


def test_a_removal_without_a_statement_is_a_fault(tmp_path):
    """Deleted tiles are missing entries."""
    write(tmp_path, 700)
    for name in ("tile/entries/000", "tile/0/000"):
        (tmp_path / name).unlink()
    report = verify_log(Files(tmp_path), SIGNER.keys)
    assert "without a signed statement" in str(report.faults[0])


def test_compressed_bundles(tmp_path):
    """Full bundles are compressed, the log is the same, and a changed byte of a compressed bundle is a fault."""
    writer = writer_of(tmp_path, compress=True, limit=1000)
    writer.open()
    for number in range(600):
        writer.submit(verdict(writer, number))
    settle(writer, 601)
    writer.close()
    packed = tmp_path / "tile/entries/001.gz"
    assert packed.stat().st_size < 256 * 350
    assert verify_log(Files(tmp_path), SIGNER.keys).faults == []
    write(tmp_path, 3)
    data = bytearray(packed.read_bytes())
    for place in range(0, len(data), 97):
        changed = bytearray(data)
        changed[place] ^= 1
        packed.write_bytes(bytes(changed))
        # The header of a gzip file holds a time and a system that mean nothing.
        assert place in range(4, 10) or not verify_log(Files(tmp_path), SIGNER.keys).whole, place


def test_an_unsigned_tail_is_discarded(tmp_path):
    """Files of entries that were never signed, in this tile and in following ones, are gone after a restart."""
    write(tmp_path, 250)
    for path in (
        "tile/entries/000",
        "tile/0/000",
        "tile/entries/001.p/1",
        "tile/0/001.p/1",
        "tile/1/000.p/1",
    ):
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bytes(32))
    (tmp_path / "tile/entries/002").write_bytes(bytes(32))
    write(tmp_path, 3)
    assert verify_log(Files(tmp_path), SIGNER.keys).faults == []
    write(tmp_path, 300)
    assert verify_log(Files(tmp_path), SIGNER.keys).faults == []


class Notary:
    """A witness: it cosigns continuations of its last checkpoint only, and counts the others."""

    def __init__(self):
        self.size, self.root, self.forks = 0, b"", 0

    def cosign(self, signed, consistency):
        state = signed.checkpoint
        proof = list(consistency(self.size)) if 0 < self.size < state.size else []
        continues = (
            self.size == 0
            or (self.size == state.size and self.root == state.root)
            or (
                self.size < state.size
                and verify_consistency(self.size, state.size, proof, self.root, state.root)
            )
        )
        if not continues:
            self.forks += 1
            return ()
        self.size, self.root = state.size, state.root
        return (Signature("notary.example.com/n", bytes(4), bytes(72)),)


class Failing(Directory):
    """Fails to write one path while ``broken``."""

    broken = ""

    def write(self, path, data):
        if path == self.broken:
            raise OSError(28, "No space left on device")
        super().write(path, data)


def test_a_checkpoint_that_a_witness_has_is_never_taken_back(tmp_path):
    """The disk is full between the cosignature and the publication: a later tree continues the cosigned one."""
    notary, storage = Notary(), Failing(tmp_path, fsync=False)
    writer = LogWriter(storage, SIGNER, limit=100, interval=0.01, cosign=notary.cosign, quorum=1)
    writer.open()
    settle(writer, 1)
    storage.broken = "checkpoint"
    with pytest.raises(NotLoggedError, match="No space left"):
        asyncio.run(writer.append(writer.entry("release", {"decision": "released", "model": "m"}), 5))
    wait_until(lambda: notary.size == 2)
    for number in range(3):
        writer.submit(verdict(writer, number))
    wait_until(lambda: notary.size == 5)
    storage.broken = ""
    wait_until(lambda: writer.size == 5)
    writer.close()
    assert notary.forks == 0
    report = verify_log(Files(tmp_path), SIGNER.keys)
    assert report.faults == []
    assert report.size == notary.size == 6


def test_a_restart_continues_the_checkpoint_that_a_witness_has(tmp_path):
    """The process is killed between the cosignature and the publication."""
    notary, storage = Notary(), Failing(tmp_path, fsync=False)
    for round_number in range(3):
        storage.broken = ""
        writer = LogWriter(storage, SIGNER, limit=100, interval=0.01, cosign=notary.cosign, quorum=1)
        started = notary.size + 1
        writer.open()
        settle(writer, started)
        storage.broken = "checkpoint"
        before = notary.size
        for number in range(200):
            writer.submit(verdict(writer, number))
        wait_until(lambda start=before: notary.size >= start + 50)
        writer._stopping = True
        writer._wake.set()
        writer._thread.join(10)
        storage.unlock()
        assert notary.forks == 0, round_number
    storage.broken = ""
    writer = LogWriter(storage, SIGNER, limit=100, interval=0.01, cosign=notary.cosign, quorum=1)
    writer.open()
    settle(writer, notary.size)
    writer.close()
    assert notary.forks == 0
    assert verify_log(Files(tmp_path), SIGNER.keys).faults == []


def test_a_pending_checkpoint_of_another_log_is_ignored(tmp_path):
    """The owner of the volume writes a pending checkpoint that the log never had."""
    write(tmp_path / "a", 3)
    write(tmp_path / "b", 9, origin="cluster/webhook/b")
    for content in (b"", b"\xff", (tmp_path / "b" / "checkpoint").read_bytes()):
        (tmp_path / "a" / ".pending").write_bytes(content)
        write(tmp_path / "a", 1)
        assert verify_log(Files(tmp_path / "a"), SIGNER.keys).faults == []


def wait_until(done, seconds=20):
    deadline = time.monotonic() + seconds * slowness()
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.002)


FULL_QUEUE = """
import resource, sys
from pathlib import Path
from tests.unit.audit.conftest import verdict
from webhook.audit.keys import generate, signer_of
from webhook.audit.storage import Directory
from webhook.audit.writer import LogWriter

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

storage = Directory(Path(sys.argv[1]), fsync=False)
writer = LogWriter(storage, signer_of(generate(), "cluster/webhook/a", "test"), limit=10_000, interval=60)
storage.lock()  # Another process writes: nothing is taken from the queue.
writer.open()
writer.submit(verdict(writer, 0))
before = peak()
for number in range(1, 10_000):
    assert writer.submit(verdict(writer, number))
print(peak() - before)
"""


def test_a_full_queue_is_small(tmp_path):
    """10,000 waiting entries take less than 15 MiB."""
    result = subprocess.run(
        [sys.executable, "-c", FULL_QUEUE, tmp_path / "log"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60 * slowness(),
    )
    assert int(result.stdout or 99) < 15, result.stderr
