"""The comparison of webhook configurations with the expected ones."""

from copy import deepcopy

import pytest

from webhook.core.certificates.bundle import id_of
from webhook.core.integrity.protection import equal, webhook_faults
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


def faults(document, **settings):
    return webhook_faults({KEY: WANTED}, {KEY: document}, **settings)


def test_an_intact_configuration_has_no_fault():
    assert faults(live()) == ()


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
def test_a_modified_configuration_is_a_fault(change):
    assert faults(live(**change)) == ("ValidatingWebhookConfiguration weightlock was modified",)


def test_a_missing_configuration_and_a_second_webhook_are_faults():
    assert faults(None) == ("ValidatingWebhookConfiguration weightlock is missing",)
    more = live()
    more["webhooks"].append({"name": "more"})
    assert faults(more)
    assert webhook_faults({}, {})


def test_a_configuration_that_is_being_deleted_is_a_fault():
    document = live()
    document["metadata"] = {**METADATA, "deletionTimestamp": "2026-11-02T09:30:00Z"}
    assert faults(document) == ("ValidatingWebhookConfiguration weightlock is being deleted",)


def test_a_bundle_must_consist_of_the_own_authorities():
    assert faults(live(), authorities={id_of("foo")}) == ()
    assert faults(live(), authorities={id_of("other")}) != ()
    assert faults(live(), authorities=()) != ()


@pytest.mark.parametrize(
    ("expected", "actual", "result"),
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
def test_only_defaults_of_the_api_server_are_ignored(expected, actual, result):
    assert equal(expected, actual) is result
