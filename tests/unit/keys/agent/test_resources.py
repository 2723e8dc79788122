"""The loopback endpoint for delivered keys, and KServe's own decryption of exported files with it."""

from __future__ import annotations

import base64
import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest

from webhook.cli.main import main
from webhook.cli.processes import agent as command
from webhook.keys import jwe
from webhook.keys.agent import resources
from webhook.keys.agent.delivery import Target
from webhook.keys.agent.resources import ResourceServer
from webhook.keys.errors import BadInputError
from webhook.keys.secret import Secret

KEY = bytes(range(32))


@pytest.fixture
def target(tmp_path):
    directory = tmp_path / "keys" / "atlas-70b"
    directory.mkdir(parents=True)
    target = Target("atlas-70b", directory)
    target.put_keys({"2026-11": Secret(KEY)})
    target.write_lease_note(time.monotonic() + 60)
    target.mark()
    return target


@pytest.fixture
def server(target, tmp_path):
    lines = []
    unsealed = Target("beta", tmp_path / "keys", tmp_path)
    with closing(ResourceServer("127.0.0.1:0", [target, unsealed], lines.append)) as server:
        server.lines = lines
        yield server


def get(server, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with closing(connection):
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(), response.headers


def test_a_delivered_key_is_served(server):
    status, body, headers = get(server, "/cdh/resource/atlas-70b/key/2026-11")
    assert (status, body) == (200, KEY)
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Type"] == "application/octet-stream"
    get(server, "/cdh/resource/atlas-70b/key/2026-11")
    assert server.lines == ["model atlas-70b: a container of the pod read key 2026-11"]


def test_the_key_of_exported_files_is_derived_from_the_data_key(server):
    status, body, headers = get(server, "/cdh/resource/atlas-70b/jwk/2026-11")
    fields = json.loads(body)
    derived = base64.urlsafe_b64decode(fields.pop("k") + "=")
    assert (status, headers["Content-Type"]) == (200, "application/jwk+json")
    assert fields == {"kty": "oct", "alg": "A256KW", "kid": "kbs:///atlas-70b/jwk/2026-11"}
    assert len(derived) == 32
    assert derived != KEY


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/cdh/resource/atlas-70b/key/2026-12", 404),
        ("/cdh/resource/other/key/2026-11", 404),
        ("/cdh/resource/beta/key/2026-11", 404),
        ("/cdh/resource/atlas-70b/pins/2026-11", 404),
        ("/cdh/resource/atlas-70b/key/.weightlock-lease", 404),
        ("/cdh/resource/atlas-70b/key/../atlas-70b/2026-11", 404),
        ("/cdh/resource/atlas-70b/key/%2e%2e", 404),
        ("/cdh/resource/atlas-70b/key/2026-11?x=1", 404),
        ("/cdh/resource/atlas-70b/key/", 404),
        ("/aa/token", 404),
        ("/", 404),
        ("/" + "x" * 70_000, 414),
    ],
)
def test_other_resources_do_not_exist(server, path, status):
    assert get(server, path)[0] == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
def test_only_get_is_served(server, method):
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request(method, "/cdh/resource/atlas-70b/key/2026-11")
        assert connection.getresponse().status == 501


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8006", 200),
        ("localhost", 200),
        ("[::1]:8006", 200),
        ("evil.example", 403),
        ("10.0.0.1", 403),
        ("", 403),
    ],
)
def test_a_page_that_dns_led_here_gets_nothing(server, host, status):
    assert get(server, "/cdh/resource/atlas-70b/key/2026-11", Host=host)[0] == status


def test_a_key_is_served_only_while_its_lease_is_active(server, target):
    target.write_lease_note(time.monotonic() - 1)
    assert get(server, "/cdh/resource/atlas-70b/key/2026-11")[0] == 503
    target.write_lease_note(time.monotonic() + 60)
    assert get(server, "/cdh/resource/atlas-70b/key/2026-11")[0] == 200
    target.clear()
    assert get(server, "/cdh/resource/atlas-70b/key/2026-11")[0] == 503


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:8006",
        "10.0.0.1:8006",
        "8006",
        "",
        "[::]:8006",
        "example.com:8006",
        "127.0.0.1:",
        "127.0.0.1:70000",
    ],
)
def test_only_loopback_addresses(address, target):
    with pytest.raises(BadInputError, match="is not a loopback address with a port"):
        ResourceServer(address, [target], print)


def test_an_address_in_use_is_one_sentence(server, target):
    with pytest.raises(BadInputError, match=r"cannot listen on 127.0.0.1:.*: Address already in use"):
        ResourceServer(f"127.0.0.1:{server.port}", [target], print)


def test_idle_connections_are_bounded_and_end(server, monkeypatch):
    monkeypatch.setattr(resources._Handler, "timeout", 0.5)
    idle = [socket.create_connection(("127.0.0.1", server.port), 5) for _ in range(40)]
    try:
        for _ in range(100):
            try:
                if get(server, "/cdh/resource/atlas-70b/key/2026-11")[0] == 200:
                    break
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
        else:
            pytest.fail("idle connections block the endpoint")
    finally:
        for connection in idle:
            connection.close()


def test_the_sidecar_rejects_unusable_cdh_options(capsys, tmp_path):
    words = ["agent", "--broker=https://b", "--token=/t", f"--key=m:{tmp_path}"]
    assert main([*words, "--cdh=0.0.0.0:1"]) == 2
    assert "is not a loopback address" in capsys.readouterr().err
    assert main([*words, "--cdh", "--once"]) == 2
    assert "--once" in capsys.readouterr().err
    assert resources.ADDRESS == "127.0.0.1:8006"
    assert command._resources is not None


@pytest.fixture
def exported(tmp_path, tree, target, capsys):
    keyset = f"local://{tmp_path}/keyset.json"
    sealed, output = str(tmp_path / "sealed"), tmp_path / "jwe"
    words = [
        "weights",
        "seal",
        str(tree),
        sealed,
        "--model",
        "atlas-70b",
        "--kms",
        keyset,
        "--key-id",
        "2026-11",
    ]
    assert main([*words, "-q"]) == 0
    assert main(["weights", "export-jwe", sealed, str(output), "--kms", keyset, "-q"]) == 0
    assert "kbs:///atlas-70b/jwk/2026-11" in capsys.readouterr().out
    from webhook.keys.sealed.operations import KeyService, require_manifest

    with KeyService(keyset).unwrap(require_manifest(tmp_path / "sealed").claims.key, "atlas-70b") as key:
        target.put_keys({"2026-11": key})
    return output


def test_kserves_storage_initializer_decrypts_exported_files(exported, server, tree):
    if importlib.util.find_spec("kserve_storage") is None or importlib.util.find_spec("jwcrypto") is None:
        pytest.skip("kserve-storage[confidential] is not installed")
    words = [sys.executable, "-m", "kserve_storage.confidential.cli", "--source-dir", str(exported)]
    words += ["--resource-id", "kbs:///atlas-70b/jwk/2026-11"]
    environment = {**os.environ, "CDH_ADDR": f"http://127.0.0.1:{server.port}"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain = {path.relative_to(tree): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert {
        path.relative_to(exported): path.read_bytes() for path in exported.rglob("*") if path.is_file()
    } == plain


def test_an_exported_file_is_bound_to_its_header(exported, server):
    jwcrypto = pytest.importorskip("jwcrypto.jwe")
    from jwcrypto import jwk

    path = exported / "config.json.jwe"
    key = jwk.JWK.from_json(get(server, "/cdh/resource/atlas-70b/jwk/2026-11")[1].decode())
    parts = path.read_text().split(".")
    token = jwcrypto.JWE()
    token.deserialize(path.read_text(), key)
    assert token.jose_header["path"] == "config.json"
    other = json.dumps({**json.loads(base64.urlsafe_b64decode(parts[0] + "==")), "path": "other.json"})
    forged = base64.urlsafe_b64encode(other.encode()).rstrip(b"=").decode()
    with pytest.raises(jwcrypto.InvalidJWEData):
        jwcrypto.JWE().deserialize(".".join((forged, *parts[1:])), key)


def test_an_export_replaces_nothing_and_leaves_no_partial_file(exported, tmp_path, capsys):
    words = [
        "weights",
        "export-jwe",
        str(tmp_path / "sealed"),
        str(exported),
        "--kms",
        f"local://{tmp_path}/keyset.json",
    ]
    assert main([*words, "-q"]) == 2
    assert "exists: use --force" in capsys.readouterr().err
    assert main([*words, "-q", "--force", "--only", "*.json"]) == 0
    damaged = max((tmp_path / "sealed").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[1 << 20] ^= 1
    damaged.chmod(0o644)
    damaged.write_bytes(content)
    assert main([*words, "-q", "--force"]) == 1
    names = [path.name for path in exported.rglob("*") if path.is_file()]
    assert [name for name in names if not name.endswith(".jwe")] == ["empty.txt"]


def test_a_file_that_is_too_large_for_gcm_is_rejected(tmp_path, tree, monkeypatch, capsys):
    keyset, sealed = f"local://{tmp_path}/keyset.json", str(tmp_path / "sealed")
    assert main(["weights", "seal", str(tree), sealed, "--model", "m", "--kms", keyset, "-q"]) == 0
    monkeypatch.setattr(jwe, "MAX_SIZE", 1000)
    assert main(["weights", "export-jwe", sealed, str(tmp_path / "jwe"), "--kms", keyset, "-q"]) == 2
    assert "too large for a JWE" in capsys.readouterr().err
