"""``gs://`` and ``oci://`` against local servers that check what a cloud checks: tokens, ranges and redirects."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import weightlock

from webhook.cli.main import main
from webhook.keys.errors import BadInputError, KeysError, SealedDataError, StorageError
from webhook.keys.sealed import operations
from webhook.keys.sealed.storage import gcs, oci
from webhook.keys.sealed.storage.remote import open_store

TOKEN, LOGIN = "a-token", "YWxpY2U6c2VjcmV0"


class Handler(http.server.BaseHTTPRequestHandler):
    """Calls ``respond`` of its server: (status, body, headers)."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append((self.path, dict(self.headers)))
        status, body, headers = self.server.respond(self.path, self.headers)
        if status == 200 and (queries := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))):
            start, stop = int(queries[1]), int(queries[2])
            whole, body = body, body[start : stop + 1]
            status = 206 if body else 416
            span = f"{start}-{start + len(body) - 1}" if body else "*"
            headers = {**headers, "Content-Range": f"bytes {span}/{len(whole)}"}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving(respond):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.respond, server.requests = respond, []
        server.host = f"127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def sealed(tree, tmp_path, service, work):
    manifest = operations.seal(tree, tmp_path / "sealed", service, "atlas-70b", "k1", work)
    with service.unwrap(manifest.key, "atlas-70b") as key, key.view() as view:
        (tmp_path / "key").write_bytes(view)
    return tmp_path / "sealed"


@pytest.fixture
def bucket(sealed):
    """A bucket ``weights`` with the prefix ``models/atlas``."""

    def respond(path, headers):
        name = urllib.parse.unquote(path).removeprefix("/weights/models/atlas/")
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, b"", {}
        file = sealed / name
        return (200, file.read_bytes(), {}) if file.is_file() else (404, b"", {})

    with serving(respond) as server:
        yield server


@pytest.fixture
def api(bucket, monkeypatch):
    monkeypatch.setattr(gcs, "_API", f"http://{bucket.host}")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_OAUTH_ACCESS_TOKEN", raising=False)
    return bucket


def reads_all(url, tree, tmp_path):
    with weightlock.open_weights(url, key_file=tmp_path / "key") as weights:
        return all(weights.read(path) == (tree / path).read_bytes() for path in weights.files)


def test_a_bucket_with_a_token_of_the_environment(api, monkeypatch, tree, tmp_path):
    monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", TOKEN)
    assert reads_all("gs://weights/models/atlas", tree, tmp_path)


def test_a_bucket_with_the_identity_of_the_pod(api, monkeypatch, tree, tmp_path):
    def respond(path, headers):
        assert headers["Metadata-Flavor"] == "Google"
        assert path == "/computeMetadata/v1/instance/service-accounts/default/token"
        return 200, json.dumps({"access_token": TOKEN, "expires_in": 3600}).encode(), {}

    with serving(respond) as metadata:
        monkeypatch.setenv("GCE_METADATA_HOST", metadata.host)
        assert reads_all("gs://weights/models/atlas", tree, tmp_path)
        assert len(metadata.requests) == 1, "the token is kept"


def test_a_token_is_replaced_before_it_expires(monkeypatch):
    tokens = iter(["one", "two"])

    def respond(_path, _headers):
        return 200, json.dumps({"access_token": next(tokens), "expires_in": 61}).encode(), {}

    moment = [1000.0]
    monkeypatch.setattr(gcs, "time", SimpleNamespace(monotonic=lambda: moment[0]))
    monkeypatch.delenv("GOOGLE_OAUTH_ACCESS_TOKEN", raising=False)
    with serving(respond) as metadata:
        monkeypatch.setenv("GCE_METADATA_HOST", metadata.host)
        matches = gcs.Tokens()
        assert matches.headers() == matches.headers() == {"Authorization": "Bearer one"}
        moment[0] += 2
        assert matches.headers() == {"Authorization": "Bearer two"}


@pytest.mark.parametrize(
    ("status", "body"), [(404, b""), (200, b"[]"), (200, b"{"), (200, b'{"access_token": "x"}')]
)
def test_without_a_usable_token_a_bucket_is_read_anonymously(api, monkeypatch, status, body):
    with serving(lambda _path, _headers: (status, body, {})) as metadata:
        monkeypatch.setenv("GCE_METADATA_HOST", metadata.host)
        with pytest.raises(StorageError, match="status 401"):
            open_store("gs://weights/models/atlas").read("weightlock.json", 1000)
    assert "Authorization" not in api.requests[-1][1]


def test_an_emulator_gets_no_token(bucket, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.host)
    monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", TOKEN)
    with pytest.raises(StorageError, match="status 401"):
        open_store("gs://weights/models/atlas").read("weightlock.json", 1000)
    assert "Authorization" not in bucket.requests[-1][1]


def test_a_bucket_needs_a_name():
    with pytest.raises(BadInputError, match="names no bucket"):
        open_store("gs:///models")


class Registry:
    """A registry with one artifact, and storage on another origin to which it redirects."""

    def __init__(self, sealed, stack):
        files = [path for path in sorted(sealed.rglob("*")) if path.is_file()]
        self.blobs = {self.digest(path.read_bytes()): path.read_bytes() for path in files}
        self.layers = [
            {
                "digest": self.digest(path.read_bytes()),
                "size": path.stat().st_size,
                "annotations": {"org.opencontainers.image.title": path.relative_to(sealed).as_posix()},
            }
            for path in files
        ]
        self.manifest = json.dumps({"schemaVersion": 2, "layers": self.layers}).encode()
        self.private = self.redirects = False
        self.realm = None
        self.storage = stack.enter_context(serving(self.stored))
        self.server = stack.enter_context(serving(self.respond))
        self.url = f"oci://{self.server.host}/models/atlas:v1"

    @staticmethod
    def digest(content):
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    def respond(self, path, headers):
        if path.startswith("/token?"):
            allowed = headers.get("Authorization") == f"Basic {LOGIN}" and "scope=repository" in path
            return (200, json.dumps({"token": TOKEN}).encode(), {}) if allowed else (401, b"{}", {})
        if self.private and headers.get("Authorization") != f"Bearer {TOKEN}":
            realm = self.realm or f"http://{self.server.host}/token"
            challenge = f'Bearer realm="{realm}",service="registry",scope="repository:models/atlas:pull"'
            return 401, b"", {"WWW-Authenticate": challenge}
        if path in (
            "/v2/models/atlas/manifests/v1",
            f"/v2/models/atlas/manifests/{self.digest(self.manifest)}",
        ):
            return 200, self.manifest, {}
        blob = self.blobs.get(path.removeprefix("/v2/models/atlas/blobs/"))
        if blob is None:
            return 404, b"", {}
        if self.redirects:
            name = path.rpartition("/")[2]
            return 307, b"", {"Location": f"http://{self.storage.host}/data/{name}?signature=x"}
        return 200, blob, {}

    def stored(self, path, headers):
        # As S3 does: two ways to authenticate are an error.
        if "Authorization" in headers or not path.endswith("?signature=x"):
            return 400, b"", {}
        return 200, self.blobs[path.removeprefix("/data/").partition("?")[0]], {}


@pytest.fixture
def registry(sealed, monkeypatch, tmp_path):
    from contextlib import ExitStack

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("OCI_USERNAME", "OCI_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:
        yield Registry(sealed, stack)


def log_in(registry, tmp_path):
    (tmp_path / "docker").mkdir()
    auths = {registry.server.host: {"auth": LOGIN}}
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": auths}))


@pytest.mark.parametrize("redirects", [False, True])
@pytest.mark.parametrize("private", [False, True])
def test_an_artifact(registry, tree, tmp_path, private, redirects):
    registry.private, registry.redirects = private, redirects
    log_in(registry, tmp_path)
    assert reads_all(registry.url, tree, tmp_path)
    by_digest = f"oci://{registry.server.host}/models/atlas@{registry.digest(registry.manifest)}"
    assert reads_all(by_digest, tree, tmp_path)
    blobs = [headers for path, headers in registry.server.requests if "/blobs/" in path]
    assert all("Range" in headers for headers in blobs)
    assert bool(registry.storage.requests) is redirects


def test_unseal_and_verify_from_a_registry(registry, service, tree, tmp_path, same):
    assert main(["weights", "verify", registry.url, "--key-file", str(tmp_path / "key"), "-q"]) == 0
    words = [
        "weights",
        "unseal",
        registry.url,
        str(tmp_path / "back"),
        "--key-file",
        str(tmp_path / "key"),
        "-q",
    ]
    assert main(words) == 0
    assert same(tree, tmp_path / "back")


def test_credentials_of_the_environment(registry, monkeypatch, tree, tmp_path):
    registry.private = True
    monkeypatch.setenv("OCI_USERNAME", "alice")
    monkeypatch.setenv("OCI_PASSWORD", "secret")
    assert reads_all(registry.url, tree, tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda one: setattr(one, "private", True), StorageError, "returned status 401 and no token"),
        (
            lambda one: (setattr(one, "private", True), setattr(one, "realm", "http://evil.example/token")),
            StorageError,
            "names a token service without TLS",
        ),
        (lambda one: setattr(one, "manifest", b"[]"), BadInputError, "one layer for each file"),
        (
            lambda one: setattr(one, "manifest", b'{"manifests": []}'),
            BadInputError,
            "one layer for each file",
        ),
        (
            lambda one: setattr(one, "manifest", one.manifest.replace(b"sha256:", b"sha1:")),
            SealedDataError,
            "without a SHA-256 digest",
        ),
        (lambda one: one.blobs.clear(), KeysError, "is missing"),
        (lambda one: setattr(one, "url", one.url.replace(":v1", ":v2")), BadInputError, "no such artifact"),
    ],
)
def test_a_registry_that_does_not_serve_is_one_sentence(registry, tmp_path, change, error, message):
    change(registry)
    with (
        pytest.raises(error, match=message),
        weightlock.open_weights(registry.url, key_file=tmp_path / "key"),
    ):
        pass


def test_a_manifest_that_does_not_match_its_digest(registry, tmp_path):
    url = f"oci://{registry.server.host}/models/atlas@{registry.digest(registry.manifest)}"
    existing = registry.manifest
    respond = registry.server.respond
    registry.server.respond = lambda path, headers: (
        (200, existing + b" ", {}) if "/manifests/" in path else respond(path, headers)
    )
    with pytest.raises(SealedDataError, match="returned another manifest"), weightlock.open_weights(url):
        pass


def test_redirects_end(registry, tmp_path):
    registry.redirects = True
    registry.storage.respond = lambda path, _headers: (302, b"", {"Location": path})
    with pytest.raises(StorageError, match="too many redirects"):
        weightlock.open_weights(registry.url, key_file=tmp_path / "key").__enter__()


@pytest.mark.parametrize(
    "url",
    [
        "oci://",
        "oci://r",
        "oci://r/",
        "oci://r/UPPER:v1",
        "oci://r/a:b:c",
        "oci://u:p@r/a:v1",
        "oci://r/a@sha256:1",
        "oci://r/a:v1?x",
    ],
)
def test_an_invalid_artifact_url_is_rejected(url):
    with pytest.raises(BadInputError, match="is not an artifact"):
        open_store(url)


def test_a_redirect_never_leaves_tls():
    with pytest.raises(StorageError, match="without TLS"):
        oci._resolve("https://registry.example", "http://storage.example/x")
    assert oci._resolve("https://r.example", "/x?y=1") == ("https://r.example", "/x?y=1")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("oci://r:5000/a/b:v1/model.safetensors", ("oci://r:5000/a/b:v1", "model.safetensors")),
        ("oci://r/a/b:v1", ("oci://r/a/b:v1", "")),
        ("oci://r/a@sha256:00/x/y", ("oci://r/a@sha256:00", "x/y")),
        ("oci://r/a/b", ("oci://r/a/b", "")),
    ],
)
def test_a_file_in_an_artifact(url, parts):
    assert oci.split(url) == parts
