"""Controllers that write pods for other objects, and the owners that they may write them for."""

import pytest
from pydantic import ValidationError

from webhook.api.config import Settings
from webhook.api.operators import PRESETS
from webhook.core.admission.controllers import controllers_of, unlisted_operators, writes_for_owner
from webhook.core.kube.objects import Lookup, MissingObjectError, ObjectStore
from webhook.core.workloads.templates import WorkloadTable

TABLE = WorkloadTable()
KUBERAY = {"username": "system:serviceaccount:kuberay:kuberay-operator", "groups": []}
JOBSET = {"username": "system:serviceaccount:jobset-system:jobset-controller-manager", "groups": []}
LISTED = Settings.model_validate({"operators": ["jobset", "kuberay"]})
CLUSTER = {
    "apiVersion": "ray.io/v1",
    "kind": "RayCluster",
    "metadata": {"name": "llm", "namespace": "research", "uid": "1"},
    "spec": {"headGroupSpec": {"template": {"spec": {"serviceAccountName": "trainer", "containers": []}}}},
}


def owned_by(document, uid="1", **changes):
    reference = {
        "apiVersion": document["apiVersion"],
        "kind": document["kind"],
        "name": document["metadata"]["name"],
    }
    return [{**reference, "uid": uid, "controller": True, **changes}]


@pytest.fixture
def decide(request_of, pod_of):
    def decide(
        user, owners, settings=LISTED, *, store=(CLUSTER,), complete=False, account="trainer", **fields
    ):
        pod = pod_of(serviceAccountName=account)
        if owners is not None:
            pod["metadata"]["ownerReferences"] = owners
        objects = ObjectStore(complete=complete)
        for document in store:
            objects.put(document)
        lookup = Lookup(objects, fields.pop("fetched", {}))
        return writes_for_owner(request_of(pod, userInfo=user, **fields), settings, TABLE, lookup, account)

    return decide


def test_an_operator_writes_for_an_owner_that_it_owns(decide):
    assert decide(KUBERAY, owned_by(CLUSTER))


def test_an_operator_that_is_not_listed_is_a_user(decide):
    assert not decide(KUBERAY, owned_by(CLUSTER), Settings())


def test_an_operator_does_not_own_other_kinds(decide):
    """A user who can make one operator write a pod for another operator's object gains nothing."""
    assert not decide(JOBSET, owned_by(CLUSTER))
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}
    assert not decide(KUBERAY, owned_by(deployment))


def test_the_owner_must_exist_with_its_uid(decide):
    with pytest.raises(MissingObjectError):
        decide(KUBERAY, owned_by(CLUSTER), store=())
    key = ("RayCluster.ray.io", "research", "llm")
    assert not decide(KUBERAY, owned_by(CLUSTER), store=(), fetched={key: None})
    assert not decide(KUBERAY, owned_by(CLUSTER, uid="2"))
    # A state directory need not contain it.
    assert decide(KUBERAY, owned_by(CLUSTER), store=(), complete=True)


def test_the_owner_must_name_the_account(decide):
    """KubeRay creates or reuses an account of the cluster's name: the name alone grants nothing."""
    squatter = {**CLUSTER, "metadata": {**CLUSTER["metadata"], "name": "server"}}
    assert not decide(KUBERAY, owned_by(squatter), store=(squatter,), account="server")
    silent = {**CLUSTER, "spec": {"headGroupSpec": {"template": {"spec": {"containers": []}}}}}
    assert not decide(KUBERAY, owned_by(silent), store=(silent,))
    assert decide(KUBERAY, owned_by(silent), store=(silent,), account="default")


@pytest.mark.parametrize(
    "owners", [[], [{"kind": "RayCluster", "controller": True}], ["x"], owned_by(CLUSTER, controller=False)]
)
def test_a_pod_without_a_controlling_owner_is_the_operators_own(decide, owners):
    assert not decide(KUBERAY, owners)


def test_a_malformed_owner_names_no_account(decide):
    assert not decide(KUBERAY, owned_by(CLUSTER), store=({**CLUSTER, "spec": []},))


def test_a_built_in_controller_owns_its_kind_only(decide):
    user = {"username": "system:serviceaccount:kube-system:job-controller", "groups": []}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}}
    assert decide(user, owned_by(job), store=())
    assert not decide(user, owned_by(CLUSTER), store=())


def test_a_plain_entry_has_the_kinds_of_the_preset_with_its_account(decide):
    settings = Settings(controllers=[KUBERAY["username"], "system:serviceaccount:x:mine"])
    assert decide(KUBERAY, owned_by(CLUSTER), settings)
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}}
    assert not decide(KUBERAY, owned_by(job), settings)
    assert controllers_of(settings).owns("system:serviceaccount:x:mine", "Anything.example.com")


def test_an_operator_may_be_elsewhere_or_without_a_preset(decide):
    other = {"username": "system:serviceaccount:ray:op", "groups": []}
    settings = Settings.model_validate(
        {"operators": [{"name": "kuberay", "namespace": "ray", "accounts": ["op"]}]}
    )
    assert decide(other, owned_by(CLUSTER), settings)
    assert not decide(KUBERAY, owned_by(CLUSTER), settings)
    custom = {"name": "mine", "namespace": "m", "accounts": ["a"], "owns": ["RayCluster.ray.io"]}
    settings = Settings.model_validate({"operators": [custom]})
    assert decide({"username": "system:serviceaccount:m:a", "groups": []}, owned_by(CLUSTER), settings)


@pytest.mark.parametrize(
    "operator", ["nothing", {"name": "mine", "accounts": ["a"]}, {"name": "kuberay", "x": 1}]
)
def test_an_unknown_preset_is_an_error(operator):
    with pytest.raises(ValidationError):
        Settings.model_validate({"operators": [operator]})


def test_an_unlisted_operator_is_named():
    assert unlisted_operators("RayCluster.ray.io", Settings()) == ("kuberay",)
    assert unlisted_operators("RayCluster.ray.io", LISTED) is None
    assert unlisted_operators("Thing.example.com", LISTED) == ()
    assert unlisted_operators("Deployment.apps", Settings()) is None
    assert unlisted_operators("WorkflowTemplate.argoproj.io", Settings()) is None


def test_presets_are_whole():
    for name, preset in PRESETS.items():
        assert preset.project.count("/") == 1, name
        assert preset.namespace
        assert preset.accounts
        assert all("." in kind for kind in preset.owns)
