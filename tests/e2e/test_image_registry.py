"""Signed images in a real registry: Debian's docker-registry. It has no referrers API, so the fallback tags count."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from harness.waiting import slowness

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.signed_images import INDEX, SIGN, SLSA, Store  # noqa: E402
from tests.support.sigstore_world import World, new_key, pem  # noqa: E402

KEY, WORLD = new_key(), World(logged=False)
TOOL = ROOT / "tests" / "tools" / "debpackages.py"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """The address of a running registry."""
    matches = subprocess.run(
        [sys.executable, TOOL, "--find", "docker-registry"], capture_output=True, text=True, check=False
    )
    if matches.returncode:
        pytest.skip("docker-registry is not here: make registry fetches it from Debian")
    program = Path(matches.stdout.strip().splitlines()[-1]) / "usr" / "bin" / "docker-registry"
    directory = tmp_path_factory.mktemp("registry")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(directory)}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (directory / "config.json").write_text(json.dumps(config))
    process = subprocess.Popen(
        [program, "serve", directory / "config.json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30 * slowness()
        while True:
            try:
                requests.get(f"http://127.0.0.1:{port}/v2/", timeout=10)
                break
            except requests.ConnectionError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def push(address: str, store: Store) -> None:
    """Push everything, as a client of the distribution API does."""
    base = f"http://{address}/v2/acme/trainer"
    for digest, content in store.blobs.items():
        begun = requests.post(f"{base}/blobs/uploads/", timeout=30)
        place = begun.headers["Location"]
        done = requests.put(place, params={"digest": digest}, data=content, timeout=30)
        assert done.status_code == 201
    for digest, content in store.manifests.items():
        headers = {"Content-Type": store.types[digest]}
        done = requests.put(f"{base}/manifests/{digest}", data=content, headers=headers, timeout=30)
        assert done.status_code == 201
    for tag, digest in store.tags.items():
        headers = {"Content-Type": store.types[digest]}
        content = store.manifests[digest]
        done = requests.put(f"{base}/manifests/{tag}", data=content, headers=headers, timeout=30)
        assert done.status_code == 201


def verify(reference: str, key: Path, *options: str) -> tuple[int, dict]:
    """Run the command."""
    command = [sys.executable, "-m", "webhook.cli.main", "image", "verify", reference, "--key", str(key)]
    done = subprocess.run(
        [*command, "--plain-http", "-o", "json", *options],
        capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def test_real_registry(registry, tmp_path):
    store = Store()
    annotated, bundled, unsigned = (
        store.image("v1", "one"),
        store.image("v2", "two"),
        store.image("v3", "three"),
    )
    store.sign(WORLD, annotated, "annotations", SIGN, key=KEY)
    store.sign(WORLD, annotated, "annotations", SLSA, key=KEY)
    store.sign(WORLD, bundled, "bundle", SIGN, key=KEY)
    store.sign(WORLD, bundled, "bundle", SLSA, key=KEY)
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": store.referrers(bundled)}
    store.put(json.dumps(index).encode(), bundled.replace(":", "-"), INDEX)
    push(registry, store)
    key, other = tmp_path / "key.pem", tmp_path / "other.pem"
    key.write_bytes(pem(KEY))
    other.write_bytes(pem(new_key()))
    image = f"{registry}/acme/trainer"
    for tag, digest in (("v1", annotated), ("v2", bundled)):
        code, result = verify(f"{image}:{tag}", key, "--attestation", "slsa")
        assert (code, result.get("digest"), result.get("verified")) == (0, digest, True), result
        code, result = verify(f"{image}@{digest}", other)
        assert (code, result["reason"]) == (1, "WrongSigner")
    code, result = verify(f"{image}@{unsigned}", key)
    assert (code, result["reason"]) == (1, "Unsigned")
    code, result = verify(f"{image}:none", key)
    assert code == 3
    assert "does not have the image" in result["error"]
    code, result = verify("127.0.0.1:1/acme/trainer:v1", key)
    assert code == 3
    assert "cannot reach the registry" in result["error"]
