"""The wait for a signature and the comparison of the stored object with the sent one."""

import pytest

from webhook.app.errors import IncompleteError
from webhook.cli.access import submit as module
from webhook.cli.access.submit import RejectedError, differences, seconds_of, submit
from webhook.cluster.client.api import ApiError

APPROVAL = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "AccessApproval",
    "metadata": {"name": "a1"},
    "spec": {"request": {"name": "r", "uid": "u"}, "decision": "Approve"},
}


class Cluster:
    """Stores objects; ``modify`` is another mutating webhook, ``decide`` the controller."""

    def __init__(self, modify=lambda document: document, decide=lambda document, created: {}):
        self.created, self.modify, self.decide = [], modify, decide

    async def create(self, document):
        saved = self.modify({**document, "spec": {**document["spec"], "approver": {"username": "bob"}}})
        if isinstance(saved, Exception):
            raise saved
        self.created.append(saved)
        return saved

    async def read(self, kind, name):
        saved = next(item for item in self.created if item["metadata"]["name"] == name)
        return {**saved, **self.decide(saved, len(self.created))}


def sign(document, _=0):
    return {"spec": {**document["spec"], "signature": "k:s"}}


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    return slept


async def test_a_signed_object_is_returned():
    saved = await submit(Cluster(decide=sign), APPROVAL, 30)
    assert saved["spec"]["signature"] == "k:s"


async def test_without_a_signature_in_time_the_command_is_incomplete(monkeypatch):
    moments = iter(range(100))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(moments))
    with pytest.raises(IncompleteError, match="not signed yet"):
        await submit(Cluster(), APPROVAL, 5)


async def test_without_waiting_the_object_is_returned_as_stored():
    assert "signature" not in (await submit(Cluster(), APPROVAL, 0))["spec"]


async def test_an_object_that_can_be_signed_later_is_created_again(fast, capsys):
    def decide(document, created):
        retry = {"status": {"state": "Ignored", "reason": "too soon", "retryAfterSeconds": 12}}
        return retry if created == 1 else sign(document)

    cluster = Cluster(decide=decide)
    saved = await submit(cluster, APPROVAL, 60)
    assert saved["metadata"]["name"].startswith("a1-")
    assert fast == [12]
    assert "too soon; retrying in 12 s" in capsys.readouterr().err


@pytest.mark.parametrize("retry", [{}, {"retryAfterSeconds": 3600}, {"retryAfterSeconds": "soon"}])
async def test_an_object_that_cannot_be_signed_is_an_error(retry):
    status = {"state": "Ignored", "reason": "bypassed admission", **retry}
    with pytest.raises(RejectedError, match="AccessApproval a1 is not valid: bypassed admission"):
        await submit(Cluster(decide=lambda *_: {"status": status}), APPROVAL, 60)


def redirected(document):
    if document["spec"]["decision"] == "Approve":
        document["spec"]["request"] = {"name": "other", "uid": "o"}
    return document


async def test_a_modified_object_is_revoked_with_the_request_that_it_now_refers_to():
    cluster = Cluster(modify=redirected, decide=sign)
    with pytest.raises(RejectedError, match=r"modified AccessApproval a1 \(spec.request\); it was revoked"):
        await submit(cluster, APPROVAL, 30)
    revocation = cluster.created[1]["spec"]
    assert (revocation["decision"], revocation["request"]) == ("Revoke", {"name": "other", "uid": "o"})


async def test_a_modification_after_the_creation_is_noticed_with_the_signature():
    def decide(document, created):
        return {"spec": {**document["spec"], "decision": "Approve", "comment": "x", "signature": "k:s"}}

    with pytest.raises(RejectedError, match=r"spec\.comment"):
        await submit(Cluster(decide=decide), APPROVAL, 30)


@pytest.mark.parametrize("answer", [ApiError(403, "Forbidden", "no"), "rewritten"])
async def test_a_revocation_that_fails_is_reported_loudly(answer):
    def modify(document):
        if document["spec"]["decision"] == "Approve":
            return redirected(document)
        if isinstance(answer, ApiError):
            return answer
        return {**document, "spec": {**document["spec"], "decision": "Approve"}}

    with pytest.raises(RejectedError, match="COULD NOT BE REVOKED"):
        await submit(Cluster(modify=modify), APPROVAL, 30)


def test_stamps_and_explicit_defaults_are_not_differences():
    stamped = {
        "approver": {"username": "bob"},
        "stampedAt": "x",
        "stamp": "s",
        "signature": "k",
        "comment": "",
    }
    assert differences(APPROVAL, {**APPROVAL, "spec": {**APPROVAL["spec"], **stamped}}) == []
    renamed = {**APPROVAL, "metadata": {"name": "a2"}}
    assert differences(APPROVAL, renamed) == ["metadata.name"]


@pytest.mark.parametrize("text", ["-1", "soon", "4000", "nan"])
def test_a_wait_is_a_bounded_number_of_seconds(text):
    assert seconds_of("30s") == 30
    with pytest.raises(module.UsageError):
        seconds_of(text)
