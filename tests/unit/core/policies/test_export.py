"""What native CEL can express, as native objects that Weightlock itself loads again."""

import pytest

from webhook.api.policy import ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, WeightPolicy
from webhook.core.policies.compiler import compile_policy
from webhook.core.policies.export import export

RULES = {
    "resourceRules": [
        {"apiGroups": [""], "apiVersions": ["*"], "resources": ["pods"], "operations": ["CREATE"]}
    ]
}


def exported(**spec):
    document = {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "WeightPolicy",
        "metadata": {"name": "p"},
        "spec": {"matchConstraints": RULES, "validations": [{"expression": "true"}], **spec},
    }
    policy = WeightPolicy.model_validate(document)
    return export(policy, compile_policy("p", policy.spec, policy.spec))


def test_policy_and_binding():
    matches = exported(
        code="WL101",
        controls=["SOC2/CC6.1"],
        fix="'do'",
        validationActions=["Warn"],
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        paramRef={"name": "c", "parameterNotFoundAction": "Deny"},
        matchResources={"namespaceSelector": {"matchLabels": {"a": "b"}}},
        validations=[{"expression": "params != null", "message": "no", "code": "WL102", "fix": "'do this'"}],
    )
    policy, binding = matches.manifests
    assert matches.reason == ""
    assert policy["metadata"]["annotations"] == {
        "weightlock.dev/code": "WL101",
        "weightlock.dev/controls": "SOC2/CC6.1",
    }
    assert policy["spec"]["validations"] == [{"expression": "params != null", "message": "no"}]
    assert binding["spec"] == {
        "policyName": "p",
        "validationActions": ["Warn"],
        "paramRef": {"name": "c", "parameterNotFoundAction": "Deny"},
        "matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}},
    }
    typed = ValidatingAdmissionPolicy.model_validate(policy)
    compile_policy("p", typed.spec, ValidatingAdmissionPolicyBinding.model_validate(binding).spec)


def test_absent_fields_are_not_exported():
    policy, binding = exported().manifests
    assert policy["spec"] == {"matchConstraints": RULES, "validations": [{"expression": "true"}]}
    assert binding["spec"] == {"policyName": "p", "validationActions": ["Deny"]}


@pytest.mark.parametrize(
    ("spec", "read"),
    [
        ({"validations": [{"expression": "weights.size() == 0"}]}, "weights"),
        ({"matchConditions": [{"name": "c", "expression": "pod != null"}]}, "pod"),
        ({"validations": [{"expression": "true", "messageExpression": "subject.username"}]}, "subject"),
        (
            {
                "variables": [{"name": "v", "expression": "devices.size() + grants.size()"}],
                "validations": [{"expression": "variables.v == 0"}],
            },
            "devices, grants",
        ),
        (
            {"auditAnnotations": [{"key": "k", "valueExpression": "workload.name"}], "validations": []},
            "workload",
        ),
    ],
)
def test_variables_of_weightlock_are_the_reason_against_an_export(spec, read):
    matches = exported(**spec)
    assert matches.manifests == ()
    assert matches.reason == f"it reads {read}, which only Weightlock provides"


def test_a_fix_would_not_be_evaluated_there():
    assert exported(fix="subject.username").manifests
