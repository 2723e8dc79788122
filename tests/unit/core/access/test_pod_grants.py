"""The stamp that ties a pod to the grants that cover its models."""

import jsonpatch
import pytest

from webhook.core.access import GrantIndex
from webhook.core.access.expiry import PodWithWeights, expiring
from webhook.core.access.pod_grants import (
    ANNOTATION,
    Cover,
    annotation,
    covers,
    is_valid,
    parse,
    patch,
    render,
)

ACCOUNT = ("research", "trainer")


@pytest.fixture
def grants(story):
    """alice's own grant, active at minute 10, and later the service account's."""

    def build(*, account=False):
        requests = [story.request("alice", subject={"kind": "User", "name": "alice"}, duration="1h")]
        if account:
            requests.append(story.request("trainer", at=5, duration="2h"))
        index = GrantIndex.build(requests, (), [story.model(approvals=0)])
        return index, index.for_subject("alice", ACCOUNT, "research", story.at(10))

    return build


def test_the_service_accounts_own_grant_comes_first(grants):
    assert covers(["atlas"], grants()[1], ACCOUNT) == {"atlas": Cover("alice", "uid-alice", False)}
    assert covers(["atlas"], grants(account=True)[1], ACCOUNT) == {
        "atlas": Cover("trainer", "uid-trainer", True)
    }
    assert covers(["other"], grants()[1], ACCOUNT) == {}


def test_a_rendered_annotation_parses_to_the_same_grants():
    stamp = {"atlas": Cover("alice", "u", False), "mini": Cover("x", "v", True)}
    pod = {"metadata": {"annotations": {ANNOTATION: render(stamp)}}}
    assert parse(pod) == stamp
    assert render({}) == ""


@pytest.mark.parametrize("value", ["", "{", "[]", '{"atlas": 1}', '{"atlas": {}}', 7, None, "x" * 100_000])
def test_other_annotation_values_are_not_stamps(value):
    assert parse({"metadata": {"annotations": {ANNOTATION: value}}}) == {}


@pytest.mark.parametrize("annotations", [None, {}, {"a": "b"}, {ANNOTATION: "mine"}, {ANNOTATION: "new"}])
@pytest.mark.parametrize("value", ["new", ""])
def test_the_patch_sets_or_removes_it(annotations, value):
    pod = {"metadata": {"name": "p"} | ({} if annotations is None else {"annotations": annotations})}
    after = jsonpatch.apply_patch(pod, list(patch(pod, value)))
    assert annotation(after) == value
    assert patch(after, value) == ()


def test_any_active_grant_is_valid_and_nothing_else(grants):
    _, active = grants(account=True)

    def valid(stamp, models=("atlas",)):
        pod = {"metadata": {"annotations": {ANNOTATION: render(stamp)} if stamp else {}}}
        return is_valid(pod, models, active, ACCOUNT)

    assert valid({"atlas": Cover("alice", "uid-alice", False)})
    assert valid({"atlas": Cover("trainer", "uid-trainer", True)})
    assert not valid({"atlas": Cover("alice", "uid-alice", True)})
    assert not valid({"atlas": Cover("alice", "other", False)})
    assert not valid({"atlas": Cover("bob", "uid-bob", False)})
    assert not valid(
        {"atlas": Cover("alice", "uid-alice", False), "mini": Cover("alice", "uid-alice", False)}
    )
    assert not valid({})
    assert valid({}, models=())
    assert not valid({"atlas": Cover("alice", "uid-alice", False)}, models=())


def ends(index, story, minutes, stamp, namespace="research"):
    pod = PodWithWeights(namespace, "p", "u", "default", ("atlas",), stamp=stamp)
    rules = {"atlas": story.model(approvals=0).spec.access}
    return [
        (item.request, item.within is None, item.on_expiry)
        for item in expiring([pod], index, rules, story.at(minutes))
    ]


def test_a_pod_ends_with_the_grant_that_admitted_it(story, grants):
    index, _ = grants()
    stamp = {"atlas": Cover("alice", "uid-alice", False)}
    assert ends(index, story, 10, stamp) == []
    assert ends(index, story, 40, stamp) == [("alice", False, "wipe")]
    assert ends(index, story, 61, stamp) == [("alice", True, "evict")]


def test_a_revoked_grant_ends_it_at_once(story):
    requests = [story.request("alice", subject={"kind": "User", "name": "alice"}, duration="1h")]
    stop = story.approval("s", at=5, decision="Revoke", request="alice")
    index = GrantIndex.build(requests, [stop], [story.model(approvals=0)])
    assert ends(index, story, 6, {"atlas": Cover("alice", "uid-alice", False)}) == [("alice", True, "evict")]


@pytest.mark.parametrize(
    ("stamp", "namespace"),
    [
        (Cover("gone", "uid-gone", False), "research"),
        (Cover("alice", "another", False), "research"),
        (Cover("alice", "uid-alice", False), "elsewhere"),
    ],
)
def test_a_stamp_that_names_no_grant_of_the_pod_ends_it(story, grants, stamp, namespace):
    index, _ = grants()
    assert [item[1:] for item in ends(index, story, 10, {"atlas": stamp}, namespace)] == [(True, "evict")]


def test_the_service_accounts_grant_outlasts_the_users(story, grants):
    index, _ = grants(account=True)
    pod = PodWithWeights(
        "research", "p", "u", "trainer", ("atlas",), stamp={"atlas": Cover("alice", "uid-alice", False)}
    )
    rules = {"atlas": story.model(approvals=0).spec.access}
    assert list(expiring([pod], index, rules, story.at(70))) == []
