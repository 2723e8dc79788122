"""Every mistake in a policy, with its place."""

import pytest

from webhook.core.policies.lint import lint_policy

RULES = {
    "resourceRules": [
        {"apiGroups": [""], "apiVersions": ["*"], "resources": ["pods"], "operations": ["CREATE"]}
    ]
}


def remarks(kind="WeightPolicy", **spec):
    api_version = "weightlock.dev/v1alpha1" if kind == "WeightPolicy" else "admissionregistration.k8s.io/v1"
    spec = {"matchConstraints": RULES, "validations": [{"expression": "true"}], **spec}
    return lint_policy({"apiVersion": api_version, "kind": kind, "metadata": {"name": "p"}, "spec": spec})


def test_a_good_policy():
    assert remarks() == ()


def test_other_objects_are_none_of_its_business():
    assert lint_policy({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"}}) == ()


def test_unknown_fields():
    (remark,) = remarks(validation=[])
    assert (remark.level, remark.field) == ("error", "spec.validation")


def test_an_object_without_metadata():
    matches = lint_policy({"kind": "WeightPolicy", "metadata": "x"})
    assert matches
    assert all(remark.level == "error" and remark.policy == "?" for remark in matches)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"validations": [{"expression": "1 + true == 2"}]}, "spec.validations[0].expression"),
        ({"validations": [{"expression": "'text'"}]}, "spec.validations[0].expression"),
        (
            {"matchConditions": [{"name": "c", "expression": "variables.x"}]},
            "spec.matchConditions[0].expression",
        ),
        ({"variables": [{"name": "x", "expression": "unknown"}]}, "spec.variables[0].expression"),
        (
            {"validations": [{"expression": "true", "messageExpression": "1"}]},
            "spec.validations[0].messageExpression",
        ),
        ({"validations": [{"expression": "true", "fix": "authorizer"}]}, "spec.validations[0].fix"),
        ({"fix": "nothing"}, "spec.fix"),
        (
            {"auditAnnotations": [{"key": "a", "valueExpression": "1"}]},
            "spec.auditAnnotations[0].valueExpression",
        ),
    ],
)
def test_expressions_that_do_not_compile(spec, field):
    (remark,) = remarks(**spec)
    assert (remark.level, remark.field) == ("error", field)
    assert remark.line == 1
    assert "^" in remark.caret


def test_all_mistakes_are_reported_without_consequential_errors():
    matches = remarks(
        variables=[
            {"name": "bad", "expression": "nothing"},
            {"name": "worse", "expression": "variables.bad.filter(x, true)"},
        ],
        validations=[{"expression": "variables.worse == 1"}, {"expression": "1"}],
    )
    assert [remark.field for remark in matches] == [
        "spec.variables[0].expression",
        "spec.validations[1].expression",
    ]


def test_the_place_in_an_expression_of_several_lines():
    (remark,) = remarks(validations=[{"expression": "true &&\n  nothing"}])
    assert (remark.line, remark.column) == (2, 3)
    assert str(remark).startswith("error: p: spec.validations[0].expression:2:3: ")


def test_advice_is_a_warning():
    (remark,) = remarks(validations=[{"expression": "object.spec.containers.filter(c, true).size() == 0"}])
    assert remark.level == "warning"
    assert "(quadratic)" in remark.message


def test_rules_that_never_match():
    (remark,) = remarks(matchConstraints={})
    assert (remark.level, remark.field) == ("warning", "spec.matchConstraints.resourceRules")


def test_native_policies_too():
    (remark,) = remarks("ValidatingAdmissionPolicy", code="WL500")
    assert remark.field == "spec.code"
    assert remarks("ValidatingAdmissionPolicy") == ()
