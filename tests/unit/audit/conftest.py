"""Logs for tests: written by the real writer into a temporary directory."""

from __future__ import annotations

import time

import pytest
from harness.waiting import slowness

from webhook.audit.keys import generate, signer_of
from webhook.audit.storage import Directory
from webhook.audit.writer import LogWriter

KEY = generate()


class Clock:
    """Moves one millisecond at each reading."""

    def __init__(self):
        self.now = 1_795_000_000.0

    def __call__(self):
        self.now += 0.001
        return self.now


def write(place, count, *, origin="cluster/webhook/a", batch=None, key=KEY, kinds=("verdict",)):
    """Write ``count`` entries between a start and a stop entry. Return the signer."""
    signer = signer_of(key, origin, "test")
    writer = LogWriter(
        Directory(place, fsync=False), signer, limit=1_000_000, interval=0.01, version="test", clock=Clock()
    )
    writer.open()
    for number in range(count):
        assert writer.submit(verdict(writer, number, kinds[number % len(kinds)]))
        if batch and number % batch == batch - 1:
            settle(writer, number + 2)
    writer.close()
    return signer


def verdict(writer, number, kind="verdict"):
    data = {
        "decision": "denied" if number % 7 == 0 else "allowed",
        "phase": "validate",
        "operation": "CREATE",
        "resource": "pods",
        "namespace": "research",
        "name": f"train-{number}",
        "user": {"username": f"user-{number % 5}"},
        "codes": ["WL101"] if number % 7 == 0 else [],
        "microseconds": 900 + number,
    }
    return writer.entry(kind, data, identifier=f"uid-{number}", subject=f"pods/research/train-{number}")


def settle(writer, size, seconds=20):
    """Wait until the log has ``size`` signed entries."""
    deadline = time.monotonic() + seconds * slowness()
    while writer.size < size:
        assert time.monotonic() < deadline, f"{writer.size} of {size} entries are signed"
        writer._wake.set()
        time.sleep(0.002)


class Files:
    """A log in memory, so that a test can change any byte of it."""

    def __init__(self, place):
        self.files = {path: Directory(place).read(path) for path in Directory(place).paths()}

    def read(self, path):
        return self.files.get(path)

    def paths(self):
        return list(self.files)


@pytest.fixture
def small(tmp_path):
    """A log of 6 entries in two batches: every byte of it can be tried."""
    signer = write(tmp_path / "log", 4, batch=2)
    return Files(tmp_path / "log"), signer


@pytest.fixture
def log(tmp_path):
    """A log of 20 entries in several batches, its files and its signer."""
    signer = write(tmp_path / "log", 18, batch=5)
    return Files(tmp_path / "log"), signer
