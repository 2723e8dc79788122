"""Access objects as documents, and golden files: WEIGHTLOCK_UPDATE_GOLDEN=1 rewrites them for a reader to review."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from webhook.cli.access.ledger import Ledger

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
GOLDEN = Path(__file__).parent / "golden"
API = "weightlock.dev/v1alpha1"


def stamp(minutes):
    return (NOW + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


class Office:
    """Writes the documents of one cluster and reads them into a ledger."""

    now = NOW

    def __init__(self):
        self.requests, self.approvals = [], []
        self.models = [
            {
                "apiVersion": API,
                "kind": "ModelWeights",
                "metadata": {"name": "atlas-70b"},
                "spec": {
                    "sensitivity": "frontier",
                    "volumes": [{"nfs": {"server": "s", "path": "/p"}}],
                    "access": {
                        "approvals": 2,
                        "approvers": {"groups": ["weights-approvers"], "users": ["dana"]},
                    },
                },
            }
        ]

    def request(self, name, minutes=-30, duration="8h", status=None, by="alice", **spec):
        body = {
            "model": "atlas-70b",
            "subject": {"kind": "ServiceAccount", "namespace": "research", "name": "trainer"},
            "namespaces": ["research"],
            "duration": duration,
            "reason": "evals for the release",
            "requester": {"username": by},
            **spec,
        }
        body = {key: value for key, value in body.items() if value is not None}
        document = {
            "apiVersion": API,
            "kind": "AccessRequest",
            "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": stamp(minutes)},
            "spec": body,
        }
        self.requests.append({**document, "status": status} if status else document)

    def vote(self, request, by, decision="Approve", minutes=-10, comment=""):
        self.approvals.append(
            {
                "apiVersion": API,
                "kind": "AccessApproval",
                "metadata": {
                    "name": f"v{len(self.approvals)}",
                    "uid": "u",
                    "creationTimestamp": stamp(minutes),
                },
                "spec": {
                    "request": {"name": request, "uid": f"uid-{request}"},
                    "decision": decision,
                    "comment": comment,
                    "approver": {"username": by, "groups": ["weights-approvers"]},
                },
            }
        )

    @property
    def ledger(self):
        return Ledger(self.requests, self.approvals, self.models, NOW)


@pytest.fixture
def office():
    return Office()


@pytest.fixture
def golden():
    def check(name, text):
        path = GOLDEN / name
        if os.environ.get("WEIGHTLOCK_UPDATE_GOLDEN"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        assert text + "\n" == path.read_text()

    return check
