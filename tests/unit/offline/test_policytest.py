"""Policy tests: what a case may say, what counts as passed, and what is an error of the file."""

import pytest
import yaml

from webhook.manifests.reader import ManifestError
from webhook.offline.policytest import merged, suites

POLICY = {
    "apiVersion": "weightlock.dev/v1alpha1",
    "kind": "WeightPolicy",
    "metadata": {"name": "names"},
    "spec": {
        "code": "WL101",
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["*"], "resources": ["*", "*/*"], "operations": ["*"]}
            ]
        },
        "validations": [
            {
                "expression": "object == null || !object.metadata.name.startsWith('bad')",
                "messageExpression": "request.userInfo.username + ' named it ' + object.metadata.name",
                "fix": "'call it good'",
            }
        ],
    },
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "bad", "namespace": "research"},
    "spec": {"containers": [{"name": "main", "image": "x"}]},
}
DENIED = {"allowed": False}


@pytest.fixture
def write(tmp_path):
    """Write policy and cases; gives the directory."""

    def call(*cases, policy=POLICY, name="names", **fields):
        (tmp_path / "names.yaml").write_text(yaml.safe_dump(policy))
        (tmp_path / f"{name}.test.yaml").write_text(yaml.safe_dump({"cases": list(cases), **fields}))
        return tmp_path

    return call


@pytest.fixture
def problems(write):
    """Run one case; gives its problems."""

    def call(expect, policy=POLICY, fields=None, **case):
        case = {"name": "case", "object": POD, "expect": expect, **case}
        (suite,) = suites(write(case, policy=policy, **(fields or {})))
        return list(suite.run(suite.cases[0]).problems)

    return call


def test_as_expected(problems):
    expect = {
        "allowed": False,
        "codes": ["WL101"],
        "message": "named it bad",
        "fix": "good",
        "injected": False,
    }
    assert problems(expect) == []
    assert problems({"allowed": True}, change={"metadata": {"name": "fine"}}) == []


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        ({"allowed": True}, "expected it to be allowed: "),
        ({"allowed": False, "codes": ["WL102"]}, "expected codes WL102: "),
        ({"allowed": False, "codes": []}, "expected codes : "),
        ({"allowed": False, "message": "other"}, "expected a message with 'other': "),
        ({"allowed": False, "fix": "other"}, "expected a fix with 'other': call it good"),
        ({"allowed": False, "warning": "other"}, "expected a warning with 'other': there is none"),
        ({"allowed": False, "injected": True}, "expected the key sidecar to be added"),
    ],
)
def test_not_as_expected(problems, expect, words):
    (problem,) = problems(expect)
    assert problem.startswith(words)


def test_something_else_was_allowed(problems):
    (problem,) = problems(DENIED, change={"metadata": {"name": "fine"}})
    assert problem == "expected it to be denied: no finding denies it"


def test_a_policy_that_cannot_be_evaluated_fails_the_case(problems):
    policy = {**POLICY, "spec": {**POLICY["spec"], "validations": [{"expression": "object.missing == 1"}]}}
    (problem,) = problems(DENIED, policy=policy)
    assert problem.startswith("a policy could not be evaluated: ")
    assert problems({"allowed": False, "codes": ["WL901"]}, policy=policy) == []


@pytest.mark.parametrize(
    ("who", "name"),
    [
        ({"user": "alice"}, "alice"),
        ({"serviceAccount": "ci/deployer"}, "system:serviceaccount:ci:deployer"),
        ({}, "system:serviceaccount:research:default"),
    ],
)
def test_the_requester_of_a_case(problems, who, name):
    assert problems({"allowed": False, "message": f"{name} named"}, who=who) == []


def test_the_requester_of_the_file_applies_to_each_case(problems):
    assert problems({"allowed": False, "message": "eve named"}, fields={"who": {"user": "eve"}}) == []


def test_groups_and_extra(problems):
    source = "request.userInfo.extra['risk'][0] == 'low' && 'a' in request.userInfo.groups"
    policy = {**POLICY, "spec": {**POLICY["spec"], "validations": [{"expression": source}]}}
    who = {"user": "alice", "groups": ["a"], "extra": {"risk": ["low"]}}
    assert problems({"allowed": True}, policy=policy, who=who) == []


def test_other_operations(problems):
    assert problems({"allowed": True}, operation="DELETE") == []
    assert problems(DENIED, operation="UPDATE", old=POD) == []


def test_a_request_whose_object_does_not_name_it(problems):
    source = (
        "request.resource.resource == 'pods' && request.subResource == 'exec' && request.name == 'p' "
        "&& request.namespace == 'research' && request.operation == 'CONNECT' && request.kind.kind == 'PodExecOptions'"
    )
    policy = {**POLICY, "spec": {**POLICY["spec"], "validations": [{"expression": source}]}}
    case = {"operation": "CONNECT", "resource": "pods", "subresource": "exec", "objectName": "p"}
    exec_options = {"apiVersion": "v1", "kind": "PodExecOptions"}
    assert problems({"allowed": True}, policy=policy, namespace="research", object=exec_options, **case) == []


def test_a_cluster_scoped_request(problems):
    policy = {
        **POLICY,
        "spec": {**POLICY["spec"], "validations": [{"expression": "!has(request.namespace)"}]},
    }
    case = {
        "operation": "CONNECT",
        "resource": "nodes",
        "subresource": "proxy",
        "objectName": "node-1",
        "namespace": "",
    }
    options = {"apiVersion": "v1", "kind": "NodeProxyOptions"}
    assert problems({"allowed": True}, policy=policy, object=options, **case) == []


def test_state_of_the_file_and_of_the_case(write, tmp_path):
    spec = {
        **POLICY["spec"],
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "paramRef": {"name": "c", "parameterNotFoundAction": "Deny"},
        "validations": [{"expression": "params.data.name == object.metadata.name"}],
    }

    def config(name):
        metadata = {"name": "c", "namespace": "research"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"name": name}}

    (tmp_path / "shared.state.yaml").write_text(yaml.safe_dump(config("bad")))
    good = {"name": "file", "object": POD, "expect": {"allowed": True}}
    own = {
        "name": "case",
        "object": POD,
        "state": [config("other")],
        "expect": {"allowed": False, "codes": ["WL101"]},
    }
    directory = write(good, own, policy={**POLICY, "spec": spec}, state=["shared.state.yaml"])
    (suite,) = suites(directory)
    assert [suite.run(case).passed for case in suite.cases] == [True, True]


def test_policies_of_other_files(write):
    directory = write({"name": "c", "object": POD, "expect": DENIED}, name="other", policies=["names.yaml"])
    (suite,) = suites(directory)
    assert suite.run(suite.cases[0]).passed
    (suite,) = suites(write({"name": "c", "object": POD, "expect": DENIED}, name="other", policies="all"))
    assert suite.run(suite.cases[0]).passed


@pytest.mark.parametrize(
    ("case", "fields", "words"),
    [
        ({"name": "c", "expect": DENIED}, {}, "needs object"),
        ({"name": "c", "object": POD, "operation": "UPDATE", "expect": DENIED}, {}, "needs old"),
        ({"name": "c", "object": POD, "expects": DENIED}, {}, "expect: Field required"),
        ({"name": "c", "object": POD, "expect": DENIED}, {"polices": []}, "polices"),
        (
            {"name": "c", "object": POD, "who": {"serviceAccount": "x"}, "expect": DENIED},
            {},
            "serviceAccount",
        ),
    ],
)
def test_a_file_that_is_none(write, case, fields, words):
    with pytest.raises(ManifestError, match=words):
        list(suites(write(case, **fields)))


def test_a_case_whose_object_is_none(write):
    (suite,) = suites(write({"name": "c", "object": {"kind": "Pod"}, "expect": DENIED}))
    with pytest.raises(ManifestError, match=r"names\.test\.yaml: c: not a Kubernetes object"):
        suite.run(suite.cases[0])


@pytest.mark.parametrize("name", ["../names.yaml", "/etc/hostname"])
def test_nothing_outside_the_directory_is_read(write, name):
    (suite,) = suites(write({"name": "c", "object": POD, "expect": DENIED}, policies=[name]))
    with pytest.raises(ManifestError, match="is not below"):
        suite.run(suite.cases[0])


def test_a_policy_that_does_not_compile_is_an_error(write):
    policy = {**POLICY, "spec": {**POLICY["spec"], "validations": [{"expression": "nothing"}]}}
    (suite,) = suites(write({"name": "c", "object": POD, "expect": DENIED}, policy=policy))
    with pytest.raises(ManifestError, match="undeclared reference"):
        suite.run(suite.cases[0])


def test_a_test_file_of_two_documents_is_rejected(tmp_path):
    (tmp_path / "a.test.yaml").write_text("cases: []\n---\ncases: []\n")
    with pytest.raises(ManifestError, match="one YAML document"):
        list(suites(tmp_path))


# The examples of RFC 7396, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches(target, patch, result):
    assert merged(target, patch) == result
