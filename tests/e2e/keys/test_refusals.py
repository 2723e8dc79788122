"""Every way to be refused a key that we know, with the sentence that a person sees."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from harness.keylab import AUDIENCE
from harness.waiting import eventually

from webhook.keys.agent.client import PROTOCOL, BrokerRefusedError, lease_bytes
from webhook.keys.envelope import AgentKey

if TYPE_CHECKING:
    from harness.installed import Installed
    from harness.keylab import KeyLab

_REGISTRATION = "/apis/admissionregistration.k8s.io/v1"
CONFIGURATIONS = {
    "ValidatingWebhookConfiguration": f"{_REGISTRATION}/validatingwebhookconfigurations/weightlock",
    "MutatingWebhookConfiguration": f"{_REGISTRATION}/mutatingwebhookconfigurations/weightlock",
}


def refused_in_time(lab: KeyLab, token: str) -> str:
    """The sentence of a refused renewal, once the broker knows why."""
    output = ""

    def refused() -> bool:
        nonlocal output
        try:
            lab.client(token).renew(lab.model)
        except BrokerRefusedError as error:
            output = str(error)
        return bool(output)

    # Not so often that the broker refuses it for that.
    eventually(refused, "the broker refuses", seconds=60, every=1)
    print(output)
    return output


def test_a_grant_of_the_pods_creator_does_not_cover_its_service_account(lab: KeyLab) -> None:
    lab.granted(subject={"kind": "User", "name": "alice"})
    pod = lab.running_pod()
    account = f"{lab.namespace}/trainer"
    assert lab.refusal(lab.token(pod)) == (
        f'service account {account} has no active grant for model "{lab.model}". Fix: weightlock access request '
        f"{lab.model} --for 8h --service-account {account} [WL326]"
    )


@pytest.mark.parametrize("how", ["ended", "revoked"])
def test_a_grant_that_is_over(lab: KeyLab, how: str) -> None:
    request = lab.granted(duration="30s" if how == "ended" else "10m")
    pod = lab.running_pod()
    token = lab.token(pod)
    lab.client(token).release(lab.model)
    if how == "revoked":
        lab.vote(request, "dave", "Revoke").ok()
    output = refused_in_time(lab, token)
    assert output.startswith(
        f'service account {lab.namespace}/trainer has no active grant for model "{lab.model}": the grant from '
        f"{request['metadata']['name']} expired at "
    )
    assert "Fix: weightlock access request" in output
    assert output.endswith("[WL326]")


def test_a_pod_that_went_round_admission_gets_nothing(lab: KeyLab, weightlock: Installed) -> None:
    weightlock.remove_webhooks()
    pods = f"/api/v1/namespaces/{lab.namespace}/pods"

    def unasked() -> bool:
        attempts = lab.cluster.client().post(pods, lab.pod("tried"), dryRun="All")
        return attempts.status == 201 and "initContainers" not in attempts.ok()["spec"]

    eventually(unasked, "nobody asks the webhook", seconds=15)
    lab.cluster.client().post(pods, lab.pod("round")).ok()
    lab.bind("round")
    pod = lab.cluster.client().get(f"{pods}/round").ok()
    assert "initContainers" not in pod["spec"]
    weightlock.add_webhooks()
    path = f"/api/v1/namespaces/{lab.namespace}/serviceaccounts/trainer/token"
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "round", "uid": pod["metadata"]["uid"]}
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [AUDIENCE], "boundObjectRef": reference},
    }
    denied = lab.cluster.client().post(path, body)
    assert "WL311" in denied.message, "a token for the broker is a kubelet's to ask for"
    kubelet = lab.cluster.client(f"system:node:{lab.node}", ["system:nodes"])
    denied = kubelet.post(path, body)
    assert denied.status == 403, "and the node may not, for a pod without that volume"
    weightlock.remove_webhooks()
    token = ""

    def given() -> bool:
        nonlocal token
        answer = lab.cluster.client().post(path, body)
        token = answer.ok()["status"]["token"] if answer.status == 201 else ""
        return bool(token)

    eventually(given, "an attacker without webhooks gets a token", seconds=15)
    output = lab.refusal(token)
    assert output.startswith("keys are not released because webhook configurations are missing or modified:")
    assert output.endswith("[WL328]")
    weightlock.add_webhooks()
    assert lab.refusal(token).endswith("[WL326]")
    lab.granted()
    output = lab.refusal(token)
    assert "was not admitted in its present form" in output
    assert "its key sidecar is missing or modified" in output
    assert output.endswith("[WL327]")


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_a_webhook_configuration_that_was_tampered_with_stops_all_releases(
    lab: KeyLab, weightlock: Installed, kind: str
) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    admin, path = lab.cluster.client(), CONFIGURATIONS[kind]
    webhooks = admin.get(path).ok()["webhooks"]
    # A CA that is not this webhook's: the owner of its key could answer instead of Weightlock.
    other = base64.b64encode(lab.broker.ca.read_bytes()).decode()
    changes: list[dict[str, Any]] = [
        {"failurePolicy": "Ignore"},
        {"rules": webhooks[0]["rules"][:1]},
        {"namespaceSelector": {"matchLabels": {"nobody": "has-it"}}},
        {"clientConfig": {**webhooks[0]["clientConfig"], "caBundle": other}},
    ]
    if len(webhooks[0]["rules"]) == 1:
        changes[1] = {"rules": [{**webhooks[0]["rules"][0], "operations": ["DELETE"]}]}
    guarded = (
        f"keys are not released because webhook configurations are missing or modified: {kind} weightlock"
    )
    for change in changes:
        admin.patch(path, {"webhooks": [{**webhooks[0], **change}]}).ok()
        assert lab.refusal(token) == f"{guarded} was modified [WL328]"
        with pytest.raises(BrokerRefusedError, match=r"was modified \[WL328\]"):
            lab.client(token).renew(lab.model)
    admin.delete(path)
    assert lab.refusal(token) == f"{guarded} is missing [WL328]"
    weightlock.add_webhooks()
    lab.client(token).release(lab.model)


def test_tokens_that_are_not_the_sidecars(lab: KeyLab) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    header, payload, signature = token.split(".")
    assert lab.refusal("").endswith("[WL322]")
    assert lab.refusal("not.a.token").endswith("[WL322]")
    assert lab.refusal(f"{header}.{payload}.{signature[::-1]}").endswith("[WL322]")
    account = f"/api/v1/namespaces/{lab.namespace}/serviceaccounts/trainer/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    other_audience = lab.cluster.client().post(account, body).ok()["status"]["token"]
    assert lab.refusal(other_audience).endswith("[WL322]")


def test_another_pods_token_and_another_model(lab: KeyLab) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    other = lab.weights()
    other["metadata"]["name"] = f"other-{lab.namespace}"
    other["spec"]["volumes"] = [{"nfs": {"server": "10.0.0.9", "path": "/other"}}]
    lab.cluster.apply(other)
    with pytest.raises(
        BrokerRefusedError, match=rf'pod {lab.namespace}/train does not mount model "other-.*WL325'
    ):
        lab.client(token).release(other["metadata"]["name"])
    with pytest.raises(BrokerRefusedError, match=r'ModelWeights "nothing" does not exist \[WL325\]'):
        lab.client(token).release("nothing")


def test_the_token_of_another_pod_that_has_a_sidecar_of_its_own(lab: KeyLab) -> None:
    lab.granted()
    lab.running_pod()
    other, driver = lab.weights(), "file.csi.example.com"
    other["metadata"]["name"] = f"other-{lab.namespace}"
    other["spec"] |= {"sensitivity": "public", "volumes": [{"csi": {"driver": driver}}]}
    lab.cluster.apply(other)
    document = lab.pod("other")
    document["spec"]["volumes"] = [{"name": "weights", "csi": {"driver": driver, "readOnly": True}}]
    pods = f"/api/v1/namespaces/{lab.namespace}/pods"

    def injected() -> bool:
        attempts = lab.cluster.client("alice").post(pods, document, dryRun="All")
        return attempts.status == 201 and "initContainers" in attempts.ok()["spec"]

    eventually(injected, "the other model is known", seconds=15)
    token = lab.token(lab.running_pod("other", document))
    # Of the same service account, which has the grant; but what a pod does not read it does not get.
    output = lab.refusal(token)
    assert output == f'pod {lab.namespace}/other does not mount model "{lab.model}" [WL325]'
    with pytest.raises(BrokerRefusedError, match="WL325"):
        lab.client(token).renew(lab.model)
    refused = lab.broker.events(event="key.release", namespace=lab.namespace, code="WL325")
    assert [(event["pod"], event["model"]) for event in refused] == [("other", lab.model)]


def test_a_deleted_pod(lab: KeyLab) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    path = f"/api/v1/namespaces/{lab.namespace}/pods/train"
    lab.cluster.client().delete(path).ok()
    assert lab.refusal(token) == f"pod {lab.namespace}/train is being deleted [WL324]"
    lab.cluster.kubectl("delete", "pod", "train", "-n", lab.namespace, "--force", "--grace-period=0").ok()
    # The API server may cache its review of a token for some seconds. The pod is read again in any case.
    assert lab.refusal(token)[-7:] in {"[WL322]", "[WL324]"}
    # Another pod of that name is another pod.
    another = lab.running_pod()
    assert lab.refusal(token)[-7:] in {"[WL322]", "[WL324]"}
    lab.client(lab.token(another)).release(lab.model)


def test_a_replayed_request_and_a_borrowed_nonce(lab: KeyLab) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    agent, thief = AgentKey.generate(), AgentKey.generate()
    public = base64.b64encode(agent.public).decode()
    _, challenge = lab.broker.post("/v1/challenge", {"publicKey": public})
    request = {
        "model": lab.model,
        "nonce": challenge["nonce"],
        "publicKey": public,
        "protocol": PROTOCOL,
    }
    borrowed = {**request, "publicKey": base64.b64encode(thief.public).decode()}
    status, answer = lab.broker.post("/v1/release", borrowed, token)
    assert (status, answer["code"]) == (403, "WL321")
    status, answer = lab.broker.post("/v1/release", request, token)
    assert status == 200
    encrypted = base64.b64decode(answer["encrypted"])
    lease = lease_bytes(answer["lease"])
    assert len(agent.open(encrypted, challenge["nonce"], lab.model, lease)["k1"]) == 32
    status, answer = lab.broker.post("/v1/release", request, token)
    assert (status, answer["code"]) == (403, "WL334")
    print(answer["message"])


def test_a_token_plays_once_a_start_of_the_sidecar(lab: KeyLab) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    lab.client(token).release(lab.model)
    lab.client(token).release(lab.model)
    output = lab.refusal(token)
    assert "another client may be using its token" in output
    assert output.endswith("[WL334]")


def test_a_key_that_the_service_refuses(lab: KeyLab) -> None:
    lab.keys[0]["id"] = "k2"
    lab.cluster.apply(lab.weights())
    lab.granted()
    pod = lab.running_pod()
    output = lab.refusal(lab.token(pod))
    assert "it was wrapped for another model or key id" in output
    assert output.endswith("[WL332]")


def test_a_model_for_plaintext_without_keys(lab: KeyLab) -> None:
    lab.keys, lab.spec = [], {"delivery": "plaintext"}
    lab.cluster.apply(lab.weights())
    lab.granted()
    pod = lab.running_pod()
    output = lab.refusal(lab.token(pod))
    assert "has no keys: add the entry printed by `weightlock weights seal`" in output
    assert output.endswith("[WL331]")
