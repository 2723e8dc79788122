"""The control plane under the other tests is real: its version, its RBAC, its controllers, its state."""

import json
import ssl
from collections.abc import Callable

import pytest
from harness.cluster import Cluster
from harness.controlplane import WEBHOOK_CLIENT, ControlPlane, Options
from harness.programs import ROOT
from harness.rest import Client
from harness.stranger import Request, StrangerWebhook
from harness.waiting import eventually


def pod_template(**labels: str) -> dict[str, object]:
    container = {"name": "main", "image": "registry.example.com/train:1"}
    return {"metadata": {"labels": labels}, "spec": {"containers": [container]}}


@pytest.fixture
def controllers(control_plane: Cluster) -> None:
    if not control_plane.controllers:
        pytest.skip("no kube-controller-manager among the ready-made programs")


def test_it_is_the_release_that_the_go_module_names(own_control_plane: ControlPlane) -> None:
    version = own_control_plane.client().get("/version").ok()["gitVersion"]
    assert f"k8s.io/kubernetes {version} " in (ROOT / "tests/e2e/controlplane/go.mod").read_text()
    client = own_control_plane.kubectl("version", "--client", "-o", "json").json()
    assert client["clientVersion"]["gitVersion"] == version


def test_a_user_without_rights_is_forbidden(control_plane: Cluster, namespace: str) -> None:
    output = control_plane.kubectl("get", "pods", "-n", namespace, user="alice").failed()
    assert 'User "alice" cannot list resource "pods"' in output


def test_rbac_allows_a_user_only_the_permissions_of_the_role(control_plane: Cluster, namespace: str) -> None:
    control_plane.allow("bob", ["list"], ["pods"], namespace)
    bob = control_plane.client("bob")
    eventually(
        lambda: bob.get(f"/api/v1/namespaces/{namespace}/pods").status == 200,
        "the role takes effect",
        seconds=10,
    )
    assert bob.get(f"/api/v1/namespaces/{namespace}/secrets").status == 403


def test_groups_of_a_user_count(control_plane: Cluster) -> None:
    output = control_plane.kubectl("auth", "whoami", "-o", "json", user="carol", groups=["team-atlas"]).json()
    assert output["status"]["userInfo"]["username"] == "carol"
    assert "team-atlas" in output["status"]["userInfo"]["groups"]


@pytest.mark.usefixtures("controllers")
def test_a_deployment_gets_its_pods_from_the_real_controllers(control_plane: Cluster, namespace: str) -> None:
    control_plane.let_edit("dana", namespace)
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "train"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "t"}}, "template": pod_template(app="t")},
    }
    apply = ["apply", "-n", namespace, "-f", "-"]
    eventually(
        lambda: control_plane.kubectl(*apply, stdin=deployment, user="dana").ok(),
        "dana may deploy",
        seconds=10,
    )
    pods_path = f"/api/v1/namespaces/{namespace}/pods"

    def pods() -> list[dict]:
        items = control_plane.client().get(pods_path).ok()["items"]
        return items if len(items) == 2 else []

    owners = [pod["metadata"]["ownerReferences"][0] for pod in eventually(pods, "two pods")]
    sets = control_plane.client().get(f"/apis/apps/v1/namespaces/{namespace}/replicasets").ok()["items"]
    assert {owner["uid"] for owner in owners} == {sets[0]["metadata"]["uid"]}
    assert sets[0]["metadata"]["ownerReferences"][0]["kind"] == "Deployment"


@pytest.mark.usefixtures("controllers")
def test_a_job_gets_its_pod(control_plane: Cluster, namespace: str) -> None:
    template = pod_template()
    template["spec"] |= {"restartPolicy": "Never"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once"},
        "spec": {"template": template},
    }
    control_plane.client().post(f"/apis/batch/v1/namespaces/{namespace}/jobs", job).ok()
    path = f"/api/v1/namespaces/{namespace}/pods"
    pods = eventually(lambda: control_plane.client().get(path).ok()["items"], "the job's pod")
    assert pods[0]["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "once"


@pytest.mark.usefixtures("controllers")
def test_controllers_act_as_their_own_service_accounts(
    own_control_plane: ControlPlane, namespace: str
) -> None:
    replicas = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "r"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "r"}}, "template": pod_template(app="r")},
    }
    own_control_plane.client().post(f"/apis/apps/v1/namespaces/{namespace}/replicasets", replicas).ok()

    def creations() -> list[dict]:
        events = own_control_plane.audit_events(
            user="system:serviceaccount:kube-system:replicaset-controller", verb="create"
        )
        return [event for event in events if event["objectRef"].get("namespace") == namespace]

    assert eventually(creations, "the audit log tells who made the pod")[0]["objectRef"]["resource"] == "pods"


def test_a_service_account_token_is_issued_and_accepted(control_plane: Cluster, namespace: str) -> None:
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": ["vault.example.com"], "expirationSeconds": 600},
    }
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    token = control_plane.client().post(f"{account}/token", request).ok()["status"]["token"]
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": ["vault.example.com"]},
    }
    status = control_plane.client().post("/apis/authentication.k8s.io/v1/tokenreviews", review).ok()["status"]
    assert status["authenticated"]
    assert status["audiences"] == ["vault.example.com"]
    assert status["user"]["username"] == f"system:serviceaccount:{namespace}:default"


@pytest.mark.parametrize("crash", [False, True], ids=["orderly", "killed"])
def test_state_outlives_an_api_server(own_control_plane: ControlPlane, namespace: str, crash: bool) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    remaining = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "b"}}
    before = own_control_plane.client().post(path, remaining).ok()
    own_control_plane.restart_apiserver(crash=crash)
    after = own_control_plane.client().get(f"{path}/kept").ok()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["data"] == {"a": "b"}
    other = own_control_plane.new_namespace()
    own_control_plane.delete_namespace(other)


def test_a_frozen_etcd_delays_writes_and_loses_none(own_control_plane: ControlPlane, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    late = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}
    with own_control_plane.etcd_paused():
        try:
            answer = own_control_plane.client("admin-2", ["system:masters"]).post(path, late, timeout="1s")
        except OSError:
            # The API server may abort a request whose time is over after it has begun the answer.
            pass
        else:
            assert answer.status >= 500, answer
    eventually(
        lambda: own_control_plane.client().post(path, late).status in (201, 409),
        "writes work again",
        seconds=15,
    )


def test_objects_written_into_etcd_bypass_admission(own_control_plane: ControlPlane, namespace: str) -> None:
    keys = own_control_plane.etcd.keys("/registry/namespaces/")
    assert f"/registry/namespaces/{namespace}" in keys
    own_control_plane.etcd.put("/registry/weightlock.test/forged", {"kind": "Forged"})
    assert own_control_plane.etcd.get("/registry/weightlock.test/forged") == {"kind": "Forged"}
    own_control_plane.etcd.delete("/registry/weightlock.test/forged")
    assert own_control_plane.etcd.get("/registry/weightlock.test/forged") is None


def test_the_api_server_authenticates_itself_to_webhooks(own_control_plane: ControlPlane) -> None:
    def label(request: Request) -> list[dict]:
        return [{"op": "add", "path": "/metadata/labels", "value": {"seen": request["userInfo"]["username"]}}]

    with StrangerWebhook(own_control_plane, "shows", label) as stranger:
        namespace = own_control_plane.new_namespace(labels={"stranger": "shows"})
        pod = {"apiVersion": "v1", "kind": "Pod", **pod_template(), "metadata": {"generateName": "p-"}}
        path = f"/api/v1/namespaces/{namespace}/pods"

        def seen() -> bool:
            answer = own_control_plane.client().post(path, pod).ok()
            return answer["metadata"].get("labels") == {"seen": "admin"}

        eventually(seen, "the webhook is asked", seconds=15, every=0.2)
        own_control_plane.delete_namespace(namespace)
    assert set(stranger.callers) == {WEBHOOK_CLIENT}
    assert own_control_plane.webhook_client_ca.read_bytes() != own_control_plane.ca.read_bytes()


def test_a_control_plane_of_other_options(
    own_control_plane: ControlPlane, new_control_plane: Callable[[Options], ControlPlane]
) -> None:
    if "kube-scheduler" not in own_control_plane.programs:
        pytest.skip("no kube-scheduler among the ready-made programs")
    issuer = {"url": "https://issuer.example.com", "audiences": ["weightlock"]}
    claims = {"username": {"claim": "sub", "prefix": ""}}
    authentication = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{"issuer": issuer, "claimMappings": claims}],
        "anonymous": {"enabled": False},
    }
    cluster = new_control_plane(Options(scheduler=True, authentication=authentication))
    anonymous = Client(cluster.server, ssl.create_default_context(cafile=cluster.ca), [])
    assert anonymous.get("/readyz").status == 401
    anonymous.close()
    cluster.add_node("gpu-1", {"nvidia.com/gpu": "8"})
    pod = {"apiVersion": "v1", "kind": "Pod", **pod_template(), "metadata": {"name": "p"}}
    pod["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "8"}}
    cluster.client().post("/api/v1/namespaces/default/pods", pod).ok()
    placed = eventually(
        lambda: cluster.client().get("/api/v1/namespaces/default/pods/p").ok()["spec"].get("nodeName"),
        "the scheduler places the pod",
    )
    assert placed == "gpu-1"


def test_helm_speaks_to_the_cluster(control_plane: Cluster) -> None:
    if "helm" not in control_plane.programs:
        pytest.skip("no helm among the ready-made programs, nor on PATH")
    assert json.loads(control_plane.helm("list", "-A", "-o", "json").ok().stdout) == []
