"""Sealed directories on servers: ranges, retries, S3 signatures, and servers that misbehave."""

from __future__ import annotations

import datetime
import http.server
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
import weightlock
from moto.server import ThreadedMotoServer

from webhook.keys.errors import BadInputError, SealedDataError, StorageError
from webhook.keys.sealed import operations
from webhook.keys.sealed.storage import remote
from webhook.keys.sealed.storage.remote import open_store, s3_headers

if TYPE_CHECKING:
    from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a directory by ranges. ``faults`` are statuses to send first."""

    protocol_version = "HTTP/1.1"
    root: Path
    faults: list[int]
    ranges = True

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        path = self.root / self.path.removeprefix("/w/")
        if self.faults:
            return self._send(self.faults.pop(0), b"no", {})
        if not path.is_file():
            return self._send(404, b"", {})
        content = path.read_bytes()
        if not self.ranges:
            return self._send(200, content, {})
        start, stop = self.headers["Range"].removeprefix("bytes=").split("-")
        part = content[int(start) : int(stop) + 1]
        if not part:
            return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        span = f"bytes {start}-{int(start) + len(part) - 1}/{len(content)}"
        return self._send(206, part, {"Content-Range": span})

    def _send(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def served(root, faults=(), ranges=True):
    kind = type("Bound", (Handler,), {"root": root, "faults": list(faults), "ranges": ranges})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}/w"
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def key_file(sealed, service, tmp_path):
    with operations.open_sealed(sealed, service) as opened, opened.key.view() as view:
        (tmp_path / "key").write_bytes(view)
    return tmp_path / "key"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.001)


def test_every_file_is_read_by_ranges(sealed, tree, key_file):
    with served(sealed) as server, weightlock.open_weights(server.url, key_file=key_file) as weights:
        for name in weights.files:
            assert weights.read(name) == (tree / name).read_bytes()
        with weights.raw("shards/deep/three.bin") as stream:
            before = len(server.requests)
            stream.seek(2_500_000)
            assert stream.read(1000) == (tree / "shards/deep/three.bin").read_bytes()[2_500_000:2_501_000]
            assert len(server.requests) == before + 1, "one segment is one request"


def test_unseal_from_a_server(sealed, tree, tmp_path, service, work, same):
    with (
        served(sealed) as server,
        closing(open_store(server.url)) as store,
        operations.open_sealed(store, service) as opened,
    ):
        operations.unseal(opened, tmp_path / "back", [], work, mode=0o600, replace=False)
    assert same(tree, tmp_path / "back")


def test_temporary_failures_are_retried(sealed, key_file):
    with (
        served(sealed, faults=[503, 500, 429]) as server,
        weightlock.open_weights(server.url, key_file=key_file) as weights,
    ):
        assert weights.read("config.json")
        assert len(server.requests) > 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"faults": [500] * 5}, StorageError, "status 500"),
        ({"faults": [403]}, StorageError, "status 403 for a range request"),
        ({"ranges": False}, StorageError, "status 200 for a range request"),
    ],
)
def test_a_server_that_does_not_serve_is_one_sentence(sealed, key_file, options, error, message):
    with (
        served(sealed, **options) as server,
        pytest.raises(error, match=message) as raised,
        weightlock.open_weights(server.url, key_file=key_file) as weights,
    ):
        weights.read("shards/deep/three.bin")
    assert "\n" not in str(raised.value)


def test_a_server_that_changes_a_byte_or_a_file_is_detected(sealed, key_file):
    with served(sealed) as server, weightlock.open_weights(server.url, key_file=key_file) as weights:
        path = sealed / "shards/deep/three.bin.sealed"
        raw = bytearray(path.read_bytes())
        raw[1_500_000] ^= 1
        path.write_bytes(raw)
        with pytest.raises(SealedDataError, match="does not authenticate"):
            weights.read("shards/deep/three.bin")
        path.unlink()
        with pytest.raises(SealedDataError, match="is missing"):
            weights.read("shards/deep/three.bin")


@pytest.mark.parametrize(
    "url", ["https://", "https://user:secret@host/x", "https://host/x?token=1", "s3:///x"]
)
def test_urls_that_are_not_directories(url):
    with pytest.raises(BadInputError) as raised:
        open_store(url)
    assert "secret" not in str(raised.value) or "user" in url


def test_the_signature_is_that_of_botocore(monkeypatch):
    class Frozen(datetime.datetime):
        @classmethod
        def utcnow(cls):
            return cls(2026, 11, 29, 10, 0, 0)

        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 29, 10, 0, 0, tzinfo=tz)

    now = Frozen.now(datetime.UTC)
    keys = ("AKID", "secret", "token")
    mine = s3_headers("GET", "s3.eu-west-1.amazonaws.com", "/bucket/a%20b/c", "eu-west-1", keys, now)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: now, raising=False)
    monkeypatch.setattr(botocore.auth.datetime, "datetime", Frozen, raising=False)
    request = botocore.awsrequest.AWSRequest("GET", "https://s3.eu-west-1.amazonaws.com/bucket/a%20b/c")
    request.headers["X-Amz-Content-SHA256"] = mine["x-amz-content-sha256"]
    credentials = botocore.credentials.Credentials(*keys)
    signer = botocore.auth.S3SigV4Auth(credentials, "s3", "eu-west-1")
    signer.add_auth(request)
    assert request.headers["Authorization"] == mine["Authorization"]


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.filterwarnings("ignore")
def test_a_bucket(sealed, tree, key_file, s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1")
    client.create_bucket(Bucket="models")
    for path in sealed.rglob("*"):
        if path.is_file():
            client.put_object(
                Bucket="models", Key=f"atlas/v 1/{path.relative_to(sealed)}", Body=path.read_bytes()
            )
    client.close()
    with weightlock.open_weights("s3://models/atlas/v 1", key_file=key_file) as weights:
        for name in weights.files:
            assert weights.read(name) == (tree / name).read_bytes()
    nothing = pytest.raises(BadInputError, match="is not a sealed directory")
    with nothing, weightlock.open_weights("s3://models/nothing", key_file=key_file):
        pass


def test_any_file_system_of_fsspec(sealed, tree, key_file):
    pytest.importorskip("fsspec")
    with weightlock.open_weights(f"file://{sealed}", key_file=key_file) as weights:
        for name in weights.files:
            assert weights.read(name) == (tree / name).read_bytes()
