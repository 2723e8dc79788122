"""The scan of a large cluster holds a page of it at a time, counted in bytes."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.scan import MODEL, Simulated
from webhook.api.config import Reports, Settings
from webhook.cluster.events import Events
from webhook.cluster.reports.scanner import Scanner
from webhook.manifests.reader import Manifest
from webhook.offline.provider import ManifestProvider

pytestmark = pytest.mark.usefixtures("quick")
PODS = 20_000
# All of them, parsed, would take more than ten times as much.
MOST = 24 * 2**20
STATM = Path("/proc/self/statm")


@pytest.fixture
def cluster():
    return Simulated(PODS)


@pytest.fixture
def source(cluster, make):
    """One policy that a third of the pods breaks, so that reports are full."""
    expression = "!object.metadata.name.endsWith('0') && !object.metadata.name.contains('1')"
    documents = [MODEL, make.policy(expression=expression)]
    documents += [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in cluster.names
    ]
    matches = ManifestProvider(
        [Manifest("test", document) for document in documents], Settings(), now=datetime.now(UTC)
    )
    matches.api = cluster
    return matches


def resident():
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not STATM.exists(), reason="only Linux says what a process holds")
async def test_twenty_thousand_pods_are_evaluated_in_the_memory_of_one_page(cluster, source):
    """Measured by resident memory: counting each allocation would take minutes."""
    scanner = Scanner(source, Events(cluster), Reports(enabled=True, resources_per_second=10_000))
    source.snapshot()
    before = most = resident()
    task = asyncio.create_task(scanner.run())
    while not cluster.whole:
        await asyncio.wait([task], timeout=0.02)
        assert not task.done()
        most = max(most, resident())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert scanner.evaluated == PODS
    assert scanner.total().outcomes["fail"] > PODS / 4
    assert most - before < MOST, f"{(most - before) / 2**20:.1f} MiB"
