"""The access commands from the command line to what is written, against a cluster that only remembers."""

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import yaml

from webhook.cli.access import commands
from webhook.cli.access.dependents import dependents
from webhook.cli.main import main
from webhook.cluster.access_client import AccessClient
from webhook.cluster.client.api import ApiError, ClusterError
from webhook.core.kube.review import Cause
from webhook.core.kube.time import format_time

MODELS = """
apiVersion: weightlock.dev/v1alpha1
kind: ModelWeights
metadata: {name: atlas-70b}
spec:
  sensitivity: frontier
  volumes: [{nfs: {server: s, path: /p}}]
  access: {approvals: 2, approvers: {groups: [weights-approvers]}, maxDuration: 12h}
"""


class Remembering:
    """Stores what is created, stamped as admission would."""

    namespace = "lab"

    def __init__(self, user="alice"):
        self.user, self.stored, self.refusal = user, [], None

    async def username(self):
        return self.user

    async def requests(self):
        return [document for document in self.stored if document["kind"] == "AccessRequest"]

    async def approvals(self):
        return [document for document in self.stored if document["kind"] == "AccessApproval"]

    async def pods(self, namespaces):
        return self.all_pods

    all_pods = ()

    async def models(self):
        return [yaml.safe_load(MODELS)]

    async def read(self, kind, name):
        for document in self.stored:
            if (document["kind"], document["metadata"]["name"]) == (kind, name):
                return document
        raise ApiError(404, "NotFound", f'{kind.lower()}s.weightlock.dev "{name}" not found')

    async def delete(self, document):
        self.stored = [item for item in self.stored if item["metadata"]["uid"] != document["metadata"]["uid"]]

    async def create(self, document):
        if self.refusal is not None:
            raise self.refusal
        role = "requester" if document["kind"] == "AccessRequest" else "approver"
        person = {"username": self.user, "groups": ["weights-approvers"]}
        saved = {
            **document,
            "metadata": {
                **document["metadata"],
                "uid": f"uid{len(self.stored)}",
                "creationTimestamp": format_time(datetime.now(UTC)),
            },
            "spec": {**document["spec"], role: person, "signature": "k:s"},
        }
        self.stored.append(saved)
        return saved


@pytest.fixture
def cluster(monkeypatch):
    fake = Remembering()

    @asynccontextmanager
    async def connect(kubeconfig="", context=""):
        if context == "gone":
            raise ClusterError("no such context")
        yield fake

    monkeypatch.setattr(AccessClient, "connect", connect)
    return fake


def run(capsys, *words):
    code = main(["access", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_asking_for_a_service_account(cluster, capsys):
    code, out, _ = run(
        capsys,
        "request",
        "atlas-70b",
        "--for",
        "2h",
        "--service-account",
        "research/trainer",
        "--reason",
        "evals",
        "--name",
        "r",
    )
    assert code == 0
    assert cluster.stored[0]["spec"] == {
        "duration": "2h",
        "reason": "evals",
        "model": "atlas-70b",
        "subject": {"kind": "ServiceAccount", "namespace": "research", "name": "trainer"},
        "namespaces": ["research"],
        "requester": {"username": "alice", "groups": ["weights-approvers"]},
        "signature": "k:s",
    }
    assert out.splitlines()[0] == "Requested: model atlas-70b for research/trainer, 2 h. Request r."


def test_asking_for_oneself_in_the_namespace_of_the_kubeconfig(cluster, capsys):
    code, _, _ = run(capsys, "request", "atlas-70b", "--reason", "evals", "--break-glass")
    spec = cluster.stored[0]["spec"]
    assert (code, spec["subject"], spec["namespaces"]) == (0, {"kind": "User", "name": "alice"}, ["lab"])
    assert spec["breakGlass"] is True
    assert cluster.stored[0]["metadata"]["name"].startswith("atlas-70b-")


def test_two_people_approve_and_the_next_command_is_always_there(cluster, capsys):
    run(
        capsys,
        "request",
        "atlas-70b",
        "--reason",
        "evals",
        "--name",
        "r",
        "-n",
        "a",
        "-n",
        "b",
        "--user",
        "zoe",
    )
    assert cluster.stored[0]["spec"]["namespaces"] == ["a", "b"]
    for number, user in enumerate(["bob", "carol"]):
        cluster.user = user
        code, out, _ = run(capsys, "approve", "r", "--comment", "fine")
        assert code == 0
        assert ("weightlock access approve r" if number == 0 else "weightlock access revoke r") in out
    spec = cluster.stored[-1]["spec"]
    assert (spec["request"], spec["decision"], spec["comment"]) == (
        {"name": "r", "uid": "uid0"},
        "Approve",
        "fine",
    )
    cluster.user = "dave"
    assert "Revoked" in run(capsys, "revoke", "r")[1]


def test_a_change_is_requested_by_digest(cluster, capsys, tmp_path):
    file = tmp_path / "model.yaml"
    file.write_text(MODELS)
    digest = run(capsys, "digest", str(file))[1].strip()
    assert run(capsys, "request", "--change", str(file), "--reason", "more room")[0] == 0
    assert cluster.stored[0]["spec"]["change"] == {
        "kind": "ModelWeights",
        "name": "atlas-70b",
        "digest": digest,
    }
    run(capsys, "request", "--change", str(file), "--delete", "--reason", "retired")
    assert cluster.stored[1]["spec"]["change"]["digest"] == "delete"


def test_a_denial_shows_its_causes(cluster, capsys):
    cluster.refusal = ApiError(
        403,
        "Forbidden",
        'admission webhook "validate.weightlock.dev" denied the request: words that no program reads',
        causes=(
            Cause(
                "WL413", "spec.duration 13h is longer than model atlas-70b allows\nFix: at most 12h", "spec"
            ),
        ),
    )
    code, out, err = run(capsys, "request", "atlas-70b", "--for", "13h", "--reason", "evals")
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "Denied: spec.duration 13h is longer than model atlas-70b allows [WL413]",
        "Fix: at most 12h",
    ]


def test_an_unreachable_cluster_is_incomplete_and_an_unknown_request_bad_input(cluster, capsys, tmp_path):
    assert run(capsys, "approve", "nothing")[0] == 2
    assert run(capsys, "list", "--context", "gone")[0] == 2
    assert run(capsys, "list", "--kubeconfig", str(tmp_path / "none"))[0] == 2
    cluster.refusal = ApiError(0, "Unreachable", "the API server cannot be reached")
    assert run(capsys, "request", "atlas-70b", "--reason", "evals")[0] == 3


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["request", "atlas-70b"], "--reason"),
        (["request", "--reason", "x"], "--change"),
        (["request", "atlas-70b", "--reason", "x", "--delete"], "--change"),
        (["request", "atlas-70b", "--reason", "x", "--for", "long"], "8h"),
        (["request", "atlas-70b", "--reason", "x", "--service-account", "trainer"], "NS/NAME"),
        (["show", "nothing"], "weightlock access list"),
        (["watch", "nothing"], "weightlock access list"),
        (["list", "--state", "/nowhere"], "no such directory"),
        (["digest", "/nowhere"], "/nowhere"),
    ],
)
def test_an_input_error_is_one_line_with_the_fix(cluster, capsys, words, hint):
    code, out, err = run(capsys, *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert hint in err


def test_lists_for_programs(cluster, capsys):
    run(capsys, "request", "atlas-70b", "--reason", "evals", "--name", "r")
    (item,) = json.loads(run(capsys, "list", "-o", "json")[1])
    assert (item["name"], item["for"], item["needed"]) == ("r", "model atlas-70b", 2)
    assert yaml.safe_load(run(capsys, "list", "-o", "yaml")[1]) == [item]
    assert json.loads(run(capsys, "show", "r", "-o", "json")[1]) == {**item, "pods": []}
    assert json.loads(run(capsys, "list", "--pending", "-o", "json")[1]) == [item]


def test_watching_ends_with_the_decision(cluster, capsys, monkeypatch):
    monkeypatch.setattr(commands, "_WATCH_SECONDS", 0)
    run(capsys, "request", "atlas-70b", "--reason", "evals", "--name", "r")
    cluster.stored[0]["status"] = {"state": "Pending", "approvals": "1/2", "ends": "2999-01-01T00:00:00Z"}
    calls = []
    requests = cluster.requests

    async def later():
        calls.append(1)
        if len(calls) == 3:
            cluster.stored[0]["status"] = {
                "state": "Active",
                "approvals": "2/2",
                "ends": "2999-01-01T00:00:00Z",
            }
        return await requests()

    monkeypatch.setattr(cluster, "requests", later)
    code, out, _ = run(capsys, "watch", "r")
    assert code == 0
    first, last = out.splitlines()
    assert "pending, 1 of 2 approvals" in first
    assert "active, expires in" in last


def test_without_a_cluster(capsys, tmp_path):
    (tmp_path / "models.yaml").write_text(MODELS)
    assert "No access requests" in run(capsys, "list", "--state", str(tmp_path))[1]
    denial = "… [WL101]\nFix: weightlock access request atlas-70b --for 8h --service-account a/default   (…)"
    code, out, _ = run(capsys, "suggest", denial, "--state", str(tmp_path))
    assert code == 0
    assert "  weightlock access request atlas-70b --for 8h --service-account a/default --reason TEXT" in out
    assert run(capsys, "suggest", "nothing to do with models")[0] == 1
    status = {
        "apiVersion": "v1",
        "kind": "Status",
        "details": {"causes": [{"reason": "WL101", "message": denial}]},
    }
    (tmp_path / "status.json").write_text(json.dumps(status))
    assert run(capsys, "suggest", str(tmp_path / "status.json"))[1] == out
    (tmp_path / "status.json").unlink()
    (tmp_path / "broken.yaml").write_text("kind: [")
    assert run(capsys, "list", "--state", str(tmp_path))[0] == 2


def test_retention_removes_old_requests_and_then_their_approvals(cluster, capsys):
    for name in ("old", "young", "open"):
        run(capsys, "request", "atlas-70b", "--reason", "evals", "--name", name, "--for", "1h")
        cluster.user = "bob"
        run(capsys, "deny" if name != "open" else "approve", name)
        cluster.user = "alice"
    days_ago = format_time(datetime.now(UTC) - timedelta(days=100))
    for document in cluster.stored[:2]:
        document["metadata"]["creationTimestamp"] = days_ago
    before = list(cluster.stored)
    assert "Would delete 1 requests" in run(capsys, "retain", "--older-than", "90d", "--dry-run")[1]
    assert cluster.stored == before
    code, out, _ = run(capsys, "retain", "--older-than", "90d")
    assert (code, out) == (
        0,
        "Deleted 1 requests that closed more than 90 d ago, and 1 orphaned approvals.\n",
    )
    requests = [item["metadata"]["name"] for item in cluster.stored if item["kind"] == "AccessRequest"]
    approved = [
        item["spec"]["request"]["name"] for item in cluster.stored if item["kind"] == "AccessApproval"
    ]
    assert requests == approved == ["young", "open"]
    assert run(capsys, "retain", "--older-than", "long")[0] == 2


def test_a_request_shows_the_pods_that_depend_on_it(cluster, capsys):
    stamp = {
        "metadata": {
            "annotations": {"weightlock.dev/grants": '{"m":{"request":"r1","uid":"u1","own":false}}'}
        }
    }
    requests = [{"metadata": {"name": "r1", "uid": "u1"}}]
    assert dependents(entry_of(requests[0]), None) is None
    pods = [
        {"metadata": {**stamp["metadata"], "name": "p", "namespace": "research"}},
        {
            "metadata": {**stamp["metadata"], "name": "done", "namespace": "research"},
            "status": {"phase": "Succeeded"},
        },
        {"metadata": {"name": "other", "namespace": "research"}},
    ]
    assert dependents(entry_of(requests[0]), pods) == ["research/p"]
    assert dependents(entry_of({"metadata": {"name": "r1", "uid": "u2"}}), pods) == []


def entry_of(document):
    return SimpleNamespace(name=document["metadata"]["name"], document=document)
