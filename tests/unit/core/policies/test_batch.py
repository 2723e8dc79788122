from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from webhook.cel.authz import Decision
from webhook.core.admission.provider import FetchedData, RequiredData
from webhook.core.admission.validate import validate
from webhook.core.policies.policy_set import _BATCH_SIZE

# What holds, what does not, what has no value, what no Python callback may answer in a batch, and the engine's faults.
RULES = (
    "true",
    "false",
    "object.missing == 1",
    "object.missing == 1 || true",
    "!has(object.spec.hostNetwork)",
    "has(object.spec.hostNetwork) && object.spec.hostNetwork",
    "object.spec.containers.all(c, c.image.startsWith('registry.example.com/'))",
    "object.spec.containers.exists(c, c.name == 'main')",
    "[1, 2, 3].exists(x, x == 1)",
    "has(pod.spec) && size(pod.spec.containers) > 0",
    "pod == null || pod.spec.containers.exists(pod, pod.name == 'main')",
    "namespaceObject != null && namespaceObject.metadata.name == 'research'",
    "[1, 2].all(a, [1, 2].all(b, a + b < 9))",
    "lists.range(200).all(a, lists.range(100).all(b, a + b < 1000))",
    "object.metadata.?labels.optMap(l, 'red' in l).orValue(true)",
    "object.metadata.?name.optMap(n, n.size() < 64).orValue(false)",
    "request.operation == 'CREATE' && request.userInfo.username == 'alice'",
    "authorizer.group('').resource('pods').check('create').allowed()",
    "'%s'.format([object.metadata.name]) == 'train-7'",
    "weights.all(w, w.model == 'atlas-70b') && devices.size() == 0",
    "params.data.name == object.metadata.name",
)
WITH_VARIABLES = (
    "variables.names.exists(n, n == 'main')",
    "variables.first",
    "object.metadata.name == 'train-7' || variables.broken",
    "variables.broken",
    "[1].exists(x, true) && variables.later",
    "variables.there",
)
VARIABLES = [
    {"name": "names", "expression": "object.spec.containers.map(c, c.name)"},
    {"name": "first", "expression": "variables.names[0] == 'main'"},
    {"name": "broken", "expression": "object.missing == 1"},
    {"name": "later", "expression": "variables.first || variables.broken"},
    {"name": "there", "expression": "namespaceObject != null"},
]
# The same names and types in another policy, and other values.
OTHERS = [
    {"name": "names", "expression": "['main', object.metadata.name]"},
    {"name": "first", "expression": "variables.names[1] == 'main'"},
    {"name": "broken", "expression": "object.spec.containers[7].name == 'x'"},
    {"name": "later", "expression": "!variables.first"},
    {"name": "there", "expression": "pod != null"},
]
# In conditions a namespaceObject is null.
CONDITIONS = (*RULES, "namespaceObject == null")
PARAM_KINDS = [{"apiVersion": "v1", "kind": "ConfigMap"}]
PARAMS = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "limits", "namespace": "research"},
    "data": {"name": "train-7"},
}
PODS = {"apiGroups": [""], "apiVersions": ["*"], "resources": ["pods"], "operations": ["*"]}
NAMED = {**PODS, "resourceNames": ["train-7"]}
SELECTORS = ({}, {"objectSelector": {"matchLabels": {"color": "red"}}}, {"resourceRules": [NAMED]})


def specs():
    def validations(pool):
        rule = st.fixed_dictionaries(
            {"expression": st.sampled_from(pool)},
            optional={"messageExpression": st.sampled_from(["'by ' + object.metadata.name", "object.none"])},
        )
        return st.lists(rule, min_size=1, max_size=3)

    return st.fixed_dictionaries(
        {
            "matchConstraints": st.sampled_from([{"resourceRules": [PODS], **each} for each in SELECTORS]),
            "failurePolicy": st.sampled_from(["Fail", "Ignore"]),
            "validationActions": st.sampled_from([["Deny"], ["Warn", "Audit"]]),
            "matchConditions": st.lists(st.sampled_from(CONDITIONS), max_size=3).map(
                lambda sources: [{"name": f"c{n}", "expression": s} for n, s in enumerate(sources)]
            ),
            "variables": st.sampled_from([VARIABLES, OTHERS]),
            "validations": validations(RULES + WITH_VARIABLES),
        },
        optional={
            "auditAnnotations": st.just([{"key": "k", "valueExpression": "object.metadata.name"}]),
            "paramKind": st.sampled_from(PARAM_KINDS),
            "paramRef": st.builds(
                lambda name, action: {
                    "name": name,
                    "namespace": "research",
                    "parameterNotFoundAction": action,
                },
                st.sampled_from(["limits", "absent"]),
                st.sampled_from(["Allow", "Deny"]),
            ),
        },
    ).filter(lambda spec: ("paramKind" in spec) == ("paramRef" in spec))


def both_ways(request, snapshot, now):
    """The verdict of the policies together, and of each by itself; timings without seconds, in one order."""
    ticks = count()
    matches = []
    for clock in (None, lambda: float(next(ticks))):
        fetched_items = FetchedData()
        while isinstance(
            verdict := validate(request, snapshot, fetched_items, now, clock=clock), RequiredData
        ):
            decisions = dict.fromkeys(verdict.questions, Decision(allowed=True))
            fetched_items = fetched_items.merge(FetchedData(decisions, dict.fromkeys(verdict.objects)))
        timings = getattr(verdict, "timings", ())
        outcomes = sorted((policy, result) for policy, result, _ in timings)
        content = {name: getattr(verdict, name) for name in verdict._fields if name != "timings"}
        matches.append((type(verdict), content, outcomes))
    return matches


@given(documents=st.lists(specs(), min_size=1, max_size=8), labels=st.sampled_from([{}, {"color": "red"}]))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_together_and_alone_are_one_verdict(
    documents, labels, snapshot_of, policy_of, request_of_fuzz, pod_of, now
):
    pod = pod_of()
    pod["metadata"]["labels"] = labels
    policies = (policy_of(f"p{number}", **spec) for number, spec in enumerate(documents))
    snapshot = snapshot_of(PARAMS, *policies)
    together, alone = both_ways(request_of_fuzz(pod), snapshot, now)
    assert together == alone


@pytest.mark.parametrize("other", RULES + WITH_VARIABLES)
@pytest.mark.parametrize("variables", [VARIABLES, OTHERS])
def test_each_expression_beside_others(other, variables, snapshot_of, policy_of, request_of, pod_of, now):
    sources = ("[1].exists(x, true)", other, "variables.first", other)
    policies = [
        policy_of(f"p{number}", variables=variables, validations=[{"expression": source}])
        for number, source in enumerate(sources)
    ]
    together, alone = both_ways(request_of(pod_of()), snapshot_of(*policies), now)
    assert together == alone


def test_a_condition_s_namespace_is_not_the_rules_one(snapshot_of, policy_of, request_of, pod_of, now):
    policies = [
        policy_of(
            f"p{number}",
            matchConditions=[{"name": "c", "expression": "namespaceObject == null"}],
            validations=[{"expression": "namespaceObject.metadata.name == 'research'"}],
        )
        for number in range(3)
    ]
    snapshot = snapshot_of(*policies)
    together, alone = both_ways(request_of(pod_of()), snapshot, now)
    assert together == alone
    assert together[2] == [(f"p{number}", "pass") for number in range(3)]


def test_passing_rules_are_not_evaluated_individually(
    snapshot_of, policy_of, request_of, pod_of, now, monkeypatch
):
    sources = ["true", "has(object.metadata)", "false"]
    snapshot = snapshot_of(
        *(policy_of(f"p{n}", validations=[{"expression": s}]) for n, s in enumerate(sources))
    )
    request = request_of(pod_of())
    seen = []
    policy = type(snapshot.policies.policies[0])
    evaluate = policy.evaluate
    monkeypatch.setattr(
        policy, "evaluate", lambda self, *rest, **how: seen.append(self.name) or evaluate(self, *rest, **how)
    )
    verdict = validate(request, snapshot, FetchedData(), now)
    assert seen == ["p2"]
    assert {seconds for *_, seconds in verdict.timings} == {None}


ASKS = "authorizer.group('').resource('pods').check('create').allowed()"


@pytest.mark.parametrize(
    ("spec", "alone"),
    [
        ({"validations": [{"expression": ASKS}]}, ["p"]),
        ({"validations": [{"expression": ASKS}], "matchConditions": ["false"]}, []),
        (
            {"validations": [{"expression": ASKS}], "matchConditions": ["true", ASKS]},
            ["p"],
        ),
        ({"validations": [{"expression": ASKS}], "matchConditions": [ASKS, "false"]}, []),
    ],
)
def test_a_false_condition_skips_rules_that_cannot_be_combined(
    spec, alone, snapshot_of, policy_of, request_of, pod_of, now, monkeypatch
):
    names = [
        {"name": f"c{n}", "expression": source} for n, source in enumerate(spec.get("matchConditions", []))
    ]
    others = [policy_of(f"q{n}", validations=[{"expression": "true"}]) for n in range(2)]
    snapshot = snapshot_of(policy_of("p", **{**spec, "matchConditions": names}), *others)
    request = request_of(pod_of())
    assert both_ways(request, snapshot, now)[0] == both_ways(request, snapshot, now)[1]
    seen = []
    policy = type(snapshot.policies.policies[0])
    evaluate = policy.evaluate
    monkeypatch.setattr(
        policy, "evaluate", lambda self, *rest, **how: seen.append(self.name) or evaluate(self, *rest, **how)
    )
    validate(request, snapshot, FetchedData(), now)
    assert seen == alone


@pytest.mark.parametrize("action", ["Allow", "Deny"])
def test_params_that_must_exist_count_even_where_a_condition_is_false(
    action, snapshot_of, policy_of, request_of, pod_of, now
):
    policies = [
        policy_of(
            f"p{n}",
            paramKind=PARAM_KINDS[0],
            paramRef={"name": "absent", "namespace": "research", "parameterNotFoundAction": action},
            matchConditions=[{"name": "c", "expression": "false"}],
            validations=[{"expression": "params.data.name == object.metadata.name"}],
        )
        for n in range(2)
    ]
    together, alone = both_ways(request_of(pod_of()), snapshot_of(*policies), now)
    assert together == alone
    assert len(together[1]["denials"]) == (2 if action == "Deny" else 0)


def test_a_request_waits_for_one_batch_to_be_made(snapshot_of, policy_of, request_of, pod_of, now):
    policies = [policy_of(f"p{n:03}", validations=[{"expression": "true"}]) for n in range(_BATCH_SIZE * 2)]
    snapshot = snapshot_of(*policies)
    request = request_of(pod_of())
    produced = []
    for _ in range(3):
        verdict = validate(request, snapshot, FetchedData(), now)
        assert sorted(policy for policy, result, _ in verdict.timings if result == "pass") == [
            policy["metadata"]["name"] for policy in policies
        ]
        produced.append(sum(group.ready for group in snapshot.policies._groups.values()))
    assert produced == [1, 2, 2]


def test_rules_nested_too_deeply_together_are_evaluated_individually(
    snapshot_of, policy_of, request_of, pod_of, now
):
    deep = "(" * 20 + "1" + " + object.metadata.name.size())" * 20 + " > 0"
    policies = [policy_of(f"p{n}", validations=[{"expression": deep}]) for n in range(2)]
    together, alone = both_ways(request_of(pod_of()), snapshot_of(*policies), now)
    assert together == alone
