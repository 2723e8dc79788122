"""Change control: a weakened policy or a moved volume needs approval of exactly that content."""

import pytest

from webhook.api.access import AccessSettings
from webhook.api.codes import CHANGE_NEEDS_APPROVAL
from webhook.core.access import GrantIndex
from webhook.core.access.change import digest_of, validate_change
from webhook.core.access.waiver import waived

GITOPS = "system:serviceaccount:flux:kustomize"
SETTINGS = AccessSettings(
    change_control={
        "enabled": True,
        "kinds": ["ModelWeights", "WeightPolicy", "ConfigMap"],
        "rules": {"approvals": 1, "approvers": {"groups": ["sec"]}, "maxDuration": "1h"},
        "exempt": [GITOPS],
    }
)


def document(story, **access):
    return story.model(**access).model_dump(mode="json", by_alias=True, exclude_none=True)


def refused(story, request, *objects, settings=SETTINGS, at=5):
    requests = [item for item in objects if item.kind == "AccessRequest"]
    approvals = [item for item in objects if item.kind == "AccessApproval"]
    index = GrantIndex.build(requests, approvals, [story.model()], settings)
    return [problem.code for problem in validate_change(request, index, story.at(at), settings)]


def change(story, request, digest=None, kind="ModelWeights", name="atlas", namespace="", duration="1h"):
    expected = {
        "kind": kind,
        "namespace": namespace,
        "name": name,
        "digest": digest or digest_of(request.object),
    }
    return story.request(change=expected, duration=duration)


def votes(story):
    return [story.approval("a1", at=1), story.approval("a2", at=2, by="carol")]


@pytest.fixture
def weaker(story):
    return story.review(
        document(story, approvals=0),
        old=document(story),
        operation="UPDATE",
        user="admin",
        resource="modelweights",
    )


def test_one_person_cannot_weaken_the_rules_of_a_model(story, weaker):
    assert refused(story, weaker) == [CHANGE_NEEDS_APPROVAL]
    queries = change(story, weaker)
    assert refused(story, weaker, queries, votes(story)[0]) == [CHANGE_NEEDS_APPROVAL]
    assert refused(story, weaker, queries, *votes(story)) == []
    assert refused(story, weaker, queries, *votes(story), at=62) == [CHANGE_NEEDS_APPROVAL]


def test_the_approvers_of_a_model_are_those_it_names_now_not_those_it_would_name(story):
    request = story.review(
        document(story, groups=("mallory-and-friends",)),
        old=document(story),
        operation="UPDATE",
        resource="modelweights",
    )
    friends = [
        story.approval(f"a{number}", by=f"m{number}", by_groups=("mallory-and-friends",))
        for number in range(3)
    ]
    assert refused(story, request, change(story, request), *friends) == [CHANGE_NEEDS_APPROVAL]


def test_only_the_content_that_was_approved_may_be_applied(story, weaker):
    other = change(story, weaker, digest="sha256:" + "0" * 64)
    assert refused(story, weaker, other, *votes(story)) == [CHANGE_NEEDS_APPROVAL]
    assert refused(story, weaker, change(story, weaker, name="borealis"), *votes(story)) == [
        CHANGE_NEEDS_APPROVAL
    ]
    assert refused(story, weaker, change(story, weaker, digest="delete"), *votes(story)) == [
        CHANGE_NEEDS_APPROVAL
    ]


def test_deleting_needs_an_approval_to_delete(story, weaker):
    request = story.review(None, old=document(story), operation="DELETE", resource="modelweights")
    assert refused(story, request) == [CHANGE_NEEDS_APPROVAL]
    assert refused(story, request, change(story, weaker), *votes(story)) == [CHANGE_NEEDS_APPROVAL]
    assert refused(story, request, change(story, weaker, digest="delete"), *votes(story)) == []


def test_changes_that_add_protection_or_have_no_effect_need_no_approval(story):
    new = document(story)
    assert refused(story, story.review(new, resource="modelweights")) == []
    labelled = {**new, "metadata": {**new["metadata"], "labels": {"a": "b"}}}
    assert refused(story, story.review(labelled, old=new, operation="UPDATE", resource="modelweights")) == []
    spelled = {**new, "spec": {**new["spec"], "delivery": "key"}}
    shorter = {**new, "spec": {key: value for key, value in new["spec"].items() if key != "delivery"}}
    assert digest_of(spelled) == digest_of(shorter)


def test_a_config_map_has_content_too_and_creating_one_is_a_change(story):
    data = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "exempt", "namespace": "ops"},
        "data": {"a": "1"},
    }
    request = story.review(data)
    assert refused(story, request) == [CHANGE_NEEDS_APPROVAL]
    queries = change(story, request, kind="ConfigMap", name="exempt", namespace="ops")
    one = story.approval("a1", by_groups=("sec",))
    assert refused(story, request, queries, one) == []
    moves = story.review({**data, "metadata": {"name": "exempt", "namespace": "prod"}})
    assert refused(story, moves, queries, one) == [CHANGE_NEEDS_APPROVAL]


def test_exempt_identities_and_clusters_without_change_control_pass(story, weaker):
    import dataclasses

    by_gitops = weaker._replace(user=dataclasses.replace(weaker.user, username=GITOPS))
    assert refused(story, by_gitops) == []
    assert refused(story, weaker, settings=AccessSettings()) == []
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "research"}}
    assert refused(story, story.review(pod)) == []


def test_an_object_that_does_not_fit_its_type_still_has_a_digest(story):
    invalid = {**document(story), "spec": {"sensitivity": "none"}}
    assert digest_of(invalid).startswith("sha256:")
    assert digest_of(invalid) != digest_of(document(story))


def test_a_waiver_covers_its_policy_its_pods_and_its_time(story):
    settings = AccessSettings(
        waivers={"rules": {"approvals": 1, "approvers": {"groups": ["sec"]}, "maxDuration": "2h"}}
    )
    waiver = {"code": "WL201", "namespace": "research", "podSelector": {"matchLabels": {"app": "a"}}}
    queries = story.request(waiver=waiver, duration="1h")
    index = GrantIndex.build([queries], [story.approval("a1", by_groups=("sec",))], [], settings)

    def covers(code="WL201", namespace="research", labels=None, at=5):
        return (
            waived(index, code, namespace, {"app": "a"} if labels is None else labels, story.at(at))
            is not None
        )

    assert covers()
    assert not covers(code="WL202")
    assert not covers(namespace="default")
    assert not covers(labels={"app": "b"})
    assert not covers(at=61.1)
    assert index.active(story.at(5)) == ()
    invalid = {**waiver, "podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}}
    odd = GrantIndex.build(
        [story.request(waiver=invalid, duration="1h")],
        [story.approval("a1", by_groups=("sec",))],
        [],
        settings,
    )
    assert waived(odd, "WL201", "research", {}, story.at(5)) is None
