"""Rules that never match, or never matter."""

import pytest

from webhook.api.policy import WeightPolicySpec
from webhook.core.policies.match_lint import unreachable

PODS = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
RULE = [{"expression": "true"}]


def said(*rules, excluded=(), **spec):
    constraints = {"resourceRules": list(rules), "excludeResourceRules": list(excluded)}
    typed = WeightPolicySpec.model_validate({"validations": RULE, "matchConstraints": constraints, **spec})
    return list(unreachable(typed))


def fields(*rules, **spec):
    return [field for field, _ in said(*rules, **spec)]


def test_good_rules():
    assert said(PODS, {**PODS, "resources": ["pods/exec"], "operations": ["CONNECT"]}) == []


def test_no_rules_at_all():
    assert fields() == ["spec.matchConstraints.resourceRules"]
    assert fields(PODS, matchConstraints=None) == ["spec.matchConstraints.resourceRules"]


@pytest.mark.parametrize("name", ["apiGroups", "apiVersions", "resources", "operations"])
def test_an_empty_list(name):
    assert fields({**PODS, name: []})[0] == f"spec.matchConstraints.resourceRules[0].{name}"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"resources": ["pods/exec"], "operations": ["CREATE", "UPDATE"]}, "only the operation CONNECT"),
        ({"resources": ["serviceaccounts/token"], "operations": ["UPDATE"]}, "only the operation CREATE"),
        ({"resources": ["pods"], "operations": ["CONNECT"]}, "supports CONNECT"),
        ({"resources": ["pods"], "scope": "Cluster"}, "pods are not cluster"),
        ({"resources": ["nodes"], "scope": "Namespaced"}, "nodes are not namespaced"),
    ],
)
def test_impossible_combinations(rule, words):
    ((_, message),) = said({**PODS, **rule})
    assert words in message


@pytest.mark.parametrize("resources", [["*/*"], ["pods/*"], ["services/proxy"]])
def test_resources_with_a_connect_operation(resources):
    assert said({**PODS, "resources": resources, "operations": ["CONNECT"]}) == []


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ({"resources": ["*"]}, {}, True),
        ({"operations": ["*"]}, {}, True),
        ({"apiGroups": ["*"], "apiVersions": ["*"]}, {}, True),
        ({"resources": ["*"]}, {"resources": ["pods/exec"], "operations": ["CONNECT"]}, False),
        ({"resources": ["pods/*"]}, {"resources": ["pods/binding"]}, True),
        ({"resources": ["pods/*"]}, {}, False),
        ({"resourceNames": ["a"]}, {}, False),
        ({"resourceNames": ["a", "b"]}, {"resourceNames": ["a"]}, True),
        ({}, {"resourceNames": ["a"]}, True),
        ({"scope": "Namespaced"}, {}, False),
        ({}, {"operations": ["DELETE"]}, False),
    ],
)
def test_a_rule_that_another_covers(wide, narrow, covered):
    matches = said({**PODS, **wide}, {**PODS, **narrow})
    assert any("already matches" in message for _, message in matches) is covered


def test_a_rule_that_is_excluded():
    ((field, message),) = said(PODS, excluded=[{**PODS, "operations": ["*"]}])
    assert field == "spec.matchConstraints.resourceRules[0]"
    assert "excludes all of it" in message


def test_the_binding_is_looked_at_too():
    assert fields(PODS, matchResources={"resourceRules": [{**PODS, "resources": []}]}) == [
        "spec.matchResources.resourceRules[0].resources"
    ]


def test_a_condition_that_is_never_true_and_a_policy_that_says_nothing():
    assert fields(PODS, matchConditions=[{"name": "off", "expression": " false "}]) == [
        "spec.matchConditions[0]"
    ]
    assert fields(PODS, validations=[]) == ["spec.validations"]
