"""Verdicts in the log, and the files of a log over HTTP."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.unit.audit.conftest import write
from webhook.api.audit import AuditSettings
from webhook.core.admission.verdict import Verdict
from webhook.core.audit.entries import validate_entry
from webhook.core.kube.review import AdmissionRequest, GroupVersionName, UserInfo
from webhook.server.audit import VerdictLog
from webhook.server.audit_files import application

POD = GroupVersionName("", "v1", "pods")
ACCESS = GroupVersionName("weightlock.dev", "v1alpha1", "accessrequests")


class Writer:
    def __init__(self, *, full=False):
        self.full, self.entries = full, []

    def entry(self, kind, data, *, identifier, subject, now):
        from webhook.core.audit.entries import envelope, timestamp

        return envelope(kind, "c/webhook/a", identifier, timestamp(now), data, subject)

    def submit(self, entry):
        self.entries.append(entry)
        return True


def request(resource=POD, **fields):
    values = {"uid": "u-1", "kind": resource, "resource": resource, "subresource": "", "operation": "CREATE"}
    values |= {
        "name": "p",
        "namespace": "n",
        "user": UserInfo("alice", "a-1"),
        "object": {"metadata": {"name": "p"}},
    }
    values |= {"old_object": None, "dry_run": False, "raw": {}}
    return AdmissionRequest(**{**values, **fields})


def verdict(*, denied=False, patch=()):
    finding = SimpleNamespace(code="WL101")
    return Verdict("u-1", (finding,) if denied else (), (), (), patch=patch)


def test_a_verdict_is_a_valid_entry_without_the_object():
    """An entry has the digest of the object, and nothing else of it."""
    writer = Writer()
    log = VerdictLog(writer, AuditSettings())
    secret = request(object={"spec": {"env": "SECRET-VALUE"}})
    log.record(secret, verdict(denied=True), "validate", "denied", 0.002)
    log.record(request(name="x" * 900, user=UserInfo("u" * 5000)), verdict(), "validate", "allowed", 0.002)
    for entry in writer.entries:
        validate_entry(entry)
    assert "SECRET-VALUE" not in str(writer.entries)
    assert writer.entries[0]["data"]["codes"] == ["WL101"]
    assert writer.entries[0]["data"]["object"].startswith("sha256:")


def test_mutation_is_logged_where_it_changes_or_denies():
    """A mutating review that does nothing has no entry, and the ids of both phases differ."""
    writer = Writer()
    log = VerdictLog(writer, AuditSettings())
    log.record(request(), verdict(), "mutate", "allowed", 0)
    assert writer.entries == []
    log.record(request(), verdict(patch=({"op": "add"},)), "mutate", "allowed", 0)
    log.record(request(), verdict(), "validate", "allowed", 0)
    assert [entry["id"] for entry in writer.entries] == ["u-1/mutate", "u-1"]


def test_sampling_keeps_denials():
    """Only allowed verdicts are sampled."""
    writer = Writer()
    log = VerdictLog(writer, AuditSettings(sample_allowed=0))
    log.record(request(), verdict(), "validate", "allowed", 0)
    log.record(request(), verdict(denied=True), "validate", "denied", 0)
    assert [entry["data"]["decision"] for entry in writer.entries] == ["denied"]


@pytest.mark.parametrize(
    ("settings", "resource", "refused"),
    [
        ({}, POD, False),
        ({}, ACCESS, True),
        ({"verdicts": "deny"}, POD, True),
        ({"grants": "count"}, ACCESS, False),
    ],
)
def test_a_full_queue_follows_the_rule(settings, resource, refused):
    """By default a full queue denies access objects and counts verdicts."""
    configured = AuditSettings.model_validate({"onFull": settings})
    assert VerdictLog(Writer(full=True), configured).refuses(request(resource)) is refused
    assert VerdictLog(Writer(), configured).refuses(request(resource)) is False
    assert VerdictLog(Writer(), configured).is_required(request(resource)) is refused
    assert VerdictLog(Writer(), configured).is_required(request(resource, dry_run=True)) is False


async def test_files_are_served_and_nothing_else(tmp_path):
    """Checkpoint, tiles and bundles are served. The lock, the index and paths outside of the directory are not."""
    write(tmp_path / "webhook" / "a", 300)
    (tmp_path / "log.key").write_text("private")
    async with TestClient(TestServer(application(tmp_path))) as client:
        for path in ("checkpoint", "tile/entries/000", "tile/0/000", "tile/0/001.p/46"):
            response = await client.get(f"/webhook/a/{path}")
            assert response.status == 200, path
            assert await response.read() == (tmp_path / "webhook" / "a" / path).read_bytes()
        for path in (
            "/log.key",
            "/webhook/a/.lock",
            "/webhook/a/",
            "/webhook/a/tile/0/9",
            "/../checkpoint",
            "/%2e%2e/checkpoint",
        ):
            assert (await client.get(path)).status == 404, path
        assert (await client.post("/webhook/a/checkpoint")).status == 405
