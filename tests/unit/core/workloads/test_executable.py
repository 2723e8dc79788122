"""Changes of a custom resource outside its templates."""

from copy import deepcopy

import pytest

from webhook.core.workloads.executable import changes_execution

JOB = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "j"},
    "spec": {
        "entrypoint": "python train.py",
        "suspend": True,
        "rayClusterSpec": {
            "headGroupSpec": {"rayStartParams": {"num-gpus": "1"}, "template": {"spec": {"containers": []}}},
            "workerGroupSpecs": [{"replicas": 1, "rayStartParams": {}}],
        },
    },
}
TEMPLATES = {"spec.rayClusterSpec.headGroupSpec.template"}


def changed(*steps, value, group="ray.io"):
    new = deepcopy(JOB)
    here = new
    for step in steps[:-1]:
        here = here[step]
    here[steps[-1]] = value
    return changes_execution(new, JOB, group, TEMPLATES)


@pytest.mark.parametrize(
    ("steps", "value"),
    [
        (("spec", "entrypoint"), "curl evil"),
        (("spec", "runtimeEnvYAML"), "pip: [evil]"),
        (("spec", "clusterSelector"), {"ray.io/cluster": "shared"}),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams"), {"x": "; evil"}),
        # A part of a command, although fields of this name scale or describe elsewhere.
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "labels"), "x; evil"),
        (("spec", "rayClusterSpec", "workerGroupSpecs"), []),
        (("spec", "rayClusterSpec"), None),
        (("inference",), {"preset": "x"}),
    ],
)
def test_a_field_that_may_run_something_counts(steps, value):
    assert changed(*steps, value=value)


@pytest.mark.parametrize(
    ("steps", "value"),
    [
        (("spec", "suspend"), False),
        (("spec", "ttlSecondsAfterFinished"), 3),
        (
            ("spec", "rayClusterSpec", "workerGroupSpecs"),
            [{"replicas": 7, "scaleStrategy": {"workersToDelete": ["a"]}}],
        ),
        (("metadata", "labels"), {"a": "b"}),
        (("status",), {"phase": "Running"}),
        (
            ("spec", "rayClusterSpec", "headGroupSpec", "template"),
            {"spec": {"nodeName": "compared on its own"}},
        ),
        (("spec", "options"), {}),
    ],
)
def test_scaling_suspension_and_templates_do_not(steps, value):
    assert not changed(*steps, value=value)


def test_a_built_in_kind_has_no_such_fields():
    assert not changed("spec", "entrypoint", value="x", group="batch")
