"""Signed images in a real registry: Debian's docker-registry. It has no referrers API, so the fallback tags count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness.registry import running_registry

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.signed_images import INDEX, SIGN, SLSA, Store  # noqa: E402
from tests.support.sigstore_world import World, new_key, pem  # noqa: E402

KEY, WORLD = new_key(), World(logged=False)
TOOL = ROOT / "tests" / "tools" / "debpackages.py"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with running_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


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
    registry.push_store("acme/trainer", store)
    key, other = tmp_path / "key.pem", tmp_path / "other.pem"
    key.write_bytes(pem(KEY))
    other.write_bytes(pem(new_key()))
    image = f"{registry.address}/acme/trainer"
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
