"""Each file in golden/ is one object, the objects that it refers to, and the pods that it stands for.

``--update-golden`` rewrites the part after ``pods:``.
"""

from pathlib import Path

import pytest
import yaml

from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import Lookup, MissingObjectError, ObjectStore
from webhook.core.workloads.references import MAX_REFERENCES
from webhook.core.workloads.templates import WorkloadTable

TABLE = WorkloadTable()
CASES = sorted((Path(__file__).parent / "golden").glob("*.yaml"))


def templates(case, *, complete=True):
    store = ObjectStore(complete=complete)
    for document in case.get("references", ()):
        store.put(document)
    document = case["object"]
    group, _, _ = document["apiVersion"].rpartition("/")
    return TABLE.templates(document, group, document["kind"], Lookup(store))


def readable(template):
    spec = template.pod.get("spec") or {}
    containers = [*spec.get("initContainers", ()), *spec.get("containers", ())]
    volumes = [
        {key: value for key, value in volume.items() if key != "name"} for volume in spec.get("volumes", ())
    ]
    pod = {
        "path": template.path,
        "account": spec.get("serviceAccountName"),
        "namespace": template.namespace,
        "images": [container.get("image", "?") for container in containers],
        "limits": [
            limits for container in containers if (limits := (container.get("resources") or {}).get("limits"))
        ],
        "volumes": volumes,
        "claims": sorted(claim.name for claim in template.extra_claims.values()),
        "opaque": list(template.opaque),
        "partial": template.partial,
        "unresolved": list(template.unresolved),
    }
    return {key: value for key, value in pod.items() if value}


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden(path, update_golden):
    text = path.read_text()
    case = yaml.safe_load(text)
    pods = [readable(template) for template in templates(case)]
    if update_golden:
        end = text.find("\npods:")
        path.write_text(
            (text[: end + 1] if end >= 0 else text)
            + yaml.safe_dump({"pods": pods}, sort_keys=False, width=110)
        )
    assert case.get("pods") == pods or update_golden


@pytest.mark.parametrize(
    "path", [path for path in CASES if "references:" in path.read_text()], ids=lambda path: path.stem
)
def test_referenced_objects_are_fetched(path):
    """On a cluster the referenced objects are not in the cache: one round names all that are known to be needed."""
    case = yaml.safe_load(path.read_text())
    store = ObjectStore(complete=False)
    document = case["object"]
    group, _, _ = document["apiVersion"].rpartition("/")
    lookup = Lookup(store)
    with pytest.raises(MissingObjectError):
        TABLE.templates(document, group, document["kind"], lookup)
    assert lookup.missing


def test_placeholders_are_not_looked_up():
    spec = {
        "workflowTemplateRef": {"name": "{{inputs.parameters.template}}"},
        "serviceAccountName": "trainer",
    }
    document = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "w"},
        "spec": spec,
    }
    assert templates({"object": document}, complete=False) == ()


def test_the_number_of_references_is_bounded():
    steps = [
        [{"name": str(n), "templateRef": {"name": f"t{n}", "template": "x"}}]
        for n in range(MAX_REFERENCES + 1)
    ]
    document = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "w", "namespace": "n"},
        "spec": {"templates": [{"name": "main", "steps": steps}]},
    }
    with pytest.raises(MalformedObjectError):
        templates({"object": document})


def test_templates_that_call_each_other_end():
    def template(name, other):
        step = {"name": "s", "templateRef": {"name": other, "template": "x"}}
        return {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "WorkflowTemplate",
            "metadata": {"name": name, "namespace": "n"},
            "spec": {"templates": [{"name": "x", "steps": [[step]], "container": {"image": name}}]},
        }

    a, b = template("a", "b"), template("b", "a")
    matches = templates({"object": a, "references": [a, b]})
    assert {t.pod["spec"]["containers"][0]["image"] for t in matches} == {"a", "b"}
