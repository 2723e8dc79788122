"""What the controller writes for people to read."""

from webhook.core.access import GrantIndex
from webhook.core.access.status import approval_status, request_status


def test_the_status_of_a_pending_request_lists_missing_approvals(story):
    model = story.model(approvals=1, groups=(), rules=[{"group": "security"}, {"group": "owners"}])
    vote = story.approval("a1", by_groups=("security",))
    index = GrantIndex.build([story.request()], [vote], [model])
    assert request_status(index, "r1", {}, story.at(5)) == {
        "state": "Pending",
        "approvals": "1/2",
        "ends": "2026-11-09T09:00:00Z",
        "approvers": ["bob"],
        "missing": {"owners": 1},
        "conditions": [
            {
                "type": "Active",
                "status": "False",
                "reason": "Pending",
                "message": "the request is pending",
                "lastTransitionTime": "2026-11-02T09:05:00Z",
            }
        ],
    }


def test_a_condition_keeps_its_time_until_it_changes(story):
    votes = [story.approval("a1", at=1), story.approval("a2", by="carol", at=20)]
    pending = GrantIndex.build([story.request()], votes[:1], [story.model()])
    first = request_status(pending, "r1", {}, story.at(2))
    assert request_status(pending, "r1", first, story.at(9)) == first
    active = request_status(
        GrantIndex.build([story.request()], votes, [story.model()]), "r1", first, story.at(21)
    )
    assert (active["state"], active["begins"], active["ends"]) == (
        "Active",
        "2026-11-02T09:20:00Z",
        "2026-11-02T17:20:00Z",
    )
    assert active["conditions"][0]["lastTransitionTime"] == "2026-11-02T09:21:00Z"


def test_the_status_names_the_denier_and_the_reason_of_an_invalid_request(story):
    stop = story.approval("s", by="dave", decision="Deny")
    index = GrantIndex.build([story.request()], [stop], [story.model()])
    assert request_status(index, "r1", {}, story.at(5))["by"] == "dave"
    invalid = GrantIndex.build([story.request(model="gone")], [], [])
    assert "does not exist" in request_status(invalid, "r1", {}, story.at(5))["reason"]


def test_an_approval_is_admitted_or_ignored(story):
    unstamped = story.approval("a2").model_copy(
        update={"spec": story.approval("a2").spec.model_copy(update={"approver": None})}
    )
    index = GrantIndex.build([story.request()], [story.approval("a1"), unstamped], [story.model()])
    assert approval_status(index, "a1") == {"state": "Admitted"}
    assert approval_status(index, "a2")["state"] == "Ignored"
