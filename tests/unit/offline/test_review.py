"""Offline reviews: a manifest becomes what an API server would send, and goes the way every request goes."""

import pytest
import yaml

from webhook.api.config import Settings
from webhook.manifests.reader import Manifest, ManifestError
from webhook.offline.provider import DirectoryProvider
from webhook.offline.review import Requester, account_groups, as_review, review

POLICY = """
apiVersion: weightlock.dev/v1alpha1
kind: WeightPolicy
metadata: {name: probe}
spec:
  code: WL101
  matchConstraints:
    resourceRules: [{apiGroups: ["*"], apiVersions: ["*"], resources: ["*/*"], operations: ["*"]}]
  validations:
  - expression: "object == null || object.metadata.name != 'bad'"
    messageExpression: "request.operation + ' by ' + request.userInfo.username"
  - {expression: "request.operation != 'UPDATE' || oldObject.metadata.name == object.metadata.name", message: renamed}
"""
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "good"},
    "spec": {"containers": [{"name": "a"}]},
}


@pytest.fixture
def source(tmp_path):
    """A state directory with one policy."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    return DirectoryProvider([tmp_path], Settings())


def named(name, **fields):
    return Manifest("test", {**POD, "metadata": {"name": name, **fields}})


def test_a_manifest_is_created_in_the_namespace_it_names_or_the_default(source):
    for manifest, expected in (
        (named("good", namespace="research"), "research"),
        (named("good"), "playground"),
    ):
        document = as_review(manifest.document, Requester(namespace="playground"), source.snapshot())
        assert document["request"]["namespace"] == expected
        assert document["request"]["object"]["metadata"]["namespace"] == expected
    assert "namespace" not in POD["metadata"]


def test_cluster_scoped_objects_get_no_namespace(source):
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "a"}}
    assert "namespace" not in as_review(volume, Requester(), source.snapshot())["request"]


@pytest.mark.parametrize(
    ("asker", "expected"),
    [
        (Requester(), "CREATE by system:serviceaccount:default:default"),
        (Requester(username="alice"), "CREATE by alice"),
        (
            Requester(username="alice", operation="UPDATE", old={**POD, "metadata": {"name": "bad"}}),
            "UPDATE by alice",
        ),
    ],
)
def test_the_requester_of_a_review(source, asker, expected):
    outcome = review(named("bad"), asker, source)
    assert expected in [finding.message for finding in outcome.verdict.denials]


def test_a_service_account_has_the_groups_the_api_server_gives_it():
    assert account_groups("system:serviceaccount:research:trainer") == (
        "system:serviceaccounts",
        "system:serviceaccounts:research",
        "system:authenticated",
    )
    assert account_groups("alice") == ("system:authenticated",)


def test_a_recorded_review_speaks_for_itself(source):
    recorded = as_review(named("bad").document, Requester(username="bob"), source.snapshot())
    outcome = review(Manifest("test", recorded), Requester(username="alice"), source)
    assert outcome.resource == recorded["request"]["uid"]
    assert [finding.message for finding in outcome.verdict.denials] == ["CREATE by bob"]


def test_a_deletion_has_only_an_old_object(source):
    request = as_review(named("bad").document, Requester(operation="DELETE"), source.snapshot())["request"]
    assert "object" not in request
    assert request["oldObject"]["metadata"]["name"] == "bad"


def test_generate_name_is_enough(source):
    outcome = review(Manifest("test", {**POD, "metadata": {"generateName": "run-"}}), Requester(), source)
    assert outcome.resource == "Pod/run-"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": "Pod"},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {}},
        {"kind": "AdmissionReview", "apiVersion": "v1"},
    ],
)
def test_other_documents_are_errors_that_name_their_location(source, document):
    with pytest.raises(ManifestError, match="test: "):
        review(Manifest("test", document), Requester(), source)


def test_the_patch_is_that_of_the_allowed_object_only(source):
    outcome = review(named("good"), Requester(), source)
    assert outcome.verdict.allowed
    assert [operation["path"] for operation in outcome.verdict.patch] == ["/spec/containers/0/env"]
    assert review(named("bad"), Requester(), source).verdict.patch == ()


def test_a_state_that_is_wrong_is_an_error_not_a_guess(tmp_path):
    policy = yaml.safe_load(POLICY)
    policy["spec"]["validations"] = [{"expression": "nope"}]
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(policy))
    with pytest.raises(ManifestError, match=r"broken\.yaml.*undeclared reference"):
        DirectoryProvider([tmp_path], Settings())
