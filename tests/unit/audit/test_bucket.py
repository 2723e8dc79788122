"""A log in a bucket: partial failures, delayed writes, two writers and kills never harm signed entries."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from harness.waiting import slowness

from tests.support.bucket import bucket_server
from tests.unit.audit.conftest import KEY, settle, verdict
from webhook.api.audit import AuditSettings
from webhook.app.audit import LogsDirectory, audit_log
from webhook.app.errors import UsageError
from webhook.audit import bucket
from webhook.audit.bucket import Bucket, copy_logs, is_bucket
from webhook.audit.check import verify_directory
from webhook.audit.errors import AuditError, LockedError, UncertainError
from webhook.audit.keys import load_signer, signer_of
from webhook.audit.writer import LogWriter
from webhook.cli.main import main
from webhook.core.audit.verify import verify_log

ORIGIN = "cluster/webhook/a"
SIGNER = signer_of(KEY, ORIGIN, "test")
URL = "s3://logs/prod/audit"
LOG = f"{URL}/webhook/a"
PUBLIC = {"keys.txt": "".join(f"{each.render()}\n" for each in SIGNER.keys).encode()}


@pytest.fixture
def store(monkeypatch):
    with bucket_server() as (content, url):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setattr(bucket, "_PAUSE", 0.001)
        yield content


def writer_of(**options):
    return LogWriter(Bucket(LOG, PUBLIC), SIGNER, **{"limit": 10_000, "interval": 0.01, **options})


def write(count, **options):
    writer = writer_of(**options)
    writer.open()
    for number in range(count):
        assert writer.submit(verdict(writer, number))
    writer.close(60)
    return writer


def checked(size=None):
    report = verify_log(Bucket(LOG), SIGNER.keys)
    assert report.faults == []
    if size is not None:
        assert report.size == size
    return report


def test_runs_continue_the_same_log(store):
    """Runs of several lengths continue one tree, across the border of a tile, with sealed bundles compressed."""
    total = 0
    for count in (0, 3, 300, 1):
        write(count, compress=True)
        total += count + 2
        checked(total)
    assert "prod/audit/webhook/a/tile/entries/000.gz" in store.objects
    assert not any("/0/000.p/" in key or "/entries/000.p/" in key for key in store.objects)


def test_a_copy_is_verified_like_a_directory(store, tmp_path):
    """`copy_logs` reads only what is new, and the copy is whole."""
    write(300)
    assert copy_logs(URL, tmp_path) > 3
    (result,) = verify_directory(tmp_path, SIGNER.keys)
    assert (result.report.faults, result.report.size) == ([], 302)
    write(5)
    store.requests.clear()
    logs = LogsDirectory(URL)
    copy_logs(URL, tmp_path)
    assert ("GET", "prod/audit/webhook/a/tile/0/000") not in store.requests
    (result,) = verify_directory(tmp_path, SIGNER.keys)
    assert (result.report.faults, result.report.size) == ([], 309)
    logs.refresh()
    assert verify_directory(logs.path)[0].report.size == 309


def test_the_configuration_and_the_commands_use_a_bucket(store, tmp_path, capsys):
    """The assembly opens the log, and `weightlock audit` reads it."""
    key = tmp_path / "log.key"
    load_signer(key, ORIGIN, create=True)
    settings = AuditSettings(directory=URL, key=str(key), instance="a", interval_seconds=0.01)
    with audit_log(settings, "webhook") as writer:
        assert writer.submit(verdict(writer, 7))
    assert main(["audit", "verify", URL]) == 0
    assert main(["audit", "search", URL, "--user", "user-2", "-o", "json"]) == 0
    assert "train-7" in capsys.readouterr().out
    with (
        pytest.raises(UsageError, match=r"audit\.key is required"),
        audit_log(AuditSettings(directory=URL), "webhook"),
    ):
        pass


def test_a_name_in_the_bucket_cannot_leave_the_directory(store, tmp_path):
    """The owner of the bucket chooses its keys."""
    write(1)
    for key in (
        "../x/checkpoint",
        "webhook/../../checkpoint",
        "webhook/a/tile/../../../../evil",
        "webhook/a/.lock",
    ):
        store.objects[f"prod/audit/{key}"] = (b"evil", '"e"', 0)
    copy_logs(URL, tmp_path / "in")
    assert {each.name for each in tmp_path.iterdir()} == {"in"}
    assert not [
        each for each in (tmp_path / "in").rglob("*") if each.is_file() and each.read_bytes() == b"evil"
    ]


@pytest.mark.parametrize("fault", [500, 503, "drop", "late"])
def test_random_failures_never_harm_the_log(store, fault):
    """A third of the requests fail, lose their response, or are applied later: the log stays whole."""
    chance, invalid = random.Random(7), [True]

    def fail(method, key):
        if not invalid[0] or key.endswith(".lock") or (method != "PUT" and not isinstance(fault, int)):
            return None
        return fault if chance.random() < 0.33 else None

    writer = writer_of()
    writer.open()
    settle(writer, 1)
    store.fault = fail
    for number in range(280):
        assert writer.submit(verdict(writer, number))
        if number % 20 == 0:
            time.sleep(0.01)
            assert set(store.apply_late()) <= {200, 404, 412}
    invalid[0] = False
    settle(writer, 281)
    assert set(store.apply_late()) <= {404, 412}
    writer.close(60)
    checked(282)


def test_a_delayed_checkpoint_never_replaces_a_newer_one(store):
    """A request that the network delays arrives after the next checkpoint: the server rejects it."""
    writer = writer_of()
    writer.open()
    settle(writer, 1)
    store.fault = lambda method, key: (
        "late" if (method, key.rpartition("/")[2]) == ("PUT", "checkpoint") else None
    )
    assert writer.submit(verdict(writer, 1))
    deadline = time.monotonic() + 20 * slowness()
    while not store.late:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    store.fault = lambda method, key: None
    assert writer.submit(verdict(writer, 2))
    settle(writer, 3)
    assert set(store.apply_late()) == {412}
    writer.close(60)
    checked(4)


def test_a_second_writer_waits_for_the_lease(store):
    """A lease that is renewed is respected. One that expired by the server's clock is taken over."""
    first, second = Bucket(LOG), Bucket(LOG)
    first.lock()
    with pytest.raises(LockedError, match="another process"):
        second.lock()
    first._stop.set()
    store.age = bucket.LEASE_SECONDS + 5
    second.lock()
    first.write("checkpoint", b"x")
    with pytest.raises(AuditError, match="another process"):
        second.write("checkpoint", b"y")
    first._until = 0.0
    with pytest.raises(AuditError, match="lease"):
        first.write("checkpoint", b"z")
    second.unlock()
    Bucket(LOG).lock()


def test_two_writers_cannot_both_sign(store):
    """Both ignore the lease: the second to write a checkpoint is stopped, and the log is whole."""
    write(3)
    writers = []
    for _ in range(2):
        storage = Bucket(LOG)
        storage.lock()
        storage._stop.set()
        store.objects["prod/audit/webhook/a/.lock"] = (b'{"holder": ""}', '"free"', 0)
        writer = LogWriter(storage, SIGNER, limit=100, interval=0.01)
        storage.lock, storage.unlock = (lambda: None), (lambda: None)
        writers.append(writer)
    for writer in writers:
        writer.open()
    settle(writers[0], 6)
    for number in range(20):
        for writer in writers:
            writer.submit(verdict(writer, number))
    settle(writers[0], 26)
    assert writers[1].stats.failures > 0
    for writer in writers:
        writer.close(5)
    # What the stopped writer left of a partial tile is deleted with the other partial tiles.
    write(300)
    checked()


def test_a_server_without_conditional_writes_is_rejected(store, monkeypatch):
    """Such a server cannot stop a second writer."""
    put = store.put
    monkeypatch.setattr(store, "put", lambda key, body, _: put(key, body, (None, None)))
    with pytest.raises(AuditError, match="ignores If-None-Match"):
        Bucket(LOG).lock()


def test_a_bucket_that_does_not_answer_is_an_error(store):
    store.fault = lambda method, key: 503
    with pytest.raises(UncertainError, match="status 503"):
        Bucket(LOG).lock()
    store.fault = lambda method, key: 403
    with pytest.raises(AuditError, match="status 403"):
        Bucket(LOG).lock()


@pytest.mark.parametrize("url", ["s3://", "s3://bucket", "s3:///prefix", "https://bucket/prefix"])
def test_a_url_needs_a_bucket_and_a_prefix(url):
    with pytest.raises(AuditError, match="is not s3://BUCKET/PREFIX"):
        Bucket(url)
    assert is_bucket(url) == url.startswith("s3://")


PROGRAM = """
import sys
from tests.unit.audit.conftest import verdict
from tests.unit.audit.test_bucket import LOG, PUBLIC
from webhook.audit.bucket import Bucket
from webhook.audit.keys import load_signer
from webhook.audit.writer import LogWriter
from pathlib import Path
writer = LogWriter(Bucket(LOG, PUBLIC), load_signer(Path(sys.argv[1]), "cluster/webhook/a"), limit=1000, interval=0.01)
writer.open()
number = 0
while True:
    writer.submit(verdict(writer, number))
    number += 1
    print(writer.size, flush=True)
"""


def test_kills_lose_no_signed_entry(store, tmp_path):
    """Processes that are killed while they write: each signed size stays, and the next process continues."""
    key = tmp_path / "log.key"
    keys = load_signer(key, ORIGIN, create=True).keys
    signed = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, key],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        size = 0
        while size < signed + 20:
            line = process.stdout.readline()
            assert line, "the writer stopped"
            size = int(line)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        # The lease expires by the server's clock.
        store.age += bucket.LEASE_SECONDS + 5
        report = verify_log(Bucket(LOG), keys)
        assert report.faults == []
        assert report.size >= size
        signed = report.size


def test_a_server_whose_pages_do_not_end_is_an_error(store, monkeypatch):
    """The owner of the server chooses the pages."""
    write(1)
    answer = b"<ListBucketResult><NextContinuationToken>%d</NextContinuationToken></ListBucketResult>"
    monkeypatch.setattr(bucket, "_MAX_PAGES", 50)
    for tokens in (itertools.repeat(1), itertools.count()):
        pages = (bucket._Answer(200, None, answer % token) for token in tokens)
        monkeypatch.setattr(bucket.Client, "retried", lambda *_, pages=pages, **__: next(pages))
        with pytest.raises(AuditError, match="pages do not end"):
            list(bucket.Client("logs").keys("prod/"))
