"""What each part does on the API server, by its audit log, beside what the chart lets it do.

Nothing may be tried that is not granted, and nothing granted that no part was ever seen to do, but for a short list
with reasons.
"""

import base64
import http.client
import json
import ssl
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from harness import manifests, reporttypes
from harness.cluster import Result, run
from harness.controlplane import ControlPlane, Options
from harness.installed import WEBHOOK_PATHS
from harness.lab import Lab
from harness.release import NAME, NAMESPACE, Release, account, pod, signed_request
from harness.rights import Right, beyond, granted, never_used, refused, used
from harness.waiting import eventually

from webhook.api.operators import PRESETS
from webhook.core.access.expiry import ENDED
from webhook.core.kube.kinds import plural
from webhook.core.workloads.references import REFERENCED as REFERENCED_KINDS
from webhook.core.workloads.references import USERS
from webhook.keys.envelope import AgentKey

# The controller makes the certificates of the others.
PARTS = ("controller", "webhook", "broker")
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
AUDIENCE = "weightlock.dev/broker"
POLICIES = "/apis/weightlock.dev/v1alpha1/weightpolicies"
REPORTS = {
    "openreports.io": ("reports", "clusterreports"),
    "wgpolicyk8s.io": ("policyreports", "clusterpolicyreports"),
}
VERSIONS = {"openreports.io": "openreports.io/v1alpha1", "wgpolicyk8s.io": "wgpolicyk8s.io/v1alpha2"}
VALUES = ("broker.config.production=false", "reports.workloads=true", "config.reports.settleSeconds=0.5")
CLAIMS = ("deviceclasses", "resourceclaims", "resourceclaimtemplates")


def rights(verbs: str, group: str, *resources: str) -> set[Right]:
    """Rights of an API group; the verbs with spaces between them."""
    return {Right(verb, group, resource) for verb in verbs.split() for resource in resources}


SNAPSHOTS = rights(
    "get watch", "snapshot.storage.k8s.io", "volumesnapshotcontents", "volumesnapshots"
) | rights("get", "groupsnapshot.storage.k8s.io", "volumegroupsnapshotcontents", "volumegroupsnapshots")
BY_NAME = (
    rights("get", "", "configmaps", "namespaces", "persistentvolumeclaims", "persistentvolumes")
    | rights("get", "networking.k8s.io", "networkpolicies")
    | rights("get", "resource.k8s.io", *CLAIMS)
)


def kinds(verb: str, *names: str) -> set[Right]:
    """A right to each of these kinds, as ``Kind.group``."""
    return {Right(verb, name.partition(".")[2], plural(name)) for name in names}


# Kinds that only an operator brings, so this API server cannot have an object of them.
OPERATED = kinds(
    "get", *REFERENCED_KINDS, *(kind for preset in PRESETS.values() for kind in preset.owns)
) | kinds(
    "get",
    "DataSource.cdi.kubevirt.io",
    "VirtualMachineSnapshot.snapshot.kubevirt.io",
    "PodSnapshot.nvidia.com",
)
USING = kinds("list", *(kind for users in USERS.values() for kind in users))
# Referenced by name: a kind that this API server does not serve, and one that operators adopt.
REFERENCED = rights("get", "resource.k8s.io", "clusterresourceclaimtemplates") | rights(
    "get", "apps", "statefulsets"
)
# What is granted and not used in the story below: by whom, which, and why.
EXCUSES: tuple[tuple[str, set[Right], str], ...] = (
    ("webhook", SNAPSHOTS, "this API server has no CSI snapshots"),
    ("webhook", USING, "no workload of these operators exists here that uses a template"),
    *(
        (part, REFERENCED, "no object of the story refers to one")
        for part in ("webhook", "broker", "controller")
    ),
    (
        "controller",
        rights("create", "weightlock.dev", "accessapprovals"),
        "it suspends a request only if that lost votes while admission was bypassed",
    ),
    (
        "webhook",
        rights("get", "", "namespaces", "persistentvolumes")
        | rights("get", "weightlock.dev", "accessrequests"),
        "asked for by name only where the watch lags",
    ),
    (
        "broker",
        BY_NAME | SNAPSHOTS | rights("get", "", "serviceaccounts"),
        "a pod that was admitted names what exists: its watches lack it only while they lag",
    ),
    (
        "controller",
        rights("delete", "", "pods"),
        "an eviction that a disruption budget refuses for five minutes becomes a deletion",
    ),
    (
        "controller",
        rights("create", "weightlock.dev", "imageverifications")
        | rights("delete", "weightlock.dev", "imageverifications")
        | rights("patch", "weightlock.dev", "imageverifications", "imagetrusts/status"),
        "no ImageTrust exists here, and a statement needs a signed image in a registry",
    ),
    (
        "controller",
        rights("weaken", "weightlock.dev", "weightpolicies"),
        "no request has this verb: policies ask whether the controller has it",
    ),
    (
        "controller",
        BY_NAME | SNAPSHOTS | rights("get", "", "pods", "serviceaccounts"),
        "what runs names what exists: the scan's watches lack it only while they lag",
    ),
    (
        "controller",
        rights("create", "openreports.io", "clusterreports", "reports")
        | rights("create", "wgpolicyk8s.io", "clusterpolicyreports", "policyreports"),
        "a server-side apply that makes an object asks for it, and is a patch in the audit log",
    ),
)


@pytest.fixture(scope="module")
def release(new_control_plane: Callable[[Options], ControlPlane]) -> Iterator[Release]:
    """The chart, after a day in the life of a cluster."""
    cluster = new_control_plane(Options())
    matches = Release(cluster)
    try:
        matches.helm("install", *VALUES)
        # The controller first: it makes the certificates of the others.
        for part in ("controller", "webhook", "broker"):
            matches.start(part)
        eventually(lambda: matches.status("broker") == 200, "the broker is ready")
        live(matches)
        yield matches
    finally:
        matches.stop()
        cluster.stop()


def live(release: Release) -> None:
    """Users request, approve and run pods; access ends by eviction and by wiping; an admin tampers with webhooks."""
    cluster = release.cluster
    controller = release.parts["controller"]
    eventually(lambda: '"became leader"' in controller.log.read_text(), "the controller leads")
    for on_expiry in ("evict", "wipe"):
        lab = Lab(cluster, cluster.new_namespace(), approvals=1, onExpiry=on_expiry).build()
        have_access(release, lab)
        ended(release, lab, on_expiry)
    assert "WL121" in cluster.kubectl("exec", "-n", lab.namespace, "train", "--", "id").failed()
    name_missing_objects(release)
    report(release)
    for path in WEBHOOK_PATHS:
        cluster.client().delete(path)
        eventually(lambda: release.webhooks() == [200, 200], "a webhook configuration is put back")
        tampered(release, path)

    for document in manifests.crds():
        renamed(release, f"{CRDS}/{document['metadata']['name']}")


def renamed(release: Release, path: str) -> None:
    """Give a CRD another short name, and wait until the controller restores it."""
    client = release.cluster.client()
    definition = client.get(path).ok()["spec"]
    client.patch(path, {"spec": {"names": {**definition["names"], "shortNames": ["other"]}}}).ok()
    eventually(lambda: client.get(path).ok()["spec"] == definition, "a type is put back")


def tampered(release: Release, path: str) -> None:
    """Make a webhook fail open, and wait until the controller restores it."""
    client = release.cluster.client()
    webhook = client.get(path).ok()["webhooks"][0]
    client.patch(path, {"webhooks": [{**webhook, "failurePolicy": "Ignore"}]}).ok()
    eventually(lambda: client.get(path).ok()["webhooks"] == [webhook], "its fields are put back")


def report(release: Release) -> None:
    """What runs breaks a policy that came later, which is reported in either API, and gone from the other."""
    cluster, client = release.cluster, release.cluster.client()
    for group in REPORTS:
        reporttypes.install(cluster, group)
    namespace = cluster.new_namespace()
    account = f"system:serviceaccount:{namespace}:default"
    cluster.allow(account, ["use"], ["accelerators"], namespace, "weightlock.dev")
    container = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    template = {"metadata": {"labels": {"app": "r"}}, "spec": pod("r", container=container)["spec"]}
    once = {**template, "spec": {**template["spec"], "restartPolicy": "Never"}}
    deployment = {"selector": {"matchLabels": {"app": "r"}}, "template": template}
    head = {"metadata": {"name": "r", "namespace": namespace}}
    cluster.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", **head, "spec": deployment},
        {"apiVersion": "batch/v1", "kind": "Job", **head, "spec": {"template": once}},
    )
    pods = f"/api/v1/namespaces/{namespace}/pods"
    eventually(lambda: len(client.get(pods).ok()["items"]) == 2, "both have made their pods", every=0.5)
    client.post(POLICIES, late_policy(namespace)).ok()
    # From the one to the other, and back: the reports of the one that is left are removed, those of the cluster, too.
    for group, (of_namespace, of_cluster) in (*REPORTS.items(), *list(REPORTS.items())[:1]):
        release.helm("upgrade", *VALUES, f"reports.api={group}")
        release.restart("controller")
        version = VERSIONS[group]
        path = f"/apis/{version}/namespaces/{namespace}/{of_namespace}/weightlock"
        eventually(
            lambda path=path: client.get(path).status == 200, "what runs is reported", seconds=60, every=0.5
        )
        path = f"/apis/{version}/{of_cluster}/weightlock"
        eventually(
            lambda path=path: client.get(path).status == 200, "and of the cluster", seconds=60, every=0.5
        )
    events = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    messages = {
        item["regarding"]["kind"]
        for item in client.get(events).ok()["items"]
        if item["reason"] == "WouldBeDenied"
    }
    assert messages == {"Deployment", "Job"}
    client.delete(f"{POLICIES}/{namespace}").ok()


def late_policy(namespace: str) -> dict[str, Any]:
    """A policy that denies every pod of a namespace."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    validation = {"expression": f"object.metadata.namespace != '{namespace}'", "message": "not there"}
    spec = {
        "code": "WL802",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [validation],
        "validationActions": ["Deny"],
    }
    head = {"apiVersion": "weightlock.dev/v1alpha1", "kind": "WeightPolicy", "metadata": {"name": namespace}}
    return {**head, "spec": spec}


def name_missing_objects(release: Release) -> None:
    """A pod that refers to objects that do not exist, in a namespace without the NetworkPolicy that it should have."""
    cluster = release.cluster
    namespace = cluster.new_namespace(labels={"weightlock.dev/holds-weights": "true"})
    exact = {"deviceClassName": "no-such-class", "count": 1}
    claim = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": "odd", "namespace": namespace},
        "spec": {"devices": {"requests": [{"name": "device", "exactly": exact}]}},
    }
    cluster.client().post(f"/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims", claim)
    container = {"envFrom": [{"configMapRef": {"name": "none"}}]}
    volumes = [{"name": "lost", "persistentVolumeClaim": {"claimName": "none"}}]
    claims = [
        {"name": "odd", "resourceClaimName": "odd"},
        {"name": "lost", "resourceClaimName": "none"},
        {"name": "made", "resourceClaimTemplateName": "none"},
    ]
    status, _ = release.create(
        namespace, pod("odd", container=container, volumes=volumes, resourceClaims=claims)
    )
    assert status == 403


def have_access(release: Release, lab: Lab) -> None:
    """Request short access, approve it, run a pod that also has a GPU, and request its key."""
    trainer = f"system:serviceaccount:{lab.namespace}:trainer"
    release.cluster.allow(trainer, ["use"], ["accelerators"], lab.namespace, "weightlock.dev")
    request = signed_request(lab, "15s")
    eventually(lambda: lab.vote(request, "bob").status == 201, "bob may approve", every=0.5)
    document = lab.pod()
    document["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    pods = f"/api/v1/namespaces/{lab.namespace}/pods"
    alice = release.cluster.client("alice")
    eventually(lambda: alice.post(pods, document).ok(), "the pod is admitted", every=0.5)
    release_key(release, lab)


def ask_broker(release: Release, token: str, path: str, body: dict[str, str]) -> dict[str, Any]:
    """POST to the broker, by its address: its certificate names its Service."""
    authority = release.cluster.directory / "chart" / "broker" / "tls" / "ca.crt"
    context = ssl.create_default_context(cafile=str(authority))
    context.check_hostname = False
    connection = http.client.HTTPSConnection(
        "127.0.0.1", release.ports["broker"], timeout=30, context=context
    )
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    try:
        connection.request("POST", path, json.dumps(body), headers)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


def release_key(release: Release, lab: Lab) -> None:
    """Ask the broker as the pod's sidecar does. The model is not sealed, so its key ring is empty."""
    cluster = release.cluster
    node = f"node-{lab.namespace}"
    cluster.add_node(node)
    pods = f"/api/v1/namespaces/{lab.namespace}/pods/train"
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "train"}, "target": target}
    cluster.client("system:kube-scheduler").post(f"{pods}/binding", binding).ok()
    uid = cluster.client().get(pods).ok()["metadata"]["uid"]
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "train", "uid": uid}
    spec = {"audiences": [AUDIENCE], "expirationSeconds": 600, "boundObjectRef": reference}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    kubelet = cluster.client(f"system:node:{node}", ["system:nodes"])
    tokens = f"/api/v1/namespaces/{lab.namespace}/serviceaccounts/trainer/token"
    token = kubelet.post(tokens, body).ok()["status"]["token"]
    key = {"publicKey": base64.b64encode(AgentKey.generate().public).decode()}
    nonce = ask_broker(release, token, "/v1/challenge", key)["nonce"]
    answer = ask_broker(release, token, "/v1/release", {**key, "model": lab.model, "nonce": nonce})
    assert "encrypted" in answer, answer


def ended(release: Release, lab: Lab, on_expiry: str) -> None:
    """Wait until the access of a pod has ended, in the one way or the other."""
    pod = f"/api/v1/namespaces/{lab.namespace}/pods/train"

    def gone() -> bool:
        answer = release.cluster.client().get(pod)
        if on_expiry == "evict":
            return answer.status == 404 or "deletionTimestamp" in answer.body["metadata"]
        return bool(answer.ok()["metadata"].get("annotations", {}).get(ENDED))

    eventually(gone, f"access ends: {on_expiry}", seconds=60, every=0.5)


@pytest.mark.parametrize("part", PARTS)
def test_no_request_of_a_component_is_forbidden(release: Release, part: str) -> None:
    assert used(release.cluster, account(part))
    assert refused(release.cluster, account(part)) == set()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_may_do_no_more_than_it_does(release: Release, part: str) -> None:
    may = granted(release.cluster, NAMESPACE, f"{NAME}-{part}")
    excused = set().union(*(listing for who, listing, _ in EXCUSES if who == part))
    # Of the operators' kinds, those in groups that this API server does serve need an excuse of their own.
    endpoint = {group["name"] for group in release.cluster.client().get("/apis").ok()["groups"]}
    excused |= {right for right in OPERATED if right.group not in endpoint}
    unused = never_used(may, used(release.cluster, account(part)))
    needless = {right for right in unused if right.any not in excused}
    assert not needless, "\n".join(map(str, sorted(needless)))
    # Who is not granted something needs no excuse for it.
    groundless = excused - {right.any for right in may}
    assert not groundless, "\n".join(map(str, sorted(groundless)))


def run_as_in_pod(cluster: ControlPlane, name: str, arguments: list[str]) -> Result:
    """Run the command as a container of a service account does: with its token and its authority, and no kubeconfig."""
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = cluster.directory / f"token-of-{name}"
    token.write_text(cluster.client().post(path, body).ok()["status"]["token"])
    host, _, port = cluster.server.removeprefix("https://").rpartition(":")
    environment = {
        **cluster.tool_environment(),
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
    }
    # Where a kubelet mounts them is not ours to write.
    program = (
        "import sys; from kubernetes_asyncio.config import incluster_config as pod; from webhook.cli.main import main; "
        "pod.SERVICE_TOKEN_FILENAME, pod.SERVICE_CERT_FILENAME = sys.argv[1:3]; sys.exit(main(sys.argv[3:]))"
    )
    return run(
        [sys.executable, "-c", program, token, cluster.ca, *arguments], environment=environment, seconds=180
    )


def test_the_test_of_the_chart_examines_the_cluster_with_the_rights_it_is_given(release: Release) -> None:
    """`helm test` would run this in a pod. Secrets are kept from it, and what needs them is skipped."""
    cluster = release.cluster
    hooks = cluster.helm("get", "hooks", NAME, "-n", NAMESPACE).ok().stdout
    documents = [each for each in yaml.safe_load_all(hooks) if each["metadata"]["name"] == f"{NAME}-test"]
    (pod_of_it,) = [document for document in documents if document["kind"] == "Pod"]
    cluster.apply(*(document for document in documents if document["kind"] != "Pod"))
    (container,) = pod_of_it["spec"]["containers"]
    user = account("test")
    examined = run_as_in_pod(cluster, f"{NAME}-test", container["args"])
    print(examined)
    assert "CHECK" in examined.stdout
    # Pods, Services and nodes are not there, which it finds; that it could look at everything else counts here.
    assert examined.code == 1
    # Keys are kept from it, and the right to create pods.
    remaining = {Right("get", "", "secrets"), Right("create", "", "pods")}
    assert {right.any for right in refused(cluster, user)} <= remaining
    may = granted(cluster, NAMESPACE, f"{NAME}-test")
    assert {right.any for right in beyond(used(cluster, user), may)} <= remaining
