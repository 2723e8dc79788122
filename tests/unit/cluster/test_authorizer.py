"""Questions to the API server: asked as Kubernetes spells them, remembered for a moment, never a yes by mistake."""

import asyncio

import pytest

from webhook.cel.authz import AccessCheck, SelectorRequirement
from webhook.cluster import authorizer as module
from webhook.cluster.authorizer import Authorizer, decision_of, review

QUESTION = AccessCheck(
    user="system:serviceaccount:research:trainer",
    groups=("system:serviceaccounts",),
    uid="u-1",
    extra=(("amr", ("mfa",)),),
    verb="use",
    group="weightlock.dev",
    resource="accelerators",
    namespace="research",
    name="nvidia.com",
)


async def test_asks_as_kubernetes_spells_it(server, api):
    server.decide = lambda _: {"allowed": True, "reason": "RBAC"}
    decisions = await Authorizer(api).decide([QUESTION])
    assert decisions[QUESTION].allowed
    assert decisions[QUESTION].reason == "RBAC"
    (requests,) = server.reviews
    assert requests["spec"] == {
        "user": "system:serviceaccount:research:trainer",
        "groups": ["system:serviceaccounts"],
        "uid": "u-1",
        "extra": {"amr": ["mfa"]},
        "resourceAttributes": {
            "verb": "use",
            "group": "weightlock.dev",
            "version": "*",
            "resource": "accelerators",
            "subresource": "",
            "namespace": "research",
            "name": "nvidia.com",
        },
    }


def test_selectors_and_paths_are_passed_on():
    selected = AccessCheck(
        user="a",
        verb="list",
        resource="pods",
        field_selector=(SelectorRequirement("spec.nodeName", "In", ("n",)),),
        label_selector=(SelectorRequirement("app", "Exists"),),
    )
    attributes = review(selected)["spec"]["resourceAttributes"]
    assert attributes["fieldSelector"] == {
        "requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]
    }
    assert attributes["labelSelector"] == {
        "requirements": [{"key": "app", "operator": "Exists", "values": []}]
    }
    spec = review(AccessCheck(user="a", verb="get", path="/metrics"))["spec"]
    assert spec["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}
    assert "resourceAttributes" not in spec


@pytest.mark.parametrize(
    ("answer", "allowed", "error"),
    [
        ({"status": {"allowed": True}}, True, ""),
        ({"status": {"allowed": True, "evaluationError": "a role is missing"}}, True, ""),
        ({"status": {"allowed": True, "denied": True}}, False, ""),
        ({"status": {"allowed": False}}, False, ""),
        ({"status": {"allowed": False, "evaluationError": "broken"}}, False, "broken"),
        ({"status": {"allowed": "true"}}, False, ""),
        ({"status": {}}, False, ""),
        ({}, False, "the API server's response has no status"),
        ({"status": None}, False, "the API server's response has no status"),
    ],
)
def test_only_a_clear_yes_is_a_yes(answer, allowed, error):
    decision = decision_of(answer)
    assert (decision.allowed, decision.error) == (allowed, error)


async def test_answers_are_remembered_for_a_moment(server, api, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    server.decide = lambda _: {"allowed": True}
    asker = Authorizer(api)
    for _ in range(3):
        await asker.decide([QUESTION])
    assert len(server.reviews) == 1
    now += 5.1
    server.decide = lambda _: {"allowed": False}
    assert not (await asker.decide([QUESTION]))[QUESTION].allowed
    now += 0.9
    await asker.decide([QUESTION])
    assert len(server.reviews) == 2
    now += 0.2
    await asker.decide([QUESTION])
    assert len(server.reviews) == 3


async def test_the_same_question_at_once_goes_out_once(server, api):
    asker = Authorizer(api)
    await asyncio.gather(*(asker.decide([QUESTION]) for _ in range(20)))
    assert len(server.reviews) == 1


async def test_one_asker_that_gives_up_does_not_harm_the_others(server, api):
    server.decide = lambda _: {"allowed": True}
    asker = Authorizer(api)
    first = asyncio.create_task(asker.decide([QUESTION]))
    second = asyncio.create_task(asker.decide([QUESTION]))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second)[QUESTION].allowed


async def test_memory_is_bounded(api, monkeypatch):
    monkeypatch.setattr(module, "MAX_CACHED", 10)
    asker = Authorizer(api)
    await asker.decide([AccessCheck(user=f"u{number}", verb="get", resource="pods") for number in range(50)])
    assert len(asker._cache) == 10


async def test_an_api_server_that_fails_is_an_error_and_not_remembered(server, api):
    asker = Authorizer(api)
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    server.refuse[path] = 500
    decision = (await asker.decide([QUESTION]))[QUESTION]
    assert not decision.allowed
    assert "cannot query" in decision.error
    del server.refuse[path]
    server.decide = lambda _: {"allowed": True}
    assert (await asker.decide([QUESTION]))[QUESTION].allowed
