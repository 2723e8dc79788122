"""Workloads to pod templates. What each kind gives is in facts/golden/workloads; here is the table itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.api.config import WorkloadKind
from webhook.core.workloads.kinds import BUILT_IN
from webhook.core.workloads.readers import READERS
from webhook.core.workloads.templates import MalformedObjectError, PodTemplate, WorkloadTable

TABLE = WorkloadTable()
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "main"}]}}


def test_a_pod_is_its_own_template_and_no_part_is_copied():
    pod = {"apiVersion": "v1", "kind": "Pod", **TEMPLATE}
    (matches,) = TABLE.templates(pod, "", "Pod")
    assert matches == PodTemplate("", pod)
    assert matches.pod is pod
    (matches,) = TABLE.templates({"spec": {"template": TEMPLATE}}, "apps", "Deployment")
    assert (matches.path, matches.root) == ("spec.template", "spec.template.spec")
    assert matches.pod is TEMPLATE


def test_a_kind_is_known_with_its_group():
    assert "Deployment.apps" in TABLE
    assert "Workflow.argoproj.io" in TABLE
    assert "Deployment" not in TABLE
    assert "Service" not in TABLE
    assert TABLE.templates({"spec": {"template": TEMPLATE}}, "example.com", "Deployment") == ()


def test_an_asterisk_is_every_item_or_value():
    specs = {"pytorchReplicaSpecs": {"Master": {"template": TEMPLATE}, "Worker": {"template": TEMPLATE}}}
    matches = TABLE.templates({"spec": specs}, "kubeflow.org", "PyTorchJob")
    assert [template.path for template in matches] == [
        "spec.pytorchReplicaSpecs.Master.template",
        "spec.pytorchReplicaSpecs.Worker.template",
    ]
    ray = {"workerGroupSpecs": [{"template": TEMPLATE}, {}, {"template": None}]}
    (matches,) = TABLE.templates({"spec": ray}, "ray.io", "RayCluster")
    assert matches.path == "spec.workerGroupSpecs[0].template"


def test_an_admin_adds_kinds_and_paths():
    kinds = [
        WorkloadKind(kind="Widget.example.com", paths=["spec.template", "spec.pods.*:PodSpec"]),
        WorkloadKind(kind="Deployment.apps", paths=["spec.canary"]),
    ]
    table = WorkloadTable(kinds)
    spec = {"template": TEMPLATE, "pods": {"a": TEMPLATE["spec"]}, "canary": TEMPLATE}
    matches = table.templates({"spec": spec}, "example.com", "Widget")
    assert [(template.path, template.root) for template in matches] == [
        ("spec.template", "spec.template.spec"),
        ("spec.pods.a", "spec.pods.a"),
    ]
    assert matches[1].pod == {"metadata": {}, "spec": TEMPLATE["spec"]}
    paths = [template.path for template in table.templates({"spec": spec}, "apps", "Deployment")]
    assert paths == ["spec.template", "spec.canary"]


def test_an_admin_adds_a_path_to_pods():
    """A pod is taken as it is only where no other path names a part of it."""
    document = {**TEMPLATE, "extra": TEMPLATE}
    assert [template.path for template in TABLE.templates(document, "", "Pod")] == [""]
    table = WorkloadTable([WorkloadKind(kind="Pod", paths=["extra"])])
    assert [template.path for template in table.templates(document, "", "Pod")] == ["", "extra"]


@pytest.mark.parametrize(
    "path", ["spec..template", "spec.template:Pod", ".spec", "spec.a b", "spec[0]", "spec.*x"]
)
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(ValueError, match="is not a path to a pod template"):
        WorkloadTable([WorkloadKind(kind="Widget.example.com", paths=[path])])


def test_claim_templates_are_named_after_the_workload():
    spec = {"template": TEMPLATE, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"a": 1}}]}
    (matches,) = TABLE.templates({"metadata": {"name": "db"}, "spec": spec}, "apps", "StatefulSet")
    claim = matches.extra_claims["data"]
    assert (claim.name, claim.spec) == ("data-db", {"a": 1})


@pytest.mark.parametrize(
    ("document", "group", "kind", "path"),
    [
        ({"spec": []}, "apps", "Deployment", "spec"),
        ({"spec": {"template": "x"}}, "apps", "Deployment", "spec.template"),
        ({"spec": {"pytorchReplicaSpecs": "x"}}, "kubeflow.org", "PyTorchJob", "spec.pytorchReplicaSpecs"),
        ({"spec": {"workerGroupSpecs": ["x"]}}, "ray.io", "RayCluster", "spec.workerGroupSpecs[0]"),
        (
            {"spec": {"volumeClaimTemplates": [{"spec": 1}]}},
            "apps",
            "StatefulSet",
            "spec.volumeClaimTemplates[0].spec",
        ),
        ({"metadata": "x"}, "apps", "StatefulSet", "metadata"),
        ({"spec": {"templates": [{"steps": [{}]}]}}, "argoproj.io", "Workflow", "spec.templates[0].steps[0]"),
        ({"spec": {"templates": [{"steps": {}}]}}, "argoproj.io", "Workflow", "spec.templates[0].steps"),
        (
            {"spec": {"predictor": {"model": 1}}},
            "serving.kserve.io",
            "InferenceService",
            "spec.predictor.model",
        ),
    ],
)
def test_a_workload_of_another_shape_is_malformed(document, group, kind, path):
    with pytest.raises(MalformedObjectError) as raised:
        TABLE.templates(document, group, kind)
    assert raised.value.path == path


words = st.sampled_from(
    ["spec", "template", "metadata", "containers", "steps", "dag", "inline", "model", "name"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted({*BUILT_IN, *READERS})), st.dictionaries(words, anything, max_size=4))
def test_no_object_of_any_kind_does_worse_than_malformed(kind, document):
    name, _, group = kind.partition(".")
    try:
        templates = TABLE.templates(document, group, name)
    except MalformedObjectError:
        return
    assert all(isinstance(template.pod, dict) for template in templates)
