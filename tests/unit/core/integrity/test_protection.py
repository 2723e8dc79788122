"""Whether admission was as it should be when an object was written, read from the objects alone."""

from copy import deepcopy

import pytest

from webhook.core.integrity.protection import Protection, protection, same
from webhook.core.kube.objects import ObjectKey

KEY = ObjectKey("ValidatingWebhookConfiguration.admissionregistration.k8s.io", "", "weightlock")
WANTED = {
    "webhooks": [
        {
            "name": "validate.weightlock.dev",
            "failurePolicy": "Fail",
            "clientConfig": {
                "service": {"name": "weightlock", "namespace": "weightlock-system", "path": "/validate"}
            },
            "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}],
            "namespaceSelector": {
                "matchExpressions": [{"key": "k", "operator": "NotIn", "values": ["kube-system"]}]
            },
        }
    ]
}
METADATA = {
    "name": "weightlock",
    "resourceVersion": "100",
    "creationTimestamp": "2026-11-02T09:00:00Z",
    "managedFields": [{"manager": "helm", "time": "2026-11-02T09:10:00Z"}],
}


def live(**changes):
    """The configuration as the API server shows it, with its defaults; ``changes`` go into the one webhook."""
    document = deepcopy({**WANTED, "metadata": METADATA})
    webhook = document["webhooks"][0]
    webhook |= {"matchPolicy": "Equivalent", "objectSelector": {}, "timeoutSeconds": 10}
    webhook["rules"][0]["scope"] = "*"
    webhook["clientConfig"] |= {"caBundle": "Zm9v"}
    webhook["clientConfig"]["service"]["port"] = 443
    webhook |= changes
    return document


def written(version="101", created="2026-11-02T09:11:00Z"):
    return {"resourceVersion": version, "creationTimestamp": created}


def test_what_was_written_after_the_last_change_of_an_intact_configuration_is_covered():
    found = protection({KEY: WANTED}, {KEY: live()})
    assert found.faults == ()
    assert found.covers(written())


@pytest.mark.parametrize(
    "metadata",
    [
        written(version="100"),
        written(version="99"),
        written(created="2026-11-02T09:10:29Z"),
        written(version=""),
        written(version="abc"),
        written(version=None),
        written(created="yesterday"),
        {},
    ],
    ids=[
        "same version",
        "older",
        "before it settled",
        "no version",
        "odd version",
        "null",
        "odd time",
        "nothing",
    ],
)
def test_what_may_have_been_written_before_is_not_covered(metadata):
    assert not protection({KEY: WANTED}, {KEY: live()}).covers(metadata)


TAMPERED = {
    "lets failures pass": {"failurePolicy": "Ignore"},
    "asks somebody else": {"clientConfig": {"url": "https://evil.example.com", "caBundle": "Zm9v"}},
    "looks at less": {
        "rules": [{"apiGroups": ["apps"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}]
    },
    "looks at nothing": {"rules": []},
    "leaves out labelled objects": {"objectSelector": {"matchLabels": {"skip": "me"}}},
    "leaves out requests": {"matchConditions": [{"name": "no", "expression": "false"}]},
    "leaves out a namespace": {
        "namespaceSelector": {
            "matchExpressions": [{"key": "k", "operator": "NotIn", "values": ["kube-system", "x"]}]
        }
    },
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_configuration_that_was_changed_covers_nothing(change):
    found = protection({KEY: WANTED}, {KEY: live(**change)})
    assert found.faults == ("ValidatingWebhookConfiguration weightlock was changed",)
    assert not found.covers(written())


def test_a_missing_configuration_or_a_second_webhook_in_it_covers_nothing():
    assert protection({KEY: WANTED}, {KEY: None}).faults == (
        "ValidatingWebhookConfiguration weightlock is missing",
    )
    more = live()
    more["webhooks"].append({"name": "more"})
    assert protection({KEY: WANTED}, {KEY: more}).faults
    assert protection({}, {}).faults
    assert not Protection().covers(written())


@pytest.mark.parametrize(
    "fields", [{"managedFields": []}, {"managedFields": [{"manager": "x"}]}, {"resourceVersion": "?"}]
)
def test_a_configuration_that_hides_when_it_was_changed_covers_nothing(fields):
    document = live()
    document["metadata"] = {**METADATA, **fields}
    assert not protection({KEY: WANTED}, {KEY: document}).covers(
        written(version="999", created="2030-01-01T00:00:00Z")
    )


def test_the_newest_of_several_counts():
    other = ObjectKey("MutatingWebhookConfiguration.admissionregistration.k8s.io", "", "weightlock")
    later = live()
    later["metadata"] = {**METADATA, "resourceVersion": "200"}
    found = protection({KEY: WANTED, other: WANTED}, {KEY: live(), other: later})
    assert not found.covers(written(version="150"))
    assert found.covers(written(version="201"))


@pytest.mark.parametrize(
    ("wanted", "found", "equal"),
    [
        ({"a": 1}, {"a": 1, "b": 1}, False),
        ({"a": 1}, {}, False),
        ({}, {"scope": "*"}, True),
        ({}, {"scope": "Cluster"}, False),
        ([1, 2], [2, 1], False),
        ({"caBundle": "a"}, {"caBundle": "b"}, False),
        ({}, {"caBundle": "b"}, True),
        ({}, {"reinvocationPolicy": "Never"}, True),
    ],
)
def test_only_the_api_servers_own_defaults_may_be_there_besides(wanted, found, equal):
    assert same(wanted, found) is equal
