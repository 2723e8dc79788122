"""docs/sealed-weights.md: its programs open a sealed directory, and its bindings are those that Weightlock sends."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from webhook.keys.kms import PROVIDERS, KeyContext
from webhook.keys.sealed import operations
from webhook.keys.sealed.operations import KeyService, Work
from webhook.keys.sealed.transfer import NoProgress

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "sealed-weights.md").read_text()
SIZES = {"config.json": 17, "empty": 0, "shards/w.bin": 3_000_000, "shards/exact.bin": (1 << 20) - 56}


def block(language, word):
    (matches,) = (text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if word in text)
    return matches


def seal(directory, kms):
    (directory / "source/shards").mkdir(parents=True)
    for name, size in SIZES.items():
        (directory / "source" / name).write_bytes(os.urandom(size))
    service, work = KeyService(kms), Work(1, NoProgress(), "2026-11-23T00:00:00Z")
    operations.seal(directory / "source", directory / "sealed", service, "atlas-70b", "2026-11", work)
    return service


def write_key(directory, service):
    claims = operations.require_manifest(directory / "sealed").claims
    with service.unwrap(claims.key, "atlas-70b") as key, key.view() as view:
        (directory / "key").write_bytes(view)


def same(directory):
    return all(
        (directory / "plain" / name).read_bytes() == (directory / "source" / name).read_bytes()
        for name in SIZES
    )


def test_the_program_for_a_local_keyset_opens_a_directory(tmp_path):
    seal(tmp_path, f"local://{tmp_path}/keyset.json")
    program = block("python", "AESGCM")
    assert "webhook" not in program
    assert "weightlock." not in program.replace("weightlock.json", "").replace("weightlock.dev", "")
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    assert same(tmp_path)


def test_the_program_for_tink_opens_a_directory(tmp_path):
    pytest.importorskip("tink")
    write_key(tmp_path, seal(tmp_path, f"local://{tmp_path}/keyset.json"))
    subprocess.run([sys.executable, "-c", block("python", "new_decrypting_stream")], check=True, cwd=tmp_path)
    assert same(tmp_path)


def test_the_commands_for_openssl_decrypt_each_file(tmp_path):
    version = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=False).stdout
    if not re.match(r"OpenSSL [3-9]", version):
        pytest.skip(f"OpenSSL 3 is needed, not {version!r}")
    write_key(tmp_path, seal(tmp_path, f"local://{tmp_path}/keyset.json"))
    manifest = json.loads((tmp_path / "sealed/weightlock.json").read_bytes())
    functions = block("sh", "openssl kdf").rpartition("\ndecrypt ")[0]
    (tmp_path / "plain/shards").mkdir(parents=True)
    calls = [
        f"decrypt sealed/{item['file']} atlas-70b/{item['path']} > plain/{item['path']}"
        for item in manifest["files"]
    ]
    subprocess.run(["sh", "-e", "-c", functions + "\n" + "\n".join(calls)], check=True, cwd=tmp_path)
    assert same(tmp_path)


@pytest.fixture
def vault():
    """A real Vault server with Transit: the environment of its client. Skips where none is built."""
    find = [sys.executable, ROOT / "tests/tools/vaultserver.py", "--find"]
    matches = subprocess.run(find, capture_output=True, text=True, check=False)
    if matches.returncode or not all(map(shutil.which, ("curl", "jq", "base64"))):
        pytest.skip(f"{matches.stderr.strip() or 'curl, jq or base64 is missing'} (make key-servers)")
    with subprocess.Popen(
        [matches.stdout.strip(), "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as process:
        server = json.loads(process.stdout.readline())
        for path, body in (("sys/mounts/transit", b'{"type": "transit"}'), ("transit/keys/atlas", b"{}")):
            headers = {"X-Vault-Token": server["token"]}
            request = urllib.request.Request(f"{server['address']}/v1/{path}", body, headers, method="POST")
            urllib.request.urlopen(request, timeout=10).close()
        yield {"VAULT_ADDR": server["address"], "VAULT_TOKEN": server["token"]}
        process.kill()
        process.stdout.close()


@pytest.fixture
def vault_client():
    """The directory of the Vault command-line client; skips if it is not built."""
    find = [sys.executable, ROOT / "tests/tools/vaultcli.py", "--find"]
    matches = subprocess.run(find, capture_output=True, text=True, check=False)
    if matches.returncode:
        pytest.skip(f"{matches.stderr.strip()} (make vault-cli)")
    return matches.stdout.strip()


def unwrap(directory, script):
    """Run commands of the page that write the file ``key``. Return its content."""
    subprocess.run(["sh", "-e", "-c", script], check=True, cwd=directory)
    content = (directory / "key").read_bytes()
    (directory / "key").unlink()
    return content


def test_the_commands_for_vault_unwrap_the_key(tmp_path, vault, monkeypatch):
    for name, value in vault.items():
        monkeypatch.setenv(name, value)
    service = seal(tmp_path, "vault://transit/atlas")
    unwrapped = unwrap(tmp_path, block("sh", "X-Vault-Token"))
    write_key(tmp_path, service)
    assert unwrapped == (tmp_path / "key").read_bytes()
    assert len(unwrapped) == 32


def test_the_command_of_the_vault_client_unwraps_the_key(tmp_path, vault, vault_client, monkeypatch):
    for name, value in vault.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", vault_client, prepend=os.pathsep)
    service = seal(tmp_path, "vault://transit/atlas")
    variables, _, commands = block("sh", "X-Vault-Token").partition("\n\n")
    (command,) = re.findall("^# (vault write .*)$", commands, re.MULTILINE)
    unwrapped = unwrap(tmp_path, f"{variables}\n{command}")
    write_key(tmp_path, service)
    assert unwrapped == (tmp_path / "key").read_bytes()


def test_the_bindings_on_the_page_are_those_that_are_sent():
    context = KeyContext("MODEL", "KEY-ID")
    assert context.encode() == b"weightlock.dev/key/v1\nMODEL\nKEY-ID"
    assert r"`weightlock.dev/key/v1\nMODEL\nKEY-ID`" in PAGE
    pairs = ", ".join(f'"{name}": {value}' for name, value in context.mapping().items())
    assert f"{{{pairs}}}" in PAGE
    for provider in PROVIDERS:
        assert f"| `{provider}` |" in PAGE
