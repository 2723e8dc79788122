"""The authorizer library: the same questions to the API server's RBAC and to Weightlock's reading of its objects."""

from collections.abc import Iterator
from typing import Any

from differential.case import ALICE, BOB, NAMESPACE, ROBOT, Case, checks, people, rules

RBAC = "rbac.authorization.k8s.io"
R = "authorizer.group('').resource"

ASKED = (
    f"{R}('secrets').namespace('{NAMESPACE}').check('get').allowed()",
    f"{R}('secrets').namespace('{NAMESPACE}').name('shared').check('update').allowed()",
    f"{R}('secrets').namespace('{NAMESPACE}').name('other').check('update').allowed()",
    f"{R}('secrets').namespace('default').check('get').allowed()",
    f"{R}('secrets').check('get').allowed()",
    f"{R}('pods').subresource('exec').namespace('{NAMESPACE}').check('create').allowed()",
    f"{R}('pods').subresource('log').namespace('{NAMESPACE}').check('get').allowed()",
    "authorizer.group('apps').resource('deployments').check('list').allowed()",
    "authorizer.group('weightlock.dev').resource('accelerators').name('nvidia.com').check('use').allowed()",
    "authorizer.path('/metrics').check('get').allowed()",
    "authorizer.path('/logs/today').check('get').allowed()",
    "authorizer.path('/secret').check('get').allowed()",
    "authorizer.requestResource.check('create').allowed()",
    "authorizer.requestResource.check('approve').allowed()",
    f"{R}('secrets').namespace('{NAMESPACE}').check('get').errored()",
    f"{R}('secrets').namespace('{NAMESPACE}').check('get').error() == ''",
    f"{R}('secrets').namespace('{NAMESPACE}').check('get').reason() == ''",
)
ROBOT_IS = f"authorizer.serviceAccount('{NAMESPACE}', 'robot')"
OTHER_IS = f"authorizer.serviceAccount('{NAMESPACE}', 'other')"
LISTS = f"group('').resource('secrets').namespace('{NAMESPACE}').check('list')"
ACCOUNTS = (
    f"{ROBOT_IS}.{LISTS}.allowed()",
    f"{OTHER_IS}.{LISTS}.allowed()",
    "authorizer.serviceAccount('default', object.data.missing).path('/metrics').check('get').allowed()",
    "authorizer.serviceAccount('Not Valid', 'robot').path('/metrics').check('get').allowed()",
    f"{ROBOT_IS}.path('/logs/robot').check('get').allowed()",
)
SELECTORS = (
    f"{R}('secrets').namespace('{NAMESPACE}').fieldSelector('metadata.name=shared').check('get').allowed()",
    f"{R}('secrets').namespace('{NAMESPACE}').labelSelector('team in (a, b),!gone').check('get').allowed()",
    f"{R}('secrets').namespace('{NAMESPACE}').labelSelector('team=a').fieldSelector('spec.nodeName=n').check('list').allowed()",
    f"{R}('secrets').namespace('{NAMESPACE}').labelSelector('=bad=').check('get').allowed()",
    f"{R}('secrets').namespace('{NAMESPACE}').fieldSelector('bad').check('get').errored()",
    f"{R}('secrets').namespace('{NAMESPACE}').labelSelector('=bad=').check('get').error() == ''",
)
WRONG = (
    "authorizer.group('').resource('pods').check('get')",
    "authorizer.path('').check('get').allowed()",
    "authorizer.resource('pods').check('get').allowed()",
    "authorizer.group('').check('get').allowed()",
    "authorizer == authorizer",
    "has(authorizer.requestResource)",
    "authorizer.group('').resource('pods').check(object.data.missing).allowed()",
    "type(authorizer.group('')) == string",
)
# A decision, and what it is allowed by.
ALLOWED_BY = (
    (
        f"{R}('secrets').namespace('{NAMESPACE}').check('get')",
        f'RoleBinding "readers/{NAMESPACE}" of Role "readers" to User "alice"',
    ),
    (
        "authorizer.path('/metrics').check('get')",
        'ClusterRoleBinding "scrapers" of ClusterRole "scrapers" to Group "team-b"',
    ),
    (
        f"{ROBOT_IS}.{LISTS}",
        f'RoleBinding "robots/{NAMESPACE}" of Role "robots" to ServiceAccount "robot/{NAMESPACE}"',
    ),
)
REASONS = tuple(f"{decision}.reason() == 'RBAC: allowed by {source}'" for decision, source in ALLOWED_BY)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from people("authorizer", ASKED, (ALICE, BOB, ROBOT))
    yield from people("authorizer-reason", REASONS, (ALICE, BOB))
    yield from checks("authorizer-account", ACCOUNTS)
    yield from checks("authorizer-selector", SELECTORS)
    yield from checks("authorizer-wrong", WRONG)
    allowed = f"{R}('secrets').namespace('{NAMESPACE}').check('get').allowed()"
    yield Case("authorizer-in-message", rules("false", messageExpression=f"string({allowed})"))
    yield Case(
        "authorizer-in-audit", {"auditAnnotations": [{"key": "k", "valueExpression": f"string({allowed})"}]}
    )
    conditional = {"matchConditions": [{"name": "c", "expression": allowed}], **rules("false")}
    for person in (ALICE, BOB):
        yield Case(f"authorizer-in-condition-{person.name}", conditional, person=person)
    variable = {"variables": [{"name": "may", "expression": allowed}], **rules("!variables.may")}
    for person in (ALICE, BOB):
        yield Case(f"authorizer-in-variable-{person.name}", variable, person=person)


def rbac() -> list[dict[str, Any]]:
    """The roles and bindings that both sides have. The first allows every user to create the objects of the cases."""
    everything = {"apiGroups": ["", "apps", "autoscaling"], "verbs": ["create", "update", "delete", "get"]}
    resources = [
        "configmaps",
        "pods",
        "services",
        "serviceaccounts",
        "deployments",
        "horizontalpodautoscalers",
    ]
    resources += ["namespaces", "pods/exec", "pods/status", "deployments/scale", "pods/ephemeralcontainers"]
    roles = {"apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["create"]}
    things = {"apiGroups": ["differential.example.com"], "resources": ["things"], "verbs": ["*"]}
    others = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch", "deletecollection"]}
    readers = [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["update"], "resourceNames": ["shared"]},
        {"apiGroups": [""], "resources": ["*/log"], "verbs": ["*"]},
    ]
    scrapers = [
        {"nonResourceURLs": ["/metrics", "/logs/*"], "verbs": ["get"]},
        {
            "apiGroups": ["weightlock.dev"],
            "resources": ["accelerators"],
            "verbs": ["use"],
            "resourceNames": ["nvidia.com"],
        },
    ]
    robots = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]
    account = {"kind": "ServiceAccount", "name": "robot", "namespace": NAMESPACE}
    return [
        *_pair(
            "Cluster",
            "writers",
            [{**everything, "resources": resources}, roles, things, others],
            _subject("Group", "system:authenticated"),
        ),
        *_pair("", "readers", readers, _subject("User", "alice")),
        *_pair("Cluster", "scrapers", scrapers, _subject("Group", "team-b")),
        *_pair("", "robots", robots, account),
    ]


def _subject(kind: str, name: str) -> dict[str, str]:
    return {"kind": kind, "name": name, "apiGroup": RBAC}


def _pair(
    scope: str, name: str, inputs: list[dict[str, Any]], subject: dict[str, str]
) -> list[dict[str, Any]]:
    metadata = {"name": name} if scope else {"name": name, "namespace": NAMESPACE}
    common = {"apiVersion": f"{RBAC}/v1", "metadata": metadata}
    reference = {"apiGroup": RBAC, "kind": f"{scope}Role", "name": name}
    return [
        {**common, "kind": f"{scope}Role", "rules": inputs},
        {**common, "kind": f"{scope}RoleBinding", "subjects": [subject], "roleRef": reference},
    ]
