"""The news of a request: each change once, in words that cannot be markup."""

import pytest

from webhook.core.access import GrantIndex, Phase
from webhook.core.access.notices import notice


def news(story, before, after, reason="evals", **spec):
    index = GrantIndex.build([story.request(**spec)], [], [story.model()])
    return notice(index.parsed("r1"), reason, before, after)


CHANGES = [
    ({}, {"state": "Pending", "approvals": "0/2"}, "requested"),
    ({"state": "Pending", "approvals": "0/2"}, {"state": "Pending", "approvals": "1/2"}, "approved"),
    ({"state": "Pending"}, {"state": "Active", "ends": "2026-11-02T17:00:00Z"}, "granted"),
    ({"state": "Active"}, {"state": "Expired"}, "ended"),
    ({"state": "Active"}, {"state": "Revoked", "by": "dave"}, "revoked"),
    ({"state": "Pending"}, {"state": "Denied", "by": "dave"}, "denied"),
    ({"state": "Pending", "approvals": "1/2"}, {"state": "Pending", "approvals": "1/2", "x": 1}, None),
    ({"state": "Active"}, {"state": "Active"}, None),
    ({}, {"state": "Invalid"}, None),
]


@pytest.mark.parametrize(("before", "after", "event"), CHANGES)
def test_every_change_that_people_wait_for(story, before, after, event):
    matches = news(story, before, after)
    assert (matches.event if matches else None) == event


def test_a_new_request_carries_the_command_that_approves_it(story):
    matches = news(story, {}, {"state": "Pending", "approvals": "0/2"})
    assert matches.message == (
        'alice asks for model atlas for system:serviceaccount:research:trainer: "evals". '
        "To approve: weightlock access approve r1"
    )
    assert matches.as_json(story.at(0)) == {
        "version": 1,
        "time": "2026-11-02T09:00:00Z",
        "event": "requested",
        "request": "r1",
        "for": "model atlas",
        "requester": "alice",
        "approvals": "0/2",
        "ends": "",
        "message": matches.message,
    }


def test_a_reason_cannot_mention_a_channel_or_hide_a_link(story):
    matches = news(
        story,
        {},
        {"state": "Pending"},
        reason="<!channel> <https://evil.example.com|look>\n& more" + "x" * 500,
    )
    text = matches.as_slack()["text"]
    assert "&lt;!channel&gt; &lt;https://evil.example.com|look&gt; &amp; more" in text
    assert "<" not in text
    assert "\n" not in text
    assert len(text) < 500


def test_a_break_glass_grant_is_reported_as_one(story):
    matches = news(
        story, {}, {"state": Phase.ACTIVE, "ends": "soon"}, reason="the cluster burns", breakGlass=True
    )
    assert matches.event == "break-glass"
    assert matches.message.startswith("BREAK-GLASS by alice: ")
    assert matches.message.endswith("Reason: the cluster burns")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"change": {"kind": "ModelWeights", "name": "atlas", "digest": "delete"}},
            "a change of ModelWeights atlas",
        ),
        ({"waiver": {"code": "WL201", "namespace": "research", "podSelector": {}}}, "a waiver of WL201"),
    ],
)
def test_changes_and_waivers_have_names_too(story, spec, words):
    assert words in news(story, {}, {"state": "Pending"}, **spec).message
