"""The snapshot of a real cluster: it follows every change at once, outlives the API server, and says when it cannot."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from harness import manifests
from harness.cluster import Cluster
from harness.controlplane import ControlPlane
from harness.waiting import slowness

from webhook.api.config import Cluster as ClusterConfig
from webhook.api.config import Config
from webhook.cel.authz import AccessCheck
from webhook.cluster.snapshot_provider import ClusterProvider
from webhook.core.admission.provider import NotReadyError, RequiredData
from webhook.core.kube.objects import ObjectKey

GROUPS = ("system:serviceaccounts", f"system:serviceaccounts:{manifests.NAMESPACE}", "system:authenticated")
POLICIES = "/apis/weightlock.dev/v1alpha1/weightpolicies"


def policy(name: str, **spec: object) -> dict[str, object]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "WeightPolicy",
        "metadata": {"name": name},
        "spec": {
            "code": "WL500",
            "matchConstraints": {
                "resourceRules": [rule],
                # Seen by snapshots only; the cluster's own Weightlock must not begin to judge by it.
                "namespaceSelector": {"matchLabels": {"weightlock.dev/no-such": "namespace"}},
            },
            "validations": [{"expression": "true"}],
            **spec,
        },
    }


@pytest.fixture(scope="module")
def identity(control_plane: Cluster) -> Path:
    """A kubeconfig with the identity and the rights that Weightlock has in a cluster."""
    control_plane.apply(*manifests.identity())
    control_plane.apply(*manifests.crds())
    control_plane.kubectl("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s").ok()
    return control_plane.kubeconfig(manifests.USERNAME, GROUPS)


@pytest.fixture
async def source(identity: Path) -> AsyncIterator[ClusterProvider]:
    config = Config(cluster=ClusterConfig(kubeconfig=str(identity)))
    async with ClusterProvider.connect(config) as connected:
        await eventually(lambda: is_ready(connected))
        yield connected


def is_ready(source: ClusterProvider) -> bool:
    try:
        source.snapshot()
    except NotReadyError:
        return False
    return True


async def eventually(look: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds * slowness()
    while not look():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        await asyncio.sleep(0.002)


async def test_the_snapshot_follows_the_cluster(
    source: ClusterProvider, control_plane: Cluster, namespace: str
) -> None:
    client = control_plane.client()
    key = ObjectKey("Namespace", "", namespace)
    await eventually(lambda: source.snapshot().objects.get(key))
    name = f"follow-{namespace}"
    place = ObjectKey("WeightPolicy.weightlock.dev", "", name)
    lags = []
    for number in range(30):
        display = policy(name, fix=f"'{number}'")
        if number:
            display = client.get(f"{POLICIES}/{name}").ok()
            display["spec"]["fix"] = f"'{number}'"
        begun = time.monotonic()
        if number:
            await asyncio.to_thread(lambda now=display: client.put(f"{POLICIES}/{name}", now).ok())
        else:
            await asyncio.to_thread(lambda now=display: client.post(POLICIES, now).ok())
        await eventually(lambda want=f"'{number}'": _fix(source, place) == want, seconds=5)
        lags.append(time.monotonic() - begun)
    client.delete(f"{POLICIES}/{name}").ok()
    await eventually(lambda: source.snapshot().objects.get(place) is None)
    # The first may wait for the API server, whose cache of a type just installed is not warm yet.
    assert statistics.quantiles(lags[1:], n=20)[-1] < 1.0 * slowness(), lags


def _fix(source: ClusterProvider, key: ObjectKey) -> object:
    document = source.snapshot().objects.get(key)
    return document["spec"].get("fix") if document else None


async def test_uncached_objects_are_fetched(
    source: ClusterProvider, control_plane: Cluster, namespace: str
) -> None:
    control_plane.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": namespace},
            "data": {"a": "1"},
        }
    )
    there = ObjectKey("ConfigMap", namespace, "settings")
    account = ObjectKey("ServiceAccount", namespace, "default")
    absent = ObjectKey("Pod", namespace, "gone")
    unknown = ObjectKey("Invention.example.com", namespace, "x")
    objects = (await source.fetch(RequiredData(objects=frozenset({there, account, absent, unknown})))).objects
    assert objects[there]["data"] == {"a": "1"}
    assert objects[account]["metadata"]["name"] == "default"
    assert objects[absent] is None
    assert objects[unknown] is None


async def test_an_object_it_may_not_read_is_an_error(source: ClusterProvider, namespace: str) -> None:
    secret = ObjectKey("Secret", namespace, "any")
    with pytest.raises(NotReadyError, match="forbidden"):
        await source.fetch(RequiredData(objects=frozenset({secret})))


async def test_rights_are_queried_and_follow_changes(
    source: ClusterProvider, control_plane: Cluster, namespace: str
) -> None:
    question = AccessCheck(
        user=f"system:serviceaccount:{namespace}:default",
        verb="use",
        group="weightlock.dev",
        resource="accelerators",
        namespace=namespace,
        name="nvidia.com",
    )
    assert not await _may(source, question)
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "use", "namespace": namespace},
        "rules": [
            {
                "apiGroups": ["weightlock.dev"],
                "resources": ["accelerators"],
                "verbs": ["use"],
                "resourceNames": ["nvidia.com"],
            }
        ],
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "use", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "use"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
    }
    control_plane.apply(role, binding)
    deadline = time.monotonic() + 5 * slowness()
    while not await _may(source, question):
        assert time.monotonic() < deadline, "a right that was given does not show"
        await asyncio.sleep(0.1)
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings/use"
    control_plane.client().delete(path).ok()
    deadline = time.monotonic() + 8 * slowness()
    while await _may(source, question):
        assert time.monotonic() < deadline, "a right that was taken away still holds"
        await asyncio.sleep(0.1)


async def _may(source: ClusterProvider, question: AccessCheck) -> bool:
    decision = (await source.fetch(RequiredData(questions=frozenset({question})))).decisions[question]
    assert decision.error == ""
    return decision.allowed


async def test_params_are_followed(source: ClusterProvider, control_plane: Cluster, namespace: str) -> None:
    for name in ("limits", "other"):
        control_plane.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": namespace},
                "data": {"n": "1"},
            }
        )
    ref = {"name": "limits", "namespace": namespace, "parameterNotFoundAction": "Deny"}
    control_plane.apply(
        policy(f"params-{namespace}", paramKind={"apiVersion": "v1", "kind": "ConfigMap"}, paramRef=ref)
    )
    limits, other = ObjectKey("ConfigMap", namespace, "limits"), ObjectKey("ConfigMap", namespace, "other")
    objects = source.snapshot().objects
    await eventually(lambda: objects.get(limits) is not None)
    assert objects.get(other) is None
    client = control_plane.client()
    document = client.get(f"/api/v1/namespaces/{namespace}/configmaps/limits").ok()
    client.put(f"/api/v1/namespaces/{namespace}/configmaps/limits", {**document, "data": {"n": "2"}}).ok()
    await eventually(lambda: objects.get(limits)["data"] == {"n": "2"})
    client.delete(f"{POLICIES}/params-{namespace}").ok()
    await eventually(lambda: objects.get(limits) is None)


async def test_it_outlives_the_api_server(
    source: ClusterProvider, own_control_plane: ControlPlane, namespace: str
) -> None:
    key = ObjectKey("Namespace", "", namespace)
    await eventually(lambda: source.snapshot().objects.get(key))
    for crash in (False, True):
        await asyncio.to_thread(own_control_plane.stop_apiserver, crash=crash)
        # What was known stays known, and its age tells.
        assert source.snapshot().objects.get(key) is not None
        await asyncio.to_thread(own_control_plane.start_apiserver)
        name = f"{namespace}-{'crash' if crash else 'stop'}"
        client = own_control_plane.client()
        client.post("/api/v1/namespaces", {"metadata": {"name": name}}).ok()
        begun = time.monotonic()
        await eventually(
            lambda n=name: source.snapshot().objects.get(ObjectKey("Namespace", "", n)), seconds=20
        )
        assert time.monotonic() - begun < 15 * slowness()
        await eventually(lambda: source.age() < 15, seconds=30)
        client.delete(f"/api/v1/namespaces/{name}").ok()


async def test_a_paused_etcd_shows_as_age_and_passes(
    source: ClusterProvider, own_control_plane: ControlPlane, namespace: str
) -> None:
    with own_control_plane.etcd_paused():
        await asyncio.sleep(2)
        assert is_ready(source)
    name = f"{namespace}-paused"
    client = own_control_plane.client()
    client.post("/api/v1/namespaces", {"metadata": {"name": name}}).ok()
    await eventually(lambda: source.snapshot().objects.get(ObjectKey("Namespace", "", name)))
    client.delete(f"/api/v1/namespaces/{name}").ok()
