"""What a index answers: each rule of a grant, with the attack it stops."""

import pytest

from webhook.api.access import AccessSettings
from webhook.core.access import GrantIndex, Phase

TRAINER = ("research", "trainer")


def granted(index, now, namespace="research"):
    return [grant.request for grant in index.for_subject("", TRAINER, namespace, now)]


def test_two_approvals_by_two_people_grant_from_the_second_one(story):
    index = GrantIndex.build(
        requests=[story.request()],
        approvals=[story.approval("a1", at=10, by="bob"), story.approval("a2", at=20, by="carol")],
        models=[story.model()],
    )
    (grant,) = index.active(story.at(30))
    assert (grant.begins, grant.expires) == (story.at(20), story.at(20 + 480))
    assert grant.approvers == ("bob", "carol")
    assert granted(index, story.at(499.9)) == ["r1"]
    assert granted(index, story.at(500)) == []
    assert granted(index, story.at(30), namespace="default") == []
    assert index.for_subject("system:serviceaccount:research:trainer", None, "research", story.at(30)) == (
        grant,
    )
    assert index.for_subject("trainer", ("default", "trainer"), "research", story.at(30)) == ()
    assert index.state("r1", story.at(30)).phase is Phase.ACTIVE


def test_one_approval_is_not_two(story):
    index = GrantIndex.build(
        requests=[story.request()], approvals=[story.approval("a1")], models=[story.model()]
    )
    state = index.state("r1", story.at(5))
    assert (state.phase, state.approvals, state.needed) == (Phase.PENDING, 1, 2)
    assert granted(index, story.at(5)) == []


def book_of(story, *approvals, request=None, model=None, settings=None):
    return GrantIndex.build(
        [request or story.request()], approvals, [model or story.model()], settings or AccessSettings()
    )


ATTACKS = {
    "the requester approves": {"by": "alice"},
    "the requester approves under another name with the same uid": {"by": "alice2", "by_uid": "42"},
    "the requester approves in capitals": {"by": "ALICE"},
    "one person approves twice": {"by": "bob"},
    "one person approves twice under two names with one uid": {"by": "robert", "by_uid": "7"},
    "the service account it is for approves": {"by": "system:serviceaccount:research:trainer"},
    "another service account approves": {"by": "system:serviceaccount:ci:bot"},
    "an anonymous user in the group approves": {"by": "system:anonymous"},
    "somebody outside the group approves": {"by": "carol", "by_groups": ("guests",)},
    "an approval of an earlier request of the same name": {"by": "carol", "uid": "uid-of-the-last-one"},
    "an approval of another request": {"by": "carol", "request": "r2"},
    "an approval written before the request": {"by": "carol", "at": -1},
    "an approval from the future": {"by": "carol", "at": 8},
    "an approval after the request lapsed": {"by": "carol", "at": 60 * 24 * 7 + 1, "now": 60 * 24 * 7 + 2},
    "a refusal": {"by": "carol", "decision": "Deny"},
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_second_vote_that_must_not_count(story, attack):
    request = story.request(by_uid="42")
    attack = dict(attack)
    now = story.at(attack.pop("now", 5))
    first = story.approval("a1", at=1, by="bob", by_uid="7")
    index = book_of(story, first, story.approval("a2", **{"at": 2, **attack}), request=request)
    assert index.active(now) == ()
    assert (
        book_of(story, first, story.approval("a2", by="carol", at=2), request=request).active(story.at(5))
        != ()
    )


def test_a_user_named_directly_may_approve(story):
    index = book_of(story, story.approval("a1"), story.approval("a2", by="root-cat", by_groups=("other",)))
    assert len(index.active(story.at(5))) == 1


def test_a_vote_up_to_two_minutes_ahead_counts_because_clocks_differ(story):
    index = book_of(story, story.approval("a1"), story.approval("a2", by="carol", at=12))
    assert index.active(story.at(9.9)) == ()
    assert len(index.active(story.at(10))) == 1


@pytest.mark.parametrize("decision", ["Deny", "Revoke"])
@pytest.mark.parametrize("at", [-5, 3, 30, 1000])
def test_a_stop_ends_it_and_no_later_approval_revives_it(story, decision, at):
    votes = [story.approval("a1", at=1), story.approval("a2", by="carol", at=2)]
    stop = story.approval("s", by="dave", at=at, decision=decision)
    later = [story.approval("a3", by="erin", at=40), story.approval("a4", by="frank", at=41)]
    index = book_of(story, *votes, stop, *later)
    assert index.active(story.at(5)) == ()
    assert index.active(story.at(42)) == ()
    phase = Phase.DENIED if decision == "Deny" else Phase.REVOKED
    assert index.state("r1", story.at(42)).phase is phase


def test_the_requester_may_withdraw(story):
    votes = [story.approval("a1", at=1), story.approval("a2", by="carol", at=2)]
    index = book_of(story, *votes, story.approval("s", by="alice", by_groups=(), at=3, decision="Revoke"))
    assert index.active(story.at(5)) == ()
    assert index.state("r1", story.at(5)).by == "alice"


def test_a_person_taken_out_of_the_rules_before_the_count_completes_has_no_vote(story):
    index = book_of(story, story.approval("a1", by="root-cat", by_groups=()))
    index = index.with_changes(models={"atlas": story.model(users=()).spec.access})
    index = index.with_changes([story.approval("a2", by="carol", at=2)])
    assert index.state("r1", story.at(5)).approvers == ("carol",)
    assert index.active(story.at(5)) == ()


def test_an_approver_removed_from_the_listed_group_has_no_vote_despite_the_token(story):
    listing = AccessSettings(members={"approvers": ["carol", "dave"]})
    votes = [story.approval("a1", by="bob"), story.approval("a2", by="carol", at=2)]
    assert book_of(story, *votes, settings=listing).active(story.at(5)) == ()
    more = [*votes, story.approval("a3", by="dave", at=3)]
    assert len(book_of(story, *more, settings=listing).active(story.at(5))) == 1


def test_rules_that_became_stricter_end_a_grant(story):
    index = book_of(story, story.approval("a1"), story.approval("a2", by="carol"))
    assert len(index.active(story.at(5))) == 1
    assert (
        index.with_changes(models={"atlas": story.model(approvals=3).spec.access}).active(story.at(5)) == ()
    )
    assert (
        index.with_changes(models={"atlas": story.model(maxDuration="7h").spec.access}).active(story.at(5))
        == ()
    )
    assert index.with_changes(models={}).active(story.at(5)) == ()


@pytest.mark.parametrize("duration", ["13h", "0s"])
def test_a_duration_out_of_bounds_gives_nothing(story, duration):
    votes = [story.approval("a1"), story.approval("a2", by="carol")]
    index = book_of(story, *votes, request=story.request(duration=duration))
    assert index.active(story.at(5)) == ()
    assert index.state("r1", story.at(5)).phase is Phase.INVALID


def test_a_model_that_needs_no_approval_is_granted_by_the_request(story):
    index = book_of(story, model=story.model(approvals=0))
    (grant,) = index.active(story.at(1))
    assert (grant.begins, grant.approvers) == (story.at(0), ())
    assert index.active(story.at(480)) == ()


def test_rules_of_several_groups_take_a_person_for_one_place_only(story):
    model = story.model(
        approvals=1, groups=(), users=(), rules=[{"group": "security"}, {"group": "owners", "count": 1}]
    )
    both = story.approval("a1", by="bob", by_groups=("security", "owners"))
    index = book_of(story, both, model=model)
    assert index.active(story.at(5)) == ()
    assert index.state("r1", story.at(5)).missing == (("owners", 1),)
    security = story.approval("a2", by="carol", by_groups=("security",))
    assert len(book_of(story, both, security, model=model).active(story.at(5))) == 1
    third = story.approval("a2", by="carol", by_groups=("approvers",))
    assert book_of(story, both, third, model=model).active(story.at(5)) == ()
    wider = story.model(approvals=2, rules=[{"group": "security"}, {"group": "owners"}])
    assert book_of(story, both, third, model=wider).active(story.at(5)) == ()
    last = story.approval("a3", by="dave", by_groups=("owners",))
    assert len(book_of(story, both, third, last, model=wider).active(story.at(5))) == 1


def test_the_user_it_is_for_has_no_vote_however_the_name_is_written(story):
    request = story.request(subject={"kind": "User", "name": "zoe"})
    votes = [story.approval("a1"), story.approval("a2", by="Zoe")]
    assert book_of(story, *votes, request=request).active(story.at(5)) == ()


def test_break_glass_access_needs_the_group_and_expires(story):
    emergency = AccessSettings(break_glass={"groups": ["sre"], "maxDuration": "1h"})
    queries = {"break_glass": True, "duration": "1h"}
    allowed = book_of(story, request=story.request(by_groups=("sre",), **queries), settings=emergency)
    (grant,) = allowed.active(story.at(59))
    assert grant.break_glass
    assert allowed.active(story.at(60)) == ()
    outsider = story.request(by_groups=("dev",), **queries)
    assert book_of(story, request=outsider, settings=emergency).active(story.at(1)) == ()
    long = story.request(by_groups=("sre",), break_glass=True, duration="2h")
    assert book_of(story, request=long, settings=emergency).active(story.at(1)) == ()
    without_rule = book_of(story, request=story.request(by_groups=("sre",), **queries))
    assert without_rule.active(story.at(1)) == ()


def test_unstamped_and_undated_objects_are_ignored_and_reported(story):
    unstamped = story.request("r2", requester=None)
    nameless = story.request("r3", uid="")
    undated = story.approval("a9").model_copy(
        update={"metadata": story.approval("a9").metadata.model_copy(update={"creation_timestamp": None})}
    )
    index = GrantIndex.build([unstamped, nameless], [undated], [story.model(approvals=0)])
    assert index.active(story.at(1)) == ()
    assert [(item.kind, item.name) for item in index.problems] == [
        ("AccessApproval", "a9"),
        ("AccessRequest", "r2"),
        ("AccessRequest", "r3"),
    ]
    assert index.state("r2", story.at(1)).phase is Phase.INVALID


def test_files_that_were_never_in_a_cluster_count_from_the_time_they_were_read(story):
    request = story.request()
    undated = request.model_copy(
        update={"metadata": request.metadata.model_copy(update={"creation_timestamp": None})}
    )
    index = GrantIndex.build([undated], [], [story.model(approvals=0)], assumed_time=story.at(7))
    assert index.active(story.at(8))[0].begins == story.at(7)


def test_a_user_subject_written_as_a_service_account_name_is_that_service_account(story):
    request = story.request(subject={"kind": "User", "name": "system:serviceaccount:research:trainer"})
    index = book_of(story, request=request, model=story.model(approvals=0))
    assert granted(index, story.at(1)) == ["r1"]
    assert index.for_subject("trainer", None, "research", story.at(1)) == ()


def test_grants_as_policies_read_them(story):
    index = book_of(story, story.approval("a1"), story.approval("a2", by="carol", at=2))
    assert index.active(story.at(5))[0].as_cel() == {
        "model": "atlas",
        "request": "r1",
        "expires": "2026-11-02T17:02:00Z",
        "approvers": ["bob", "carol"],
        "breakGlass": False,
        "subject": {"kind": "ServiceAccount", "namespace": "research", "name": "trainer"},
    }


def test_replacing_a_request_moves_its_grant_to_the_new_subject(story):
    index = book_of(story, model=story.model(approvals=0))
    moves = story.request(subject={"kind": "User", "name": "zoe"})
    after = index.with_changes([moves])
    assert granted(after, story.at(1)) == []
    assert [grant.request for grant in after.for_subject("zoe", None, "research", story.at(1))] == ["r1"]
    assert granted(index, story.at(1)) == ["r1"]
    assert after.with_changes(remove=[("AccessRequest", "r1")]).active(story.at(1)) == ()


def test_the_cost_of_a_subject_follows_its_active_grants(story, monkeypatch):
    requests = [story.request(f"r{number}", at=number) for number in range(2000)]
    index = GrantIndex.build(requests, [], [story.model(approvals=0)])
    looked_at = []
    monkeypatch.setattr(
        "webhook.core.access.grant_index.in_future", lambda begins, *_: looked_at.append(begins)
    )
    assert len(index.for_subject("", TRAINER, "research", story.at(2000 + 470))) == len(looked_at) == 9


def test_removing_the_last_vote_of_a_request_leaves_it_pending(story):
    index = book_of(story, story.approval("a1"))
    index = index.with_changes(remove=[("AccessApproval", "a1"), ("AccessApproval", "never-seen")])
    assert index.votes("r1") == ()
    assert index.state("r1", story.at(1)).approvals == 0


def test_a_new_status_or_label_changes_nothing_and_is_not_read_again(story, monkeypatch):
    request, vote = story.request(), story.approval("a1")
    index = GrantIndex.build([request], [vote], [story.model()])
    labelled = request.model_copy(
        update={
            "status": {"state": "Pending"},
            "metadata": request.metadata.model_copy(update={"resource_version": "9", "labels": {"a": "b"}}),
        }
    )
    monkeypatch.setattr("webhook.core.access.parse.Parser.parse", None)
    assert (
        index.with_changes([labelled, vote], remove=[("AccessRequest", "r1"), ("AccessApproval", "a1")])
        is index
    )


def test_a_removed_request_that_returns_is_read_again(story):
    index = GrantIndex.build([story.request()], [], [story.model(approvals=0)])
    absent = index.with_changes(remove=[("AccessRequest", "r1")])
    assert absent.active(story.at(1)) == ()
    assert absent.with_changes([story.request()]).active(story.at(1)) == index.active(story.at(1))
    assert index.with_changes([story.request(uid="another")]).active(story.at(1))[0].uid == "another"
