"""The webhook's rules contain every kind that the attack corpus has decided, by table or by schema."""

from pathlib import Path
from typing import Any

import documents
import pytest

from webhook.core.admission.rules import by_group, validated, workloads
from webhook.core.facts.storage import COMPARED, DECIDED
from webhook.core.kube.kinds import plural
from webhook.core.workloads.schema import compact, scan
from webhook.core.workloads.templates import WorkloadTable

CORPUS = Path(__file__).resolve().parents[3] / "redteam"
WRITES = {"CREATE", "UPDATE"}


def sent():
    """The resources whose creation the rules send, as (group, plural)."""
    rules = {
        (rule.group, name) for rule in validated() for name in rule.resources if "CREATE" in rule.operations
    }
    return rules | {(group, name) for group, names in workloads().items() for name in names}


def schema_of(value: Any) -> dict[str, Any]:
    """A schema that has exactly the fields of a value, as a project's own CRD would."""
    if isinstance(value, dict):
        return {"type": "object", "properties": {key: schema_of(item) for key, item in value.items()}}
    if isinstance(value, list):
        return {"type": "array", "items": schema_of(value[0]) if value else {"type": "object"}}
    kinds = {bool: "boolean", int: "integer", float: "number"}
    return {"type": kinds.get(type(value), "string")}


def definition(document: dict[str, Any]) -> dict[str, Any]:
    group, _, version = document["apiVersion"].rpartition("/")
    kind = document["kind"]
    name = plural(f"{kind}.{group}")
    schema = {"openAPIV3Schema": schema_of(document)}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{name}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": name},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


def attacks():
    """Each kind that a case of the corpus has denied, with an object; without connections and subresources."""
    kinds = {}
    for file in sorted(CORPUS.glob("*.yaml")):
        if file.name.endswith(".state.yaml"):
            continue
        for case in documents.load(file.read_text())["cases"]:
            document = case.get("object")
            if case["expect"]["allowed"] or not document or case.get("resource") or case.get("subresource"):
                continue
            group = document["apiVersion"].rpartition("/")[0]
            kind = f"{document['kind']}.{group}" if group else document["kind"]
            kinds.setdefault(kind, []).append((f"{file.stem}: {case['name']}", document))
    return kinds


def definitions():
    """The CRDs that the corpus states, by kind: some of its kinds have free-form fields."""
    kinds = {}
    for file in sorted(CORPUS.glob("*.yaml")):
        if not file.name.endswith(".state.yaml"):
            for item in documents.load(file.read_text()).get("state", ()):
                if isinstance(item, dict) and item["kind"] == "CustomResourceDefinition":
                    kinds[f"{item['spec']['names']['kind']}.{item['spec']['group']}"] = item
    return kinds


ATTACKS, DEFINITIONS = attacks(), definitions()


def test_the_corpus_decides_many_kinds():
    assert len(ATTACKS) > 60


@pytest.mark.parametrize("kind", sorted(ATTACKS))
def test_a_kind_that_the_corpus_has_denied_is_sent(kind):
    """By a rule of the chart, or by a rule that the controller adds for its CRD."""
    group, name = kind.partition(".")[2], plural(kind)
    if kind in COMPARED or (group, name) in sent():
        return
    if kind == "Namespace":
        assert any("namespaces" in rule.resources for rule in validated())
        return
    for case, document in ATTACKS[kind]:
        crd = DEFINITIONS.get(kind) or definition(document)
        name = crd["spec"]["names"]["plural"]
        assert (group, name) in WorkloadTable([], [scan(crd)]).decided, case
        # The cluster's copy of a CRD has no schemas any more.
        assert (group, name) in WorkloadTable([], [scan(compact(crd))]).decided, case


def test_every_kind_with_a_reader_is_sent():
    for kind in DECIDED:
        assert (kind.partition(".")[2], plural(kind)) in sent(), kind


def test_every_rule_is_there_once():
    places = [
        (rule.group, name, verb)
        for rule in validated()
        for name in rule.resources
        for verb in rule.operations
    ]
    places += [
        (group, name, verb) for group, names in workloads().items() for name in names for verb in WRITES
    ]
    assert len(places) == len(set(places))


def test_kinds_are_grouped_and_sorted():
    groups = by_group(["B.x.io", "A.x.io", "Pod"])
    assert groups == {"": ("pods",), "x.io": ("as", "bs")}


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("Widget.example.com", {"size": 1, "color": "red"}, False),
        ("Widget.example.com", {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, False),
        ("Widget.example.com", {"useSecret": True, "secretCount": 3}, False),
        ("Widget.example.com", {"backend": {"secretRef": {"name": "x"}}}, True),
        ("Widget.example.com", {"items": [{"bucketName": "x"}]}, True),
        ("Widget.example.com", {"modelUri": "x"}, True),
        ("Widget.example.com", {"roleArn": "x"}, True),
        ("Widget.example.com", {"ref": {"kind": "x", "name": "y"}}, True),
        ("SecretMirror.example.com", {"size": 1}, True),
        ("PodHibernation.example.com", {"size": 1}, True),
        # The network's agents and reports: a cluster could not run a pod without the first.
        ("CiliumEndpointSlice.cilium.io", {"secretRef": {"name": "x"}}, False),
        ("CiliumCheckpoint.cilium.io", {"size": 1}, False),
        ("PolicyReport.wgpolicyk8s.io", {"results": [{"resources": [{"kind": "x", "name": "y"}]}]}, False),
        # Not a custom resource.
        ("Gateway.networking.k8s.io", {"secretName": "x"}, False),
    ],
)
def test_custom_resources_are_sent_if_they_may_refer_to_protected_objects(kind, spec, expected):
    name, _, group = kind.partition(".")
    document = {"apiVersion": f"{group}/v1", "kind": name, "metadata": {"name": "x"}, "spec": spec}
    assert bool(WorkloadTable([], [scan(definition(document))]).decided) is expected
