import pytest

from webhook.api.config import Settings
from webhook.core.admission.subject import service_account_of
from webhook.core.admission.subject import subject_of as subject_with
from webhook.core.kube.objects import Lookup, ObjectStore
from webhook.core.workloads.templates import WorkloadTable

TABLE = WorkloadTable()


def subject_of(request, pod, settings):
    return subject_with(request, pod, settings, TABLE, Lookup(ObjectStore(complete=True)))


CONTROLLER = {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": []}
OWNED = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1", "controller": True}]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, "default"),
        ({"serviceAccountName": "trainer"}, "trainer"),
        ({"serviceAccount": "trainer"}, "trainer"),
        ({"serviceAccountName": "", "serviceAccount": ""}, "default"),
        ({"serviceAccountName": 7}, "default"),
    ],
)
def test_service_account(spec, expected):
    assert service_account_of({"spec": spec}) == expected


def test_the_subject_of_a_users_request_is_the_user(request_of, pod_of):
    pod = pod_of(serviceAccountName="trainer")
    subject = subject_of(request_of(pod), pod, Settings())
    assert (subject.username, subject.service_account) == ("alice", "trainer")
    assert subject.account_key == ("research", "trainer")


def test_the_subject_of_a_workload_controllers_pod_is_its_service_account(request_of, pod_of):
    pod = pod_of(serviceAccountName="trainer")
    pod["metadata"]["ownerReferences"] = OWNED
    subject = subject_of(request_of(pod, userInfo=CONTROLLER), pod, Settings())
    assert subject.username == "system:serviceaccount:research:trainer"
    assert "system:serviceaccounts:research" in subject.groups


@pytest.mark.parametrize("owners", [None, [], [{"kind": "ReplicaSet", "controller": False}], ["x"]])
def test_the_subject_of_an_orphan_pod_is_the_controller(request_of, pod_of, owners):
    pod = pod_of()
    if owners is not None:
        pod["metadata"]["ownerReferences"] = owners
    subject = subject_of(request_of(pod, userInfo=CONTROLLER), pod, Settings())
    assert subject.username == CONTROLLER["username"]


def test_an_owner_reference_makes_no_controller_of_a_person(request_of, pod_of):
    pod = pod_of()
    pod["metadata"]["ownerReferences"] = OWNED
    assert subject_of(request_of(pod), pod, Settings()).username == "alice"


def test_without_a_pod_there_is_no_service_account(request_of):
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}
    assert subject_of(request_of(document), None, Settings()).account_key is None


def test_the_subject_of_a_token_request_is_its_service_account(request_of):
    token = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "metadata": {"namespace": "research"},
    }
    fields = {"resource": {"group": "", "version": "v1", "resource": "serviceaccounts"}, "name": "trainer"}
    subject = subject_of(request_of(token, subResource="token", **fields), None, Settings())
    assert (subject.username, subject.account_key) == ("alice", ("research", "trainer"))
    assert subject_of(request_of(token, **fields), None, Settings()).account_key is None
