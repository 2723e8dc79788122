"""Pods with weights that were created while the webhook configurations were changed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from webhook.api.config import Settings
from webhook.cluster.cache import ObjectCache
from webhook.cluster.controller.exposed_pods import ExposedPods, Gap, RecentPods
from webhook.core.audit.entries import envelope, validate_entry
from webhook.manifests.reader import read_path
from webhook.offline.provider import ManifestProvider

ROOT = Path(__file__).parents[4]
NOW = datetime.now(UTC).replace(microsecond=0)
SNAPSHOT = ManifestProvider(read_path(ROOT / "examples" / "state"), Settings()).snapshot()


def pod(name, created, claim="atlas-70b"):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "research",
            "uid": f"uid-{name}",
            "creationTimestamp": created.isoformat().replace("+00:00", "Z"),
        },
        "spec": {
            "containers": [
                {"name": "main", "image": "i", "volumeMounts": [{"name": "w", "mountPath": "/w"}]}
            ],
            "volumes": [{"name": "w", "persistentVolumeClaim": {"claimName": claim}}],
        },
    }


@pytest.fixture
def world():
    entries = []
    recent = RecentPods(ObjectCache(lambda _: False))
    return recent, ExposedPods(recent, lambda *entry: entries.append(entry)), entries


def test_a_pod_in_a_gap_is_logged_once(world):
    recent, exposed, entries = world
    recent.put(pod("thief", NOW - timedelta(seconds=20)))
    gap = Gap("weightlock", NOW - timedelta(seconds=30), NOW - timedelta(seconds=10))
    for _ in range(2):
        exposed.check([gap], SNAPSHOT)
    ((kind, data, subject),) = entries
    assert (kind, subject, data["pods"]) == ("drift", "pods/research/thief", ["research/thief"])
    validate_entry(envelope(kind, "s", "1", "2026-11-29T00:00:00.000000Z", data, subject))


def test_a_pod_that_was_deleted_meanwhile_is_logged(world):
    recent, exposed, entries = world
    recent.remove(recent.put(pod("thief", NOW)))
    exposed.check([Gap("weightlock", NOW - timedelta(seconds=5), None)], SNAPSHOT)
    assert len(entries) == 1


@pytest.mark.parametrize(
    ("created", "claim", "gap"),
    [
        (40, "atlas-70b", Gap("w", NOW - timedelta(seconds=30), NOW)),
        (5, "atlas-70b", Gap("w", NOW - timedelta(seconds=30), NOW - timedelta(seconds=10))),
        (20, "scratch", Gap("w", NOW - timedelta(seconds=30), NOW)),
        (3600, "atlas-70b", Gap("w", NOW - timedelta(hours=2), NOW)),
    ],
    ids=["before", "after", "without weights", "long ago"],
)
def test_other_pods_are_not_logged(world, created, claim, gap):
    recent, exposed, entries = world
    recent.put(pod("p", NOW - timedelta(seconds=created), claim))
    exposed.check([gap], SNAPSHOT)
    assert entries == []
