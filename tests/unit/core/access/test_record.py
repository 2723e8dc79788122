"""The record of observed access: lost votes and weakened rules suspend requests until an approver confirms."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from webhook.api.modelweights import AccessRules, Approvers
from webhook.core.access import GrantIndex, Phase, Signer, Verifier
from webhook.core.access.record import MAX_STORED_BYTES, Record, RecordError, compare, is_stricter

EXISTING = {"uid-r1"}
CONTROLLER = "system:serviceaccount:weightlock-system:weightlock-controller"


def votes(story, *extra):
    return [story.approval("a1"), story.approval("a2", by="carol", at=2), *extra]


def index_of(story, *approvals, **access):
    return GrantIndex.build([story.request()], approvals, [story.model(**access)])


def recorded(story, index):
    return compare(Record(), index, story.at(5), lambda *_: True, EXISTING)[0]


def test_a_first_observation_suspends_nothing(story):
    record, suspensions = compare(
        Record(), index_of(story, *votes(story)), story.at(5), lambda *_: False, EXISTING
    )
    assert suspensions == []
    assert Record.decode(record.encode()) == record


def test_a_revocation_that_disappears_suspends_the_request(story):
    revoke = story.approval("stop", by="dave", at=3, decision="Revoke")
    record = recorded(story, index_of(story, *votes(story, revoke)))
    revived = index_of(story, *votes(story))
    assert len(revived.active(story.at(5))) == 1
    _, (suspension,) = compare(record, revived, story.at(5), lambda *_: True, EXISTING)
    assert suspension.request == "r1"
    assert "Revoke stop" in suspension.reason


def test_a_revocation_that_disappears_before_it_is_recorded_suspends_the_request_once(story):
    revoke = story.approval("stop", by="dave", at=3, decision="Revoke")
    record = recorded(story, index_of(story, *votes(story)))
    index = index_of(story, *votes(story, revoke)).with_changes(remove=[("AccessApproval", "stop")])
    after, (suspension,) = compare(record, index, story.at(5), lambda *_: True, EXISTING)
    assert "Revoke stop" in suspension.reason
    # It repeats until the suspension exists, and a deleted suspension is replaced.
    assert len(compare(after, index, story.at(6), lambda *_: True, EXISTING)[1]) == 1
    suspend = story.approval("s", by=CONTROLLER, by_groups=(), at=6, decision="Suspend")
    index = index.with_changes([suspend])
    assert compare(after, index, story.at(7), lambda *_: True, EXISTING)[1] == []
    index = index.with_changes(remove=[("AccessApproval", "s")])
    (suspension,) = compare(after, index, story.at(8), lambda *_: True, EXISTING)[1]
    assert "Suspend s" in suspension.reason


def test_the_record_keeps_a_lost_vote_until_a_signed_suspension_exists(story):
    revoke = story.approval("stop", by="dave", at=3, decision="Revoke")
    record = recorded(story, index_of(story, *votes(story, revoke)))
    revived = index_of(story, *votes(story))
    for _ in range(2):
        record, (suspension,) = compare(record, revived, story.at(5), lambda *_: True, EXISTING)
        assert "Revoke stop" in suspension.reason
        # Another leader reads the stored record.
        record = Record.decode(record.encode())
    suspend = story.approval("s", by=CONTROLLER, by_groups=(), at=6, decision="Suspend")
    suspended_index = revived.with_changes([suspend])
    record, suspensions = compare(record, suspended_index, story.at(7), lambda *_: True, EXISTING)
    assert suspensions == []
    # The suspension is a recorded vote now, so its deletion is noticed too.
    _, (suspension,) = compare(record, revived, story.at(8), lambda *_: True, EXISTING)
    assert "Suspend s" in suspension.reason


def broken(story):
    request = story.request()
    return request.model_copy(update={"spec": request.spec.model_copy(update={"requester": None})})


def suspended(story, *extra, confirmers=None, **access):
    suspend = story.approval("s", by=CONTROLLER, by_groups=(), at=4, decision="Suspend")
    if confirmers is not None:
        spec = suspend.spec.model_copy(update={"confirmers": confirmers})
        suspend = suspend.model_copy(update={"spec": spec})
    return index_of(story, *votes(story, suspend, *extra), **access)


def test_a_suspended_request_grants_nothing_until_an_approver_confirms(story):
    index = suspended(story)
    assert index.active(story.at(5)) == ()
    assert index.state("r1", story.at(5)).phase is Phase.SUSPENDED
    confirmed = index.with_changes([story.approval("c", by="bob", at=5, decision="Confirm")])
    assert len(confirmed.active(story.at(6))) == 1
    again = confirmed.with_changes(
        [story.approval("s2", by=CONTROLLER, by_groups=(), at=7, decision="Suspend")]
    )
    assert again.active(story.at(8)) == ()


@pytest.mark.parametrize(
    "confirm",
    [{"by": "alice"}, {"by": "eve", "by_groups": ()}, {"by": "bob", "at": 3}],
    ids=["requester", "stranger", "before the suspension"],
)
def test_a_confirmation_must_come_from_another_approver_and_later(story, confirm):
    index = suspended(story).with_changes(
        [story.approval("c", **{"at": 5, "decision": "Confirm", **confirm})]
    )
    assert index.active(story.at(6)) == ()


def test_only_the_controller_suspends(story):
    suspend = story.approval("s", by="bob", at=4, decision="Suspend")
    assert len(index_of(story, *votes(story, suspend)).active(story.at(5))) == 1


def test_a_deny_ends_a_suspended_request(story):
    index = suspended(story, story.approval("d", by="dave", at=5, decision="Deny"))
    assert index.state("r1", story.at(6)).phase is Phase.DENIED


def test_a_vote_deleted_from_the_cluster_still_counts_in_memory(story):
    revoke = story.approval("stop", by="dave", at=3, decision="Revoke")
    index = index_of(story, *votes(story, revoke)).with_changes(remove=[("AccessApproval", "stop")])
    assert index.active(story.at(5)) == ()
    assert [vote.name for vote in index.lost] == ["stop"]
    # Also if the request is made invalid for a moment, which would hide it.
    index = index.with_changes([broken(story)]).with_changes([story.request()])
    assert index.active(story.at(5)) == ()
    # Retention deletes the request first, and then the vote is gone.
    index = index.with_changes(remove=[("AccessRequest", "r1")])
    assert index.lost == ()
    assert index.with_changes([story.request()]).state("r1", story.at(5)).phase is Phase.ACTIVE


def test_a_vote_that_hides_behind_an_invalid_request_still_counts(story):
    revoke = story.approval("stop", by="dave", at=3, decision="Revoke")
    index = index_of(story, *votes(story, revoke)).with_changes([broken(story)])
    index = index.with_changes(remove=[("AccessApproval", "stop")]).with_changes([story.request()])
    assert index.active(story.at(5)) == ()


REPLACEMENTS = {
    "broken": {"decision": "Revoke", "broken": True},
    "an approval": {"decision": "Approve"},
    "of another request": {"decision": "Revoke", "request": "r2"},
}


@pytest.mark.parametrize("deleted", [False, True], ids=["modified", "deleted and created again"])
@pytest.mark.parametrize("replacement", REPLACEMENTS.values(), ids=REPLACEMENTS.keys())
def test_a_stop_that_is_replaced_by_another_vote_still_counts(story, replacement, deleted):
    fields = dict(replacement)
    is_broken = fields.pop("broken", False)
    new = story.approval("stop", by="dave", at=3, **fields)
    if is_broken:
        new = new.model_copy(update={"spec": new.spec.model_copy(update={"approver": None})})
    index = index_of(story, *votes(story, story.approval("stop", by="dave", at=3, decision="Revoke")))
    record = recorded(story, index)
    if deleted:
        index = index.with_changes(remove=[("AccessApproval", "stop")])
    index = index.with_changes([new])
    assert index.active(story.at(5)) == ()
    assert index.state("r1", story.at(5)).phase is Phase.REVOKED
    assert [vote.name for vote in index.lost] == ["stop"]
    # A process that starts now does not know the vote, so the controller suspends the request.
    (suspension,) = compare(record, index, story.at(5), lambda *_: True, EXISTING)[1]
    assert suspension.reason == "votes were deleted or replaced: Revoke stop"
    index = index.with_changes(remove=[("AccessRequest", "r1")])
    assert index.lost == ()


def test_the_same_stop_again_is_not_lost(story):
    revoke = story.approval("stop", by="dave", at=3, decision="Revoke")
    index = index_of(story, *votes(story, revoke)).with_changes(remove=[("AccessApproval", "stop")])
    index = index.with_changes([story.approval("stop", by="dave", at=4, decision="Revoke")])
    assert index.lost == ()
    assert index.active(story.at(5)) == ()


@pytest.mark.parametrize("hidden", ["by its ModelWeights", "by its content"])
def test_the_votes_of_a_request_that_is_made_invalid_stay_recorded(story, hidden):
    revoke = story.approval("stop", by="dave", at=3, decision="Revoke")
    record = recorded(story, index_of(story, *votes(story, revoke)))
    if hidden == "by its content":
        invalid = GrantIndex.build([broken(story)], votes(story, revoke), [story.model()])
    else:
        invalid = GrantIndex.build([story.request()], votes(story, revoke), [])
    record, suspensions = compare(record, invalid, story.at(5), lambda *_: True, EXISTING)
    assert suspensions == []
    (suspension,) = compare(record, index_of(story, *votes(story)), story.at(5), lambda *_: True, EXISTING)[1]
    assert "Revoke stop" in suspension.reason
    # With the request, its votes are forgotten.
    assert compare(record, GrantIndex.build(), story.at(5), lambda *_: True, ())[0].requests == {}


def copies(story):
    """A signed request, and the same with another uid."""
    signer = Signer(Ed25519PrivateKey.generate())
    request = story.request()
    spec = request.spec.model_copy(update={"stamped_at": request.metadata.creation_timestamp})
    request = request.model_copy(update={"spec": spec})
    signed = request.model_copy(update={"spec": spec.model_copy(update={"signature": signer.sign(request)})})
    metadata = signed.metadata.model_copy(update={"uid": "another"})
    verifier = Verifier.of([signer.key.public_key()])
    return signed, signed.model_copy(update={"metadata": metadata}), verifier


def test_a_copy_of_a_signed_request_is_invalid_after_the_deletion_of_the_first(story):
    signed, copy, verifier = copies(story)
    index = GrantIndex.build([signed], [], [story.model(approvals=0)], verifier=verifier)
    assert len(index.active(story.at(1))) == 1
    for changed in (
        index.with_changes(remove=[("AccessRequest", "r1")]).with_changes([copy]),
        index.with_changes([copy]),
    ):
        assert changed.active(story.at(1)) == ()
        assert "copy of an earlier request" in changed.problems[0].reason
        # The first one is valid again, with its own uid.
        assert len(changed.with_changes([signed]).active(story.at(1))) == 1


def test_a_copy_of_a_signed_request_is_suspended_by_a_controller_that_only_has_the_record(story):
    signed, copy, verifier = copies(story)
    models = [story.model(approvals=0)]
    index = GrantIndex.build([signed], [], models, verifier=verifier)
    record = compare(Record(), index, story.at(1), lambda *_: True, EXISTING)[0]
    record = Record.decode(record.encode())
    copied = GrantIndex.build([copy], [], models, verifier=verifier)
    record, (suspension,) = compare(record, copied, story.at(2), lambda *_: True, {"another"})
    assert (suspension.request, suspension.uid) == ("r1", "another")
    # It repeats until a signed suspension exists, also after a change of the leader.
    record = Record.decode(record.encode())
    assert compare(record, copied, story.at(2), lambda *_: True, {"another"})[1] == [suspension]
    # A copy that is created later is invalid by its time, so its mark is not needed.
    assert compare(record, index, story.at(30), lambda *_: True, EXISTING)[0].copies == {}


def test_a_lost_approval_is_lost_at_once(story):
    index = index_of(story, *votes(story)).with_changes(remove=[("AccessApproval", "a2")])
    assert index.active(story.at(5)) == ()
    assert index.lost == ()


CONFIRMERS = {"groups": ["approvers"], "users": ["root-cat"]}


def uncovered(record, index, story, at=5):
    return compare(record, index, story.at(at), lambda *_: False, EXISTING)


def stored(story, suspension, at=5):
    """The suspension as the controller creates it."""
    vote = story.approval("weaker", by=CONTROLLER, by_groups=(), at=at, decision="Suspend")
    fields = {
        "confirmers": Approvers.model_validate(suspension.confirmers),
        "comment": suspension.reason,
    }
    return vote.model_copy(update={"spec": vote.spec.model_copy(update=fields)})


def test_rules_that_became_weaker_without_admission_suspend_open_requests(story):
    record = recorded(story, index_of(story, story.approval("a1")))
    weaker = index_of(story, story.approval("a1"), approvals=1)
    assert len(weaker.active(story.at(5))) == 1
    after, (suspension,) = uncovered(record, weaker, story)
    assert suspension.confirmers == CONFIRMERS
    assert compare(record, weaker, story.at(5), lambda *_: True, EXISTING)[1] == []
    # Once only, and a confirmation counts.
    suspended = weaker.with_changes([stored(story, suspension)])
    assert suspended.active(story.at(6)) == ()
    assert uncovered(after, suspended, story, 6)[1] == []
    confirmed = suspended.with_changes([story.approval("c", by="dave", at=6, decision="Confirm")])
    assert len(confirmed.active(story.at(7))) == 1
    assert uncovered(after, confirmed, story, 7)[1] == []


def test_weaker_rules_without_admission_are_not_recorded(story):
    record = recorded(story, index_of(story))
    after, suspensions = uncovered(record, index_of(story, approvals=1), story)
    assert suspensions == []
    assert after.rules("atlas").approvals == 2
    # So a request that is approved by the weaker rules later is suspended, too.
    (suspension,) = uncovered(after, index_of(story, story.approval("a1"), approvals=1), story)[1]
    assert suspension.confirmers == CONFIRMERS
    # The same rules again, through admission, are recorded.
    after = compare(after, index_of(story, approvals=1), story.at(5), lambda *_: True, EXISTING)[0]
    assert after.rules("atlas").approvals == 1


def test_a_grant_that_the_recorded_rules_give_too_is_not_suspended(story):
    """Lower approvals do not concern a request that has all of the earlier ones."""
    record = recorded(story, index_of(story, *votes(story)))
    assert uncovered(record, index_of(story, *votes(story), approvals=1), story)[1] == []


def test_another_weaker_rule_needs_another_confirmation(story):
    record = recorded(story, index_of(story, story.approval("a1")))
    weaker = index_of(story, story.approval("a1"), approvals=1)
    suspension = uncovered(record, weaker, story)[1][0]
    confirmed = [stored(story, suspension), story.approval("c", by="dave", at=6, decision="Confirm")]
    weakest = index_of(story, story.approval("a1"), *confirmed, approvals=0)
    assert len(uncovered(record, weakest, story, 7)[1]) == 1


def test_a_vote_that_disappears_too_does_not_let_new_approvers_confirm(story):
    record = recorded(story, index_of(story, story.approval("a1")))
    weaker = index_of(story, approvals=0, users=("mallory",))
    after, suspensions = uncovered(record, weaker, story)
    assert "Approve a1" in suspensions[0].reason
    suspend = story.approval("s", by=CONTROLLER, by_groups=(), at=5, decision="Suspend")
    confirm = story.approval("c", by="mallory", by_groups=(), at=6, decision="Confirm")
    confirmed = weaker.with_changes([suspend, confirm])
    assert len(confirmed.active(story.at(7))) == 1
    (suspension,) = uncovered(after, confirmed, story, 7)[1]
    assert suspension.confirmers == CONFIRMERS


@pytest.mark.parametrize("hidden", ["by its ModelWeights", "by its content"])
def test_a_request_that_is_invalid_while_the_rules_become_weaker_is_suspended_later(story, hidden):
    record = recorded(story, index_of(story, story.approval("a1")))
    if hidden == "by its content":
        weaker = GrantIndex.build([broken(story)], [story.approval("a1")], [story.model(approvals=1)])
    else:
        weaker = index_of(story, story.approval("a1"), approvals=1, maxDuration="1m")
    assert weaker.state("r1", story.at(5)).phase is Phase.INVALID
    after, suspensions = uncovered(record, weaker, story)
    assert suspensions == []
    (suspension,) = uncovered(after, index_of(story, story.approval("a1"), approvals=1), story)[1]
    assert suspension.confirmers == CONFIRMERS


def test_a_model_that_became_public_without_admission_stays_recorded(story):
    index = index_of(story)
    record = compare(Record(), index, story.at(5), lambda *_: True, EXISTING, {"atlas": "frontier"})[0]
    record = Record.decode(record.encode())
    for covered, weaker in ((False, True), (True, False)):
        after = compare(
            record, index, story.at(5), lambda *_, covered=covered: covered, EXISTING, {"atlas": "public"}
        )[0]
        assert after.became_weaker("atlas", index.models["atlas"], "public") is weaker


def test_a_later_approver_cannot_confirm(story):
    confirmers = Approvers(groups=["approvers"])
    index = suspended(
        story,
        story.approval("c", by="mallory", by_groups=(), at=5, decision="Confirm"),
        confirmers=confirmers,
        users=("mallory",),
    )
    assert index.active(story.at(6)) == ()
    index = index.with_changes([story.approval("c2", by="bob", at=6, decision="Confirm")])
    assert len(index.active(story.at(7))) == 1


STRICT = {
    "approvals": 2,
    "approvers": {"groups": ["a"]},
    "maxDuration": "8h",
    "onExpiry": "evict",
    "memoryImages": "forbidden",
}


@pytest.mark.parametrize(
    ("change", "stricter"),
    [
        ({}, True),
        ({"approvals": 3}, True),
        ({"approvals": 1}, False),
        ({"maxDuration": "4h"}, True),
        ({"maxDuration": "9h"}, False),
        ({"approvers": {"groups": ["a", "b"]}}, False),
        ({"approvers": {"groups": ["a"], "users": ["eve"]}}, False),
        ({"approvers": {"groups": []}}, True),
        ({"rules": [{"group": "a", "count": 1}]}, True),
        ({"rules": [{"group": "b", "count": 1}]}, False),
        ({"onExpiry": "wipe"}, False),
        ({"memoryImages": "storeOnly"}, False),
    ],
)
def test_rules_are_stricter_only_if_they_allow_no_more(change, stricter):
    old, new = AccessRules.model_validate(STRICT), AccessRules.model_validate({**STRICT, **change})
    assert is_stricter(new, old) is stricter


def test_a_record_that_is_too_large_drops_its_oldest_requests():
    requests = {f"uid-{number:06}": {f"vote-{number * 7919 % 999983}": "Approve"} for number in range(60_000)}
    saved = Record(requests).encode()
    assert len(saved) <= MAX_STORED_BYTES
    remaining = Record.decode(saved).requests
    assert "uid-059999" in remaining
    # Also after it was read again, the oldest ones come first.
    assert list(remaining) == sorted(remaining)


def test_requests_without_votes_take_no_room_in_the_record(story):
    assert recorded(story, index_of(story)).requests == {}


@pytest.mark.parametrize("saved", [b"", b"nonsense", Record().encode()[:-4] + b"xxxx"])
def test_a_damaged_record_is_an_error(saved):
    with pytest.raises(RecordError):
        Record.decode(saved)
