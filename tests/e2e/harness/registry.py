"""A real registry of the distribution project, for tests of signed images."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from harness.process import Component, Reaper, free_port
from harness.programs import ROOT

DEBIAN = ROOT / "tests" / "tools" / "debpackages.py"
_READY_SECONDS = 60.0


def registry_program() -> Path | None:
    """Return Debian's docker-registry, or None if it was not fetched."""
    answer = subprocess.run(
        [sys.executable, DEBIAN, "--find", "docker-registry"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if answer.returncode:
        return None
    return Path(answer.stdout.strip().splitlines()[-1]) / "usr" / "bin" / "docker-registry"


@contextmanager
def running_registry(directory: Path) -> Iterator["Registry"]:
    """Run a registry. Skips the test where the program is absent."""
    program = registry_program()
    if program is None:
        pytest.skip("docker-registry is not here: make registry fetches it from Debian")
    with closing(Reaper()) as reaper:
        registry = Registry(program, directory, reaper).start()
        try:
            yield registry
        finally:
            registry.stop()


class Registry:
    """A registry of the distribution project with its storage in a directory."""

    def __init__(self, program: Path, directory: Path, reaper: Reaper, name: str = "registry") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._config = directory / f"{name}.json"
        self._program = program
        self._config.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "log": {"accesslog": {"disabled": True}, "level": "error"},
                    "storage": {"filesystem": {"rootdirectory": str(directory / name)}},
                    "http": {"addr": self.address},
                }
            )
        )
        self._component = Component(name, directory / f"{name}.log", reaper)

    def start(self) -> "Registry":
        """Start it and wait until it answers."""
        self._component.start([self._program, "serve", self._config], {**os.environ})
        self._component.wait_ready(self._answers, _READY_SECONDS)
        return self

    def stop(self) -> None:
        """Stop it."""
        self._component.stop()

    def _answers(self) -> bool:
        try:
            return bool(requests.get(f"http://{self.address}/v2/", timeout=10).ok)
        except requests.ConnectionError:
            return False

    def push_store(self, repository: str, store: Any) -> None:
        """Push the blobs, manifests and tags of a store of `tests.support.signed_images`."""
        base = f"http://{self.address}/v2/{repository}"
        for content in store.blobs.values():
            self._blob(base, content, "")
        for name, digest in [*((digest, digest) for digest in store.manifests), *store.tags.items()]:
            answer = requests.put(
                f"{base}/manifests/{name}",
                data=store.manifests[digest],
                headers={"Content-Type": store.types[digest]},
                timeout=30,
            )
            assert answer.status_code == 201, answer.text

    def push(self, repository: str, text: str, tag: str = "v1") -> str:
        """Push an image with one layer, and return its digest."""
        base = f"http://{self.address}/v2/{repository}"
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        layer = self._blob(base, text.encode(), "application/vnd.oci.image.layer.v1.tar")
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self._blob(
                base, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"
            ),
            "layers": [layer],
        }
        return self.put(repository, manifest, tag)

    def put(self, repository: str, manifest: Mapping[str, Any], tag: str) -> str:
        """Push a manifest or an index, and return its digest."""
        content = json.dumps(manifest).encode()
        answer = requests.put(
            f"http://{self.address}/v2/{repository}/manifests/{tag}",
            data=content,
            headers={"Content-Type": str(manifest["mediaType"])},
            timeout=30,
        )
        assert answer.status_code == 201, answer.text
        return f"sha256:{hashlib.sha256(content).hexdigest()}"

    @staticmethod
    def _blob(base: str, content: bytes, media_type: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        place = requests.post(f"{base}/blobs/uploads/", timeout=30).headers["Location"]
        answer = requests.put(place, params={"digest": digest}, data=content, timeout=30)
        assert answer.status_code == 201, answer.text
        return {"mediaType": media_type, "digest": digest, "size": len(content)}
