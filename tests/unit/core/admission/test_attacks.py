"""Attacks on the admission decision, one line each, and all of them fail.

Attacks that a policy denies are in its own cases. These are attacks that the code itself must deny.
"""

from copy import deepcopy

import jsonpatch
import pytest

from webhook.core.access.pod_grants import ANNOTATION
from webhook.core.admission.mutate import mutate
from webhook.core.admission.provider import FetchedData, RequiredData
from webhook.core.admission.validate import validate
from webhook.core.injection.hiding import ALL

AGENT = "weightlock-agent"
HIDDEN = {variable["name"]: variable["value"] for variable in ALL}
API_TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


def codes(verdict):
    assert not isinstance(verdict, RequiredData), verdict
    return [finding.code for finding in verdict.denials]


@pytest.fixture
def injected(snapshot_of, request_of, pod_of, atlas, now):
    """A snapshot, and a pod that reads weights as admission leaves it."""
    snapshot = snapshot_of(atlas)

    def build(**spec):
        request = request_of(pod_of(claim="atlas-weights", **spec))
        patch = mutate(request, snapshot, FetchedData(), now).patch
        return jsonpatch.apply_patch(request.object, list(patch))

    return snapshot, build


@pytest.fixture
def create(injected, request_of, now):
    """The codes by which a pod's creation is refused."""
    return lambda pod: codes(validate(request_of(pod), injected[0], FetchedData(), now))


@pytest.fixture
def update(injected, request_of, now):
    """The codes by which a pod's update is refused."""

    def judge(pod, old, subresource=""):
        request = request_of(pod, operation="UPDATE", oldObject=old, subResource=subresource)
        return codes(validate(request, injected[0], FetchedData(), now))

    return judge


def agent_of(pod):
    return next(item for item in pod["spec"]["initContainers"] if item["name"] == AGENT)


def test_as_injected_it_goes_through(injected, create, update):
    _, build = injected
    assert create(build()) == []
    assert update(build(), build()) == []


# Each change is one a person with edit rights could make, and one that some admission plugin could make as well.
SIDECAR_CHANGES = {
    "another program": {"command": ["sh", "-c", "cat /var/run/weightlock/keys/*"]},
    "another image": {"image": "registry.example.com/mallory:1"},
    "variables that change how the agent runs": {"env": [{"name": "SSL_CERT_FILE", "value": "/tmp/ca"}]},
    "variables from a ConfigMap": {"envFrom": [{"configMapRef": {"name": "mine"}}]},
    "another working directory": {"workingDir": "/tmp"},
    "a hook that runs beside the agent": {"lifecycle": {"postStart": {"exec": {"command": ["sh"]}}}},
    "a probe of one's own": {"livenessProbe": {"exec": {"command": ["sh"]}}},
    "a terminal to attach to": {"stdin": True, "tty": True},
    "block devices": {"volumeDevices": [{"name": "weights", "devicePath": "/dev/x"}]},
    "ports": {"ports": [{"containerPort": 1}]},
    "rules of when it starts again": {
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]
    },
    "a run that ends": {"restartPolicy": None},
    "root": {"securityContext": {"runAsUser": 0}},
    "claims of devices": {"resources": {"requests": {}, "limits": {}, "claims": [{"name": "gpu"}]}},
}


@pytest.mark.parametrize("change", SIDECAR_CHANGES.values(), ids=SIDECAR_CHANGES)
def test_the_sidecar_with(change, injected, create):
    """A sidecar that is nearly Weightlock's own, written by the attacker."""
    pod = injected[1]()
    agent_of(pod).update(change)
    assert "WL301" in create(pod)


API_MOUNTS = {
    "writable": {"name": "kube-api-access-x", "mountPath": API_TOKEN_PATH},
    "from a path in it": {
        "name": "kube-api-access-x",
        "mountPath": API_TOKEN_PATH,
        "readOnly": True,
        "subPath": "x",
    },
    "spread to the node": {
        "name": "kube-api-access-x",
        "mountPath": API_TOKEN_PATH,
        "readOnly": True,
        "mountPropagation": "Bidirectional",
    },
    "over the agent's token": {
        "name": "kube-api-access-x",
        "mountPath": "/var/run/secrets/weightlock.dev/broker",
        "readOnly": True,
    },
    "by another spelling of its path": {
        "name": "kube-api-access-x",
        "mountPath": f"{API_TOKEN_PATH}/../../weightlock.dev/broker",
        "readOnly": True,
    },
    "of another name": {"name": "mine", "mountPath": API_TOKEN_PATH, "readOnly": True},
}


@pytest.mark.parametrize("mount", API_MOUNTS.values(), ids=API_MOUNTS)
def test_a_volume_named_like_the_api_token(mount, injected, create):
    """The mount that the ServiceAccount admission plugin adds to the sidecar, used for something else."""
    pod = injected[1](automountServiceAccountToken=False)
    pod["spec"]["volumes"].append({"name": mount["name"], "emptyDir": {}})
    agent_of(pod)["volumeMounts"].append(mount)
    assert "WL301" in create(pod)


def test_the_api_token_itself_is_admitted(injected, create):
    pod = injected[1]()
    pod["spec"]["volumes"].append({"name": "kube-api-access-x", "projected": {"sources": []}})
    agent_of(pod)["volumeMounts"].append(
        {"name": "kube-api-access-x", "mountPath": API_TOKEN_PATH, "readOnly": True}
    )
    assert create(pod) == []


def test_a_container_that_runs_before_the_sidecar(injected, create):
    """An init container at index 0 could write where the agent will read, were there such a place."""

    def before(**fields):
        pod = injected[1]()
        env = list(ALL)
        pod["spec"]["initContainers"].insert(0, {"name": "first", "image": "x", "env": env, **fields})
        return create(pod)

    assert before() == []
    for name in (mount["name"] for mount in agent_of(injected[1]())["volumeMounts"]):
        assert before(volumeMounts=[{"name": name, "mountPath": "/x"}]) != []
    reader = [{"name": "weights", "mountPath": "/weights", "readOnly": True}]
    assert "WL301" in before(volumeMounts=reader)


@pytest.mark.parametrize("volume", ["weightlock-token", "key"])
def test_another_container_mounts_the_sidecars_volumes(volume, injected, create):
    """A container that reads no weights takes the token or the key."""
    pod = injected[1]()
    name = (
        volume
        if volume != "key"
        else next(
            item["name"]
            for item in pod["spec"]["volumes"]
            if item.get("emptyDir", {}).get("medium") == "Memory"
        )
    )
    pod["spec"]["containers"].append(
        {"name": "other", "image": "x", "volumeMounts": [{"name": name, "mountPath": "/x"}]}
    )
    assert "WL302" in create(pod)


def test_the_key_volume_on_a_disk(injected, create):
    """The key's memory volume replaced by one that outlives the pod."""
    pod = injected[1]()
    volume = next(
        item for item in pod["spec"]["volumes"] if item.get("emptyDir", {}).get("medium") == "Memory"
    )
    volume.pop("emptyDir")
    volume["hostPath"] = {"path": "/srv/x"}
    assert "WL301" in create(pod)


def test_a_sidecar_of_ones_own_in_a_pod_without_weights(injected, create, pod_of):
    """A broker token by a volume that is named as Weightlock names it."""
    token = {"audience": "weightlock.dev/broker", "path": "token"}
    pod = pod_of(
        volumes=[{"name": "weightlock-token", "projected": {"sources": [{"serviceAccountToken": token}]}}]
    )
    assert create(pod) == ["WL302"]


def test_the_running_sidecars_image_is_exchanged(injected, update):
    """Images of running pods may be changed: a new one for the agent would read the key it has fetched."""
    old = injected[1]()
    pod = deepcopy(old)
    agent_of(pod)["image"] = "registry.example.com/mallory:1"
    assert "WL302" in update(pod, old)


def test_the_running_sidecar_is_resized(injected, update):
    """Resources in place are no attack."""
    old = injected[1]()
    pod = deepcopy(old)
    agent_of(pod)["resources"]["limits"]["memory"] = "256Mi"
    assert update(pod, old, "resize") == []


@pytest.mark.parametrize("volume", ["weightlock-token", "weightlock-0123456789abcdef"])
def test_a_debug_container_mounts_the_sidecars_volumes(volume, injected, update):
    """An ephemeral container may mount any volume the pod already has."""
    old = injected[1]()
    pod = deepcopy(old)
    debug = {"name": "debug", "image": "x", "volumeMounts": [{"name": volume, "mountPath": "/x"}]}
    pod["spec"]["ephemeralContainers"] = [debug]
    assert update(pod, old, "ephemeralcontainers") == ["WL302"]


def test_a_debug_container_named_like_the_sidecar(injected, update):
    old = injected[1]()
    pod = deepcopy(old)
    pod["spec"]["ephemeralContainers"] = [{"name": AGENT, "image": "x"}]
    assert update(pod, old, "ephemeralcontainers") == ["WL302"]


def env_of(container):
    return {entry["name"]: entry.get("value") for entry in container.get("env", [])}


def test_a_debug_container_from_an_image_that_asks_for_all_devices(injected, request_of, pod_of, now):
    """CUDA images carry NVIDIA_VISIBLE_DEVICES=all, which admission cannot see: it is overridden."""
    old = pod_of()
    pod = deepcopy(old)
    pod["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "nvidia/cuda"}]
    request = request_of(pod, operation="UPDATE", oldObject=old, subResource="ephemeralcontainers")
    patch = mutate(request, injected[0], FetchedData(), now).patch
    after = jsonpatch.apply_patch(pod, list(patch))
    assert env_of(after["spec"]["ephemeralContainers"][0]) == HIDDEN
    assert after["spec"]["containers"] == old["spec"]["containers"]


@pytest.mark.parametrize(
    "extra",
    [{"runtimeClassName": "nvidia"}, {"overhead": {}}],
    ids=["by the runtime class of the pod", "by nothing"],
)
def test_a_second_container_takes_the_devices_of_the_first(extra, injected, request_of, pod_of, now):
    """One container asks openly for one device; the other's image asks the runtime for all of them."""
    pod = pod_of(**extra)
    pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    pod["spec"]["containers"].append({"name": "second", "image": "nvidia/cuda"})
    patch = mutate(request_of(pod), injected[0], FetchedData(), now).patch
    first, second = jsonpatch.apply_patch(pod, list(patch))["spec"]["containers"]
    assert env_of(first) == {name: HIDDEN[name] for name in HIDDEN if name != "NVIDIA_VISIBLE_DEVICES"}
    assert env_of(second) == HIDDEN


def test_a_device_of_one_vendor_gives_no_access_to_another_vendors(injected, request_of, pod_of, now):
    """A container that may use AMD's devices runs NVIDIA's image on a node that has both."""
    pod = pod_of()
    pod["spec"]["containers"][0]["resources"] = {"limits": {"amd.com/gpu": "1"}}
    patch = mutate(request_of(pod), injected[0], FetchedData(), now).patch
    after = jsonpatch.apply_patch(pod, list(patch))
    assert env_of(after["spec"]["containers"][0]) == {
        name: HIDDEN[name] for name in HIDDEN if name != "AMD_VISIBLE_DEVICES"
    }


def test_a_claim_that_no_container_lists_hides_devices_from_all(injected, request_of, pod_of, now):
    """The claim gives its devices to the containers that list it, and a claim of the pod to none."""
    pod = pod_of(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}])
    patch = mutate(request_of(pod), injected[0], FetchedData(), now).patch
    after = jsonpatch.apply_patch(pod, list(patch))
    assert env_of(after["spec"]["containers"][0]) == HIDDEN


FORGED = '{"atlas-70b":{"own":true,"request":"other","uid":"other"}}'


def stamp_of(pod):
    return (pod["metadata"].get("annotations") or {}).get(ANNOTATION)


def test_a_forged_stamp_of_the_grant_is_replaced_or_denied(injected, request_of, create, pod_of, now):
    """The annotation of a pod that no grant covers is removed, and one that stays is denied."""
    pod = pod_of(claim="atlas-weights")
    pod["metadata"]["annotations"] = {ANNOTATION: FORGED}
    after = jsonpatch.apply_patch(pod, list(mutate(request_of(pod), injected[0], FetchedData(), now).patch))
    assert stamp_of(after) is None
    assert create(after) == []
    after["metadata"]["annotations"] = {ANNOTATION: FORGED}
    assert "WL302" in create(after)
    plain = pod_of()
    plain["metadata"]["annotations"] = {ANNOTATION: FORGED}
    assert "WL302" in create(plain)


@pytest.mark.parametrize("value", [FORGED, None])
def test_the_stamp_of_a_running_pod_is_changed(injected, update, value):
    """A pod that is tied to a grant is tied to another one, or to none."""
    old = injected[1]()
    old["metadata"]["annotations"] = {ANNOTATION: '{"atlas-70b":{"own":false,"request":"a","uid":"a"}}'}
    pod = deepcopy(old)
    pod["metadata"]["annotations"] = {ANNOTATION: value} if value else {}
    assert update(pod, old) == ["WL302"]
    assert update(old, old) == []
