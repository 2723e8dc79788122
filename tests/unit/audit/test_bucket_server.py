"""A log in a bucket of an S3 server that is not of this project: moto, with its conditional writes and XML."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import boto3
import orjson
import pytest
from moto.server import ThreadedMotoServer

from tests.unit.audit.conftest import KEY, settle, verdict
from webhook.app.audit import LogsDirectory
from webhook.audit import bucket
from webhook.audit.bucket import Bucket
from webhook.audit.errors import AuditError, LockedError
from webhook.audit.heads import Heads
from webhook.audit.keys import signer_of
from webhook.audit.writer import LogWriter
from webhook.cli.main import main
from webhook.core.audit.entries import timestamp
from webhook.core.audit.verify import verify_log

URL = "s3://logs/prod"
SIGNER = signer_of(KEY, "cluster/webhook/a", "test")
BROKER = signer_of(KEY, "cluster/broker/b", "test")


def keys(signer):
    return {"keys.txt": "".join(f"{each.render()}\n" for each in signer.keys).encode()}


@pytest.fixture(scope="module")
def server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    process = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    process.start()
    host, port = process.get_host_and_port()
    yield f"http://{host}:{port}"
    process.stop()


@pytest.fixture
def store(server, monkeypatch):
    """An empty bucket."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    resource = boto3.resource("s3", region_name="us-east-1", endpoint_url=server)
    place = resource.create_bucket(Bucket="logs")
    yield place
    place.objects.all().delete()
    place.delete()


def writer_of(path="webhook/a", signer=SIGNER):
    storage = Bucket(f"{URL}/{path}", keys(signer))
    return LogWriter(storage, signer, limit=10_000, interval=0.01, compress=True)


def write(count, path="webhook/a", signer=SIGNER):
    writer = writer_of(path, signer)
    writer.open()
    for number in range(count):
        assert writer.submit(verdict(writer, number))
    writer.close(60)


def test_runs_continue_one_log(store):
    """Sealed bundles are compressed, and no partial tile of a full one stays."""
    write(300)
    write(3)
    report = verify_log(Bucket(f"{URL}/webhook/a"), SIGNER.keys)
    assert (report.faults, report.size) == ([], 307)
    names = {each.key for each in store.objects.all()}
    assert "prod/webhook/a/tile/entries/000.gz" in names
    assert not any("/0/000.p/" in name for name in names)


def test_every_condition_is_the_servers(store):
    """Neither a second writer nor a delayed write replaces a file."""
    first, second = Bucket(f"{URL}/webhook/a"), Bucket(f"{URL}/webhook/a")
    first.lock()
    with pytest.raises(LockedError, match="another process"):
        second.lock()
    first.write("checkpoint", b"one")
    store.put_object(Key="prod/webhook/a/checkpoint", Body=b"foreign")
    with pytest.raises(AuditError, match="another process wrote it"):
        first.write("checkpoint", b"two")
    first.unlock()
    second.lock()
    second.unlock()


def test_the_commands_read_a_bucket(store, tmp_path, capsys):
    """Evidence, its recomputation, detections, search and a comparison with another copy."""
    write(20)
    # The keys of the bucket have an order that is not that of their paths.
    write(2, "broker/b", BROKER)
    now = datetime.now(UTC)
    period = ["--from", timestamp(now - timedelta(hours=1)), "--to", timestamp(now + timedelta(hours=1))]
    results = tmp_path / "results.json"
    assert main(["evidence", "--log", URL, *period, "-o", str(results)]) in (0, 1)
    logs = {
        each["value"]
        for each in orjson.loads(results.read_bytes())["assessment-results"]["results"][0]["props"]
        if each["name"] == "log"
    }
    assert logs == {"cluster/webhook/a", "cluster/broker/b"}
    assert main(["evidence", "verify", str(results), "--log", URL]) == 0
    assert main(["detections", "run", URL]) == 0
    assert main(["audit", "verify", URL, "--against", URL]) == 0
    assert main(["audit", "search", URL, "--user", "user-2"]) == 0
    assert "train-7" in capsys.readouterr().out
    for command in (["evidence", *period, "--log"], ["detections", "run"], ["audit", "verify"]):
        assert main([*command, "s3://logs/none"]) == 2
        assert main([*command, "s3://none/prod"]) == 2


def test_a_silent_writer_in_a_bucket_is_reported(store, monkeypatch):
    """The lease of a killed writer expires by the server's clock. A stopped writer left a stop entry."""
    write(2, "broker/b", BROKER)
    writer = writer_of()
    writer.open()
    writer.submit(verdict(writer, 1))
    settle(writer, 2)
    logs = LogsDirectory(URL)
    heads = Heads(
        logs.path, "cluster/controller/c", lambda origin: signer_of(KEY, origin, "").keys, logs.is_free
    )

    def changes():
        logs.refresh()
        return [(each["event"], each.get("head", {}).get("origin")) for each in heads.changes()]

    assert sorted(changes()) == [("head", "cluster/broker/b"), ("head", "cluster/webhook/a")]
    assert changes() == []
    # A kill ends the renewals, and time passes.
    writer._storage._stop.set()
    monkeypatch.setattr(bucket, "LEASE_SECONDS", -2.0)
    assert changes() == [("silent", "cluster/webhook/a")]
    assert changes() == []


def test_a_writer_that_stops_after_the_copy_is_not_silent(store):
    """The copy ends before the stop entry, and the lease is free: the next copy has the entry."""
    writer = writer_of()
    writer.open()
    writer.submit(verdict(writer, 1))
    settle(writer, 2)
    logs = LogsDirectory(URL)
    heads = Heads(
        logs.path, "cluster/controller/c", lambda origin: signer_of(KEY, origin, "").keys, logs.is_free
    )
    logs.refresh()
    writer.close(60)
    assert [each["event"] for each in heads.changes()] == ["head"]
    logs.refresh()
    assert [each["event"] for each in heads.changes()] == ["head"]
