"""The stored record of observed access, and the suspensions that follow from it."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from webhook.api.access import AccessApproval, AccessRequest, AccessSettings
from webhook.api.modelweights import ModelWeights
from webhook.cluster.controller.record import AccessRecord
from webhook.cluster.controller.secrets import Secret
from webhook.cluster.events import Events
from webhook.core.access import GrantIndex, Phase, Signer, Verifier
from webhook.core.kube.time import format_time

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
SIGNER = Signer(Ed25519PrivateKey.generate())
VERIFIER = Verifier.of([SIGNER.key.public_key()])
API = "weightlock.dev/v1alpha1"
CONTROLLER = AccessSettings().controllers[0]
MODEL = ModelWeights.model_validate(
    {
        "apiVersion": API,
        "kind": "ModelWeights",
        "metadata": {"name": "m"},
        "spec": {
            "sensitivity": "frontier",
            "volumes": [{"nfs": {"server": "s", "path": "/p"}}],
            "access": {"approvals": 1, "approvers": {"groups": ["a"]}},
        },
    }
)


class Api:
    """Records created objects."""

    def __init__(self):
        self.created = []

    async def request(self, method, path, query=None, body=None, *, content_type=""):
        if path.endswith("accessapprovals"):
            self.created.append(body)
        return {**body, "metadata": {**body.get("metadata", {}), "uid": f"uid-{len(self.created)}"}}


class Stored:
    """One Secret."""

    def __init__(self):
        self.data, self.writes = {}, 0

    async def read(self, name):
        return Secret(name, str(self.writes), dict(self.data))

    async def write(self, secret, data):
        self.data |= data
        self.writes += 1


def signed(kind, name, minutes, **spec):
    model = {"AccessRequest": AccessRequest, "AccessApproval": AccessApproval}[kind]
    created = format_time(NOW + timedelta(minutes=minutes))
    metadata = {"name": name, "uid": f"uid-{name}", "creationTimestamp": created}
    document = {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": {**spec, "stampedAt": created}}
    document["spec"]["signature"] = SIGNER.sign(model.model_validate(document))
    return model.model_validate(document)


REQUEST = signed(
    "AccessRequest",
    "r",
    0,
    model="m",
    subject={"kind": "User", "name": "alice"},
    namespaces=["lab"],
    duration="8h",
    reason="tests",
    requester={"username": "alice"},
)


def vote(name, decision, by, minutes):
    person = {"username": by, "groups": ["a"]}
    reference = {"name": "r", "uid": "uid-r"}
    return signed("AccessApproval", name, minutes, request=reference, decision=decision, approver=person)


APPROVAL, REVOCATION = vote("v1", "Approve", "bob", 1), vote("v2", "Revoke", "carol", 2)


def index(*votes):
    return GrantIndex.build([REQUEST], votes, [MODEL], verifier=VERIFIER)


@pytest.fixture
def place():
    return Api(), Stored(), []


def record(place, signer=SIGNER, name="record"):
    api, stored, sent = place
    return AccessRecord(api, stored, Events(api), signer, name, CONTROLLER, sent.append)


async def reconcile(record, *votes, minutes=5, covered=True):
    now = NOW + timedelta(minutes=minutes)
    await record.reconcile(index(*votes), VERIFIER, now, lambda _: covered)


async def test_a_revocation_that_was_deleted_between_two_processes_suspends_the_request(place):
    api, _, sent = place
    await reconcile(record(place), APPROVAL, REVOCATION)
    assert api.created == []
    await reconcile(record(place), APPROVAL)
    (suspension,) = api.created
    assert suspension["spec"]["decision"] == "Suspend"
    assert [notice.event for notice in sent] == ["suspended"]
    # It is valid without admission, which may be missing at this time.
    suspension["metadata"] |= {"uid": "uid-s", "creationTimestamp": suspension["spec"]["stampedAt"]}
    after = index(APPROVAL, AccessApproval.model_validate(suspension))
    later = NOW + timedelta(minutes=6)
    assert after.active(later) == ()
    assert after.state("r", later).phase is Phase.SUSPENDED
    confirmed = after.with_changes([vote("c", "Confirm", "dana", 7)])
    assert len(confirmed.active(NOW + timedelta(minutes=8))) == 1


async def test_an_unchanged_state_is_not_written_again(place):
    keeper = record(place)
    for _ in range(3):
        await reconcile(keeper, APPROVAL)
    assert place[1].writes == 1


async def test_deleting_the_stored_record_hides_nothing_from_a_running_leader(place):
    api, stored, _ = place
    keeper = record(place)
    await reconcile(keeper, APPROVAL, REVOCATION)
    stored.data.clear()
    await reconcile(keeper, APPROVAL)
    assert len(api.created) == 1


@pytest.mark.parametrize("change", ["content", "signature", "key"])
async def test_a_record_that_was_tampered_with_is_reported_and_not_used(place, caplog, change):
    api, stored, _ = place
    await reconcile(record(place), APPROVAL, REVOCATION)
    if change == "content":
        stored.data["record.json.z"] = stored.data["record.json.z"][:-1] + b"x"
    elif change == "signature":
        stored.data["record.sig"] = b""
    else:
        other = Signer(Ed25519PrivateKey.generate())
        content = b"weightlock.dev/record/v1\n" + stored.data["record.json.z"]
        stored.data["record.sig"] = other.sign_bytes(content).encode()
    await reconcile(record(place), APPROVAL)
    assert api.created == []
    assert "the record of access decisions is invalid" in caplog.text


async def test_without_a_key_or_a_secret_there_is_no_record(place):
    await reconcile(record(place, signer=None), APPROVAL)
    await reconcile(record(place, name=""), APPROVAL)
    assert place[1].writes == 0
