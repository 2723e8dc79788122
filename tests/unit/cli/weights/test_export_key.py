"""A data key leaves only for an approved request that names this key, and only after its entry is in a checkpoint."""

from __future__ import annotations

import stat
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from webhook.cli.main import main
from webhook.cli.weights import export_key
from webhook.cluster.access_client import AccessClient
from webhook.core.kube.time import format_time

API = "weightlock.dev/v1alpha1"
GROUPS = ["weights-approvers"]
MODEL = {
    "apiVersion": API,
    "kind": "ModelWeights",
    "metadata": {"name": "atlas-70b"},
    "spec": {
        "sensitivity": "frontier",
        "volumes": [{"nfs": {"server": "s", "path": "/p"}}],
        "access": {"approvals": 2, "approvers": {"groups": GROUPS}, "maxDuration": "12h"},
    },
}


class Case:
    """A sealed directory, and the objects of a cluster around it."""

    def __init__(self, tmp_path, capsys):
        self.root, self.capsys, self.objects = tmp_path, capsys, [MODEL]
        self.sealed, self.key, self.audit = tmp_path / "sealed", tmp_path / "key", tmp_path / "audit"
        self.kms = f"local://{tmp_path}/keyset.json"
        plain = tmp_path / "plain"
        plain.mkdir()
        (plain / "model.bin").write_bytes(b"weights")
        self.seal = [
            "weights",
            "seal",
            str(plain),
            str(self.sealed),
            "--model",
            "atlas-70b",
            "--kms",
            self.kms,
            "-q",
        ]
        assert self.run(*self.seal, "--key-id", "k1")[0] == 0
        self.change = {"kind": "KeyExport", "name": "atlas-70b", "digest": self.digest()}

    def run(self, *words):
        code = main(list(words))
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def digest(self):
        code, out, _ = self.run("weights", "export-key", str(self.sealed), "--template")
        assert code == 0
        (self.root / "export.yaml").write_text(out)
        return self.run("access", "digest", str(self.root / "export.yaml"))[1].strip()

    def request(self, hours=-1, by="alice", duration="8h", **spec):
        created = format_time(datetime.now(UTC) + timedelta(hours=hours))
        body = {"change": self.change, "duration": duration, "reason": "disaster recovery"}
        metadata = {"name": "r", "uid": "uid-r", "creationTimestamp": created}
        body |= {"requester": {"username": by, "groups": GROUPS}, **spec}
        self.objects.append({"apiVersion": API, "kind": "AccessRequest", "metadata": metadata, "spec": body})
        return self.objects[-1]

    def approve(self, by, hours=-0.5, decision="Approve"):
        created = format_time(datetime.now(UTC) + timedelta(hours=hours))
        metadata = {"name": f"r-{by}-{decision.lower()}", "uid": by, "creationTimestamp": created}
        body = {"request": {"name": "r", "uid": "uid-r"}, "decision": decision}
        body["approver"] = {"username": by, "groups": GROUPS}
        self.objects.append({"apiVersion": API, "kind": "AccessApproval", "metadata": metadata, "spec": body})

    def export(self, *, online=False):
        state = self.root / "state"
        state.mkdir(exist_ok=True)
        (state / "objects.yaml").write_text(yaml.safe_dump_all(self.objects))
        where = [] if online else ["--state", str(state)]
        words = [
            "--kms",
            self.kms,
            "--request",
            "r",
            "--output-file",
            str(self.key),
            "--audit",
            str(self.audit),
        ]
        return self.run("weights", "export-key", str(self.sealed), *words, *where)


@pytest.fixture
def case(tmp_path, capsys):
    return Case(tmp_path, capsys)


def test_two_approvals_an_entry_and_then_the_key(case):
    case.request()
    case.approve("bob")
    case.approve("carol")
    code, out, _ = case.export()
    assert code == 0
    assert (
        out
        == f'Exported key "k1" of model "atlas-70b" to {case.key}; approved by bob, carol; logged in {case.audit}\n'
    )
    assert stat.S_IMODE(case.key.stat().st_mode) == 0o400
    assert case.run("weights", "verify", str(case.sealed), "--key-file", str(case.key), "-q")[0] == 0
    logs = list(case.audit.glob("export/*"))
    assert len(logs) == 1
    assert case.run("audit", "verify", str(logs[0]))[0] == 0
    raw = b"".join(path.read_bytes() for path in (logs[0] / "tile/entries").rglob("*") if path.is_file())
    assert b"dev.weightlock.release" in raw
    assert b"exported to a file by alice" in raw
    assert b"disaster recovery" in raw
    assert case.key.read_bytes() not in raw


@pytest.mark.parametrize(
    ("story", "message"),
    [
        (lambda case: None, "request r does not exist"),
        (lambda case: case.request(), "request r is pending, not active"),
        (lambda case: (case.request(), case.approve("bob")), "request r is pending, not active"),
        (lambda case: (case.request(), case.approve("bob"), case.approve("alice")), "request r is pending"),
        (
            lambda case: [
                case.request(),
                *map(case.approve, ("bob", "carol")),
                case.approve("bob", -0.4, "Revoke"),
            ],
            "request r is revoked, not active",
        ),
        (
            lambda case: (case.request(hours=-9), case.approve("bob", -8.9), case.approve("carol", -8.8)),
            "request r is expired, not active",
        ),
        (
            lambda case: (
                case.request(change={**case.change, "digest": "sha256:" + "0" * 64}),
                case.approve("bob"),
                case.approve("carol"),
            ),
            "request r is not for key",
        ),
        (
            lambda case: (
                case.request(change={**case.change, "kind": "ModelWeights"}),
                case.approve("bob"),
                case.approve("carol"),
            ),
            "request r is not for key",
        ),
        (
            lambda case: (
                case.request(
                    change=None,
                    model="atlas-70b",
                    subject={"kind": "User", "name": "alice"},
                    namespaces=["research"],
                ),
                case.approve("bob"),
                case.approve("carol"),
            ),
            "request r is not for key",
        ),
    ],
)
def test_without_an_approval_no_key_is_exported(case, story, message):
    story(case)
    code, _, err = case.export()
    assert code == 1
    assert message in err
    assert not case.key.exists()
    assert not case.audit.exists()


def test_an_approval_is_for_one_wrapped_key(case):
    case.request()
    case.approve("bob")
    case.approve("carol")
    assert case.run("weights", "rotate", str(case.sealed), "--kms", case.kms, "-q")[0] == 0
    code, _, err = case.export()
    assert code == 1
    assert "is not for key" in err


def test_a_file_is_never_replaced(case):
    case.request()
    case.approve("bob")
    case.approve("carol")
    case.key.symlink_to(case.root / "elsewhere")
    code, _, err = case.export()
    assert code == 2
    assert "is written to a new file only" in err
    assert not (case.root / "elsewhere").exists()


def test_a_key_that_cannot_be_logged_stays(case):
    case.request()
    case.approve("bob")
    case.approve("carol")
    case.audit.write_text("a file")
    code, _, err = case.export()
    assert code == 3
    assert "cannot log the export, so the key is not exported" in err
    assert not case.key.exists()


def test_arguments_are_checked_first(case):
    code, _, err = case.run("weights", "export-key", str(case.sealed), "--kms", case.kms)
    assert code == 2
    assert "or --template" in err


@pytest.fixture
def cluster(case, monkeypatch):
    class Cluster:
        user = "alice"

        async def username(self):
            return self.user

        async def requests(self):
            return [item for item in case.objects if item["kind"] == "AccessRequest"]

        async def approvals(self):
            return [item for item in case.objects if item["kind"] == "AccessApproval"]

        async def models(self):
            return [MODEL]

    fake = Cluster()

    @asynccontextmanager
    async def connect(kubeconfig="", context=""):
        yield fake

    monkeypatch.setattr(AccessClient, "connect", connect)
    return fake


def test_in_a_cluster_the_controller_decides_and_the_requester_exports(case, cluster):
    request = case.request()
    case.approve("bob")
    case.approve("carol")
    code, _, err = case.export(online=True)
    assert (code, "is not evaluated by the controller yet" in err) == (1, True)
    ends = format_time(datetime.now(UTC) + timedelta(hours=4))
    begins = format_time(datetime.now(UTC) - timedelta(hours=1))
    request["status"] = {
        "phase": "Active",
        "approvals": 2,
        "needed": 2,
        "beginsAt": begins,
        "expiresAt": ends,
    }
    cluster.user = "mallory"
    code, _, err = case.export(online=True)
    assert (code, "is of alice, and you are mallory" in err) == (1, True)
    cluster.user = "alice"
    code, _, err = case.export(online=True)
    assert code == 0, err
    assert case.key.exists()


def test_the_document_names_one_key(case):
    from webhook.keys.sealed.operations import require_manifest

    document = export_key.document_of(require_manifest(case.sealed).claims)
    assert document["kind"] == "KeyExport"
    assert set(document["spec"]) == {"keyId", "kms", "wrapped"}
    assert document["spec"]["wrapped"].startswith("sha256:")
