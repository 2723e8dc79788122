from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.api.codes import NOT_A_POD, POD_GONE, TOKEN
from webhook.keys.broker.caller import PodIdentity, agent_starts, check_pod, identity_of, token_review
from webhook.keys.broker.refusal import RefusedError

EXTRA = "authentication.kubernetes.io/"
REVIEW = {
    "status": {
        "authenticated": True,
        "audiences": ["weightlock.dev/broker"],
        "user": {
            "username": "system:serviceaccount:research:trainer",
            "extra": {
                EXTRA + "pod-name": ["train"],
                EXTRA + "pod-uid": ["u1"],
                EXTRA + "node-name": ["n1"],
                EXTRA + "credential-id": ["JTI=1"],
            },
        },
    }
}
CALLER = PodIdentity("research", "trainer", "train", "u1", "n1", "JTI=1")
POD = {
    "metadata": {"name": "train", "uid": "u1"},
    "spec": {"serviceAccountName": "trainer", "nodeName": "n1"},
    "status": {"phase": "Pending"},
}


def changed(document, path, value):
    document = copy.deepcopy(document)
    place = document
    *parents, last = path
    for part in parents:
        place = place[part]
    if value is None:
        place.pop(last)
    else:
        place[last] = value
    return document


def test_a_bound_token_names_its_pod():
    assert identity_of(REVIEW) == CALLER
    assert CALLER.username == "system:serviceaccount:research:trainer"
    assert str(CALLER) == "pod research/train"
    assert token_review("t")["spec"] == {"token": "t", "audiences": ["weightlock.dev/broker"]}


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        (("status",), None, TOKEN),
        (("status",), "yes", TOKEN),
        (("status", "authenticated"), False, TOKEN),
        (("status", "authenticated"), "true", TOKEN),
        (("status", "authenticated"), None, TOKEN),
        (("status", "audiences"), None, TOKEN),
        (("status", "audiences"), ["https://kubernetes.default.svc"], TOKEN),
        (("status", "user"), None, NOT_A_POD),
        (("status", "user", "username"), "alice", NOT_A_POD),
        (("status", "user", "username"), "system:serviceaccount:research", NOT_A_POD),
        (("status", "user", "username"), "system:serviceaccount::x", NOT_A_POD),
        (("status", "user", "extra"), None, NOT_A_POD),
        (("status", "user", "extra", EXTRA + "pod-name"), None, NOT_A_POD),
        (("status", "user", "extra", EXTRA + "pod-uid"), [], NOT_A_POD),
        (("status", "user", "extra", EXTRA + "pod-uid"), ["u1", "u2"], NOT_A_POD),
    ],
)
def test_tokens_of_other_callers_than_pods_are_denied(path, value, code):
    with pytest.raises(RefusedError) as rejection:
        identity_of(changed(REVIEW, path, value))
    assert rejection.value.code == code


def test_the_living_pod():
    check_pod(CALLER, POD)
    check_pod(PodIdentity("research", "trainer", "train", "u1"), POD)
    check_pod(CALLER, changed(POD, ("status", "phase"), "Running"))


@pytest.mark.parametrize(
    ("path", "value", "output"),
    [
        (("metadata", "uid"), "u2", "another pod has the same name"),
        (("metadata", "deletionTimestamp"), "2026-11-23T00:00:00Z", "is being deleted"),
        (("spec", "serviceAccountName"), "other", "runs as service account other, not trainer"),
        (("spec", "serviceAccountName"), None, "runs as service account default"),
        (("spec", "nodeName"), None, "is not scheduled to a node"),
        (("spec", "nodeName"), "n2", "does not run on node n1"),
        (("status", "phase"), "Succeeded", "has terminated"),
        (("status", "phase"), "Failed", "has terminated"),
        (("status",), None, "has terminated"),
    ],
)
def test_a_pod_that_is_not_the_one(path, value, output):
    with pytest.raises(RefusedError, match=output) as rejection:
        check_pod(CALLER, changed(POD, path, value))
    assert rejection.value.code == POD_GONE


def test_no_pod_at_all():
    with pytest.raises(RefusedError, match="does not exist"):
        check_pod(CALLER, None)


def test_starts_of_the_sidecar():
    assert agent_starts(POD, "weightlock-agent") == 1
    status = {
        "initContainerStatuses": [
            {"name": "x", "restartCount": 9},
            {"name": "weightlock-agent", "restartCount": 2},
        ]
    }
    assert agent_starts({**POD, "status": status}, "weightlock-agent") == 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["authenticated", "audiences", "user"]), JSON)
def test_no_answer_of_the_api_server_crashes_it(field, value):
    review = {"status": {**REVIEW["status"], field: value}}
    try:
        assert identity_of(review).pod
    except RefusedError:
        return
