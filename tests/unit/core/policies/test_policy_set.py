from webhook.core.kube.objects import Lookup
from webhook.core.policies.match import RequestKind
from webhook.core.policies.policy_set import _MAX_KINDS

TRUE = [{"expression": "true"}]
SECRETS = {"apiGroups": [""], "apiVersions": ["*"], "resources": ["secrets"], "operations": ["*"]}


def test_only_policies_that_can_match_are_looked_at(snapshot_of, policy_of, request_of, pod_of):
    always = policy_of("pods", validations=TRUE)
    never = policy_of("secrets", matchConstraints={"resourceRules": [SECRETS]}, validations=TRUE)
    snapshot = snapshot_of(always, never)
    request = request_of(pod_of())
    matching = snapshot.policies.matching(request, RequestKind.of(request), Lookup(snapshot.objects))
    assert [policy.name for policy in matching] == ["pods"]


def test_the_order_is_by_code_and_name(snapshot_of, policy_of):
    by_name = {"b": "WL101", "a": "WL101", "c": "WL100"}
    documents = [policy_of(name, code=code, validations=TRUE) for name, code in by_name.items()]
    assert [policy.name for policy in snapshot_of(*documents).policies.policies] == ["c", "a", "b"]


def test_the_match_cache_is_bounded(snapshot_of, policy_of, request_of, pod_of):
    policies = snapshot_of(policy_of(validations=TRUE)).policies
    request, lookup = request_of(pod_of()), Lookup(snapshot_of().objects)
    for number in range(_MAX_KINDS + 10):
        kind = RequestKind("", "v1", f"things{number}", "", "CREATE", namespaced=True)
        list(policies.matching(request, kind, lookup))
        if number == 0:
            first = len(policies._candidates)
    assert first == 1
    assert len(policies._candidates) <= _MAX_KINDS


def test_kinds_of_params_are_known_to_providers(snapshot_of, policy_of):
    kind = {"apiVersion": "rules.example.com/v1", "kind": "Limit"}
    assert snapshot_of(policy_of(paramKind=kind, validations=TRUE)).policies.param_kinds() == {
        "Limit.rules.example.com"
    }
