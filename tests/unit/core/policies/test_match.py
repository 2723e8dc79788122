import pytest

from webhook.api.policy import MatchResources
from webhook.core.kube.objects import Lookup
from webhook.core.policies.match import Matcher, RequestKind

RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": "research", "labels": {"team": "atlas", "kubernetes.io/metadata.name": "research"}},
}


@pytest.fixture
def matches(request_of, snapshot_of, pod_of):
    """Whether constraints match a request; the pod of `pod_of` unless told otherwise."""

    def decide(constraints, document=None, **fields):
        request = request_of(pod_of() if document is None else document, **fields)
        matcher = Matcher.compile(MatchResources.model_validate(constraints))
        lookup = Lookup(snapshot_of(NAMESPACE).objects)
        kind = RequestKind.of(request)
        full = matcher.matches(request, kind, lookup)
        # The index may only leave out what can never match.
        assert matcher.may_match(kind) or not full
        if matcher.may_match(kind):
            remainder = matcher.remainder(kind)
            assert (remainder is None or remainder.matches(request, kind, lookup)) is full
        return full

    return decide


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"resources": ["*"]}, True),
        ({"resources": ["*/*"]}, True),
        ({"resources": ["pods/*"]}, True),
        ({"resources": ["pods/exec"]}, False),
        ({"resources": ["deployments"]}, False),
        ({"operations": ["*"]}, True),
        ({"operations": ["UPDATE", "DELETE"]}, False),
        ({"apiGroups": ["apps"]}, False),
        ({"apiGroups": ["*"]}, True),
        ({"scope": "Namespaced"}, True),
        ({"scope": "Cluster"}, False),
        ({"resourceNames": ["train-7"]}, True),
        ({"resourceNames": ["other"]}, False),
    ],
)
def test_rules(matches, change, expected):
    assert matches({"resourceRules": [{**RULE, **change}]}) is expected


def test_a_subresource_needs_a_rule_of_its_own(matches):
    assert not matches({"resourceRules": [{**RULE, "resources": ["*"]}]}, subResource="exec")
    assert matches({"resourceRules": [{**RULE, "resources": ["pods/exec"]}]}, subResource="exec")
    assert matches({"resourceRules": [{**RULE, "resources": ["*/*"]}]}, subResource="exec")


def test_equivalent_ignores_the_version_and_exact_does_not(matches):
    rule = {**RULE, "apiVersions": ["v2"]}
    assert matches({"resourceRules": [rule]})
    assert not matches({"resourceRules": [rule], "matchPolicy": "Exact"})


def test_an_exclusion_overrides_a_rule_for_its_resource_names(matches):
    assert not matches({"resourceRules": [RULE], "excludeResourceRules": [RULE]})
    assert matches({"resourceRules": [RULE], "excludeResourceRules": [{**RULE, "resourceNames": ["other"]}]})


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({"matchLabels": {"team": "atlas"}}, True),
        ({"matchLabels": {"team": "other"}}, False),
        (
            {
                "matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["research"]}
                ]
            },
            True,
        ),
        ({"matchExpressions": [{"key": "absent", "operator": "NotIn", "values": ["x"]}]}, True),
        ({}, True),
    ],
)
def test_namespace_selector(matches, selector, expected):
    assert matches({"resourceRules": [RULE], "namespaceSelector": selector}) is expected


def test_a_namespace_is_matched_by_its_own_new_labels(matches):
    rule = {**RULE, "resources": ["namespaces"]}
    selector = {"matchLabels": {"open": "yes"}}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"open": "yes"}}}
    assert matches({"resourceRules": [rule], "namespaceSelector": selector}, document)


def test_the_name_label_of_a_namespace_cannot_be_taken_away(matches, pod_of):
    pod = pod_of()
    pod["metadata"]["namespace"] = "unlabelled"
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["unlabelled"]}
    assert matches({"resourceRules": [RULE], "namespaceSelector": {"matchExpressions": [expression]}}, pod)


def test_a_namespace_selector_does_not_exclude_cluster_scoped_objects(matches):
    document = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "x"}}
    rule = {**RULE, "resources": ["persistentvolumes"]}
    assert matches({"resourceRules": [rule], "namespaceSelector": {"matchLabels": {"no": "where"}}}, document)


def test_object_selector_looks_at_the_old_object_too(matches, pod_of):
    old = pod_of()
    old["metadata"]["labels"] = {"guarded": "yes"}
    constraints = {
        "resourceRules": [{**RULE, "operations": ["UPDATE"]}],
        "objectSelector": {"matchLabels": {"guarded": "yes"}},
    }
    assert matches(constraints, operation="UPDATE", oldObject=old)
    assert not matches(constraints, operation="UPDATE", oldObject=pod_of())


@pytest.mark.parametrize("operator", ["NotIn", "DoesNotExist"])
def test_an_object_without_metadata_matches_no_object_selector(matches, operator):
    """PodExecOptions has no labels to compare (k8s.io/apiserver webhook/predicates/object/matcher.go)."""
    rule = {**RULE, "resources": ["pods/exec"], "operations": ["CONNECT"]}
    requirement = {"key": "tier", "operator": operator, "values": ["x"] if operator == "NotIn" else []}
    options = {"apiVersion": "v1", "kind": "PodExecOptions", "command": ["sh"]}
    place = {"group": "", "version": "v1", "resource": "pods"}
    request = {"operation": "CONNECT", "subResource": "exec", "resource": place}
    constraints = {"resourceRules": [rule]}
    assert matches(constraints, options, **request)
    constraints["objectSelector"] = {"matchExpressions": [requirement]}
    assert not matches(constraints, options, **request)
