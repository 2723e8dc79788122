"""Changes of objects that other workloads take their pods from."""

from copy import deepcopy

import pytest

from webhook.core.facts.dependents import MAX_USERS, dependents
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import ALL, Lookup, MissingObjectError, ObjectKey, ObjectStore
from webhook.core.kube.review import parse_request
from webhook.core.workloads.templates import WorkloadTable

TABLE = WorkloadTable()


def argo(kind, name, **spec):
    metadata = {"name": name} if kind.startswith("Cluster") else {"name": name, "namespace": "research"}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def template(image, kind="WorkflowTemplate", name="shared"):
    return argo(kind, name, templates=[{"name": "main", "container": {"image": image}}])


USER = argo("Workflow", "nightly", workflowTemplateRef={"name": "shared"}, serviceAccountName="trainer")


def changes(new, old, *store, complete=True, fetched=None):
    objects = ObjectStore(complete=complete)
    for document in store:
        objects.put(document)
    kind = {"group": "argoproj.io", "version": "v1alpha1", "kind": new["kind"]}
    resource = {"group": "argoproj.io", "version": "v1alpha1", "resource": f"{new['kind'].lower()}s"}
    request = {
        "uid": "1",
        "operation": "UPDATE" if old else "CREATE",
        "kind": kind,
        "resource": resource,
        "name": new["metadata"]["name"],
        "namespace": new["metadata"].get("namespace", ""),
        "userInfo": {"username": "mallory"},
        "object": new,
        "oldObject": old,
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    lookup = Lookup(objects, fetched or {})
    return [
        (one.document["metadata"]["name"], one.template.pod["spec"]["containers"][0]["image"])
        for one in dependents(parse_request(review), lookup, TABLE)
    ]


def test_the_change_of_a_template_changes_the_workflows_that_use_it():
    new, old = template("evil"), template("good")
    other = argo("Workflow", "other", workflowTemplateRef={"name": "mine"}, serviceAccountName="trainer")
    assert changes(new, old, old, USER, other) == [("nightly", "evil")]


def test_a_template_that_is_created_again_is_a_change():
    assert changes(template("evil"), None, USER) == [("nightly", "evil")]


def test_a_change_that_reaches_no_pod_is_none():
    old = template("good")
    labelled = {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}
    assert changes(labelled, old, old, USER) == []
    priority = {**old, "spec": {**old["spec"], "priority": 3}}
    assert changes(priority, old, old, USER) == []


def test_a_finished_workflow_is_skipped():
    old = template("good")
    assert changes(template("evil"), old, old, {**USER, "status": {"phase": "Succeeded"}}) == []
    assert changes(template("evil"), old, old, {**USER, "status": {"phase": "Running"}})


def test_a_template_that_another_template_calls_counts():
    step = {"name": "s", "templateRef": {"name": "inner", "template": "main"}}
    middle = argo("WorkflowTemplate", "shared", templates=[{"name": "start", "steps": [[step]]}])
    old = template("good", name="inner")
    assert changes(template("evil", name="inner"), old, old, middle, USER) == [("nightly", "evil")]


def test_a_cluster_scoped_template_is_used_in_every_namespace():
    user = deepcopy(USER)
    user["spec"]["workflowTemplateRef"]["clusterScope"] = True
    new, old = template("evil", "ClusterWorkflowTemplate"), template("good", "ClusterWorkflowTemplate")
    assert changes(new, old, old, user) == [("nightly", "evil")]


def test_on_a_cluster_the_workloads_are_listed_first():
    new, old = template("evil"), template("good")
    with pytest.raises(MissingObjectError):
        changes(new, old, complete=False)
    lists = {
        ObjectKey("Workflow.argoproj.io", "research", ALL): {"items": [USER]},
        ObjectKey("CronWorkflow.argoproj.io", "research", ALL): None,
        ObjectKey("Sensor.argoproj.io", "research", ALL): None,
    }
    assert changes(new, old, complete=False, fetched=lists) == [("nightly", "evil")]


def test_the_number_of_workloads_is_bounded():
    users = [{**USER, "metadata": {"name": f"w{n}", "namespace": "research"}} for n in range(MAX_USERS + 1)]
    with pytest.raises(MalformedObjectError, match="more than"):
        changes(template("evil"), template("good"), *users)
