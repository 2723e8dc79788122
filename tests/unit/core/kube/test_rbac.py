import pytest

from webhook.cel.authz import AccessCheck
from webhook.core.kube.rbac import decide

RBAC = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: use, namespace: research}
rules:
- {apiGroups: [""], resources: [serviceaccounts], resourceNames: [trainer], verbs: [use]}
- {apiGroups: [""], resources: [pods, pods/log], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: use, namespace: research}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: use}
subjects:
- {kind: User, name: alice}
- {kind: Group, name: team}
- {kind: ServiceAccount, name: bot}
- {kind: ServiceAccount, name: bot, namespace: other}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: health}
rules:
- {nonResourceURLs: [/healthz, /metrics/*], verbs: [get]}
- {apiGroups: ["*"], resources: ["*/scale"], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: all, labels: {}}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {part: "yes"}}]}
rules: []
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: part, labels: {part: "yes"}}
rules: [{apiGroups: [weightlock.dev], resources: [accelerators], verbs: [use]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: health}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: health}
subjects: [{kind: Group, name: ops}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: all, namespace: research}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: all}
subjects: [{kind: User, name: gina}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: dangling, namespace: research}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: gone}
subjects: [{kind: User, name: dan}]
"""


def use(user, *groups, name="trainer", namespace="research"):
    return AccessCheck(user, groups, verb="use", resource="serviceaccounts", namespace=namespace, name=name)


ALLOWED = {
    "the user": use("alice"),
    "a group": use("zoe", "team"),
    "a service account of the binding's namespace": use("system:serviceaccount:research:bot"),
    "a service account of another": use("system:serviceaccount:other:bot"),
    "a subresource that is named": AccessCheck(
        "alice", verb="get", resource="pods", subresource="log", namespace="research"
    ),
    "system:masters": use("root", "system:masters", namespace="anywhere"),
    "a path": AccessCheck("o", ("ops",), verb="get", path="/healthz"),
    "a path below": AccessCheck("o", ("ops",), verb="get", path="/metrics/slis"),
    "any resource's scale": AccessCheck(
        "o", ("ops",), verb="update", group="apps", resource="deployments", subresource="scale"
    ),
    "an aggregated role": AccessCheck(
        "gina",
        verb="use",
        group="weightlock.dev",
        resource="accelerators",
        name="nvidia.com",
        namespace="research",
    ),
}
REFUSED = {
    "another user": use("mallory"),
    "another name": use("alice", name="admin"),
    "another namespace": use("alice", namespace="playground"),
    "no name at all": use("alice", name=""),
    "another verb": AccessCheck(
        "alice", verb="delete", resource="serviceaccounts", namespace="research", name="trainer"
    ),
    "a subresource that is not named": AccessCheck(
        "alice", verb="get", resource="pods", subresource="exec", namespace="research"
    ),
    "another path": AccessCheck("o", ("ops",), verb="get", path="/healthz/x"),
    "a role that does not exist": use("dan"),
    "a namespaced role asked about the cluster": use("alice", namespace=""),
}


@pytest.mark.parametrize("question", ALLOWED.values(), ids=ALLOWED)
def test_allowed(snapshot_of, question):
    assert decide(question, snapshot_of(RBAC).objects).allowed


REASONS = {
    "alice": 'RoleBinding "use/research" of Role "use" to User "alice"',
    "system:serviceaccount:research:bot": 'RoleBinding "use/research" of Role "use" to ServiceAccount "bot/research"',
    "system:serviceaccount:other:bot": 'RoleBinding "use/research" of Role "use" to ServiceAccount "bot/other"',
}


@pytest.mark.parametrize(("user", "reason"), REASONS.items(), ids=REASONS)
def test_reasons_are_those_of_the_api_server(snapshot_of, user, reason):
    assert decide(use(user), snapshot_of(RBAC).objects).reason == f"RBAC: allowed by {reason}"


@pytest.mark.parametrize("question", REFUSED.values(), ids=REFUSED)
def test_refused(snapshot_of, question):
    assert not decide(question, snapshot_of(RBAC).objects).allowed
