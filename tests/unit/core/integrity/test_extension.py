"""The rules for detected kinds, and what counts as such a rule."""

import pytest

from webhook.core.integrity.drift import webhook_difference
from webhook.core.integrity.extension import MAX_RULES, extended, extension, is_extension_rule
from webhook.core.integrity.protection import equal

BASE = [
    {
        "apiGroups": ["apps"],
        "apiVersions": ["*"],
        "resources": ["deployments"],
        "operations": ["CREATE", "UPDATE"],
        "scope": "*",
    }
]
RULE = {
    "apiGroups": ["example.com"],
    "apiVersions": ["*"],
    "resources": ["widgets"],
    "operations": ["CREATE", "UPDATE"],
    "scope": "*",
}


def configuration(rules, kind="ValidatingWebhookConfiguration"):
    return {"kind": kind, "webhooks": [{"name": "validate.weightlock.dev", "rules": rules}]}


def test_one_rule_per_group_without_resources_of_the_base():
    resources = [
        ("example.com", "widgets"),
        ("example.com", "gadgets"),
        ("apps", "deployments"),
        ("other.org", "things"),
    ]
    assert extension(resources, BASE) == [
        {**RULE, "resources": ["gadgets", "widgets"]},
        {**RULE, "apiGroups": ["other.org"], "resources": ["things"]},
    ]


def test_only_a_validating_configuration_is_extended():
    document = configuration(BASE)
    assert extended(document, [("example.com", "widgets")])["webhooks"][0]["rules"] == [*BASE, RULE]
    assert document == configuration(BASE)
    mutating = configuration(BASE, "MutatingWebhookConfiguration")
    assert extended(mutating, [("example.com", "widgets")]) is mutating


def test_appended_rules_are_not_drift():
    expected, live = configuration(BASE)["webhooks"], configuration([*BASE, RULE])["webhooks"]
    assert equal(expected, live)
    assert webhook_difference(expected, live) is None


@pytest.mark.parametrize(
    "change",
    [
        {"operations": ["CREATE"]},
        {"operations": ["CREATE", "UPDATE", "DELETE"]},
        {"apiGroups": ["*"]},
        {"apiGroups": [""]},
        {"apiGroups": ["a.b", "c.d"]},
        {"resources": ["*"]},
        {"resources": ["widgets/status"]},
        {"resources": []},
        {"apiVersions": ["v1"]},
        {"scope": "Cluster"},
        {"extra": 1},
    ],
)
def test_a_rule_of_another_form_is_drift(change):
    rule = {**RULE, **change}
    assert not is_extension_rule(rule)
    assert webhook_difference(configuration(BASE)["webhooks"], configuration([*BASE, rule])["webhooks"])


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [RULE],
        [RULE, *BASE],
        [{**BASE[0], "resources": ["nothing"]}, RULE],
        [*BASE, *[RULE] * (MAX_RULES + 1)],
    ],
)
def test_the_base_must_come_first_and_whole(rules):
    assert webhook_difference(configuration(BASE)["webhooks"], configuration(rules)["webhooks"])
