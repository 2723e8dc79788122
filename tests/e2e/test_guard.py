"""The chart's ValidatingAdmissionPolicy on a real API server: users with broad RBAC rights
cannot weaken Weightlock.

No webhook answers here, so each denial is one of the API server's own policy.
"""

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness.cluster import RBAC_API, Cluster, Result, run
from harness.controlplane import ControlPlane, Options
from harness.installed import WEBHOOK_PATHS
from harness.process import free_port
from harness.programs import ROOT
from harness.waiting import eventually

CHART = ROOT / "charts" / "weightlock"
NAME, NAMESPACE = "weightlock", "weightlock-system"
# Everything that RBAC can give but the verb `weaken`, which no wildcard of resources brings.
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
POWERFUL, ADMIN = "powerful", "platform-admin"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TYPE = f"{CRDS}/modelweights.weightlock.dev"
RESTORE = f"{RBAC_API}/clusterrolebindings/{NAME}-restore"
WORDS = "it protects Weightlock"
URL = f"https://127.0.0.1:{free_port()}"
INJECTOR = "system:serviceaccount:cert-manager:cert-manager-cainjector"


@pytest.fixture(scope="module")
def cluster(new_control_plane: Callable[[Options], ControlPlane]) -> Iterator[ControlPlane]:
    """A control plane with the chart installed, and a user who may write everything."""
    matches = new_control_plane(Options(controllers=False))
    matches.client().post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}}).ok()
    upgrade(matches, "install")
    rbac = "rbac.authorization.k8s.io"
    rule = {"apiGroups": ["*"], "resources": ["*"], "verbs": VERBS}
    subjects = [{"apiGroup": rbac, "kind": "User", "name": name} for name in (POWERFUL, INJECTOR)]
    matches.apply(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": POWERFUL},
            "rules": [rule, {"nonResourceURLs": ["*"], "verbs": ["*"]}],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": POWERFUL},
            "subjects": subjects,
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": POWERFUL},
        },
    )
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": "cluster-admin"}
    matches.apply(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ADMIN},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": ADMIN}],
            "roleRef": role,
        },
    )
    eventually(lambda: guarded(matches), "the policy is in force")
    yield matches
    matches.stop()


def upgrade(cluster: Cluster, verb: str, *values: str) -> None:
    # Helm makes the authority: no controller runs here that would.
    settings = [word for value in ("certificates.mode=selfSigned", *values) for word in ("--set", value)]
    # Another test has applied parts of it by kubectl, and no webhook answers for a change of the CRDs.
    force = ["--force-conflicts", "--set", "crds.install=false"] if verb == "upgrade" else []
    cluster.helm(
        verb, NAME, str(CHART), "-n", NAMESPACE, "--set", f"webhook.url={URL}", *force, *settings
    ).ok()


def loosen(cluster: Cluster, user: str | None, path: str = WEBHOOK_PATHS[0]) -> Any:
    """Try (dry run) to make the webhooks fail open; return the answer."""
    name = "validate.weightlock.dev" if "validating" in path else "mutate.weightlock.dev"
    # A strategic merge patch names the one webhook.
    patch = {"webhooks": [{"name": name, "failurePolicy": "Ignore"}]}
    return cluster.client(user).patch(path, patch, "strategic", dryRun="All")


def guarded(cluster: Cluster) -> bool:
    return WORDS in loosen(cluster, POWERFUL).message


@pytest.mark.parametrize("path", WEBHOOK_PATHS)
def test_a_webhook_configuration_is_neither_changed_nor_deleted(cluster: ControlPlane, path: str) -> None:
    answer = loosen(cluster, POWERFUL, path)
    assert answer.status == 403
    assert f"{POWERFUL} is not allowed to change " in answer.message
    client = cluster.client(POWERFUL)
    absent = client.delete(path)
    assert (absent.status, f"{POWERFUL} is not allowed to delete " in absent.message) == (403, True)
    # All at once has no name.
    client.delete(path.rpartition("/")[0])
    assert client.get(path).status == 200


def test_crds_and_the_controllers_restore_permissions_cannot_be_weakened(cluster: ControlPlane) -> None:
    client = cluster.client(POWERFUL)
    for path in (TYPE, RESTORE):
        assert WORDS in client.delete(path).message
    assert client.patch(RESTORE, {"subjects": []}).status == 403
    assert (
        WORDS
        in client.patch(
            TYPE, {"spec": {"conversion": {"strategy": "None"}, "names": {"shortNames": []}}}
        ).message
    )
    client.delete(CRDS)
    assert client.get(TYPE).status == 200


def test_nor_are_they_given_an_owner_that_is_gone(cluster: ControlPlane) -> None:
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": "gone", "uid": "0-0-0-0"}
    answer = cluster.client(POWERFUL).patch(WEBHOOK_PATHS[0], {"metadata": {"ownerReferences": [owner]}})
    assert WORDS in answer.message


def test_other_users_and_other_requests_are_not_affected(cluster: ControlPlane) -> None:
    label = {"metadata": {"labels": {"team": "platform"}}}
    client = cluster.client(POWERFUL)
    client.patch(WEBHOOK_PATHS[0], label, dryRun="All").ok()
    other = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    collection = WEBHOOK_PATHS[0].rpartition("/")[0]
    client.post(collection, {**other, "metadata": {"name": "other"}}).ok()
    client.delete(f"{collection}/other").ok()
    # The admin has every verb, the controller keeps them as they should be.
    loosen(cluster, None).ok()
    loosen(cluster, f"system:serviceaccount:{NAMESPACE}:{NAME}-controller").ok()


def test_another_mutator_of_access_objects_is_denied(cluster: ControlPlane) -> None:
    rule = {"apiVersions": ["*"], "operations": ["CREATE"], "resources": ["accessapprovals"], "scope": "*"}

    def webhook(group: str) -> dict[str, Any]:
        hook = {
            "name": "other.example.com",
            "rules": [{**rule, "apiGroups": [group]}],
            "clientConfig": {"url": URL},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
        return {**kind, "metadata": {"name": "other"}, "webhooks": [hook]}

    collection = WEBHOOK_PATHS[1].rpartition("/")[0]
    client = cluster.client(POWERFUL)
    eventually(
        lambda: (
            "its rules name weightlock.dev or access objects"
            in client.post(collection, webhook("weightlock.dev"), dryRun="All").message
        ),
        "it is denied",
    )
    assert "access objects" in client.post(collection, webhook("*"), dryRun="All").message
    client.post(collection, webhook("apps"), dryRun="All").ok()
    cluster.client(ADMIN).post(collection, webhook("weightlock.dev"), dryRun="All").ok()


def test_a_backend_for_access_objects_is_denied(cluster: ControlPlane) -> None:
    """It would respond to all requests for weightlock.dev, also to those of webhook, controller and broker."""
    collection = "/apis/apiregistration.k8s.io/v1/apiservices"
    backend = {"service": {"name": "backend", "namespace": "default"}, "insecureSkipTLSVerify": True}

    def api_service(group: str, **fields: Any) -> dict[str, Any]:
        spec = {"group": group, "version": "v9", "groupPriorityMinimum": 1, "versionPriority": 1, **fields}
        kind = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
        return {**kind, "metadata": {"name": f"v9.{group}"}, "spec": spec}

    client, denial = cluster.client(POWERFUL), "its backend would respond to all requests"
    document = api_service("weightlock.dev", **backend)
    eventually(lambda: denial in client.post(collection, document, dryRun="All").message, "it is denied")
    own = client.patch(f"{collection}/v1alpha1.weightlock.dev", {"spec": backend}, dryRun="All")
    assert denial in own.message
    client.post(collection, api_service("metrics.example.com", **backend), dryRun="All").ok()
    client.post(collection, api_service("weightlock.dev"), dryRun="All").ok()
    cluster.client(ADMIN).post(collection, document, dryRun="All").ok()


def test_cert_manager_may_change_the_authority_and_nothing_else(cluster: ControlPlane) -> None:
    def render(*values: str) -> str:
        template = ["template", NAME, str(CHART), "-n", NAMESPACE, "-s", "templates/guard.yaml"]
        return cluster.helm(*template, *values).ok().stdout

    def apply(manifests: str) -> None:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests).ok()

    def changed(**fields: Any) -> Any:
        path = WEBHOOK_PATHS[1]
        (webhook,) = cluster.client().get(path).ok()["webhooks"]
        config = {"clientConfig": {**webhook["clientConfig"], **fields.pop("clientConfig", {})}}
        return cluster.client(INJECTOR).patch(
            path, {"webhooks": [{**webhook, **config, **fields}]}, dryRun="All"
        )

    authority = cluster.client().get(WEBHOOK_PATHS[0]).ok()["webhooks"][0]["clientConfig"]["caBundle"]
    other = base64.b64encode(cluster.ca.read_bytes()).decode()
    assert authority != other
    assert WORDS in changed(clientConfig={"caBundle": other}).message
    apply(render("--set", "certificates.mode=certManager"))
    eventually(lambda: changed(clientConfig={"caBundle": other}).status == 200, "cert-manager may")
    assert WORDS in changed(clientConfig={"caBundle": other}, failurePolicy="Ignore").message
    assert WORDS in changed(clientConfig={"url": "https://127.0.0.1:1/"}).message
    assert WORDS in changed(objectSelector={"matchLabels": {"a": "b"}}).message
    apply(render())
    eventually(lambda: WORDS in changed(clientConfig={"caBundle": other}).message, "cert-manager may no more")


def helm_as(cluster: ControlPlane, user: str, *arguments: str) -> Result:
    command = [cluster.programs["helm"], "--kubeconfig", cluster.kubeconfig(user), *arguments]
    return run(command, environment=cluster.tool_environment(), seconds=120)


def test_with_named_admins_not_even_cluster_admins_may(cluster: ControlPlane) -> None:
    upgrade(cluster, "upgrade", "guard.admins.users={" + ADMIN + "}", "guard.admins.groups={sre}")
    eventually(lambda: "guard.admins" in loosen(cluster, None).message, "the cluster admin may not")
    loosen(cluster, ADMIN).ok()
    # An admin who is not listed cannot revert it by an upgrade either, and helm fails before any change.
    rejection = helm_as(cluster, POWERFUL, "uninstall", NAME, "-n", NAMESPACE)
    assert WORDS in rejection.failed()
    assert [cluster.client().get(path).status for path in WEBHOOK_PATHS] == [200, 200]
    deployments = cluster.client().get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments").ok()["items"]
    assert {item["metadata"]["name"] for item in deployments} == {f"{NAME}-broker", f"{NAME}-controller"}
    helm_as(cluster, ADMIN, "uninstall", NAME, "-n", NAMESPACE).ok()
    assert [cluster.client().get(path).status for path in WEBHOOK_PATHS] == [404, 404]
    assert cluster.client().get(TYPE).status == 200
