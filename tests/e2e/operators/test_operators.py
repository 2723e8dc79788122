"""Real operators on a real API server with Weightlock in front, from the custom resource to the pods."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from harness.controller import Controllers
from harness.installed import WEBHOOK_PATHS
from harness.lab import Lab
from harness.waiting import eventually
from harness.weightlock import Weightlock

SECONDS = 60
VALIDATING = next(path for path in WEBHOOK_PATHS if "validating" in path)


def granted(lab: Lab) -> None:
    request = lab.ask()
    lab.vote(request, "bob").ok()
    lab.vote(request, "carol").ok()
    eventually(lab.is_admitted, "the grant is active", seconds=SECONDS)


def covers(weightlock: Weightlock, group: str) -> bool:
    configuration = weightlock.cluster.client().get(VALIDATING).ok()
    return any(rule["apiGroups"] == [group] for rule in configuration["webhooks"][0]["rules"])


def pods(lab: Lab) -> list[dict[str, Any]]:
    return list(lab.cluster.client().get(f"/api/v1/namespaces/{lab.namespace}/pods").ok()["items"])


def reading(lab: Lab) -> dict[str, Any]:
    return dict(lab.pod()["spec"])


def job_set(lab: Lab) -> dict[str, Any]:
    """Spelled out as the defaulting webhook of JobSet would complete it."""
    job = {
        "parallelism": 1,
        "completions": 1,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {"spec": reading(lab)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "train", "namespace": lab.namespace},
        "spec": {
            "network": {"enableDNSHostnames": False, "publishNotReadyAddresses": True},
            "successPolicy": {"operator": "All"},
            "startupPolicy": {"startupPolicyOrder": "AnyOrder"},
            "replicatedJobs": [{"name": "workers", "replicas": 1, "template": {"spec": job}}],
        },
    }


def leader_worker_set(lab: Lab) -> dict[str, Any]:
    template = {"spec": {**reading(lab), "restartPolicy": "Always"}}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "serve", "namespace": lab.namespace},
        "spec": {
            "replicas": 1,
            "startupPolicy": "LeaderCreated",
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxUnavailable": 1, "maxSurge": 0, "partition": 0},
            },
            "networkConfig": {"subdomainPolicy": "Shared"},
            "leaderWorkerTemplate": {
                "size": 1,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "workerTemplate": template,
            },
        },
    }


def ray_cluster(lab: Lab) -> dict[str, Any]:
    template = {"spec": {**reading(lab), "restartPolicy": "Always"}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "ray", "namespace": lab.namespace},
        "spec": {"rayVersion": "2.46.0", "headGroupSpec": {"rayStartParams": {}, "template": template}},
    }


def check(
    kind: tuple[str, str, str],
    document: Callable[[Lab], dict[str, Any]],
    weightlock: Weightlock,
    namespace: str,
    listed: Callable[[list[Any]], None],
    operator: Callable[[str], Any],
) -> None:
    """Admit the custom resource of a user with a grant, and then the pods that the operator writes for it.

    ``kind`` is the preset, the API group and version, and the plural. Without the entry the operator writes no pod.
    """
    preset, api_version, plural = kind
    group = api_version.partition("/")[0]
    cluster = weightlock.cluster
    lab = Lab(cluster, namespace).build()
    granted(lab)
    listed([])
    running = operator(preset)
    eventually(lambda: covers(weightlock, group), "the rules contain the kind", seconds=SECONDS)
    for user in ("alice", "mallory"):
        cluster.allow(user, ["create", "get", "update", "delete"], [plural], namespace, group)
    path = f"/apis/{api_version}/namespaces/{namespace}/{plural}"
    # A user without the right to use the account is denied at apply.
    denied = cluster.client("mallory").post(path, document(lab), dryRun="All")
    assert "[WL103]" in denied.message, denied.message
    # Without an entry the custom resource is admitted with a warning, and its pods are not.
    applied = cluster.kubectl("create", "-f", "-", stdin=document(lab), user="alice").ok()
    assert "WL143" in str(applied), applied
    eventually(
        lambda: "[WL103]" in running.component.log.read_text(),
        f"{preset} is denied as a user",
        seconds=SECONDS,
    )
    assert pods(lab) == []
    cluster.client().delete(f"{path}/{document(lab)['metadata']['name']}", propagationPolicy="Foreground")
    eventually(lambda: not cluster.client().get(path).ok()["items"], "it is deleted", seconds=SECONDS)
    # With the entry the operator's pods are decided by their service account, and get their sidecar.
    listed([preset])
    cluster.client("alice").post(path, document(lab)).ok()
    eventually(lambda: pods(lab), f"{preset} writes pods", seconds=SECONDS)
    (pod, *_) = pods(lab)
    assert pod["spec"]["serviceAccountName"] == "trainer"
    assert any(c["name"] == "weightlock-agent" for c in pod["spec"]["initContainers"])
    attack(kind, document(lab), cluster, running, pod)
    assert running.component.running


def attack(
    kind: tuple[str, str, str],
    document: dict[str, Any],
    cluster: Any,
    running: Any,
    pod: dict[str, Any],
) -> None:
    """Deny another container in the admitted object, and pods of the operator under another service account."""
    _, api_version, plural = kind
    namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
    path = f"/apis/{api_version}/namespaces/{namespace}/{plural}"
    pods_path = f"/api/v1/namespaces/{namespace}/pods"

    # Mallory may update the custom resource, but not use its service account.
    def change() -> Any:
        changed = deepcopy(cluster.client().get(f"{path}/{name}").ok())
        template = pod_spec_in(changed["spec"])
        template["containers"][0]["command"] = ["cat", "/weights/model"]
        answer = cluster.client("mallory").put(f"{path}/{name}", changed, dryRun="All")
        # The operator writes the status meanwhile.
        return None if answer.status == 409 else answer

    denied = eventually(change, "the update conflicts with no other", seconds=SECONDS)
    assert denied.status in (403, 422), denied.message
    assert "[WL103]" in denied.message, denied.message
    # The operator's own identity gets no account that the owner of the pod does not name.
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "other", "namespace": namespace}}
    )
    controller = next(one for one in pod["metadata"]["ownerReferences"] if one.get("controller"))
    metadata = {"name": "forged", "namespace": namespace, "ownerReferences": [controller]}
    for account, owned in (("other", True), ("trainer", False)):
        forged = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata if owned else {"name": "forged", "namespace": namespace},
            "spec": {**Lab(cluster, namespace).pod()["spec"], "serviceAccountName": account},
        }
        denied = running.client().post(pods_path, forged, dryRun="All")
        assert denied.status == 403, denied.message
        assert "[WL10" in denied.message, denied.message


def pod_spec_in(value: Any) -> dict[str, Any]:
    """The first pod spec in an object."""
    if isinstance(value, dict):
        if isinstance(value.get("containers"), list):
            return value
        children = list(value.values())
    else:
        children = value if isinstance(value, list) else []
    for child in children:
        inner = pod_spec_in(child)
        if inner:
            return inner
    return {}


def test_jobset(
    own_weightlock: Weightlock,
    controllers: Controllers,
    namespace: str,
    listed: Callable[[list[Any]], None],
    operator: Callable[[str], Any],
) -> None:
    kind = ("jobset", "jobset.x-k8s.io/v1alpha2", "jobsets")
    check(kind, job_set, own_weightlock, namespace, listed, operator)


def test_lws(
    own_weightlock: Weightlock,
    controllers: Controllers,
    namespace: str,
    listed: Callable[[list[Any]], None],
    operator: Callable[[str], Any],
) -> None:
    kind = ("lws", "leaderworkerset.x-k8s.io/v1", "leaderworkersets")
    check(kind, leader_worker_set, own_weightlock, namespace, listed, operator)


def test_kuberay(
    own_weightlock: Weightlock,
    controllers: Controllers,
    namespace: str,
    listed: Callable[[list[Any]], None],
    operator: Callable[[str], Any],
) -> None:
    kind = ("kuberay", "ray.io/v1", "rayclusters")
    check(kind, ray_cluster, own_weightlock, namespace, listed, operator)
