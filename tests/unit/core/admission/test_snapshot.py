"""From objects, put and removed one at a time, to the state a verdict is made from."""

import pytest

from webhook.api.config import Settings
from webhook.core.admission.provider import FetchedData
from webhook.core.admission.snapshot import MODELS, POLICIES, SnapshotBuilder
from webhook.core.admission.validate import validate
from webhook.core.kube.objects import ObjectKey

MODEL = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "ModelWeights",
    "metadata": {"name": "atlas"},
    "spec": {"sensitivity": "frontier", "volumes": [{"hostPath": {"path": "/mnt/atlas"}}]},
}
REQUEST = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "AccessRequest",
    "metadata": {"name": "r", "uid": "u-1"},
    "spec": {
        "model": "atlas",
        "subject": {"kind": "User", "name": "alice"},
        "namespaces": ["research"],
        "duration": "8h",
        "reason": "evals",
        "requester": {"username": "alice"},
    },
}


def approval(name, who, decision="Approve"):
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "AccessApproval",
        "metadata": {"name": name},
        "spec": {
            "request": {"name": "r", "uid": "u-1"},
            "decision": decision,
            "approver": {"username": who, "groups": ["weights-approvers"]},
        },
    }


@pytest.fixture
def builder(now):
    """An empty builder that takes missing creation times for now."""
    return SnapshotBuilder(Settings(), complete=True, assumed_time=now)


def grants(builder, now):
    return [grant.request for grant in builder.snapshot().access.active(now)]


def test_nothing_changed_gives_the_same_snapshot(builder):
    builder.put(MODEL)
    assert builder.snapshot() is builder.snapshot()


def test_plain_objects_are_stored_without_a_new_snapshot(builder):
    before = builder.snapshot()
    key = builder.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})
    assert builder.snapshot() is before
    assert before.objects.get(key) is not None


def test_only_changed_parts_are_built_again(builder, policy_of):
    builder.put(MODEL)
    builder.put(policy_of(validations=[{"expression": "true"}]))
    before = builder.snapshot()
    builder.put(policy_of("other", validations=[{"expression": "true"}]))
    after = builder.snapshot()
    assert after.models is before.models
    assert after.access is before.access
    assert any(policy is before.policies.policies[0] for policy in after.policies.policies)


def test_unchanged_objects_cause_no_rebuild(builder, policy_of):
    documents = MODEL, policy_of("p", validations=[{"expression": "true"}])
    for document in documents:
        builder.put(document)
    before = builder.snapshot()
    for document in documents:
        builder.put({**document, "metadata": {**document["metadata"], "labels": {"a": "b"}}})
    assert builder.snapshot() is before
    builder.put({**MODEL, "spec": {**MODEL["spec"], "sensitivity": "internal"}})
    after = builder.snapshot()
    assert after.models["atlas"].spec.sensitivity == "internal"
    assert after.policies is before.policies


def test_an_asset_that_can_be_read_again_is_no_longer_a_problem(builder):
    builder.put(MODEL)
    builder.put({**MODEL, "spec": {"sensitivity": "no such"}})
    assert builder.snapshot().problems
    builder.put(MODEL)
    assert not builder.snapshot().problems


def test_models_come_and_go(builder):
    key = builder.put(MODEL)
    assert list(builder.snapshot().models) == ["atlas"]
    builder.remove(key)
    assert builder.snapshot().models == {}


def test_a_grant_follows_its_approvals_one_by_one(builder, now):
    access = {"approvals": 2, "approvers": {"groups": ["weights-approvers"]}}
    builder.put({**MODEL, "spec": {**MODEL["spec"], "access": access}})
    builder.put(REQUEST)
    builder.put(approval("a", "bob"))
    assert grants(builder, now) == []
    key = builder.put(approval("b", "carol"))
    assert grants(builder, now) == ["r"]
    builder.remove(key)
    assert grants(builder, now) == []
    builder.put(approval("b", "carol"))
    builder.put(approval("c", "dora", "Revoke"))
    assert grants(builder, now) == []


def test_a_vote_that_can_no_longer_be_read_stops_counting(builder, now):
    access = {"approvals": 1, "approvers": {"groups": ["weights-approvers"]}}
    builder.put({**MODEL, "spec": {**MODEL["spec"], "access": access}})
    builder.put(REQUEST)
    builder.put(approval("a", "bob"))
    assert grants(builder, now) == ["r"]
    builder.put({**approval("a", "bob"), "spec": {"decision": "Maybe"}})
    assert grants(builder, now) == []


def test_an_asset_that_can_no_longer_be_read_stays_protected(builder):
    key = builder.put(MODEL)
    builder.put({**MODEL, "spec": {"sensitivity": "none"}})
    snapshot = builder.snapshot()
    assert snapshot.models["atlas"].spec.sensitivity == "frontier"
    assert "sensitivity" in snapshot.problems[key]
    builder.put(MODEL)
    assert builder.snapshot().problems == {}


def test_a_fixed_policy_is_no_longer_a_problem(builder, policy_of):
    key = builder.put(policy_of(validations=[{"expression": "nope"}]))
    assert key in builder.snapshot().problems
    builder.put(policy_of(validations=[{"expression": "true"}]))
    assert builder.snapshot().problems == {}
    builder.remove(key)
    assert len(builder.snapshot().policies) == 0


PODS = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
NATIVE = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "native"},
    "spec": {
        "matchConstraints": {"resourceRules": [PODS]},
        "validations": [{"expression": "false", "message": "one"}],
    },
}
BINDING = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingAdmissionPolicyBinding",
    "metadata": {"name": "bound"},
    "spec": {"policyName": "native", "validationActions": ["Deny"]},
}


def test_a_native_policy_and_its_binding_may_come_in_any_order_and_change(builder, request_of, pod_of, now):
    def messages():
        verdict = validate(request_of(pod_of()), builder.snapshot(), FetchedData(), now)
        return [finding.message for finding in verdict.denials]

    builder.put(BINDING)
    assert "ValidatingAdmissionPolicy native does not exist" in builder.snapshot().problems.values()
    assert messages() == []
    key = builder.put(NATIVE)
    assert builder.snapshot().problems == {}
    assert messages() == ["one"]
    builder.put(
        {**NATIVE, "spec": {**NATIVE["spec"], "validations": [{"expression": "false", "message": "two"}]}}
    )
    assert messages() == ["two"]
    builder.remove(key)
    assert messages() == []


def test_problems_name_the_object(builder):
    builder.put({**MODEL, "spec": {}})
    builder.put({**MODEL, "kind": "WeightPolicy", "metadata": {"name": "p"}, "spec": {"code": "X"}})
    assert set(builder.snapshot().problems) == {ObjectKey(MODELS, "", "atlas"), ObjectKey(POLICIES, "", "p")}


@pytest.mark.parametrize("models_first", [True, False])
def test_however_many_are_read_at_once_the_grants_are_the_same(builder, now, monkeypatch, models_first):
    monkeypatch.setattr("webhook.core.admission.snapshot._MOST_WAITING", 3)
    waiting = []
    note = builder._note_access
    monkeypatch.setattr(
        builder, "_note_access", lambda *inputs: (note(*inputs), waiting.append(len(builder._written)))
    )
    access = [REQUEST, *(approval(f"a-{number}", f"person-{number}") for number in range(8))]
    rules = {"approvals": 2, "approvers": {"groups": ["weights-approvers"]}}
    model = {**MODEL, "spec": {**MODEL["spec"], "access": rules}}
    for document in [model, *access] if models_first else [*access, model]:
        builder.put(document)
    assert grants(builder, now) == ["r"]
    assert max(waiting) < 3
    builder.remove(ObjectKey("AccessRequest.weightlock.dev", "", "r"))
    assert grants(builder, now) == []


def test_access_objects_are_stored_only_as_documents(builder):
    for document in (MODEL, REQUEST, approval("a", "bob")):
        builder.put(document)
    assert [kind for kind, stored in builder._typed.items() if stored] == [MODELS]
    assert builder.snapshot().access.requests == ("r",)
