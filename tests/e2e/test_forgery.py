"""Forged access objects on a real API server: nothing that bypassed admission is signed, and no access follows.

The controller signs, as in the chart's default, and uses the chart's own times. The webhook configurations are loosened
by a cluster admin, which no cluster can prevent, and restored with metadata that hides it.
"""

import base64
import http.client
import json
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from harness import manifests
from harness.broker import BrokerProcess, grant_rights
from harness.controller import Controllers, public_half
from harness.controlplane import ControlPlane
from harness.installed import WEBHOOK_PATHS
from harness.keylab import KeyLab
from harness.lab import API, APPROVERS, Lab
from harness.stranger import ACCESS_RULE, StrangerWebhook
from harness.waiting import eventually
from harness.weightlock import Weightlock

SETTLE_SECONDS = 40.0
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def signing(installed_weightlock: Any) -> Iterator[Controllers]:
    """A controller that signs with the chart's times, and a webhook that stamps with the shared key."""
    if not isinstance(installed_weightlock, Weightlock):
        pytest.skip("Weightlock is not a process of ours here")
    weightlock = installed_weightlock
    if not weightlock.running:
        weightlock.start()
    if not weightlock.webhooks_present():
        weightlock.add_webhooks()
    before, tls = weightlock.config["signing"], weightlock.config["tls"]
    # As in the chart's default: the API server does not authenticate itself.
    weightlock.config["tls"] = {key: tls[key] for key in ("certificate", "key")}
    stamp = weightlock.signing_key.with_name("stamp.key")
    stamp.write_bytes(b"a key of the tests, 32 bytes long")
    weightlock.config["signing"] = {
        "keys": str(public_half(weightlock.signing_key)),
        "stampKey": str(stamp),
    }
    weightlock.restart()
    controllers = Controllers(weightlock, signs=True, stamp=stamp).prepare()
    controllers.start(settleSeconds=SETTLE_SECONDS)
    controllers.wait_leading()
    yield controllers
    controllers.stop()
    weightlock.config["signing"], weightlock.config["tls"] = before, tls
    weightlock.restart()


@pytest.fixture
def lab(signing: Controllers, own_control_plane: ControlPlane, namespace: str) -> Lab:
    return Lab(own_control_plane, namespace, approvals=1).build()


def now(**shift: float) -> str:
    return (datetime.now(UTC) + timedelta(**shift)).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(lab: Lab, document: dict[str, Any]) -> dict[str, Any]:
    path = f"{API}/{document['kind'].lower()}s/{document['metadata']['name']}"
    return dict(lab.cluster.client().get(path).ok())


def forge(lab: Lab, name: str, **metadata: Any) -> list[dict[str, Any]]:
    """Create a request with its approval as only an admin can, with all stamps of admission."""
    admin = lab.cluster.client()
    request = lab.request(name, requester={"username": "alice"}, stampedAt=now())
    request["metadata"] |= metadata
    saved = admin.post(f"{API}/accessrequests", request).ok()
    approver = {"username": "bob", "groups": [*APPROVERS]}
    approval = lab.approval(saved, "bob", approver=approver, stampedAt=now())
    approval["metadata"] |= metadata
    return [dict(saved), dict(admin.post(f"{API}/accessapprovals", approval).ok())]


class Window:
    """A time without admission: both configurations are loosened, then restored with metadata that hides it."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.client = lab, lab.cluster.client()

    def __enter__(self) -> None:
        self.originals = [self.client.get(path).ok() for path in WEBHOOK_PATHS]
        for path, original in zip(WEBHOOK_PATHS, self.originals, strict=True):
            webhooks = deepcopy(original["webhooks"])
            webhooks[0]["matchConditions"] = [{"name": "none", "expression": "false"}]
            self.client.patch(path, {"webhooks": webhooks}).ok()
        eventually(self.lab.is_admitted, "admission is off", seconds=20, every=0.2)

    def __exit__(self, *_: object) -> None:
        for path, original in zip(WEBHOOK_PATHS, self.originals, strict=True):
            body = self.client.get(path).ok()
            body["webhooks"] = original["webhooks"]
            entries = body["metadata"].get("managedFields") or []
            for entry in entries:
                entry |= {"manager": "helm", "time": LONG_AGO}
            body["metadata"] |= {"managedFields": entries, "generation": 1}
            self.client.put(path, body).ok()
        eventually(lambda: not self.lab.is_admitted(), "admission is on", seconds=20, every=0.2)


def rejected(lab: Lab, *documents: dict[str, Any]) -> None:
    """Wait until the controller rejected the objects, and assert that nothing signed them."""
    for document in documents:
        status = eventually(
            lambda document=document: read(lab, document).get("status"), "it is rejected", seconds=20
        )
        assert "it is not signed because" in status["reason"]
        assert "again" in status["reason"]
        assert not read(lab, document)["spec"].get("signature")
    assert not lab.is_admitted()


def granted(lab: Lab) -> str:
    """Request and approve with the commands as users do; each waits for its signature. Return the request's name."""
    name = f"good-{lab.namespace}"
    arguments = ("--service-account", f"{lab.namespace}/trainer", "--reason", "tests", "--for", "10m")
    output = lab.weightlock("request", lab.model, *arguments, "--name", name, user="alice").ok().stdout
    name = next(word for word in output.split() if word.startswith(name)).rstrip(".")
    lab.weightlock("approve", name, user="carol", groups=APPROVERS).ok()
    eventually(lab.is_admitted, "the grant is active", seconds=10)
    return name


@pytest.fixture
def keys(
    signing: Controllers, own_control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> Iterator[KeyLab]:
    """A lab whose weights are sealed, with a broker of its own."""
    grant_rights(own_control_plane)
    directory = tmp_path / "broker"
    directory.mkdir()
    broker = BrokerProcess(signing.weightlock, directory, name=f"broker-{namespace}")
    broker.start()
    lab = KeyLab(own_control_plane, namespace, tmp_path, broker).seal()
    lab.build()
    yield lab
    broker.stop()


def test_a_forged_grant_gets_no_key(keys: KeyLab) -> None:
    lab, admin = keys, keys.cluster.client()
    request = granted(lab)
    pod = lab.running_pod("train")
    own_token = lab.token(pod)
    lab.client(own_token).release(lab.model)
    lab.weightlock("revoke", request, "--comment", "the end", user="carol", groups=APPROVERS).ok()
    eventually(lambda: not lab.is_admitted(), "the grant is revoked", seconds=20)
    pods = f"/api/v1/namespaces/{lab.namespace}/pods"
    copied = {key: pod["metadata"].get(key) for key in ("labels", "annotations") if pod["metadata"].get(key)}
    spec = {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    with Window(lab):
        forged = forge(lab, "keys")
        # A pod with the sidecar as admission would inject it, and its token.
        admin.post(pods, {**lab.pod("thief"), "metadata": {"name": "thief", **copied}, "spec": spec}).ok()
        lab.bind("thief")
        token = lab.token(dict(admin.get(f"{pods}/thief").ok()))
        assert lab.refusal(token).endswith("[WL328]")
    rejected(lab, *forged)
    for stolen in (token, own_token):
        assert lab.refusal(stolen).endswith("[WL326]")


def test_objects_of_a_window_without_admission_are_never_signed(lab: Lab, signing: Controllers) -> None:
    granted_before = Lab(lab.cluster, lab.namespace, approvals=1)
    assert not granted_before.is_admitted()
    client = lab.cluster.client()
    finalizers = ["tests.weightlock.dev/wait"]
    with Window(lab):
        plain = forge(lab, "plain")
        leaving = forge(lab, "leaving", finalizers=finalizers)
        for document in leaving:
            kind = f"{document['kind'].lower()}s"
            client.delete(f"{API}/{kind}/{document['metadata']['name']}").ok()
        dated = forge(lab, "dated", annotations={"a": "b"}, managedFields=[], generation=7)
    # An edit after the window would make them look young.
    for document in (*plain, *leaving, *dated):
        path = f"{API}/{document['kind'].lower()}s/{document['metadata']['name']}"
        for edit in ({"labels": {"a": "b"}}, {"annotations": {"a": "c"}}):
            assert "WL404" in client.patch(path, {"metadata": edit}).message
    rejected(lab, *plain, *dated)
    # Nothing becomes of objects that are being deleted, also when the configurations have settled.
    time.sleep(SETTLE_SECONDS + 3)
    for document in leaving:
        matches = read(lab, document)
        assert not matches["spec"].get("signature")
    assert not lab.is_admitted()
    for document in leaving:
        path = f"{API}/{document['kind'].lower()}s/{document['metadata']['name']}"
        client.patch(path, {"metadata": {"finalizers": None}}).ok()
    granted(lab)


def test_objects_from_before_the_configurations_were_deleted_and_created_again(lab: Lab) -> None:
    client = lab.cluster.client()
    originals = [client.get(path).ok() for path in WEBHOOK_PATHS]
    for path in WEBHOOK_PATHS:
        client.delete(path).ok()
    eventually(lab.is_admitted, "admission is off", seconds=20, every=0.2)
    forged = forge(lab, "forged")
    for path, original in zip(WEBHOOK_PATHS, originals, strict=True):
        metadata = {"name": original["metadata"]["name"], "creationTimestamp": LONG_AGO}
        client.post(path.rpartition("/")[0], {**original, "metadata": metadata}).ok()
    eventually(lambda: not lab.is_admitted(), "admission is on", seconds=20, every=0.2)
    rejected(lab, *forged)


def test_objects_while_no_controller_watched_are_not_signed_after_its_start(
    lab: Lab, signing: Controllers
) -> None:
    signing.kill()
    with Window(lab):
        forged = forge(lab, "forged")
    signing.start(settleSeconds=SETTLE_SECONDS)
    signing.wait_leading()
    rejected(lab, *forged)


def etcd_key(document: dict[str, Any]) -> str:
    return f"/registry/weightlock.dev/{document['kind'].lower()}s/{document['metadata']['name']}"


def planted(document: dict[str, Any], uid: str) -> dict[str, Any]:
    """An object as the API server stores it."""
    metadata = {**document["metadata"], "uid": uid, "creationTimestamp": now(), "generation": 1}
    return {**document, "metadata": metadata}


def test_objects_written_straight_into_etcd_are_not_signed(lab: Lab, own_control_plane: ControlPlane) -> None:
    etcd = own_control_plane.etcd
    person = {"username": "alice", "groups": ["system:authenticated"]}
    request = planted(
        lab.request("etcd", requester=person, stampedAt=now()), "11111111-0000-0000-0000-000000000001"
    )
    etcd.put(etcd_key(request), request)
    approver = {"username": "bob", "groups": [*APPROVERS]}
    approval = planted(
        lab.approval(request, "bob", approver=approver, stampedAt=now()),
        "11111111-0000-0000-0000-000000000002",
    )
    etcd.put(etcd_key(approval), approval)
    rejected(lab, request, approval)


def test_a_copy_of_a_signed_object_and_of_its_stamp_is_worthless(
    lab: Lab, own_control_plane: ControlPlane
) -> None:
    granted(lab)
    etcd = own_control_plane.etcd
    client = lab.cluster.client()
    items = client.get(f"{API}/accessrequests").ok()["items"]
    own = [item for item in items if item["spec"].get("model") == lab.model]
    real = next(item for item in own if item["spec"].get("signature"))
    lab.vote({**real, "kind": "AccessRequest"}, "carol", "Revoke").ok()
    eventually(lambda: not lab.is_admitted(), "the grant is revoked", seconds=10)
    kind = {"apiVersion": "weightlock.dev/v1alpha1", "kind": "AccessRequest"}
    for number, field in enumerate(("signature", "stamp", "both")):
        spec = dict(real["spec"])
        if field != "both":
            spec.pop({"signature": "stamp", "stamp": "signature"}[field])
        name = {"metadata": {"name": f"copy-{field}-{lab.namespace}"}}
        copy = planted({**kind, **name, "spec": spec}, f"22222222-0000-0000-0000-00000000000{number}")
        etcd.put(etcd_key(copy), copy)
        status = eventually(lambda copy=copy: read(lab, copy).get("status"), "it is rejected", seconds=20)
        assert status["state"] == "Invalid"
    assert not lab.is_admitted()


def post_review(
    weightlock: Weightlock, document: dict[str, Any], user: str, groups: list[str]
) -> dict[str, Any]:
    """Send a forged AdmissionReview to the webhook's port and apply the patch: the object with a valid stamp."""
    resource = {"group": "weightlock.dev", "version": "v1alpha1", "resource": f"{document['kind'].lower()}s"}
    kind = {"group": "weightlock.dev", "version": "v1alpha1", "kind": document["kind"]}
    request = {
        "uid": "33333333-0000-0000-0000-000000000000",
        "kind": kind,
        "requestKind": kind,
        "resource": resource,
        "requestResource": resource,
        "name": document["metadata"]["name"],
        "operation": "CREATE",
        "userInfo": {"username": user, "groups": groups},
        "object": document,
        "dryRun": False,
    }
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    tls = ssl.create_default_context(cafile=str(weightlock.ca))
    connection = http.client.HTTPSConnection("127.0.0.1", weightlock.port, context=tls, timeout=10)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/mutate?timeout=5s", json.dumps(review), headers)
    with closing(connection):
        response = json.loads(connection.getresponse().read())["response"]
    patch = json.loads(base64.b64decode(response["patch"]))
    spec = dict(document["spec"])
    for operation in patch:
        spec[operation["path"].removeprefix("/spec/")] = operation["value"]
    return {**document, "spec": spec}


def test_a_stamp_from_the_webhooks_port_is_not_a_signature(lab: Lab, signing: Controllers) -> None:
    weightlock, admin = signing.weightlock, lab.cluster.client()
    with Window(lab):
        request = post_review(weightlock, lab.request("farmed"), "alice", ["system:authenticated"])
        assert request["spec"]["stamp"]
        assert not request["spec"].get("signature")
        saved = dict(admin.post(f"{API}/accessrequests", request).ok())
        approval = post_review(weightlock, lab.approval(saved, "bob"), "bob", [*APPROVERS])
        voted = dict(admin.post(f"{API}/accessapprovals", approval).ok())
    rejected(lab, saved, voted)


def to_the_forged_request(target: dict[str, Any]) -> Any:
    def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
        if request["object"]["spec"].get("decision") != "Approve":
            return []
        return [{"op": "replace", "path": "/spec/request", "value": target}]

    return answer


def called(lab: Lab, stranger: StrangerWebhook, request: dict[str, Any]) -> None:
    """Wait until the API server calls the other webhook (a dry run)."""
    client = lab.cluster.client("dora", APPROVERS)
    document = lab.approval(request, "dora")

    def look() -> bool:
        client.post(f"{API}/accessapprovals", document, dryRun="All")
        return bool(stranger.requests)

    eventually(look, "the API server calls the other webhook", seconds=20, every=0.2)


@pytest.mark.parametrize("reinvocation", ["Never", "IfNeeded"])
def test_another_webhook_that_rewrites_an_approval_after_the_stamp_is_denied(
    lab: Lab, reinvocation: str
) -> None:
    arguments = ("--service-account", f"{lab.namespace}/trainer", "--reason", "tests", "--for", "10m")
    for name in ("mallory", "honest"):
        lab.weightlock("request", lab.model, *arguments, "--name", f"{name}-{lab.namespace}", user=name).ok()
    client = lab.cluster.client()
    mallory = client.get(f"{API}/accessrequests/mallory-{lab.namespace}").ok()["metadata"]
    target = {"name": mallory["name"], "uid": mallory["uid"]}
    honest = client.get(f"{API}/accessrequests/honest-{lab.namespace}").ok()
    rewrite = to_the_forged_request(target)
    with StrangerWebhook(
        lab.cluster, f"zz-{reinvocation.lower()}", rewrite, reinvocation, rule=ACCESS_RULE
    ) as stranger:
        called(lab, stranger, honest)
        assert "WL402" in lab.vote(honest, "bob").message
        output = lab.weightlock("approve", honest["metadata"]["name"], user="carol", groups=APPROVERS)
        assert "modified it" in output.failed()
    assert not lab.is_admitted()


def test_a_webhook_that_rewrites_before_the_stamp_is_noticed_by_the_command_which_revokes(lab: Lab) -> None:
    arguments = ("--service-account", f"{lab.namespace}/trainer", "--reason", "tests", "--for", "10m")
    for name in ("mallory", "honest"):
        lab.weightlock("request", lab.model, *arguments, "--name", f"{name}-{lab.namespace}", user=name).ok()
    client = lab.cluster.client()
    mallory = client.get(f"{API}/accessrequests/mallory-{lab.namespace}").ok()["metadata"]
    target = {"name": mallory["name"], "uid": mallory["uid"]}
    honest = client.get(f"{API}/accessrequests/honest-{lab.namespace}").ok()
    rewrite = to_the_forged_request(target)
    with StrangerWebhook(lab.cluster, "aa-first", rewrite, rule=ACCESS_RULE) as stranger:
        called(lab, stranger, honest)
        output = lab.weightlock("approve", f"honest-{lab.namespace}", user="carol", groups=APPROVERS)
        assert output.code == 1
        assert "another admission webhook modified" in output.stderr
        assert "it was revoked" in output.stderr
    eventually(
        lambda: (
            client.get(f"{API}/accessrequests/mallory-{lab.namespace}").ok()["status"]["state"] == "Revoked"
        ),
        "the request that was approved by force is revoked",
        seconds=10,
    )
    assert not lab.is_admitted()


def test_a_request_pasted_right_after_a_change_of_the_configurations_becomes_active(lab: Lab) -> None:
    """The commands wait for the settling time of the chart, so that a user need not know of it."""
    with Window(lab):
        pass
    began = time.monotonic()
    granted(lab)
    assert time.monotonic() - began < 100


def test_a_label_of_a_configuration_delays_no_signature(lab: Lab, signing: Controllers) -> None:
    time.sleep(SETTLE_SECONDS)
    lab.cluster.client().patch(WEBHOOK_PATHS[0], {"metadata": {"labels": {"team": manifests.NAME}}}).ok()
    granted(lab)
    assert f"good-{lab.namespace}" not in signing.log()
