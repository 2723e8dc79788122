"""The meaning of a policy's fields; where VAP documents one, it is VAP's."""

import pytest

from webhook.api.policy import BindingSpec, PolicySpec, WeightPolicy
from webhook.core.admission.provider import FetchedData, RequiredData
from webhook.core.admission.validate import validate
from webhook.core.policies.compiler import PolicyError, compile_policy


@pytest.fixture
def findings(snapshot_of, policy_of, request_of, pod_of, now):
    """All findings of one policy on one pod, whatever action they carry."""

    def judge(*documents, document=None, **spec):
        snapshot = snapshot_of(policy_of(**spec), *documents)
        assert not snapshot.problems, snapshot.problems
        verdict = validate(request_of(document or pod_of()), snapshot, FetchedData(), now)
        assert not isinstance(verdict, RequiredData)
        return [*verdict.denials, *verdict.warnings, *verdict.audits], verdict

    return judge


def rule(expression, **fields):
    return [{"expression": expression, **fields}]


def messages(found):
    return [finding.message for finding in found[0]]


def test_a_true_expression_passes(findings):
    assert messages(findings(validations=rule("object.kind == 'Pod'"))) == []


def test_every_violation_is_reported_not_only_the_first(findings):
    two = [*rule("false", message="one"), *rule("1 == 2", message="two")]
    assert sorted(messages(findings(validations=two))) == ["one", "two"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "failed expression: false"),
        ({"message": "plain"}, "plain"),
        ({"messageExpression": "'name ' + object.metadata.name", "message": "plain"}, "name train-7"),
        ({"messageExpression": "string(object.metadata.labels.x)", "message": "plain"}, "plain"),
        ({"messageExpression": "''", "message": "plain"}, "plain"),
        ({"messageExpression": "'  '", "message": "plain"}, "plain"),
        ({"messageExpression": "'a\\nb'", "message": "plain"}, "plain"),
        ({"messageExpression": "'" + "x" * 6000 + "'", "message": "plain"}, "plain"),
    ],
)
def test_messages_fall_back_as_in_kubernetes(findings, fields, expected):
    assert messages(findings(validations=rule("false", **fields))) == [expected]


def test_an_expression_that_fails_denies(findings):
    found, verdict = findings(validations=rule("object.spec.nope == 1"))
    assert not verdict.allowed
    assert found[0].code == "WL901"
    assert found[0].unevaluable


def test_an_expression_that_fails_passes_under_ignore(findings):
    found, verdict = findings(validations=rule("object.spec.nope == 1"), failurePolicy="Ignore")
    assert verdict.allowed
    assert found == []
    assert [result for _, result, _ in verdict.timings] == ["error"]


def test_a_false_condition_skips_even_if_another_fails(findings):
    conditions = [
        {"name": "fails", "expression": "object.spec.nope == 1"},
        {"name": "no", "expression": "false"},
    ]
    assert messages(findings(validations=rule("false"), matchConditions=conditions)) == []


def test_a_condition_that_fails_denies(findings):
    conditions = [{"name": "fails", "expression": "object.spec.nope == 1"}]
    (message,) = messages(findings(validations=rule("true"), matchConditions=conditions))
    assert "matchCondition fails" in message


def test_variables_are_lazy(findings):
    variables = [{"name": "broken", "expression": "object.spec.nope"}, {"name": "fine", "expression": "1"}]
    assert messages(findings(validations=rule("variables.fine == 1"), variables=variables)) == []
    assert messages(findings(validations=rule("true || variables.broken == 1"), variables=variables)) == []


def test_actions_decide_the_effect_of_a_violation(findings):
    for action in ("Deny", "Warn", "Audit"):
        found, verdict = findings(validations=rule("false"), validationActions=[action])
        assert [finding.action for finding in found] == [action]
        assert verdict.allowed is (action != "Deny")


def test_codes_and_fixes_of_a_rule_go_before_those_of_its_policy(findings):
    own = rule("false", code="WL199", fix="'own ' + object.kind")
    found, _ = findings(validations=[*own, *rule("1 > 2")], fix="'shared'")
    assert [(finding.code, finding.fix) for finding in found] == [("WL101", "shared"), ("WL199", "own Pod")]


CONFIG = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "limits", "namespace": "research", "labels": {"use": "limits"}},
    "data": {"name": "train-7"},
}
PARAM_KIND = {"apiVersion": "v1", "kind": "ConfigMap"}


def test_params_by_name(findings):
    spec = {
        "paramKind": PARAM_KIND,
        "paramRef": {"name": "limits", "namespace": "research", "parameterNotFoundAction": "Deny"},
        "validations": rule("object.metadata.name == params.data.name", message="wrong"),
    }
    assert messages(findings(CONFIG, **spec)) == []
    assert messages(findings({**CONFIG, "data": {"name": "x"}}, **spec)) == ["wrong"]


def test_all_params_of_a_selector_are_evaluated(findings):
    other = {**CONFIG, "metadata": {**CONFIG["metadata"], "name": "more"}, "data": {"name": "x"}}
    spec = {
        "paramKind": PARAM_KIND,
        "paramRef": {"selector": {"matchLabels": {"use": "limits"}}, "parameterNotFoundAction": "Allow"},
        "validations": rule(
            "object.metadata.name == params.data.name", messageExpression="'not ' + params.data.name"
        ),
    }
    assert messages(findings(CONFIG, other, **spec)) == ["not x"]


@pytest.mark.parametrize(("action", "allowed"), [("Allow", True), ("Deny", False)])
def test_missing_params(findings, action, allowed):
    _, verdict = findings(
        paramKind=PARAM_KIND,
        paramRef={"name": "limits", "parameterNotFoundAction": action},
        validations=rule("false"),
        validationActions=["Audit"],
    )
    assert verdict.allowed is allowed


GLOBAL = {"apiVersion": "example.com/v1", "kind": "Limit"}
GLOBAL_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "limits.example.com"},
    "spec": {"group": "example.com", "names": {"kind": "Limit", "plural": "limits"}, "scope": "Cluster"},
}
LIMIT = {**GLOBAL, "metadata": {"name": "limits"}, "data": {"name": "train-7"}}
CLUSTER_ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "reader"},
    "rules": [],
}
ROLES = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}
PARAM_ERRORS = {
    "a namespace with a cluster-scoped kind": (
        [LIMIT],
        {"paramKind": GLOBAL, "paramRef": {"name": "limits", "namespace": "research"}},
        None,
        "must not be set for the cluster-scoped paramKind",
    ),
    "the same by the CRD alone": (
        [GLOBAL_CRD],
        {"paramKind": GLOBAL, "paramRef": {"name": "limits", "namespace": "research"}},
        None,
        "must not be set for the cluster-scoped paramKind",
    ),
    "a namespaced kind for a cluster-scoped resource": (
        [CONFIG],
        {
            "paramKind": PARAM_KIND,
            "paramRef": {"name": "limits"},
            "matchConstraints": {"resourceRules": [ROLES]},
        },
        CLUSTER_ROLE,
        "cannot be used for a cluster-scoped resource",
    ),
    "an unknown kind": (
        [],
        {"paramKind": {"apiVersion": "nowhere.com/v1", "kind": "None"}, "paramRef": {"name": "x"}},
        None,
        "is not known",
    ),
}


@pytest.mark.parametrize("failure_policy", ["Fail", "Ignore"])
@pytest.mark.parametrize(
    ("documents", "spec", "document", "message"), PARAM_ERRORS.values(), ids=PARAM_ERRORS.keys()
)
def test_params_that_cannot_be_resolved_are_a_configuration_error(
    findings, documents, spec, document, message, failure_policy
):
    spec["paramRef"] = {**spec["paramRef"], "parameterNotFoundAction": "Allow"}
    result, verdict = findings(
        *documents,
        document=document,
        validations=rule("false"),
        validationActions=["Audit"],
        failurePolicy=failure_policy,
        **spec,
    )
    assert verdict.allowed is (failure_policy == "Ignore")
    if failure_policy == "Fail":
        assert message in result[0].message


def test_a_cluster_scoped_param_needs_no_namespace(findings):
    spec = {
        "paramKind": GLOBAL,
        "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"},
        "validations": rule("object.metadata.name == params.data.name", message="wrong"),
    }
    assert messages(findings(LIMIT, **spec)) == []


def test_params_are_null_without_a_reference(findings):
    assert messages(findings(paramKind=PARAM_KIND, validations=rule("params == null"))) == []


@pytest.mark.parametrize(("policy", "allowed"), [("Fail", False), ("Ignore", True)])
def test_an_audit_annotation_that_fails_follows_the_failure_policy(findings, policy, allowed):
    notes = [{"key": "who", "valueExpression": "string(object.spec.nope)"}]
    found, verdict = findings(
        validations=rule("true"), auditAnnotations=notes, failurePolicy=policy, validationActions=["Warn"]
    )
    assert verdict.allowed is allowed
    assert [finding.action for finding in found] == ([] if allowed else ["Deny"])
    assert verdict.audit_annotations == ()


def test_conditions_see_no_namespace(findings):
    conditions = [{"name": "null", "expression": "namespaceObject == null"}]
    assert messages(
        findings(validations=rule("namespaceObject == null", message="no"), matchConditions=conditions)
    ) == ["no"]


def test_a_namespace_is_in_no_namespace(snapshot_of, policy_of, request_of, now):
    policy = policy_of(validations=rule("namespaceObject == null"))
    policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"] = ["namespaces"]
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "research"}}
    assert validate(request_of(space, namespace="research"), snapshot_of(policy), FetchedData(), now).allowed


BAD_SELECTOR = {"matchExpressions": [{"key": "team", "operator": "In", "values": []}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"matchResources": {"objectSelector": BAD_SELECTOR}},
        {"matchResources": {"namespaceSelector": BAD_SELECTOR}},
        {"paramKind": PARAM_KIND, "paramRef": {"selector": BAD_SELECTOR}},
    ],
)
def test_a_selector_that_kubernetes_refuses_fails_closed(
    snapshot_of, policy_of, request_of, pod_of, now, fields
):
    snapshot = snapshot_of(policy_of(validations=rule("true"), **fields))
    assert "operator In needs values" in next(iter(snapshot.problems.values()))
    verdict = validate(request_of(pod_of()), snapshot, FetchedData(), now)
    assert [finding.code for finding in verdict.denials] == ["WL901"]


def test_audit_annotations(findings):
    notes = [
        {"key": "who", "valueExpression": "string(object.kind)"},
        {"key": "none", "valueExpression": "null"},
    ]
    _, verdict = findings(validations=rule("true"), auditAnnotations=notes)
    assert verdict.audit_annotations == (("probe.who", "Pod"),)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"validations": rule("object.")}, "spec.validations[0].expression"),
        ({"validations": rule("1")}, "spec.validations[0].expression"),
        ({"validations": rule("request.nope == 1")}, "spec.validations[0].expression"),
        ({"validations": rule("variables.nope")}, "spec.validations[0].expression"),
        ({"validations": rule("true", messageExpression="1")}, "spec.validations[0].messageExpression"),
        (
            {"validations": rule("true", messageExpression="authorizer.path('/').check('get').reason()")},
            "messageExpression",
        ),
        ({"variables": [{"name": "a", "expression": "nope"}]}, "spec.variables[0].expression"),
        (
            {"matchConditions": [{"name": "a", "expression": "variables.x"}]},
            "spec.matchConditions[0].expression",
        ),
        ({"paramRef": {"name": "a"}, "validations": rule("true")}, "spec.paramRef"),
        ({"fix": "1"}, "spec.fix"),
    ],
)
def test_a_compile_error_names_its_field(policy_of, spec, field):
    policy = WeightPolicy.model_validate(policy_of(**spec))
    with pytest.raises(PolicyError) as caught:
        compile_policy("probe", policy.spec, policy.spec)
    assert field in str(caught.value)


def test_an_invalid_policy_denies_only_its_own_matches(snapshot_of, policy_of, request_of, pod_of, now):
    invalid = policy_of("broken", validations=rule("nope"))
    invalid["spec"]["matchConstraints"]["resourceRules"][0]["resources"] = ["secrets"]
    snapshot = snapshot_of(invalid, policy_of("fine", validations=rule("true")))
    assert "undeclared reference" in next(iter(snapshot.problems.values()))
    assert validate(request_of(pod_of()), snapshot, FetchedData(), now).allowed
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "research"}}
    verdict = validate(request_of(secret), snapshot, FetchedData(), now)
    assert [finding.code for finding in verdict.denials] == ["WL901"]
    assert "does not compile" in verdict.denials[0].message


@pytest.mark.parametrize(
    ("constraints", "allowed"),
    [
        ({"resourceRules": [{"apiGroups": [""], "resources": ["secrets"], "operations": ["*"]}]}, True),
        ({"resourceRules": [{"apiGroups": [""], "resources": ["pods"], "operations": ["*"]}]}, False),
        ({"resourceRules": "pods"}, False),
    ],
)
def test_an_unreadable_policy_denies_its_resources_or_else_pods(
    snapshot_of, policy_of, request_of, pod_of, now, constraints, allowed
):
    unreadable = policy_of(validations="none", matchConstraints=constraints)
    verdict = validate(request_of(pod_of()), snapshot_of(unreadable), FetchedData(), now)
    assert verdict.allowed is allowed
    assert [finding.code for finding in verdict.denials] == ([] if allowed else ["WL901"])


def test_native_policies_load_as_they_are(snapshot_of, request_of, pod_of, now):
    text = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: replicas}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  validations: [{expression: "object.metadata.name != 'train-7'", message: not this one, reason: Forbidden}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: replicas}
spec: {policyName: replicas, validationActions: [Deny]}
"""
    verdict = validate(request_of(pod_of()), snapshot_of(text), FetchedData(), now)
    (finding,) = verdict.denials
    assert (finding.message, finding.reason, finding.code, finding.policy) == (
        "not this one",
        "Forbidden",
        "WL500",
        "replicas",
    )


def test_a_native_binding_may_name_params_that_its_policy_does_not_use(snapshot_of, request_of, pod_of, now):
    constraints = {
        "resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]}
        ]
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "probe"}}
    policy = {"matchConstraints": constraints, "validations": rule("false", message="no")}
    binding = {"policyName": "probe", "paramRef": {"name": "gone"}, "validationActions": ["Deny"]}
    snapshot = snapshot_of(
        {**kind, "kind": "ValidatingAdmissionPolicy", "spec": policy},
        {**kind, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    )
    verdict = validate(request_of(pod_of()), snapshot, FetchedData(), now)
    assert [finding.message for finding in verdict.denials] == ["no"]


def test_a_native_policy_without_binding_does_nothing():
    policy = compile_policy("p", PolicySpec(), BindingSpec(policy_name="p"))
    assert policy.rules == ()
