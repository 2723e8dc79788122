"""Every field that says which requests a policy speaks of, in policies and in bindings.

Each policy denies whatever it matches, so that an allowed request is one that was not matched.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from differential.case import NAMESPACE, Case, configmap, rules

DENY = rules("false", message="matched")
LABELS = {"team": "a", "tier": "gold"}
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"labels": {"team": "a"}},
    "spec": {
        "serviceAccountName": "default",
        "automountServiceAccountToken": False,
        "containers": [{"name": "main", "image": "registry.example.com/app:1"}],
    },
}
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {},
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": POD["spec"]},
    },
}
AUTOSCALER: dict[str, Any] = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"},
        "minReplicas": 1,
        "maxReplicas": 3,
    },
}
SPACE: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": {"team": "a"}}}


def rule(name: str, **fields: Any) -> dict[str, Any]:
    """A resource rule for the object of one case: ConfigMaps, unless it says otherwise."""
    whole = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["configmaps"],
        "resourceNames": [name],
    }
    return {**whole, **fields}


def matching(name: str, *inputs: Mapping[str, Any], **constraints: Any) -> dict[str, Any]:
    """A spec that denies what these rules, and the rest of ``constraints``, match."""
    return {**DENY, "matchConstraints": {"resourceRules": list(inputs) or [rule(name)], **constraints}}


RULES: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("plain", {}),
    ("operation-other", {"operations": ["UPDATE", "DELETE"]}),
    ("operation-any", {"operations": ["*"]}),
    ("operation-several", {"operations": ["UPDATE", "CREATE"]}),
    ("group-other", {"apiGroups": ["apps"]}),
    ("group-any", {"apiGroups": ["*"]}),
    ("version-any", {"apiVersions": ["*"]}),
    ("resource-other", {"resources": ["secrets"]}),
    ("resource-any", {"resources": ["*"]}),
    ("resource-several", {"resources": ["pods", "configmaps"]}),
    ("subresource-any", {"resources": ["configmaps/*"]}),
    ("subresource-only", {"resources": ["configmaps/status"]}),
    ("subresource-of-any", {"resources": ["*/status"]}),
    ("scope-namespaced", {"scope": "Namespaced"}),
    ("scope-cluster", {"scope": "Cluster"}),
    ("scope-any", {"scope": "*"}),
    ("name-other", {"resourceNames": ["another"]}),
)
SELECTORS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("labels", {"matchLabels": {"team": "a"}}),
    ("labels-other", {"matchLabels": {"team": "b"}}),
    ("in", {"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}),
    ("not-in", {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}),
    ("not-in-absent", {"matchExpressions": [{"key": "gone", "operator": "NotIn", "values": ["a"]}]}),
    ("exists", {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
    ("does-not-exist", {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
    ("both", {"matchLabels": {"team": "a"}, "matchExpressions": [{"key": "gone", "operator": "Exists"}]}),
    ("empty", {}),
    ("invalid", {"matchExpressions": [{"key": "team", "operator": "In", "values": []}]}),
)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _rules()
    yield from _selectors()
    yield from _excluded()
    yield from _bindings()
    yield from _kinds()


def _rules() -> Iterator[Case]:
    for label, fields in RULES:
        name = f"match-rule-{label}"
        yield Case(name, matching(name, rule(name, **fields)))
    name = "match-rule-second-of-two"
    yield Case(name, matching(name, rule(name, resources=["secrets"]), rule(name)))
    name = "match-rule-names"
    yield Case(name, matching(name, rule(name, resourceNames=["another", name])))
    for policy in ("Exact", "Equivalent"):
        name = f"match-policy-{policy.lower()}"
        yield Case(name, matching(name, matchPolicy=policy))
        name = f"match-policy-{policy.lower()}-served-version"
        spec = matching(
            name,
            rule(name, apiGroups=["autoscaling"], apiVersions=["v1"], resources=["horizontalpodautoscalers"]),
            matchPolicy=policy,
        )
        yield Case(name, spec, document=AUTOSCALER)
        name = f"match-policy-{policy.lower()}-unknown-version"
        yield Case(name, matching(name, rule(name, apiVersions=["v1beta9"]), matchPolicy=policy))


def _selectors() -> Iterator[Case]:
    for label, selector in SELECTORS:
        name = f"match-object-{label}"
        yield Case(name, matching(name, objectSelector=selector), document=configmap(labels=LABELS))
        name = f"match-namespace-{label}"
        yield Case(name, matching(name, namespaceSelector=selector))
    name = "match-object-without-labels"
    yield Case(name, matching(name, objectSelector={"matchLabels": {"team": "a"}}))
    own = {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
    name = "match-namespace-by-its-own-name"
    yield Case(name, matching(name, namespaceSelector=own))
    for label, selector in SELECTORS[:3]:
        name = f"match-namespace-itself-{label}"
        spaces = rule(name, resources=["namespaces"])
        yield Case(name, matching(name, spaces, namespaceSelector=selector), document=SPACE)
    selected = {"matchLabels": {"team": "a"}}
    for label, old, new in (
        ("gained", {}, {"team": "a"}),
        ("lost", {"team": "a"}, {}),
        ("never", {}, {"team": "b"}),
    ):
        name = f"match-object-update-{label}"
        spec = matching(name, rule(name, operations=["UPDATE"]), objectSelector=selected)
        yield Case(
            name,
            spec,
            document=configmap({"now": "1"}, labels=new),
            old=configmap({"now": "0"}, labels=old),
            operation="UPDATE",
        )


def _excluded() -> Iterator[Case]:
    for label, fields in (
        ("itself", {}),
        ("other-operation", {"operations": ["DELETE"]}),
        ("other-name", {"resourceNames": ["another"]}),
        ("everything", {"apiGroups": ["*"], "resources": ["*"], "resourceNames": []}),
    ):
        name = f"match-excluded-{label}"
        yield Case(name, matching(name, excludeResourceRules=[rule(name, **fields)]))


def _bindings() -> Iterator[Case]:
    for label, resources in (
        ("empty", {}),
        ("namespace", {"namespaceSelector": {"matchLabels": {"team": "a"}}}),
        ("namespace-other", {"namespaceSelector": {"matchLabels": {"team": "b"}}}),
        ("object", {"objectSelector": {"matchLabels": {"team": "a"}}}),
        ("object-other", {"objectSelector": {"matchLabels": {"team": "b"}}}),
        ("rules", {"resourceRules": [rule("x", resourceNames=[])]}),
        ("rules-other", {"resourceRules": [rule("x", resources=["secrets"])]}),
        ("excluded", {"excludeResourceRules": [rule("x", resourceNames=[])]}),
        (
            "exact",
            {"resourceRules": [rule("x", apiVersions=["v2"], resourceNames=[])], "matchPolicy": "Exact"},
        ),
    ):
        name = f"match-binding-{label}"
        yield Case(name, DENY, {"matchResources": resources}, configmap(labels=LABELS))
    yield Case("match-nothing-required", {**DENY, "matchConstraints": {}})


def _kinds() -> Iterator[Case]:
    """Operations and subresources of other kinds."""
    for resources in (["pods/exec"], ["pods/*"], ["pods"], ["*/*"], ["*"]):
        name = f"match-connect-{'-'.join(resources).replace('/', '-').replace('*', 'any')}"
        spec = matching(name, rule(name, operations=["CONNECT"], resources=resources))
        yield Case(name, spec, old=POD, operation="CONNECT", subresource="exec")
    for operator in ("NotIn", "DoesNotExist", "Exists"):
        requirement = {
            "key": "tier",
            "operator": operator,
            **({"values": ["x"]} if operator == "NotIn" else {}),
        }
        name = f"match-connect-selector-{operator.lower()}"
        spec = matching(name, rule(name, operations=["CONNECT"], resources=["pods/exec"]))
        selected = {**spec["matchConstraints"], "objectSelector": {"matchExpressions": [requirement]}}
        yield Case(
            name, {**spec, "matchConstraints": selected}, old=POD, operation="CONNECT", subresource="exec"
        )
    name = "match-connect-container"
    spec = {
        **matching(name, rule(name, operations=["CONNECT"], resources=["pods/exec"])),
        **rules(
            "object.kind == 'PodExecOptions' && !has(object.stdin) && object.command == ['ls']",
            "request.subResource == 'other' && oldObject == null",
        ),
    }
    yield Case(name, spec, old=POD, operation="CONNECT", subresource="exec")
    for resources, subresource in ((["pods/status"], "status"), (["pods"], "status"), (["pods/status"], "")):
        name = f"match-status-{resources[0].replace('/', '-')}-{subresource or 'none'}"
        spec = matching(name, rule(name, operations=["UPDATE"], resources=resources))
        yield Case(name, spec, document=POD, old=POD, operation="UPDATE", subresource=subresource)
    for operations in (["DELETE"], ["CREATE", "UPDATE"]):
        name = f"match-delete-{operations[0].lower()}"
        spec = {
            **matching(name, rule(name, operations=operations)),
            **rules("object == null && oldObject.data.text == 'other'", message="deleted"),
        }
        yield Case(name, spec, old=configmap(), operation="DELETE")
    name = "match-create-pod"
    yield Case(name, matching(name, rule(name, resources=["pods"])), document=POD)
    name = "match-create-deployment"
    spec = matching(name, rule(name, apiGroups=["apps"], resources=["deployments"]))
    yield Case(
        name,
        {**spec, **rules("object.spec.replicas < 3", messageExpression="string(object.spec.replicas)")},
        document=DEPLOYMENT,
    )
