"""The controller verifies images ahead of time, and a replica reads its statements: no registry for a known digest."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.signed_images import SIGN, SLSA, Store
from tests.support.sigstore_world import World, new_key, pem
from webhook.api.config import Images, Settings
from webhook.cluster.client.api import ApiError
from webhook.cluster.controller.image_statements import ANNOUNCED, ImageStatements
from webhook.cluster.images import ImageReader
from webhook.core.access import Signer, Verifier
from webhook.core.admission.snapshot import SnapshotBuilder
from webhook.core.images.describe import describe

REPOSITORY = "registry.example.com/acme/trainer"
WORLD, KEY = World(), new_key()
SIGNER = Signer(Ed25519PrivateKey.generate())
ROOT = "/apis/weightlock.dev/v1alpha1"


class Cluster:
    """The API server and the watches in one: what is written is seen at once."""

    def __init__(self) -> None:
        self.objects: dict[str, dict] = {}
        self.calls: list[tuple[str, str]] = []
        self.builder = SnapshotBuilder(
            Settings(), complete=False, verifier=Verifier.of([SIGNER.key.public_key()])
        )

    def snapshot(self):
        return self.builder.snapshot()

    def put(self, document):
        return self.builder.put(document)

    async def get(self, path, query=None, *, seconds=0.0):
        self.calls.append(("GET", path))
        selector = (query or {}).get("labelSelector", "")
        items = [item for name, item in self.objects.items() if name.startswith(f"{path}/")]
        if selector:
            items = [
                item for item in items if (item["metadata"].get("labels") or {}).get(ANNOUNCED) == "true"
            ]
        return {"metadata": {}, "items": items}

    async def request(self, method, path, query=None, body=None, *, content_type="", accept="", seconds=0.0):
        self.calls.append((method, path))
        if method == "PATCH" and not path.endswith("/status") and path not in self.objects:
            raise ApiError(404, "NotFound", "not found")
        if method == "DELETE":
            document = self.objects.pop(path)
            self.builder.remove(self.builder.put(document))
            return {}
        if path.endswith("/status"):
            self.objects[path] = body
            return body
        name = path if method == "PATCH" else f"{path}/{body['metadata']['name']}"
        self.objects[name] = body
        self.builder.put(body)
        return body


def trust(name="acme", key=KEY):
    return {
        "apiVersion": "weightlock.dev/v1alpha1", "kind": "ImageTrust", "metadata": {"name": name},
        "spec": {"images": ["registry.example.com/acme/*"], "signers": [{"key": pem(key).decode()}]},
    }  # fmt: skip


def pod_of(reference, name="p"):
    return {
        "metadata": {"name": name, "namespace": "research"},
        "spec": {"containers": [{"name": "main", "image": reference}]},
    }


@pytest.fixture
async def made(tmp_path):
    store = Store()
    signed, unsigned, later = store.image("v1", "one"), store.image("v2", "two"), store.image("v3", "three")
    for digest in (signed, later):
        store.sign(WORLD, digest, "bundle", SIGN, key=KEY)
        store.sign(WORLD, digest, "bundle", SLSA, key=KEY)
    layout = store.layout(tmp_path / "layout", REPOSITORY)
    cluster, settings = Cluster(), Images(layout=str(layout))
    reader = ImageReader(cluster, settings)
    statements = ImageStatements(cluster, cluster, reader, SIGNER, settings, "weightlock-system")
    yield cluster, statements, layout, (signed, unsigned, later)
    await reader.close()


def verdicts(cluster, *references):
    document = {
        "spec": {"containers": [{"name": str(n), "image": item} for n, item in enumerate(references)]}
    }
    items, missing = describe(document, "research", cluster.snapshot().images, {})
    return [(item["verified"], item["reason"]) for item in items], len(missing)


async def test_ahead_of_time(made):
    cluster, statements, layout, (signed, unsigned, later) = made
    cluster.put(trust())
    cluster.objects["/api/v1/pods/research/p"] = pod_of(f"{REPOSITORY}@{signed}")
    template = {"template": pod_of(f"{REPOSITORY}@{unsigned}")}
    cluster.objects["/apis/apps/v1/deployments/research/d"] = {
        "metadata": {"namespace": "research"},
        "spec": template,
    }
    cluster.objects["/api/v1/namespaces/weightlock-system/configmaps/ci"] = {
        "metadata": {"name": "ci", "labels": {ANNOUNCED: "true"}}, "data": {"images": f"{REPOSITORY}@{later}\n"},
    }  # fmt: skip
    await statements.reconcile()
    references = [f"{REPOSITORY}@{item}" for item in (signed, unsigned, later)]
    assert verdicts(cluster, *references) == ([(True, ""), (False, "Unsigned"), (True, "")], 0)
    # The registry disappears: no verdict of a known digest changes, also for a new replica.
    shutil.rmtree(layout)
    await statements.reconcile()
    replica = Cluster()
    for document in (
        trust(),
        *(item for name, item in cluster.objects.items() if "imageverifications" in name),
    ):
        replica.put(json.loads(json.dumps(document)))
    assert verdicts(replica, *references) == ([(True, ""), (False, "Unsigned"), (True, "")], 0)
    assert cluster.objects[f"{ROOT}/imagetrusts/acme/status"]["status"] == {"verified": 3, "problem": ""}


async def test_nothing_is_verified_twice(made):
    cluster, statements, _, (signed, *_) = made
    cluster.put(trust())
    cluster.objects["/api/v1/pods/research/p"] = pod_of(f"{REPOSITORY}@{signed}")
    await statements.reconcile()
    output = [call for call in cluster.calls if call[0] in ("PATCH", "POST")]
    await statements.reconcile()
    assert [call for call in cluster.calls if call[0] in ("PATCH", "POST")] == output
    assert statements.results == {"verified": 1, "rejected": 0, "failed": 0}


async def test_a_changed_rule(made):
    cluster, statements, _, (signed, *_) = made
    cluster.put(trust())
    cluster.put(trust("second"))
    cluster.objects["/api/v1/pods/research/p"] = pod_of(f"{REPOSITORY}@{signed}")
    await statements.reconcile()
    before = {name for name in cluster.objects if "imageverifications" in name}
    # Two rules with the same trust share their statements.
    assert len(before) == 1
    cluster.put(trust(key=new_key()))
    await statements.reconcile()
    after = {name for name in cluster.objects if "imageverifications" in name}
    assert before < after
    assert len(after) == 2
    cluster.builder.remove(cluster.builder.put(trust()))
    await statements.reconcile()
    assert {name for name in cluster.objects if "imageverifications" in name} == before


async def test_a_running_tag_counts_by_its_digest(made):
    cluster, statements, _, (signed, *_) = made
    cluster.put(trust())
    document = pod_of(f"{REPOSITORY}:v1")
    document["status"] = {"containerStatuses": [{"name": "main", "imageID": f"{REPOSITORY}@{signed}"}]}
    cluster.objects["/api/v1/pods/research/p"] = document
    await statements.reconcile()
    assert verdicts(cluster, f"{REPOSITORY}@{signed}") == ([(True, "")], 0)


async def test_an_invalid_rule_is_reported(made):
    cluster, statements, _, (signed, *_) = made
    document = trust()
    document["spec"]["signers"] = [{"key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"}]
    cluster.put(document)
    cluster.objects["/api/v1/pods/research/p"] = pod_of(f"{REPOSITORY}@{signed}")
    await statements.reconcile()
    assert (
        "cannot read the public key"
        in cluster.objects[f"{ROOT}/imagetrusts/acme/status"]["status"]["problem"]
    )
    assert verdicts(cluster, f"{REPOSITORY}@{signed}") == ([(False, "Malformed")], 0)


async def test_without_rules_nothing_is_read(made):
    cluster, statements, *_ = made
    cluster.objects["/api/v1/pods/research/p"] = pod_of(f"{REPOSITORY}@sha256:{'1' * 64}")
    await statements.reconcile()
    assert cluster.calls == []


def put_pods(cluster, *references):
    for number, reference in enumerate(references):
        cluster.objects[f"/api/v1/pods/research/{number}"] = pod_of(reference, f"p{number}")


def stored(cluster):
    return {
        name: item for name, item in cluster.objects.items() if name.startswith(f"{ROOT}/imageverifications/")
    }


async def test_a_changed_rule_invalidates_exactly_its_statements(made, monkeypatch):
    cluster, statements, _, (signed, _, later) = made
    cluster.put(trust("one"))
    cluster.put(trust("two", new_key()))
    put_pods(cluster, f"{REPOSITORY}@{signed}", f"{REPOSITORY}@{later}")
    await statements.reconcile()
    before = stored(cluster)
    rules = {item["spec"]["rule"] for item in before.values()}
    assert len(rules) == 2
    # The image is verified again under the new rule, at another time.
    monkeypatch.setattr("webhook.provenance.checker.datetime", Later(time.time() + 5))
    cluster.put(trust("two", new_key()))
    await statements.reconcile()
    after = stored(cluster)
    remaining = {
        name for name, item in before.items() if name in after and item["spec"] == after[name]["spec"]
    }
    one = next(rule.hash for rule in cluster.snapshot().images.rules if rule.name == "one")
    assert {before[name]["spec"]["rule"] for name in remaining} == {one}
    assert {item["spec"]["rule"] for item in after.values()} == {
        rule.hash for rule in cluster.snapshot().images.rules
    }


@pytest.mark.parametrize("part", ["statements", "signature", "rule", "shard", "name"])
async def test_an_edited_verification_is_ignored_and_replaced(made, part):
    cluster, statements, _, (_, unsigned, _) = made
    cluster.put(trust())
    put_pods(cluster, f"{REPOSITORY}@{unsigned}")
    await statements.reconcile()
    (document,) = stored(cluster).values()
    forged = json.loads(json.dumps(document))
    spec = forged["spec"]
    if part == "statements":
        spec["statements"] = spec["statements"].replace('"Unsigned"', '""')
    elif part == "signature":
        spec["signature"] = SIGNER.sign_bytes(b"weightlock.dev/image-verification/v1\n{}")
    elif part == "name":
        forged["metadata"]["name"] += "x"
    else:
        spec[part] = ("0" * 64) if part == "rule" else "00"
        forged["metadata"]["name"] = f"{spec['rule'][:40]}-{spec['shard']}"
    cluster.put(forged)
    assert forged["metadata"]["name"] not in cluster.snapshot().images.objects()
    if part in ("statements", "signature"):
        assert verdicts(cluster, f"{REPOSITORY}@{unsigned}") == ([], 1)
    await statements.reconcile()
    assert verdicts(cluster, f"{REPOSITORY}@{unsigned}") == ([(False, "Unsigned")], 0)


async def test_a_shard_that_cannot_be_stored_does_not_prevent_the_others(made, monkeypatch):
    cluster, statements, _, (signed, _, later) = made
    cluster.put(trust())
    put_pods(cluster, f"{REPOSITORY}@{signed}", f"{REPOSITORY}@{later}")
    real, failed = cluster.request, []

    async def request(method, path, *arguments, **options):
        if "imageverifications" in path and (not failed or path == failed[0]):
            failed.append(path)
            raise ApiError(413, "RequestEntityTooLarge", "too large")
        return await real(method, path, *arguments, **options)

    monkeypatch.setattr(cluster, "request", request)
    await statements.reconcile()
    assert len(failed) == 1
    assert len(stored(cluster)) == 1
    assert statements.results["failed"] == statements.waiting == 1


async def test_the_queue_is_measured(made, tmp_path):
    """An image whose registry fails waits, and the queue is complete again when it is verified."""
    cluster, statements, layout, (signed, unsigned, _) = made
    await statements.reconcile()
    assert (statements.waiting, statements.last_complete) == (0, None)
    cluster.put(trust())
    cluster.objects["/api/v1/pods/research/p"] = pod_of(f"{REPOSITORY}@{signed}")
    cluster.objects["/api/v1/pods/research/q"] = pod_of(f"{REPOSITORY}@{unsigned}", "q")
    away = tmp_path / "away"
    blob = layout / "blobs" / "sha256" / signed.removeprefix("sha256:")
    shutil.move(blob, away)
    await statements.reconcile()
    before = statements.last_complete
    assert statements.results == {"verified": 0, "rejected": 1, "failed": 1}
    assert statements.waiting == 1
    shutil.move(away, blob)
    statements._reader._checker._cache.clear()
    await statements.reconcile()
    assert statements.results == {"verified": 1, "rejected": 1, "failed": 1}
    assert statements.waiting == 0
    assert statements.last_complete > before


async def test_a_key_that_expires_ends_untimed_signatures(made, monkeypatch):
    """A statement made before its key expired is verified again afterwards."""
    cluster, statements, _, (signed, *_) = made
    now = time.time()
    end = datetime.fromtimestamp(now + 3600, UTC).isoformat()
    document = trust()
    document["spec"]["signers"][0]["notAfter"] = end
    cluster.put(document)
    cluster.objects["/api/v1/pods/research/p"] = pod_of(f"{REPOSITORY}@{signed}")
    await statements.reconcile()
    await statements.reconcile()
    assert statements.results["verified"] == 1
    assert verdicts(cluster, f"{REPOSITORY}@{signed}") == ([(True, "")], 0)
    later = now + 7200
    monkeypatch.setattr("webhook.cluster.controller.image_statements.time.time", lambda: later)
    monkeypatch.setattr("webhook.provenance.checker.datetime", Later(later))
    statements._reader._checker._cache.clear()
    await statements.reconcile()
    assert verdicts(cluster, f"{REPOSITORY}@{signed}") == ([(False, "Expired")], 0)
    await statements.reconcile()
    assert statements.results == {"verified": 1, "rejected": 1, "failed": 0}


class Later:
    """A clock that stands still."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self, zone):
        return datetime.fromtimestamp(self._seconds, zone)
