"""Other mutating webhooks and policies that can change access objects."""

import pytest

from webhook.core.integrity.mutators import mutators

RULE = {"apiGroups": ["weightlock.dev"], "resources": ["accessapprovals"], "operations": ["CREATE"]}


def hook(name, *rules):
    kind = "MutatingWebhookConfiguration"
    return {"kind": kind, "metadata": {"name": name}, "webhooks": [{"name": "w", "rules": list(rules)}]}


def policy(name, *rules):
    spec = {"matchConstraints": {"resourceRules": list(rules)}}
    return {"kind": "MutatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec}


def test_matching_objects_are_named_narrow_ones_first():
    everything = {"apiGroups": ["*"], "resources": ["*"], "operations": ["*"]}
    matches = mutators(
        [hook("wide", everything), policy("map", RULE), hook("weightlock", RULE)], "weightlock"
    )
    assert [str(item) for item in matches] == [
        "MutatingAdmissionPolicy map",
        "MutatingWebhookConfiguration wide",
    ]
    assert [item.narrow for item in matches] == [True, False]


@pytest.mark.parametrize(
    "change",
    [
        {"apiGroups": ["apps"]},
        {"resources": ["modelweights"]},
        {"resources": []},
        {"operations": ["DELETE"]},
        {"scope": "Namespaced"},
    ],
)
def test_other_rules_do_not_match(change):
    assert mutators([hook("other", {**RULE, **change})], "weightlock") == ()
    assert mutators([hook("empty"), {"kind": "X", "metadata": {"name": "n"}}], "weightlock") == ()


def test_subresources_and_wildcards_match():
    assert mutators([hook("a", {**RULE, "resources": ["accessrequests/*"]})], "weightlock")
    assert mutators([hook("a", {**RULE, "resources": ["*/*"]})], "weightlock")


def test_a_rule_for_access_objects_in_all_groups_is_narrow():
    (match,) = mutators(
        [hook("a", {**RULE, "apiGroups": ["*"], "resources": ["accessapprovals/*"]})], "weightlock"
    )
    assert match.narrow
