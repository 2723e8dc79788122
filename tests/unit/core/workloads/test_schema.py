"""Pods in the schemas of CustomResourceDefinitions."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook.api.crds import definitions
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.workloads.schema import Match, Part, compact, matches_of, scan
from webhook.core.workloads.templates import WorkloadTable

sys.path.insert(0, str(Path(__file__).parent))
from crds import CLAIM, CORPUS, SCHEMAS, crd, instance

WITH_PODS = {kind: places for group in ("pod", "free", "parts") for kind, places in CORPUS[group].items()}


def claims_of(template):
    volumes = template.pod.get("spec", {}).get("volumes", [])
    return {(volume.get("persistentVolumeClaim") or {}).get("claimName") for volume in volumes}


def test_the_corpus_has_every_kind_of_the_survey():
    """The survey of 37 projects: 48 kinds with a pod in their schema."""
    assert len(CORPUS["pod"]) >= 48


@pytest.mark.parametrize("kind", sorted(WITH_PODS))
def test_a_kind_with_pods_is_found_without_configuration(kind):
    """The parts that the schema shows are exactly those that it was generated from."""
    places = WITH_PODS[kind]
    schema = scan(crd(kind, places))
    assert schema.is_workload
    expected = {Match(path.replace("[]", ".*"), Part(part)) for path, part in places.items()}
    assert expected <= set(schema.matches)


@pytest.mark.parametrize("kind", sorted(CORPUS["other"]))
def test_a_kind_without_pods_is_not_a_workload(kind):
    assert not scan(crd(kind, CORPUS["other"][kind])).is_workload


def test_weightlocks_own_kinds_are_not_workloads():
    """A ModelWeights lists volumes like a pod, but mounts none."""
    schemas = [scan(document) for document in definitions()]
    assert not any(schema.is_workload for schema in schemas)
    assert not WorkloadTable([], schemas).detected


@pytest.mark.parametrize("kind", sorted(WITH_PODS))
def test_the_pods_of_an_object_are_found(kind):
    """An object that mounts the claim at every place yields templates that read it, under the service account."""
    places = WITH_PODS[kind]
    name = kind.partition(".")[0]
    renamed = f"Thing{name}.example.com"
    table = WorkloadTable([], [scan(crd(renamed, places))])
    templates = table.templates(instance(renamed, places), "example.com", f"Thing{name}")
    mounting = {"podTemplate", "podSpec", "volumes", "volumeSource", "claimName", "modelAddress", "freeForm"}
    if mounting & set(places.values()):
        assert any(CLAIM in claims_of(template) for template in templates), templates
    if {"podTemplate", "podSpec", "freeForm", "serviceAccount"} & set(places.values()):
        accounts = {
            template.pod["spec"].get("serviceAccountName"): template.partial for template in templates
        }
        assert accounts.pop("trainer") in (True, False)
        # A part that is far from every service account is a partial pod, whose account is unknown.
        assert accounts in ({}, {None: True})
    if {"claimTemplates", "claimTemplate", "claimSpec"} & set(places.values()):
        assert any(template.extra_claims for template in templates)


@pytest.mark.parametrize("kind", sorted(WITH_PODS))
def test_the_compact_form_is_scanned_to_the_same_matches(kind):
    document = crd(kind, WITH_PODS[kind])
    small = compact(document)
    assert scan(small) == scan(document)
    assert "schema" not in small["spec"]["versions"][0]
    assert compact(small) == small


def test_machines_of_other_clusters_run_no_pods_here():
    """Kubeadm's extraVolumes mount paths of the machine into its static pods."""
    places = {"spec.extraVolumes[].hostPath": "text"}
    assert scan(crd("Kubeadm.example.com", places)).is_workload
    assert not scan(crd("KubeadmConfig.bootstrap.cluster.x-k8s.io", places)).is_workload


TEXT = SCHEMAS["text"]
COUNT = {"type": "integer"}


def fields(**properties):
    return {"type": "object", "properties": properties}


def items(schema):
    return {"type": "array", "items": schema}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        # Names in other spellings, and of other roles.
        (fields(pvc_name=TEXT), {("spec.pvc_name", "claimName")}),
        (fields(claim_name=TEXT), {("spec.claim_name", "claimName")}),
        (fields(dataClaim=TEXT), {("spec.dataClaim", "claimName")}),
        (fields(cache=fields(claim=TEXT, mountPath=TEXT)), {("spec.cache.claim", "claimName")}),
        (fields(service_account=TEXT), {("spec.service_account", "serviceAccount")}),
        (fields(workerServiceAccountName=TEXT), {("spec.workerServiceAccountName", "serviceAccount")}),
        (fields(serviceAccountRef=fields(name=TEXT)), {("spec.serviceAccountRef.name", "serviceAccount")}),
        (fields(containerImage=TEXT), {("spec.containerImage", "image")}),
        (fields(image=fields(repository=TEXT, tag=TEXT)), {("spec.image", "image")}),
        # Volume sources that stand alone.
        (fields(storage=fields(hostPath=TEXT)), {("spec.storage.hostPath", "volumeSource")}),
        (fields(storage=fields(nfs=fields(server=TEXT, path=TEXT))), {("spec.storage.nfs", "volumeSource")}),
        (fields(csi=fields(driver=TEXT, readOnly=TEXT)), {("spec.csi", "volumeSource")}),
        (
            fields(volumes=items(fields(name=TEXT, hostPath=fields(path=TEXT)))),
            {("spec.volumes.*.hostPath", "volumeSource")},
        ),
        (fields(storage=fields(storageClassName=TEXT, volumeName=TEXT)), {("spec.storage", "claimSpec")}),
        # Containers without an image, and texts that change pods.
        (
            fields(worker=fields(env=items(fields(name=TEXT)), resources=fields())),
            {("spec.worker", "container")},
        ),
        (fields(worker=fields(volumeMounts=items(fields(name=TEXT)))), {("spec.worker", "container")}),
        (fields(podSpecPatch=TEXT), {("spec.podSpecPatch", "patch")}),
        (fields(patches=items(fields(op=TEXT, path=TEXT, value={}))), {("spec.patches.*", "freeForm")}),
        # Pods under maps of lists and lists of maps.
        (
            fields(groups={"type": "object", "additionalProperties": items(SCHEMAS["podTemplate"])}),
            {("spec.groups.*.*", "podTemplate")},
        ),
        (
            fields(groups=items({"type": "object", "additionalProperties": SCHEMAS["podSpec"]})),
            {("spec.groups.*.*", "podSpec")},
        ),
    ],
)
def test_parts_are_found_by_name_and_shape(schema, expected):
    matches = matches_of({"properties": {"spec": schema}})
    assert {(match.path, str(match.part)) for match in matches} == expected


@pytest.mark.parametrize(
    "schema",
    [
        fields(usernameClaim=TEXT, claim=TEXT, claims=items(TEXT)),
        fields(resourceClaimName=TEXT, resourceClaim=fields(name=TEXT)),
        fields(claimRef=fields(name=TEXT, kind=TEXT)),
        fields(hostPath=fields(prefix=TEXT), nfs=COUNT),
        fields(csi=fields(name=TEXT)),
        fields(resources=fields(limits=SCHEMAS["text"])),
        fields(image=fields(url=TEXT), vmImage=TEXT, imagePatch=TEXT),
        fields(serviceAccounts=fields(name=TEXT), account=TEXT),
    ],
)
def test_other_names_and_shapes_are_not_parts(schema):
    assert matches_of({"properties": {"spec": schema}}) == ()


def test_versions_are_scanned_apart():
    """Two versions may keep the same field in different places, or with different types."""
    document = crd("Graph.example.com", {"spec.components.*.podTemplate": "podTemplate"}, "v1beta1")
    older = crd(
        "Graph.example.com",
        {"spec.services.*.extraPodSpec": "podSpec", "spec.components": "text"},
        "v1alpha1",
    )
    document["spec"]["versions"] += older["spec"]["versions"]
    table = WorkloadTable([], [scan(document)])
    spec = {
        "components": "none",
        "services": {"a": {"extraPodSpec": {"containers": []}}},
    }
    (template,) = table.templates(
        {"apiVersion": "example.com/v1alpha1", "spec": spec}, "example.com", "Graph"
    )
    assert template.path == "spec.services.a.extraPodSpec"
    # An unknown version is read with the paths of all.
    with pytest.raises(MalformedObjectError):
        table.templates({"apiVersion": "example.com/v2", "spec": spec}, "example.com", "Graph")


def test_the_first_beta_of_the_type_has_one_schema_for_all_versions():
    document = crd("Widget.example.com", {"spec.template": "podTemplate"})
    shared = document["spec"]["versions"][0].pop("schema")
    document["spec"]["validation"] = shared
    assert scan(document).matches == (Match("spec.template", Part.TEMPLATE),)


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"x-kubernetes-preserve-unknown-fields": True}])
def test_a_kind_without_a_schema_is_searched_by_shape(schema):
    assert matches_of(schema) == (Match("", Part.FREE),)


def test_a_field_that_the_api_server_prunes_is_not_free_form():
    assert matches_of({"properties": {"spec": {"type": "object"}}}) == ()
    assert matches_of({"properties": {"spec": {"type": "object"}}}, pruned=False) == (Match("", Part.FREE),)


def test_a_schema_beyond_the_bounds_is_free_form_from_there_on():
    schema = leaf = {"type": "object", "properties": {}}
    for _ in range(60):
        leaf["properties"]["deeper"] = leaf = {"type": "object", "properties": {}}
    leaf["properties"]["spec"] = SCHEMAS["podSpec"]
    (match,) = matches_of(schema)
    assert match.part is Part.FREE


@pytest.mark.parametrize(
    "document", [{}, {"spec": {}}, {"spec": {"group": "a", "names": {"kind": "B"}}}, {"spec": 1}]
)
def test_another_object_is_malformed(document):
    with pytest.raises(MalformedObjectError):
        scan(document)


words = st.sampled_from(
    ["properties", "items", "type", "spec", "containers", "image", "env", "object", "array", "name"]
)
schemas = st.recursive(
    st.none() | st.booleans() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(words, schemas, max_size=4))
def test_no_schema_raises(schema):
    assert all(isinstance(match, Match) for match in matches_of(schema))
