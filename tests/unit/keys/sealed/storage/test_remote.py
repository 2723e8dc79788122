"""Sealed directories on servers: ranges, retries, S3 signatures, and servers that misbehave."""

from __future__ import annotations

import contextlib
import http.server
import socketserver
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import boto3
import pytest
import weightlock
from harness.waiting import slowness
from moto.server import ThreadedMotoServer

from webhook.keys.errors import BadInputError, KeysError, SealedDataError, StorageError
from webhook.keys.sealed import operations
from webhook.keys.sealed.storage import remote
from webhook.keys.sealed.storage.remote import open_store

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
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
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


@contextmanager
def responding(response):
    """A server that sends the same bytes for each request, then closes the connection."""

    class Raw(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline() not in {b"\r\n", b""}:
                pass
            self.wfile.write(response)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Raw) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/w"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"200 OK\r\nContent-Length: abc\r\n\r\n", "status 200 for a range request"),
        (b"200 OK\r\nContent-Length: -5\r\n\r\n", "status 200 for a range request"),
        (b"200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", "status 200 for a range request"),
        (
            b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "status 200 for a range request",
        ),
        (b"206 P\r\nContent-Range: bytes 0-2/\xb2\r\n\r\nabc", "no valid Content-Range"),
        (b"206 P\r\nContent-Range: bytes 0-2/" + b"9" * 5000 + b"\r\n\r\nabc", "no valid Content-Range"),
        (b"206 P\r\nContent-Range: bytes 5-7/9\r\n\r\nabc", "no valid Content-Range"),
        (b"206 P\r\nContent-Range: bytes 0-2/9000\r\n\r\na", "closed early"),
        (b"206 P\r\n\r\nabc", "no valid Content-Range"),
        (
            b"206 P\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 0-2/3\r\n\r\nzz\r\n",
            "IncompleteRead",
        ),
        (b"302 Found\r\nLocation: http://[::1/\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"\x1b[2J200 x\r\n\r\n", r"\\x1b\[2J200"),
        (b"200 OK\r\n" + b"a: b\r\n" * 200 + b"\r\n", "more than 100 headers"),
    ],
)
def test_a_response_that_is_not_http_is_one_sentence(response, message, tmp_path):
    with (
        responding(b"HTTP/1.1 " + response) as url,
        pytest.raises(KeysError, match=message) as raised,
        weightlock.open_weights(url, key_file=tmp_path / "key"),
    ):
        pass
    assert str(raised.value).isprintable()


def test_a_server_that_returns_less_than_requested(sealed, tree, key_file, monkeypatch):
    respond = Handler._send

    def send(self, status, body, headers):
        if status == 206 and len(body) > 100_000:
            start, _, size = headers["Content-Range"].removeprefix("bytes ").partition("-")
            body = body[:100_000]
            span = f"bytes {start}-{int(start) + len(body) - 1}/{size.partition('/')[2]}"
            headers = {"Content-Range": span}
        respond(self, status, body, headers)

    monkeypatch.setattr(Handler, "_send", send)
    with served(sealed) as server, weightlock.open_weights(server.url, key_file=key_file) as weights:
        for name in weights.files:
            assert weights.read(name) == (tree / name).read_bytes()


def test_connections_that_the_server_closed_meanwhile_cost_no_attempt(sealed, tree, key_file, monkeypatch):
    monkeypatch.setattr(remote, "_ATTEMPTS", 1)
    with served(sealed) as server, weightlock.open_weights(server.url, key_file=key_file) as weights:
        client = weights._sealed.store._client
        opened, barrier = [], threading.Barrier(8)
        finish = Handler.finish

        def finished(self):
            finish(self)
            opened.append(self)

        monkeypatch.setattr(Handler, "finish", finished)
        monkeypatch.setattr(Handler, "timeout", 0.2)

        exchange = remote.RangeClient._exchange

        def together(self, *words):
            barrier.wait(10)
            return exchange(self, *words)

        client.close()
        monkeypatch.setattr(remote.RangeClient, "_exchange", together)
        readers = [
            threading.Thread(target=client.get, args=("/w/weightlock.json", 0, memoryview(bytearray(1))))
            for _ in range(8)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        monkeypatch.setattr(remote.RangeClient, "_exchange", exchange)
        assert len(client._idle) == 8
        until = time.monotonic() + 10 * slowness()
        while len(opened) < 8 and time.monotonic() < until:
            time.sleep(0.01)
        assert weights.read("config.json") == (tree / "config.json").read_bytes()


def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_TIMEOUT", 0.3)
    monkeypatch.setattr(remote, "_SLOWEST", 1 << 40)
    monkeypatch.setattr(remote, "_ATTEMPTS", 2)
    stop = threading.Event()

    class Slow(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-999/1000\r\n")
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):
                    self.wfile.write(b"a")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/w"
        with (
            pytest.raises(StorageError, match=r"too slowly|timed out"),
            weightlock.open_weights(url, key_file=tmp_path / "key"),
        ):
            pass
        stop.set()
        server.shutdown()
        thread.join()


def test_a_bucket_that_may_not_be_listed(tmp_path, service, work, monkeypatch):
    """Without the right to list, S3 responds to each missing object with status 403, not 404."""
    numpy = pytest.importorskip("safetensors.numpy")
    source = tmp_path / "plain"
    source.mkdir()
    numpy.save_file({"one": __import__("numpy").ones(3, "f4")}, source / "model.safetensors")
    manifest = operations.seal(source, tmp_path / "sealed", service, "atlas", "k1", work)
    with service.unwrap(manifest.key, "atlas") as key, key.view() as view:
        (tmp_path / "key").write_bytes(view)
    respond = Handler._send
    monkeypatch.setattr(
        Handler,
        "_send",
        lambda self, status, body, headers: respond(self, 403 if status == 404 else status, body, headers),
    )
    with served(tmp_path / "sealed") as server:
        url = f"{server.url}/model.safetensors"
        with weightlock.safe_open(url, "np", key_file=tmp_path / "key") as tensors:
            assert tensors.get_tensor("one").tolist() == [1, 1, 1]
        with pytest.raises(StorageError, match="status 403"):
            weightlock.safe_open(server.url.replace("/w", "/other"), "np", key_file=tmp_path / "key")


@pytest.mark.parametrize(
    "url",
    [
        "https://host:99999999/x",
        "https://[host/x",
        "http://host:abc/x",
        "http://ho st/x",
        "http://xn--ä.invalid/x",
        "http://127.0.0.1/\ud800",
        "s3://[x/y",
        "s3://bucket/prefix?version=1",
        "gs://b[/x",
        "oci://[a/b:c",
        "oci://host:99999999/b:c",
        "ftp://[/x",
        "jupyter://x",
        "no-such-scheme://x",
    ],
)
def test_an_invalid_url_is_reported_in_one_sentence(url):
    with pytest.raises(BadInputError) as raised:
        open_store(url)
    assert str(raised.value).isprintable()


def test_a_package_of_fsspec_that_fails_is_one_sentence(monkeypatch, sealed, key_file):
    fsspec = pytest.importorskip("fsspec")
    system = type(fsspec.filesystem("file"))

    def fail(*_, **__):
        raise RuntimeError("the session has expired\nmore")

    with weightlock.open_weights(f"file://{sealed}", key_file=key_file) as weights:
        monkeypatch.setattr(system, "cat_file", fail)
        with pytest.raises(StorageError, match=r"cannot read .*: the session has expired$"):
            weights.read("config.json")
        monkeypatch.setattr(system, "info", fail)
        with pytest.raises(StorageError, match=r"cannot read .*: the session has expired$"):
            weights.read("config.json")
