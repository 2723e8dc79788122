"""Pods in free-form fields, and objects inside objects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.core.kube.fields import MalformedObjectError
from webhook.core.workloads.shapes import MAX_FREE_DEPTH, MAX_FREE_NODES
from webhook.core.workloads.templates import MAX_NESTING, WorkloadTable

TABLE = WorkloadTable()
PLACE = "spec-workload-manifests-0"
POD = {"containers": [{"name": "main", "image": "train"}]}
JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "j", "namespace": "other"},
    "spec": {"template": {"spec": POD}},
}


def work(*manifests, **metadata):
    return {"metadata": metadata, "spec": {"workload": {"manifests": list(manifests)}}}


def templates(document):
    return TABLE.templates(document, "work.karmada.io", "Work")


def test_an_object_inside_another_is_read_as_its_own_kind():
    (template,) = templates(work(JOB))
    assert template.path == "spec.workload.manifests[0].spec.template"
    assert (template.pod["spec"], template.namespace, template.shaped) == (POD, "other", False)


def test_objects_may_be_nested_within_a_bound():
    inner = JOB
    for _ in range(MAX_NESTING - 1):
        inner = {"apiVersion": "work.karmada.io/v1", "kind": "Work", **work(inner)}
    (template,) = templates(work(inner))
    assert template.pod["spec"] == POD
    with pytest.raises(MalformedObjectError, match="nested too deeply"):
        templates(work({"apiVersion": "work.karmada.io/v1", "kind": "Work", **work(inner)}))


def test_objects_inside_objects_are_listed_with_their_places():
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {}}
    inner = {"apiVersion": "work.karmada.io/v1", "kind": "Work", **work(claim)}
    items = TABLE.embedded(work(inner, JOB), "Work.work.karmada.io")
    assert {item.path: item.document["kind"] for item in items} == {
        "spec.workload.manifests[0]": "Work",
        "spec.workload.manifests[0].spec.workload.manifests[0]": "PersistentVolumeClaim",
        "spec.workload.manifests[1]": "Job",
    }
    deep = claim
    for _ in range(MAX_NESTING + 1):
        deep = {"apiVersion": "work.karmada.io/v1", "kind": "Work", **work(deep)}
    with pytest.raises(MalformedObjectError, match="nested too deeply"):
        list(TABLE.embedded(work(deep), "Work.work.karmada.io"))


def test_an_unknown_kind_inside_another_is_searched_by_shape():
    unknown = {
        "apiVersion": "example.com/v1",
        "kind": "Thing",
        "metadata": {},
        "spec": {"pod": {"spec": POD}},
    }
    (template,) = templates(work(unknown))
    assert (template.path, template.shaped) == ("spec.workload.manifests[0].spec.pod", True)


def test_a_list_of_objects_is_searched():
    items = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [JOB, JOB]}
    assert len(templates(work(items))) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"spec": POD}, {"containers": POD["containers"]}),
        (
            {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
            {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
        ),
        (
            {"slurmd": {"volumeMounts": [{"name": "v"}]}},
            {"containers": [{"name": "slurmd", "volumeMounts": [{"name": "v"}]}]},
        ),
        ({"a": {"image": "x", "args": []}}, {"containers": [{"name": "a", "image": "x", "args": []}]}),
        (
            {"cache": {"pvcName": "c"}},
            {
                "volumes": [
                    {
                        "name": "spec-workload-manifests-0-cache-pvcName",
                        "persistentVolumeClaim": {"claimName": "c"},
                    }
                ]
            },
        ),
        (
            {"storage": {"hostPath": "/mnt/models"}},
            {"volumes": [{"name": f"{PLACE}-storage-hostPath", "hostPath": {"path": "/mnt/models"}}]},
        ),
        (
            {"storage": {"nfs": {"server": "s", "path": "/p"}}},
            {"volumes": [{"name": f"{PLACE}-storage-nfs", "nfs": {"server": "s", "path": "/p"}}]},
        ),
        (
            {"cache": {"claim": "c", "subPath": "x"}},
            {"volumes": [{"name": f"{PLACE}-cache-claim", "persistentVolumeClaim": {"claimName": "c"}}]},
        ),
        (
            {"image": "x", "args": [], "hostPath": "/mnt", "claim": "c", "subPath": "x"},
            {
                "volumes": [
                    {"name": f"{PLACE}-hostPath", "hostPath": {"path": "/mnt"}},
                    {"name": f"{PLACE}-claim", "persistentVolumeClaim": {"claimName": "c"}},
                ]
            },
        ),
        ({"serviceAccount": {"create": True, "name": "s"}}, {"serviceAccountName": "s"}),
        (
            {"patches": [{"op": "add", "path": "/spec/serviceAccountName", "value": "s"}]},
            {"serviceAccountName": "s"},
        ),
        (
            {"serviceAccountName": "s", "sidecars": [{"name": "c", "image": "i"}]},
            {"serviceAccountName": "s", "containers": [{"name": "c", "image": "i"}]},
        ),
    ],
)
def test_parts_are_found_by_shape(value, expected):
    (template,) = templates(work(value))
    assert {key: template.pod["spec"].get(key) for key in expected} == expected


@pytest.mark.parametrize(
    "value",
    [
        {"image": "just a picture"},
        {"containers": ["a"]},
        {"containers": 3},
        {"volumes": "x"},
        {"env": [{"name": "A"}]},
        {"kind": "x"},
        {"hostPath": "relative", "csi": {"name": "x"}, "nfs": {"server": "s"}},
        {"claim": "groups", "header": "x", "path": "/x"},
    ],
)
def test_other_values_are_not_parts(value):
    assert templates(work(value)) == ()


def test_a_text_that_changes_pods_is_opaque():
    (template,) = templates(work({"template": {"spec": POD}, "podSpecPatch": "spec: {}"}))
    assert template.opaque == ("spec.workload.manifests[0].podSpecPatch",)


def test_a_role_has_the_account_of_its_name():
    pods = {"driver": {"spec": POD}, "executor": {"spec": POD}, "other": {"spec": POD}}
    accounts = {"driverServiceAccount": "d", "executorServiceAccount": "e", "serviceAccountName": "s"}
    matches = {
        template.path.rpartition(".")[2]: template.pod["spec"]["serviceAccountName"]
        for template in templates(work({**pods, **accounts}))
    }
    assert matches == {"driver": "d", "executor": "e", "other": "s"}


def test_a_reference_to_an_object_is_not_an_object():
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    assert templates(work({"ref": owner})) == ()


def test_the_search_is_bounded():
    deep = value = {}
    for _ in range(MAX_FREE_DEPTH + 2):
        value["a"] = value = {}
    with pytest.raises(MalformedObjectError, match="too large"):
        templates(work(deep))
    with pytest.raises(MalformedObjectError, match="too large"):
        templates(work({"a": [{}] * (MAX_FREE_NODES + 1)}))


words = st.sampled_from(
    [
        "spec",
        "template",
        "metadata",
        "containers",
        "image",
        "apiVersion",
        "kind",
        "volumes",
        "name",
        "env",
        "v1",
        "Pod",
    ]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=15,
)


@given(anything)
def test_no_value_does_worse_than_malformed(value):
    try:
        matches = templates(work(value))
    except MalformedObjectError:
        return
    assert all(isinstance(template.pod.get("spec") or {}, dict) for template in matches)
