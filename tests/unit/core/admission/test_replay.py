"""A living object as the request that would create it now."""

import pytest

from webhook.core.admission.replay import account_of, creation_of
from webhook.core.kube.review import BadReviewError
from webhook.core.workloads.templates import WorkloadTable

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "train",
        "namespace": "research",
        "labels": {"app": "train"},
        "uid": "u",
        "resourceVersion": "7",
        "creationTimestamp": "2026-11-23T08:00:00Z",
        "generation": 1,
    },
    "spec": {"serviceAccountName": "trainer", "nodeName": "gpu-1", "containers": []},
    "status": {"phase": "Running"},
}


def test_fields_set_after_creation_are_removed_from_a_copy():
    request = creation_of(POD, "pods", "scan-u", "me", ["g"])
    assert request.object == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "train", "namespace": "research", "labels": {"app": "train"}},
        "spec": {"serviceAccountName": "trainer", "containers": []},
    }
    assert (request.operation, request.resource.name, request.user.groups) == ("CREATE", "pods", ("g",))
    assert POD["spec"]["nodeName"] == "gpu-1"


def test_only_a_pod_loses_its_node():
    other = {**POD, "apiVersion": "example.com/v1", "kind": "Thing"}
    assert creation_of(other, "things", "x", "me", []).object["spec"]["nodeName"] == "gpu-1"


def test_the_account_is_that_of_the_first_template():
    groups = ("system:serviceaccounts", "system:serviceaccounts:research", "system:authenticated")
    assert account_of(POD, WorkloadTable()) == ("system:serviceaccount:research:trainer", groups)
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "j", "namespace": "n"},
        "spec": {"template": {"spec": {"serviceAccountName": "runner"}}},
    }
    assert account_of(job, WorkloadTable())[0] == "system:serviceaccount:n:runner"
    assert account_of({**job, "spec": {}}, WorkloadTable())[0] == "system:serviceaccount:n:default"


def test_another_kind_of_document_is_an_error():
    with pytest.raises(BadReviewError):
        creation_of(POD, "", "scan-u", "me", [])
