"""Access on a real API server: the whole story of a grant, and every way around it that we know."""

import http.client
import json
import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from harness.cluster import Cluster
from harness.installed import Installed
from harness.lab import API, APPROVERS, Lab
from harness.rest import Client
from harness.stranger import ACCESS_RULE, StrangerWebhook
from harness.waiting import eventually
from harness.weightlock import Weightlock


@pytest.fixture
def lab(weightlock: Installed, control_plane: Cluster, namespace: str) -> Lab:
    return Lab(control_plane, namespace).build()


def granted(lab: Lab, duration: str = "10m") -> dict:
    """A request that two people approved, once the webhook knows."""
    request = lab.ask(duration=duration)
    lab.vote(request, "bob").ok()
    lab.vote(request, "carol").ok()
    eventually(lab.is_admitted, "the pod is admitted", seconds=5)
    return request


def test_from_a_denied_pod_to_a_grant_and_its_end(lab: Lab) -> None:
    kubectl = lab.cluster.kubectl
    denied = kubectl("apply", "-f", "-", stdin=lab.pod(), user="alice").failed()
    assert f'is not allowed to read model "{lab.model}"' in denied
    assert "[WL101]" in denied
    command = re.search(r"weightlock access (request \S+ --for \S+ --service-account \S+)", denied)
    assert command is not None, denied

    words = command[1].replace("--for 8h", "--for 6s").split()
    queries = (
        lab.weightlock(*words, "--reason", "evals", "--name", f"r-{lab.namespace}", user="alice").ok().stdout
    )
    name = f"r-{lab.namespace}"
    assert f"weightlock access approve {name}" in queries
    first = lab.weightlock("approve", name, user="bob", groups=["weights-approvers"]).ok().stdout
    assert "1 of 2 approvals" in first
    assert kubectl("apply", "-f", "-", stdin=lab.pod(), user="alice").failed()
    second = lab.weightlock("approve", name, "--comment", "fine", user="carol", groups=["weights-approvers"])
    assert "is active, expires in" in second.ok().stdout

    eventually(lab.is_admitted, "the pod is admitted", seconds=2)
    pod = lab.try_pod().ok()
    agent = pod["spec"]["initContainers"][0]
    assert (agent["name"], agent["restartPolicy"]) == ("weightlock-agent", "Always")
    assert name in lab.weightlock("list", user="alice").ok().stdout

    eventually(lambda: not lab.is_admitted(), "the grant has ended", seconds=10, every=0.2)
    rejection = kubectl("create", "-f", "-", stdin=lab.pod("late"), user="alice").failed()
    assert "[WL101]" in rejection
    assert "expired" in lab.weightlock("show", name, user="alice").ok().stdout


def test_a_revocation_ends_it_at_once(lab: Lab) -> None:
    request = granted(lab)
    lab.vote(request, "dave", "Revoke").ok()
    eventually(lambda: not lab.is_admitted(), "the grant has ended", seconds=2)
    late = lab.vote(request, "erin")
    assert late.status == 403
    assert "WL426" in late.message


def test_the_requester_and_approver_are_the_authenticated_users(lab: Lab) -> None:
    forged = {"username": "root", "groups": ["weights-approvers"]}
    request = lab.ask(requester=forged, signature="forged", stampedAt="2020-01-01T00:00:00Z")
    assert request["spec"]["requester"]["username"] == "alice"
    assert request["spec"]["stampedAt"] != "2020-01-01T00:00:00Z"
    document = lab.approval(request, "m", approver=forged)
    output = lab.cluster.client("mallory").post(f"{API}/accessapprovals", document)
    assert (output.status, "WL424" in output.message) == (403, True)
    saved = lab.vote(request, "bob").ok()
    assert saved["spec"]["approver"]["username"] == "bob"
    assert "weights-approvers" in saved["spec"]["approver"]["groups"]


REFUSED = {
    "the requester approves": ("WL422", lambda lab, request: lab.vote(request, "alice")),
    "nobody in particular approves": ("WL424", lambda lab, request: lab.vote(request, "mallory", groups=[])),
    "nobody in particular denies": (
        "WL424",
        lambda lab, request: lab.vote(request, "mallory", "Deny", groups=[]),
    ),
    "a service account approves": (
        "WL425",
        lambda lab, request: lab.vote(request, "system:serviceaccount:ci:bot", name="bot"),
    ),
    "the account it is for approves": (
        "WL422",
        lambda lab, request: lab.vote(request, lab.account, name="own"),
    ),
    "an approval for another uid": (
        "WL421",
        lambda lab, request: lab.vote({"metadata": {**request["metadata"], "uid": "of-another"}}, "bob"),
    ),
    "an approval of nothing": (
        "WL421",
        lambda lab, request: lab.vote({"metadata": {"name": "nothing", "uid": "u"}}, "bob"),
    ),
    "an unknown model": ("WL411", lambda lab, request: _ask(lab, model="unheard-of")),
    "an unknown service account": (
        "WL412",
        lambda lab, request: _ask(
            lab, subject={"kind": "ServiceAccount", "namespace": lab.namespace, "name": "ghost"}
        ),
    ),
    "too long": ("WL413", lambda lab, request: _ask(lab, duration="61m")),
    "a blank reason": ("WL414", lambda lab, request: _ask(lab, reason="  ")),
    "an emergency of one's own": ("WL416", lambda lab, request: _ask(lab, breakGlass=True)),
    "a longer duration afterwards": (
        "WL404",
        lambda lab, request: lab.cluster.client("alice").patch(
            f"{API}/accessrequests/{request['metadata']['name']}", {"spec": {"duration": "59m"}}
        ),
    ),
    "a status of one's own": (
        "WL406",
        lambda lab, request: lab.cluster.client().patch(
            f"{API}/accessrequests/{request['metadata']['name']}/status", {"status": {"state": "Active"}}
        ),
    ),
}


def _ask(lab: Lab, **spec):
    return lab.cluster.client("alice").post(f"{API}/accessrequests", lab.request("second", **spec))


@pytest.mark.parametrize(("code", "attempt"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_its_code_and_a_way_on(lab: Lab, code: str, attempt) -> None:
    output = attempt(lab, lab.ask())
    assert output.status == 403, output
    assert f"[{code}]" in output.message
    assert "Fix: " in output.message


def test_an_approval_can_be_neither_changed_nor_deleted_nor_given_twice(lab: Lab) -> None:
    request = lab.ask()
    approval = lab.cluster.signed(lab.vote(request, "bob").ok())
    path = f"{API}/accessapprovals/{approval['metadata']['name']}"
    admin = lab.cluster.client()
    assert "WL404" in admin.patch(path, {"spec": {"decision": "Deny"}}).message
    assert "WL405" in admin.delete(path).message
    assert "WL423" in lab.vote(request, "bob", name="again").message
    absent = admin.delete(f"{API}/accessapprovals", labelSelector="")
    assert "WL405" in absent.message


def test_approvals_at_the_same_instant_count_once_each(lab: Lab) -> None:
    request = lab.ask()
    clients = [lab.cluster.kubeconfig("bob", ["weights-approvers"]) for _ in range(6)]

    def write(number: int) -> int:
        client = Client.from_kubeconfig(clients[number])
        try:
            return client.post(f"{API}/accessapprovals", lab.approval(request, f"b{number}")).status
        finally:
            client.close()

    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(write, range(6)))
    assert 201 in statuses
    assert not lab.is_admitted()
    lab.vote(request, "carol").ok()
    eventually(lab.is_admitted, "the pod is admitted", seconds=5)


def test_a_removed_approver_has_no_vote(lab: Lab) -> None:
    lab.cluster.apply(lab.weights(approvers={"groups": ["weights-approvers"], "users": ["zoe"]}))
    request = lab.ask()
    eventually(lambda: lab.vote(request, "zoe", groups=[]).status == 201, "zoe may approve", seconds=5)
    lab.cluster.apply(lab.weights())
    lab.vote(request, "bob").ok()
    assert not lab.is_admitted()
    lab.vote(request, "carol").ok()
    eventually(lab.is_admitted, "the pod is admitted", seconds=5)


def test_objects_written_without_the_webhook_are_ignored(lab: Lab, weightlock: Installed) -> None:
    admin = lab.cluster.client()
    weightlock.remove_webhooks()
    eventually(lab.is_admitted, "nobody asks the webhook", seconds=10, every=0.2)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    requester = {"username": "alice", "groups": ["system:authenticated"]}
    request = admin.post(
        f"{API}/accessrequests",
        lab.request("r", requester=requester, stampedAt=now, signature="0" * 16 + ":" + "A" * 88),
    ).ok()
    for who in ("bob", "carol", "dave"):
        approver = {"username": who, "groups": ["weights-approvers"]}
        document = lab.approval(request, who, approver=approver, stampedAt=now)
        admin.post(f"{API}/accessapprovals", document).ok()
    weightlock.add_webhooks()
    for _ in range(5):
        assert "[WL101]" in lab.try_pod(dry=True).message
    messages = lab.vote(request, "erin")
    assert "is invalid" in messages.message


def test_a_copy_of_a_signed_approval_cannot_stand_for_another(lab: Lab, weightlock: Installed) -> None:
    admin = lab.cluster.client()
    request = lab.ask()
    approval = lab.vote(request, "bob").ok()
    weightlock.remove_webhooks()
    eventually(lab.is_admitted, "nobody asks the webhook", seconds=10, every=0.2)
    for name in ("copy", "another"):
        copied = {**approval, "metadata": {"name": f"{name}-{lab.namespace}"}}
        if name == "another":
            copied["spec"] = {
                **approval["spec"],
                "approver": {"username": "carol", "groups": ["weights-approvers"]},
            }
        admin.post(f"{API}/accessapprovals", copied).ok()
    weightlock.add_webhooks()
    for _ in range(5):
        assert "[WL101]" in lab.try_pod(dry=True).message


def test_the_port_signs_only_for_the_api_server(lab: Lab, own_weightlock: Weightlock) -> None:
    request = lab.ask()
    user = {"username": "bob", "groups": ["weights-approvers"]}
    document = lab.approval(request, "forged")
    kind = {"group": "weightlock.dev", "version": "v1alpha1"}
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1f0c",
            "kind": {**kind, "kind": "AccessApproval"},
            "resource": {**kind, "resource": "accessapprovals"},
            "name": document["metadata"]["name"],
            "operation": "CREATE",
            "userInfo": user,
            "object": document,
        },
    }
    assert _mutate(own_weightlock, review) == (403, "only the API server may send reviews\n")
    genuine = lab.vote(request, "bob").ok()
    assert re.fullmatch(r"[0-9a-f]{16}:[A-Za-z0-9+/]{86}==", genuine["spec"]["signature"])


def test_objects_signed_at_admission_cannot_be_changed_afterwards(
    lab: Lab, own_weightlock: Weightlock
) -> None:
    """The API server authenticates itself by a certificate, so objects are signed when they are stored."""
    request = lab.ask()
    assert request["spec"]["signature"]

    def rewrite(review: dict) -> list[dict]:
        if review["object"]["spec"].get("comment") != "as sent":
            return []
        return [{"op": "replace", "path": "/spec/comment", "value": "rewritten"}]

    document = lab.approval(request, "bob-approve", comment="as sent")
    client = lab.cluster.client("bob", APPROVERS)
    path = f"{API}/accessapprovals"
    with StrangerWebhook(own_weightlock.control_plane, "zz-after", rewrite, rule=ACCESS_RULE) as stranger:

        def denial() -> str:
            # A dry run is never signed, so only the real request shows the difference.
            if not stranger.requests:
                client.post(path, lab.approval(request, "probe"), dryRun="All")
                return ""
            return str(client.post(path, document).message)

        message = eventually(denial, "the API server calls the other webhook", seconds=20, every=0.2)
    assert "WL402" in message
    assert "does not match" in message
    assert client.post(path, document).ok()["spec"]["comment"] == "as sent"


def _mutate(weightlock: Weightlock, review: dict) -> tuple[int, str]:
    """The response to a review that is sent to the port without the API server's certificate."""
    tls = ssl.create_default_context(cafile=str(weightlock.ca))
    connection = http.client.HTTPSConnection("127.0.0.1", weightlock.port, context=tls, timeout=10)
    try:
        connection.request("POST", "/mutate", json.dumps(review), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_how_soon_an_approval_and_a_revocation_are_felt(lab: Lab) -> None:
    """The lag through the watch, from the API server's answer to the first verdict that knows; p99 below a second."""
    lab.cluster.apply(lab.weights(approvals=1))
    lags = []
    for number in range(15):
        request = lab.ask(f"r{number}")
        for decision, expected in (("Approve", True), ("Revoke", False)):
            lab.cluster.signed(lab.vote(request, "bob", decision).ok())
            begun = time.monotonic()
            eventually(lambda expected=expected: lab.is_admitted() is expected, decision, seconds=5, every=0)
            lags.append(time.monotonic() - begun)
    lags.sort()
    print(
        f"lag of {len(lags)} decisions: median {lags[len(lags) // 2] * 1000:.0f} ms, worst {lags[-1] * 1000:.0f} ms"
    )
    assert lags[-1] < 1.0
