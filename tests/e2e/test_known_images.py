"""A replica starts with 10,000 known images, on a real API server, and admits a pod with one of them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from harness.lab import API, RESTRICTED
from harness.weightlock import Weightlock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench.images import REPOSITORY, documents  # noqa: E402
from webhook.core.access import Signer  # noqa: E402

if TYPE_CHECKING:
    from harness.installed import Installed

IMAGES, ROUNDS = 10_000, 4
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(parent: int) -> float:
    """Return the CPU time of a process and all its descendants, those that have ended included."""
    total, pending = 0, [parent]
    while pending:
        pid = pending.pop()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))
        for task in Path(f"/proc/{pid}/task").iterdir():
            pending += map(int, (task / "children").read_text().split())
    return total / TICKS


def start(weightlock: Weightlock) -> tuple[float, float]:
    """Restart it. Return the CPU time and the time until it is ready."""
    weightlock.stop()
    begun = time.monotonic()
    weightlock.start()
    return cpu_seconds(weightlock.pid), time.monotonic() - begun


def warnings(weightlock: Weightlock, namespace: str, digest: str) -> str:
    """Return the warnings about a pod with an image, which is only tried. No registry has the image."""
    container = {"name": "c", "image": f"{REPOSITORY}@{digest}", "securityContext": RESTRICTED}
    metadata = {"name": "tried", "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
    path = f"/api/v1/namespaces/{namespace}/pods"
    answer = weightlock.cluster.client().post(path, pod, dryRun="All")
    answer.ok()
    return " ".join(answer.warnings)


def test_a_start_with_ten_thousand_known_images(installed_weightlock: Installed, namespace: str) -> None:
    """It takes at most a second more. CPU time counts, the least of some rounds, in which both alternate."""
    weightlock = installed_weightlock
    if not isinstance(weightlock, Weightlock):
        pytest.skip("Weightlock is not a process of ours here")
    client = weightlock.cluster.client()
    private = load_pem_private_key(weightlock.signing_key.read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    objects = {
        f"{API}/{document['kind'].lower()}s/{document['metadata']['name']}": document
        for document in documents(IMAGES, Signer(private))
    }
    without, with_images = [], []
    try:
        for _ in range(ROUNDS):
            without.append(start(weightlock))
            for path, document in objects.items():
                client.post(path.rpartition("/")[0], document).ok()
            with_images.append(start(weightlock))
            # The first and the last statement are known. Another digest needs its registry.
            for number in (0, IMAGES - 1):
                assert "WL54" not in warnings(
                    weightlock, namespace, f"sha256:{number % 256:02x}{number:062x}"
                )
            assert "WL545" in warnings(weightlock, namespace, f"sha256:{'f' * 64}")
            for path in objects:
                client.delete(path).ok()
    finally:
        for path in objects:
            client.delete(path)
    print(f"CPU time and time of a start: {without} without, {with_images} with {IMAGES:,} known images")
    assert min(with_images)[0] - min(without)[0] < 1.0
