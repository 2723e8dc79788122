"""The stored record of observed access, and the suspensions that follow from it."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from webhook.api.access import AccessApproval, AccessRequest, AccessSettings
from webhook.api.modelweights import ModelWeights
from webhook.cluster.client.api import ApiError
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
        self.created, self.modify, self.error = [], {}, None

    async def request(self, method, path, query=None, body=None, *, content_type=""):
        if path.endswith("accessapprovals"):
            if self.error is not None:
                raise self.error
            self.created.append(body)
            body = {**body, "spec": {**body["spec"], **self.modify}}
        metadata = {"uid": f"uid-{len(self.created)}", "resourceVersion": str(len(self.created))}
        return {**body, "metadata": {**body.get("metadata", {}), **metadata}}


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
    api, saved, requests = place
    return AccessRecord(api, saved, Events(api), signer, name, CONTROLLER, requests.append)


async def reconcile(record, *votes, minutes=5, covered=True):
    now = NOW + timedelta(minutes=minutes)
    await record.reconcile(index(*votes), VERIFIER, now, lambda *_: covered, {"uid-r"}, {})


async def test_a_revocation_that_was_deleted_between_two_processes_suspends_the_request(place):
    api, _, requests = place
    await reconcile(record(place), APPROVAL, REVOCATION)
    assert api.created == []
    await reconcile(record(place), APPROVAL)
    (suspension,) = api.created
    assert suspension["spec"]["decision"] == "Suspend"
    assert [notice.event for notice in requests] == ["suspended"]
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
    api, saved, _ = place
    keeper = record(place)
    await reconcile(keeper, APPROVAL, REVOCATION)
    saved.data.clear()
    await reconcile(keeper, APPROVAL)
    assert len(api.created) == 1


async def test_a_suspension_that_cannot_be_created_is_tried_again(place):
    api, _, _ = place
    keeper = record(place)
    await reconcile(keeper, APPROVAL, REVOCATION)
    api.error = ApiError(403, "Forbidden", "another webhook denied it")
    for _ in range(2):
        with pytest.raises(ApiError, match="another webhook denied it"):
            await reconcile(keeper, APPROVAL)
    api.error = None
    await reconcile(keeper, APPROVAL)
    await reconcile(keeper, APPROVAL)
    assert len(api.created) == 1
    assert keeper.own == {"uid-1": "1"}


@pytest.mark.parametrize(
    "modify",
    [{"confirmers": {"groups": ["everyone"]}}, {"request": {"name": "other", "uid": "x"}}, {"comment": "x"}],
    ids=lambda modify: next(iter(modify)),
)
async def test_a_suspension_that_another_webhook_modified_is_never_signed(place, modify):
    api, _, _ = place
    keeper = record(place)
    await reconcile(keeper, APPROVAL, REVOCATION)
    api.modify = modify
    with pytest.raises(ApiError, match="another admission webhook modified"):
        await reconcile(keeper, APPROVAL)
    assert keeper.own == {}
    # The stamps of admission are no modification.
    api.modify = {"approver": {"username": CONTROLLER, "groups": ["g"]}, "signature": "", "stampedAt": "x"}
    await reconcile(keeper, APPROVAL)
    assert len(keeper.own) == 1


async def test_a_leader_reads_the_record_of_the_leader_before_it(place):
    api, _, _ = place
    first, second = record(place), record(place)
    await reconcile(first, APPROVAL)
    second.begin()
    await reconcile(second, APPROVAL, REVOCATION)
    # The first one leads again, and the vote has disappeared meanwhile.
    first.begin()
    await reconcile(first, APPROVAL)
    assert [one["spec"]["decision"] for one in api.created] == ["Suspend"]


async def test_a_restored_older_record_does_not_replace_the_one_in_memory(place, caplog):
    api, saved, _ = place
    keeper = record(place)
    await reconcile(keeper, APPROVAL)
    before = dict(saved.data)
    await reconcile(keeper, APPROVAL, REVOCATION)
    saved.data = before
    keeper.begin()
    await reconcile(keeper, APPROVAL)
    assert len(api.created) == 1
    reasons = [getattr(entry, "fields", {}).get("why") for entry in caplog.records]
    assert "it is older than the last one: 1 of 2" in reasons


@pytest.mark.parametrize("change", ["content", "signature", "key"])
async def test_a_record_that_was_tampered_with_is_reported_and_not_used(place, caplog, change):
    api, saved, _ = place
    await reconcile(record(place), APPROVAL, REVOCATION)
    if change == "content":
        saved.data["record.json.z"] = saved.data["record.json.z"][:-1] + b"x"
    elif change == "signature":
        saved.data["record.sig"] = b""
    else:
        other = Signer(Ed25519PrivateKey.generate())
        content = b"weightlock.dev/record/v1\n" + saved.data["record.json.z"]
        saved.data["record.sig"] = other.sign_bytes(content).encode()
    await reconcile(record(place), APPROVAL)
    assert api.created == []
    assert "the record of access decisions is invalid" in caplog.text


async def test_without_a_key_or_a_secret_there_is_no_record(place):
    await reconcile(record(place, signer=None), APPROVAL)
    await reconcile(record(place, name=""), APPROVAL)
    assert place[1].writes == 0
