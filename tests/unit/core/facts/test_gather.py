"""The facts of any template at all: no surprise but the two that are promised, and no addition that hides anything."""

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webhook.api.config import Settings
from webhook.api.modelweights import ModelWeights
from webhook.core.facts import gather, gather_object
from webhook.core.kube.fields import MalformedObjectError
from webhook.core.kube.objects import Lookup, MissingObjectError, ObjectKey, ObjectStore
from webhook.core.storage.catalog import Catalog
from webhook.core.storage.protected import with_volumes
from webhook.core.workloads.templates import PodTemplate

SETTINGS = Settings()
ATLAS = ModelWeights.model_validate(
    {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "ModelWeights",
        "metadata": {"name": "atlas"},
        "spec": {
            "sensitivity": "frontier",
            "volumes": [
                {"persistentVolumeClaim": {"names": ["atlas-*"]}},
                {"csi": {"driver": "d", "attributes": {"bucket": "atlas"}}},
                {"hostPath": {"path": "/w/atlas"}},
                {"nfs": {"server": "s", "path": "/atlas"}},
                {"image": {"reference": "r.example.com/atlas*"}},
            ],
        },
    }
)
CLAIM = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "n"}}
VOLUME = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}}


def store_of(*documents, complete=True):
    store = ObjectStore(complete=complete)
    for document in documents:
        store.put(document)
    return store


BOUND = {**CLAIM, "spec": {"volumeName": "v"}}
PLAIN = {**VOLUME, "spec": {"csi": {"driver": "d", "volumeHandle": "h"}}}
STORE = store_of(BOUND, PLAIN)
CATALOG = with_volumes(Catalog([ATLAS]), STORE)


def facts_of(pod, store=STORE, catalog=CATALOG):
    return gather(PodTemplate("", pod), "n", Lookup(store), catalog, SETTINGS)


# Structure-aware nonsense: the right names with values of any shape.
NAMES = [
    *(
        "spec",
        "metadata",
        "annotations",
        "volumes",
        "containers",
        "initContainers",
        "ephemeralContainers",
        "name",
    ),
    *(
        "image",
        "env",
        "envFrom",
        "valueFrom",
        "configMapRef",
        "secretRef",
        "prefix",
        "value",
        "resources",
        "limits",
    ),
    *(
        "requests",
        "claims",
        "volumeMounts",
        "volumeDevices",
        "mountPath",
        "devicePath",
        "readOnly",
        "securityContext",
    ),
    *(
        "privileged",
        "capabilities",
        "add",
        "procMount",
        "windowsOptions",
        "hostProcess",
        "seccompProfile",
        "type",
    ),
    *(
        "hostPID",
        "nodeName",
        "runtimeClassName",
        "resourceClaims",
        "resourceClaimName",
        "persistentVolumeClaim",
    ),
    *(
        "claimName",
        "ephemeral",
        "volumeClaimTemplate",
        "dataSource",
        "dataSourceRef",
        "kind",
        "apiGroup",
        "namespace",
    ),
    *(
        "hostPath",
        "path",
        "nfs",
        "server",
        "csi",
        "driver",
        "volumeHandle",
        "volumeAttributes",
        "bucket",
        "fc",
    ),
    *(
        "targetWWNs",
        "lun",
        "iscsi",
        "iqn",
        "flexVolume",
        "options",
        "reference",
        "selector",
        "matchExpressions",
    ),
    *(
        "nvidia.com/gpu",
        "cdi.k8s.io/x",
        "NVIDIA_VISIBLE_DEVICES",
        "volumeName",
        "targetContainerName",
        "nodeAffinity",
    ),
    *(
        "required",
        "nodeSelectorTerms",
        "seLinuxOptions",
        "appArmorProfile",
        "shareProcessNamespace",
        "opaque",
    ),
]
names = st.sampled_from(NAMES)
scalars = (
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats(allow_nan=False) | st.text(max_size=3) | names
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)


@st.composite
def broken(draw, document):
    """A good document in which some parts were replaced by anything."""
    document = deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and draw(st.booleans()):
                place = place[key]
                continue
            place[key] = draw(values)
            break
    return document


GOOD_POD = {
    "metadata": {"name": "p", "annotations": {"cdi.k8s.io/x": "nvidia.com/gpu=0"}},
    "spec": {
        "hostPID": True,
        "nodeName": "node",
        "runtimeClassName": "nvidia",
        "securityContext": {"seLinuxOptions": {"type": "spc_t"}, "windowsOptions": {"hostProcess": True}},
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}],
        "containers": [
            {
                "name": "main",
                "image": "r.example.com/atlas:1",
                "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}],
                "envFrom": [{"configMapRef": {"name": "m"}, "prefix": "NVIDIA_"}],
                "resources": {"limits": {"nvidia.com/gpu": "1"}, "claims": [{"name": "gpu"}]},
                "volumeMounts": [{"name": "claim", "mountPath": "/run/nvidia-container-devices/0"}],
                "volumeDevices": [{"name": "csi", "devicePath": "/dev/x"}],
                "securityContext": {
                    "privileged": True,
                    "capabilities": {"add": ["ALL"]},
                    "procMount": "Unmasked",
                },
            }
        ],
        "ephemeralContainers": [{"name": "debug", "image": "x", "targetContainerName": "main"}],
        "volumes": [
            {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "csi", "csi": {"driver": "d", "volumeAttributes": {"bucket": "atlas"}}},
            {"name": "nfs", "nfs": {"server": "s", "path": "/"}},
            {"name": "host", "hostPath": {"path": "/w"}},
            {"name": "fc", "fc": {"targetWWNs": ["a"], "lun": 1}},
            {"name": "image", "image": {"reference": "r.example.com/atlas"}},
            {
                "name": "new",
                "ephemeral": {
                    "volumeClaimTemplate": {
                        "metadata": {"annotations": {}},
                        "spec": {
                            "dataSource": {"kind": "PersistentVolumeClaim", "name": "c"},
                            "selector": {},
                        },
                    }
                },
            },
        ],
    },
}


@settings(max_examples=300)
@given(broken(GOOD_POD) | st.dictionaries(names, values), st.booleans())
def test_no_pod_does_worse_than_malformed_or_missing(pod, complete):
    before = deepcopy(pod)
    store = store_of(BOUND, complete=complete)
    try:
        facts = facts_of(pod, store, Catalog([ATLAS]))
    except (MalformedObjectError, MissingObjectError):
        return
    finally:
        assert pod == before
    for matches in (facts.weights, facts.devices, facts.escapes):
        assert list(matches) == sorted(set(matches))


SPEC = {
    "volumeName": "v",
    "claimRef": {"namespace": "n", "name": "c"},
    "csi": {"driver": "d", "volumeHandle": "h", "volumeAttributes": {"bucket": "atlas"}},
    "source": {
        "persistentVolumeClaimName": "c",
        "volumeHandle": "h",
        "selector": {"matchLabels": {"a": "b"}},
    },
    "driver": "d",
    "devices": {"requests": [{"name": "x", "exactly": {"deviceClassName": "gpu.nvidia.com"}}]},
    "spec": {"devices": {"requests": [{"name": "x", "firstAvailable": [{"deviceClassName": "x"}]}]}},
    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": []}]}},
    "dataSource": {"kind": "PersistentVolumeClaim", "name": "c"},
    "storageClassName": "x",
    "accessModes": ["ReadWriteOnce"],
    "volumeSnapshotRef": {"namespace": "n", "name": "s"},
}
KINDS = [
    "PersistentVolumeClaim",
    "PersistentVolume",
    "VolumeSnapshot.snapshot.storage.k8s.io",
    "VolumeSnapshotContent.snapshot.storage.k8s.io",
    "VolumeGroupSnapshot.groupsnapshot.storage.k8s.io",
    "ResourceClaim.resource.k8s.io",
    "ResourceClaimTemplate.resource.k8s.io",
    "ConfigMap",
]


@settings(max_examples=300)
@given(
    st.sampled_from(KINDS),
    broken({"metadata": {"name": "x", "labels": {}}, "spec": SPEC}),
    st.booleans(),
    st.booleans(),
)
def test_no_object_does_worse_than_malformed_or_missing(kind, document, updated, complete):
    store = store_of(BOUND, complete=complete)
    old = {"metadata": {"name": "x"}, "spec": {}} if updated else None
    try:
        gather_object(kind, document, old, "n", Lookup(store), Catalog([ATLAS]), SETTINGS)
    except (MalformedObjectError, MissingObjectError):
        return


@settings(max_examples=200)
@given(broken(BOUND), broken({**PLAIN, "spec": SPEC}))
def test_no_state_does_worse_than_malformed_or_missing(claim, volume):
    try:
        store = store_of(claim, volume)
    except ValueError:
        return
    catalog = with_volumes(Catalog([ATLAS]), store)
    try:
        facts_of(GOOD_POD, store, catalog)
    except (MalformedObjectError, MissingObjectError):
        return


sources = st.sampled_from(list(GOOD_POD["spec"]["volumes"]))
parts = st.sets(st.sampled_from(sorted(GOOD_POD["spec"])))


def key(use):
    return use.model, use.volume


@given(parts, sources)
def test_one_more_volume_hides_nothing(kept, source):
    pod = {"metadata": GOOD_POD["metadata"], "spec": {part: GOOD_POD["spec"][part] for part in kept}}
    more = deepcopy(pod)
    more["spec"]["volumes"] = [*more["spec"].get("volumes", []), {**source, "name": "more"}]
    before, after = facts_of(pod), facts_of(more)
    assert {key(use) for use in before.weights} <= {key(use) for use in after.weights}
    assert set(before.devices) <= set(after.devices)
    assert set(before.escapes) <= set(after.escapes)


@given(parts, st.sampled_from(["containers", "initContainers", "ephemeralContainers"]))
def test_one_more_container_hides_nothing(kept, field):
    pod = {"metadata": GOOD_POD["metadata"], "spec": {part: GOOD_POD["spec"][part] for part in kept}}
    more = deepcopy(pod)
    container = {**GOOD_POD["spec"]["containers"][0], "name": "more"}
    more["spec"][field] = [*more["spec"].get(field, []), container]
    before, after = facts_of(pod), facts_of(more)
    assert {key(use) for use in before.weights} <= {key(use) for use in after.weights}
    assert {use.vendor for use in before.devices} <= {use.vendor for use in after.devices}
    assert set(before.escapes) <= set(after.escapes)


def test_one_round_asks_for_everything():
    lookup = Lookup(ObjectStore(complete=False))
    with pytest.raises(MissingObjectError):
        gather(PodTemplate("", GOOD_POD), "n", lookup, Catalog([ATLAS]), SETTINGS)
    assert lookup.missing == {
        ObjectKey("PersistentVolumeClaim", "n", "c"),
        ObjectKey("ConfigMap", "n", "m"),
        ObjectKey("ResourceClaimTemplate.resource.k8s.io", "n", "t"),
    }


def test_without_models_no_weights_are_reached_and_devices_are():
    facts = facts_of(GOOD_POD, STORE, Catalog([]))
    assert facts.weights == ()
    assert facts.devices
    assert facts.escapes


CONTAINERS = {
    "no list": {"containers": {"name": "main"}},
    "no object": {"initContainers": ["main"]},
    "name": {"containers": [{"name": 1}]},
    "image": {"containers": [{"image": ["x"]}]},
    "env": {"containers": [{"env": {"name": "A"}}]},
    "env item": {"containers": [{"env": ["NVIDIA_VISIBLE_DEVICES"]}]},
    "env value": {"containers": [{"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": 0}]}]},
    "env from": {"containers": [{"envFrom": [{"prefix": 1}]}]},
    "mount": {"containers": [{"volumeMounts": [{"mountPath": "/a"}]}]},
    "device": {"containers": [{"volumeDevices": [{"name": "v", "devicePath": 1}]}]},
    "resources": {"containers": [{"resources": ["cpu"]}]},
    "limits": {"containers": [{"resources": {"limits": ["cpu"]}}]},
    "claims": {"containers": [{"resources": {"claims": [{"name": 1}]}}], "resourceClaims": [{"name": "a"}]},
    "context": {"containers": [{"securityContext": "privileged"}]},
    "privileged": {"containers": [{"securityContext": {"privileged": "true"}}]},
    "capabilities": {"containers": [{"securityContext": {"capabilities": {"add": "ALL"}}}]},
    "capability": {"containers": [{"securityContext": {"capabilities": {"add": [1]}}}]},
    "profile": {"securityContext": {"seccompProfile": "Unconfined"}},
    "host": {"hostPID": "yes"},
    "node": {"nodeName": {"a": "b"}},
    "runtime class": {"runtimeClassName": 1},
    "volumes": {"volumes": {"v": {}}},
    "claim": {"volumes": [{"name": "v", "persistentVolumeClaim": "c"}]},
    "claim name": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": 1}}]},
    "template": {"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": []}}}]},
    "image volume": {"volumes": [{"name": "v", "image": {"reference": 1}}]},
    "resource claims": {"resourceClaims": [{"name": "a", "resourceClaimName": 1}]},
}


@pytest.mark.parametrize("spec", CONTAINERS.values(), ids=CONTAINERS)
def test_a_pod_that_kubernetes_would_reject_is_malformed(spec):
    with pytest.raises(MalformedObjectError):
        facts_of({"spec": spec})


def test_variables_that_give_no_device_need_no_value():
    assert (
        facts_of(
            {"spec": {"containers": [{"env": [{"name": "A", "value": 1}, {"value": "x"}, {"name": []}]}]}}
        )
        is not None
    )


def test_two_volumes_of_one_name_are_malformed():
    volumes = [{"name": "v", "emptyDir": {}}, {"name": "v", "hostPath": {"path": "/"}}]
    with pytest.raises(MalformedObjectError, match=r"spec\.volumes\[1\]\.name"):
        facts_of({"spec": {"volumes": volumes}})
