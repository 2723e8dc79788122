"""What is due on running pods: warnings before an end, the end itself, and nothing else."""

from datetime import timedelta

import pytest

from webhook.core.access import GrantIndex
from webhook.core.access.expiry import PodWithWeights, expiring

POD = PodWithWeights("research", "train", "pod-uid", "trainer", ("atlas",))


def dues(story, minutes, *extra, requests=None, holder=POD, model=None):
    model = model or story.model(approvals=0)
    index = GrantIndex.build(requests or [story.request(duration="8h")], extra, [model])
    rules = {"atlas": model.spec.access}
    return [
        (item.request, item.within and item.within // timedelta(minutes=1), item.on_expiry)
        for item in expiring([holder], index, rules, story.at(minutes))
    ]


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (1, []),
        (449, []),
        (450, [("r1", 30, "wipe")]),
        (474, [("r1", 30, "wipe")]),
        (475, [("r1", 5, "wipe")]),
        (479.9, [("r1", 5, "wipe")]),
        (480, [("r1", None, "wipe")]),
        (9999, [("r1", None, "wipe")]),
    ],
)
def test_over_the_life_of_a_grant(story, minutes, expected):
    assert dues(story, minutes) == expected


def test_a_short_grant_is_not_warned_about_at_its_start(story):
    short = [story.request(duration="10m")]
    assert dues(story, 1, requests=short) == []
    assert dues(story, 6, requests=short) == [("r1", 5, "wipe")]


def test_a_renewed_grant_ends_with_the_later_one(story):
    both = [story.request(duration="1h"), story.request("r2", at=50, duration="8h")]
    assert dues(story, 59, requests=both) == []
    assert dues(story, 70, requests=both) == []
    assert dues(story, 540, requests=both) == [("r2", None, "wipe")]


def test_a_revocation_is_an_end_at_once(story):
    stop = story.approval("s", at=5, decision="Revoke")
    assert dues(story, 6, stop) == [("r1", None, "wipe")]
    assert dues(story, 6, stop, model=story.model(approvals=0, onExpiry="evict")) == [("r1", None, "evict")]


def test_a_pod_whose_account_never_had_a_grant_is_left_alone(story):
    other = PodWithWeights("research", "other", "u", "default", ("atlas",))
    assert dues(story, 999, holder=other) == []
    pending = story.model(approvals=2)
    assert dues(story, 999, model=pending) == []


def test_a_model_that_is_not_protected_any_more_asks_nothing(story):
    elsewhere = PodWithWeights("research", "train", "u", "trainer", ("gone",))
    assert dues(story, 999, holder=elsewhere) == []


@pytest.mark.parametrize(("created", "expected"), [(470, [("r1", None, "wipe")]), (481, [])])
def test_a_pod_that_came_after_the_end_lost_nothing(story, created, expected):
    pod = PodWithWeights("research", "train", "u", "trainer", ("atlas",), story.at(created))
    assert dues(story, 490, holder=pod) == expected
