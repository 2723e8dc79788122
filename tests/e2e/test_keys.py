"""Keys on a real API server: a sealed model, a granted pod, a real token, and every way to be refused that we know.

What a kubelet would do is done here in its place and under its identity: it asks for the pod's token and starts the
sidecar with the arguments that admission gave it.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import http.server
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from harness import manifests
from harness.controlplane import ControlPlane
from harness.lab import Lab
from harness.pki import Authority
from harness.process import free_port
from harness.waiting import eventually
from harness.weightlock import COMMAND, POLICIES, START_SECONDS, Weightlock

pytest.importorskip("jwt", reason="PyJWT is not installed")

import jwt

from webhook.cli.agent import collector
from webhook.keys import operations
from webhook.keys.brokerclient import BrokerClient, BrokerRefusedError, BrokerUnavailableError
from webhook.keys.client import open_weights
from webhook.keys.envelope import AgentKey
from webhook.keys.operations import KeyService, Work
from webhook.keys.transfer import NoProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.cluster import Cluster
    from harness.installed import Installed

AUDIENCE = "weightlock.dev/broker"
BROKER_USER = f"system:serviceaccount:{manifests.NAMESPACE}:weightlock-broker"
VALIDATING = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weightlock"
BROKER_RIGHTS = (
    *manifests.RIGHTS,
    ("authentication.k8s.io", ("tokenreviews",), ("create",)),
    (
        "admissionregistration.k8s.io",
        ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"),
        ("get",),
    ),
)


class BrokerProcess:
    """The key broker as a process beside the control plane."""

    def __init__(self, weightlock: Weightlock, directory: Path) -> None:
        cluster = weightlock.control_plane
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self._authority = Authority(directory / "pki", "broker-ca")
        serving = self._authority.server("broker", ["127.0.0.1"])
        self.ca = self._authority.certificate
        self._component = cluster.component("broker")
        (directory / "challenge.key").write_bytes(os.urandom(32))
        expected = directory / "webhooks.yaml"
        expected.write_text(yaml.safe_dump_all(manifests.webhooks(weightlock._client_config)))
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{manifests.NAMESPACE}"]
        config = {
            "listen": {"host": "127.0.0.1", "port": self.port},
            "tls": {"certificate": str(serving.certificate), "key": str(serving.key)},
            "signing": {"key": str(weightlock.signing_key)},
            "cluster": {"kubeconfig": str(cluster.kubeconfig(BROKER_USER, groups))},
            "policies": str(POLICIES),
            "drainSeconds": 0,
            "broker": {
                "challengeKey": str(directory / "challenge.key"),
                "webhooks": str(expected),
                "production": False,
                "leaseSeconds": 60,
                "renewSeconds": 10,
                "podRequestsPerMinute": 200,
            },
        }
        self._config = directory / "broker.yaml"
        self._config.write_text(yaml.safe_dump(config))
        self.issuer_ca = directory / "issuers.pem"

    def start(self) -> None:
        environment = {**os.environ, "SSL_CERT_FILE": str(self.ca)}
        self._component.start([COMMAND, "broker", "--config", self._config], environment)
        self._component.wait_ready(self._ready, START_SECONDS)

    def stop(self) -> None:
        self._component.stop()

    def log(self) -> str:
        return self._component.log.read_text()

    def certificate(self, name: str) -> Any:
        return self._authority.server(name, ["127.0.0.1"])

    def events(self, **wanted: str) -> list[dict[str, Any]]:
        """The audit events in its log that carry these values."""
        found = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [event for event in found if wanted.items() <= event.items()]

    def post(self, path: str, body: Any, token: str = "") -> tuple[int, dict[str, Any]]:
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=30)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        try:
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def _ready(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        finally:
            connection.close()


@pytest.fixture(scope="module")
def broker(
    installed_weightlock: Installed, control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrokerProcess]:
    if not isinstance(installed_weightlock, Weightlock) or not isinstance(control_plane, ControlPlane):
        pytest.skip("the broker runs as a process of ours beside a control plane of ours")
    rules = [
        {"apiGroups": [group], "resources": [*names], "verbs": [*verbs]}
        for group, names, verbs in BROKER_RIGHTS
    ]
    rbac, name = "rbac.authorization.k8s.io", "weightlock-broker"
    control_plane.apply(
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "subjects": [{"kind": "User", "name": BROKER_USER, "apiGroup": rbac}],
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
        },
    )
    process = BrokerProcess(installed_weightlock, tmp_path_factory.mktemp("broker"))
    process.start()
    yield process
    process.stop()


class KeyLab(Lab):
    """A lab whose weights are sealed: plain files in ``plain``, sealed ones in ``sealed``."""

    def __init__(self, cluster: Cluster, namespace: str, home: Path, broker: BrokerProcess) -> None:
        super().__init__(cluster, namespace, approvals=1)
        self.home, self.broker, self.node = home, broker, f"node-{namespace}"
        self.plain, self.sealed = home / "plain", home / "sealed"
        self.keys: list[dict[str, str]] = []
        self.spec: dict[str, Any] = {}

    def weights(self, **access: Any) -> dict[str, Any]:
        document = super().weights(**access)
        document["spec"] |= {"keys": self.keys, **self.spec}
        return document

    def seal(self) -> KeyLab:
        (self.plain / "shards").mkdir(parents=True)
        (self.plain / "config.json").write_text('{"layers": 2}')
        (self.plain / "shards/model.bin").write_bytes(os.urandom(3_000_000))
        service = KeyService(f"local://{self.home}/keyset.json")
        work = Work(2, NoProgress(), "2026-11-23T00:00:00Z")
        manifest = operations.seal(self.plain, self.sealed, service, self.model, "k1", work)
        key = manifest.key
        self.keys = [{"id": key.id, "kms": key.kms, "wrapped": base64.b64encode(key.wrapped).decode()}]
        return self

    def granted(self) -> dict[str, Any]:
        request = self.ask()
        self.vote(request, "bob").ok()
        eventually(self.is_admitted, "the pod is admitted", seconds=10)
        return request

    def running_pod(self, name: str = "train", document: dict[str, Any] | None = None) -> dict[str, Any]:
        """A pod as alice makes it, on a node as the scheduler would put it there."""
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        self.cluster.client("alice").post(pods, document or self.pod(name)).ok()
        self.bind(name)
        return dict(self.cluster.client().get(f"{pods}/{name}").ok())

    def bind(self, name: str) -> None:
        if self.cluster.client().get(f"/api/v1/nodes/{self.node}").status == 404:
            self.cluster.add_node(self.node)
        target = {"apiVersion": "v1", "kind": "Node", "name": self.node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/binding"
        self.cluster.client("system:kube-scheduler").post(path, binding).ok()

    def token(self, pod: dict[str, Any]) -> str:
        """The sidecar's token, as the node's kubelet asks for it."""
        metadata = pod["metadata"]
        reference = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {"audiences": [AUDIENCE], "expirationSeconds": 600, "boundObjectRef": reference}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        account = pod["spec"]["serviceAccountName"]
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        kubelet = self.cluster.client(f"system:node:{self.node}", ["system:nodes"])
        return str(kubelet.post(path, body).ok()["status"]["token"])

    def client(self, token: str, **options: Any) -> BrokerClient:
        path = self.home / f"token-{hashlib.sha256(token.encode()).hexdigest()[:8]}"
        path.write_text(token)
        return BrokerClient(self.broker.url, path, self.broker.ca, **options)

    def refusal(self, token: str, **options: Any) -> str:
        """The sentence with which a release is refused."""
        with pytest.raises(BrokerRefusedError) as refused:
            self.client(token, **options).release(self.model)
        print(refused.value)
        return str(refused.value)


@pytest.fixture
def lab(
    weightlock: Installed, control_plane: Cluster, namespace: str, tmp_path: Path, broker: BrokerProcess
) -> KeyLab:
    lab = KeyLab(control_plane, namespace, tmp_path, broker)
    lab.seal().build()
    return lab


class Sidecar:
    """The agent as a kubelet would start it: with the arguments in the pod, directories in place of mounts."""

    def __init__(self, lab: KeyLab, pod: dict[str, Any], token: str) -> None:
        self.root = lab.home / "run"
        (lab.home / "token").write_text(token)
        container = pod["spec"]["initContainers"][0]
        assert container["name"] == "weightlock-agent"
        for mount in container["volumeMounts"]:
            if mount["mountPath"].startswith("/var/run/weightlock/"):
                self.local(mount["mountPath"]).mkdir(parents=True, exist_ok=True)
        self.arguments = [self._localised(text, lab) for text in container["args"]]
        self.arguments.append(f"--ca={lab.broker.ca}")
        self.log = lab.home / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def local(self, path: str) -> Path:
        return Path(path.replace("/var/run/weightlock", str(self.root)))

    def _localised(self, argument: str, lab: KeyLab) -> str:
        name, _, value = argument.partition("=")
        if name == "--broker":
            return f"--broker={lab.broker.url}"
        if name == "--token":
            return f"--token={lab.home / 'token'}"
        sealed = f"/var/run/weightlock/sealed/{lab.model}"
        value = value.replace(sealed, str(lab.sealed)).replace("/var/run/weightlock", str(self.root))
        return f"{name}={value}" if value else name

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([COMMAND, *self.arguments], stderr=log)

    def ready(self) -> bool:
        """What the startup probe says."""
        command = [COMMAND, "agent", "--check", f"--root={self.root}"]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def sidecar() -> Iterator[Callable[[KeyLab, dict[str, Any], str], Sidecar]]:
    started: list[Sidecar] = []

    def make(lab: KeyLab, pod: dict[str, Any], token: str) -> Sidecar:
        started.append(Sidecar(lab, pod, token))
        started[-1].start()
        return started[-1]

    yield make
    for one in started:
        if one.process is not None and one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def test_a_granted_pod_gets_its_key_and_reads_its_weights(lab: KeyLab, sidecar: Any) -> None:
    request = lab.granted()
    pod = lab.running_pod()
    agent = sidecar(lab, pod, lab.token(pod))
    assert not (agent.root / "keys" / lab.model / "k1").exists() or agent.ready()
    eventually(agent.ready, f"the startup probe says ready: {agent.log}", seconds=20)

    key = agent.root / "keys" / lab.model / "k1"
    assert key.stat().st_size == 32
    assert key.stat().st_mode & 0o777 == 0o400
    with open_weights(lab.sealed, model=lab.model, keys=agent.root / "keys") as weights:
        assert set(weights.files) == {"config.json", "shards/model.bin"}
        assert weights.read("shards/model.bin") == (lab.plain / "shards/model.bin").read_bytes()
    helper = [
        sys.executable,
        "-m",
        "webhook.cli.key",
        f"--keys={agent.root}/keys",
        "cat",
        str(lab.sealed),
        "config.json",
    ]
    assert subprocess.run(helper, check=True, capture_output=True).stdout == b'{"layers": 2}'

    event = lab.broker.events(event="key.release", namespace=lab.namespace, result="released")[0]
    assert (event["pod"], event["serviceAccount"], event["model"]) == ("train", "trainer", lab.model)
    assert event["keys"] == ["k1"]
    secret = base64.b64encode(key.read_bytes()).decode()
    assert secret not in lab.broker.log()
    assert secret not in agent.log.read_text()
    assert (lab.home / "token").read_text() not in lab.broker.log()

    eventually(
        lambda: lab.broker.events(event="key.renewal", namespace=lab.namespace, result="released"),
        "the lease is renewed",
        seconds=20,
    )
    lab.vote(request, "dave", "Revoke").ok()
    eventually(lambda: not key.exists(), "the key is wiped when renewal is refused", seconds=25)
    assert not agent.ready()
    assert f'has no active grant for model "{lab.model}"' in agent.log.read_text()
    assert agent.stop() == 0


def test_a_sidecar_that_is_killed_and_started_again_recovers_and_leaves_nothing(
    lab: KeyLab, sidecar: Any
) -> None:
    lab.granted()
    pod = lab.running_pod()
    agent = sidecar(lab, pod, lab.token(pod))
    eventually(agent.ready, "ready", seconds=20)
    agent.stop(signal.SIGKILL)
    agent.start()
    key = agent.root / "keys" / lab.model / "k1"
    eventually(lambda: agent.log.read_text().count("delivered") == 2, "delivered again", seconds=20)
    assert key.exists()
    assert agent.stop() == 0
    assert [path for path in agent.root.rglob("*") if path.is_file()] == []


def test_plaintext_is_delivered_to_memory(lab: KeyLab, sidecar: Any) -> None:
    lab.spec = {"delivery": "plaintext"}
    lab.cluster.apply(lab.weights())
    lab.granted()
    pod = lab.running_pod()
    agent = sidecar(lab, pod, lab.token(pod))
    eventually(agent.ready, "ready", seconds=20)
    place = agent.root / "weights" / lab.model
    assert (place / "shards/model.bin").read_bytes() == (lab.plain / "shards/model.bin").read_bytes()
    assert agent.stop() == 0
    assert [path for path in place.rglob("*") if path.is_file()] == []


def test_no_grant_an_ended_grant_and_one_that_was_revoked(lab: KeyLab) -> None:
    request = lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    lab.client(token).release(lab.model)
    lab.vote(request, "dave", "Revoke").ok()
    account = f"service account {lab.namespace}/trainer"
    said = ""

    def refused() -> bool:
        nonlocal said
        try:
            lab.client(token).renew(lab.model)
        except BrokerRefusedError as error:
            said = str(error)
        return bool(said)

    eventually(refused, "the broker knows of it", seconds=10)
    print(said)
    assert said.startswith(
        f'{account} has no active grant for model "{lab.model}": the one by {request["metadata"]["name"]}'
    )
    assert "Fix: weightlock access request" in said
    assert said.endswith("[WL326]")


def test_a_pod_that_went_round_admission_gets_nothing(lab: KeyLab, weightlock: Installed) -> None:
    weightlock.remove_webhooks()
    pods = f"/api/v1/namespaces/{lab.namespace}/pods"

    def unasked() -> bool:
        tried = lab.cluster.client().post(pods, lab.pod("tried"), dryRun="All")
        return tried.status == 201 and "initContainers" not in tried.ok()["spec"]

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
    said = lab.refusal(token)
    assert said.startswith("admission is not guarded as it should be, so no key leaves:")
    assert said.endswith("[WL328]")
    weightlock.add_webhooks()
    assert lab.refusal(token).endswith("[WL326]")
    lab.granted()
    said = lab.refusal(token)
    assert "did not come through admission as it is now" in said
    assert "does not carry the key sidecar" in said
    assert said.endswith("[WL327]")


def test_a_webhook_configuration_that_was_tampered_with_stops_all_releases(lab: KeyLab) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    admin = lab.cluster.client()
    webhooks = admin.get(VALIDATING).ok()["webhooks"]
    for change in (
        {"failurePolicy": "Ignore"},
        {"rules": webhooks[0]["rules"][:1]},
        {"namespaceSelector": {}},
    ):
        admin.patch(VALIDATING, {"webhooks": [{**webhooks[0], **change}]}).ok()
        said = lab.refusal(token)
        assert "ValidatingWebhookConfiguration weightlock was changed" in said
        assert said.endswith("[WL328]")
    admin.patch(VALIDATING, {"webhooks": webhooks}).ok()
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
        BrokerRefusedError, match=rf'pod {lab.namespace}/train does not read model "other-.*WL325'
    ):
        lab.client(token).release(other["metadata"]["name"])
    with pytest.raises(BrokerRefusedError, match=r'there is no ModelWeights "nothing" \[WL325\]'):
        lab.client(token).release("nothing")


def test_a_deleted_pod(lab: KeyLab) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    path = f"/api/v1/namespaces/{lab.namespace}/pods/train"
    lab.cluster.client().delete(path).ok()
    assert lab.refusal(token) == f"pod {lab.namespace}/train is being deleted [WL324]"
    lab.cluster.kubectl("delete", "pod", "train", "-n", lab.namespace, "--force", "--grace-period=0").ok()
    # The API server may go on for some seconds with what it found out about a token; the pod is read anew all the same.
    assert lab.refusal(token)[-7:] in {"[WL322]", "[WL324]"}


def test_a_replayed_request_and_a_borrowed_nonce(lab: KeyLab) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    agent, thief = AgentKey.generate(), AgentKey.generate()
    public = base64.b64encode(agent.public).decode()
    _, challenge = lab.broker.post("/v1/challenge", {"publicKey": public})
    request = {"model": lab.model, "nonce": challenge["nonce"], "publicKey": public}
    borrowed = {**request, "publicKey": base64.b64encode(thief.public).decode()}
    status, answer = lab.broker.post("/v1/release", borrowed, token)
    assert (status, answer["code"]) == (403, "WL321")
    status, answer = lab.broker.post("/v1/release", request, token)
    assert status == 200
    encrypted = base64.b64decode(answer["encrypted"])
    assert len(agent.open(encrypted, challenge["nonce"], lab.model)["k1"]) == 32
    status, answer = lab.broker.post("/v1/release", request, token)
    assert (status, answer["code"]) == (403, "WL334")
    print(answer["message"])


def test_a_token_plays_once_a_start_of_the_sidecar(lab: KeyLab) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    lab.client(token).release(lab.model)
    lab.client(token).release(lab.model)
    said = lab.refusal(token)
    assert "somebody else may be using its token" in said
    assert said.endswith("[WL334]")


def test_a_key_that_the_service_refuses(lab: KeyLab) -> None:
    lab.keys[0]["id"] = "k2"
    lab.cluster.apply(lab.weights())
    lab.granted()
    pod = lab.running_pod()
    said = lab.refusal(lab.token(pod))
    assert "it was wrapped for another model or key id" in said
    assert said.endswith("[WL332]")
    lab.keys = []
    lab.cluster.apply(lab.weights())
    time.sleep(1)
    assert lab.refusal(lab.token(pod)).endswith("[WL331]")


def test_a_broker_that_is_not_there_is_asked_again(lab: KeyLab, broker: BrokerProcess, sidecar: Any) -> None:
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    broker.stop()
    with pytest.raises(BrokerUnavailableError, match="cannot be reached"):
        lab.client(token).release(lab.model)
    agent = sidecar(lab, pod, token)
    eventually(lambda: "cannot be reached" in agent.log.read_text(), "it says so", seconds=10)
    assert not agent.ready()
    broker.start()
    eventually(agent.ready, "ready", seconds=30)


_COLLECTOR = """
import hashlib, json, sys, time
import jwt

key = open({key!r}).read()
nonce, now = sys.argv[1], int(time.time())

def token(**claims):
    times = {{"iss": {issuer!r}, "iat": now, "nbf": now, "exp": now + 300, "eat_nonce": nonce}}
    return jwt.encode({{**times, **claims}}, key, algorithm="ES384", headers={{"kid": "nv"}})

gpu = token(**json.loads({claims!r}))
digest = hashlib.sha256(gpu.encode()).hexdigest()
overall = token(**{{"x-nvidia-overall-att-result": True}}, submods={{"GPU-0": ["DIGEST", ["SHA-256", digest]]}})
print(json.dumps([["JWT", overall], {{"GPU-0": gpu}}]))
"""
GPU = {
    "measres": "success",
    "secboot": True,
    "dbgstat": "disabled",
    "hwmodel": "GH100 A01 GSP BROM",
    "x-nvidia-gpu-driver-version": "575.57.08",
    "x-nvidia-gpu-attestation-report-nonce-match": True,
}


@pytest.fixture
def issuer(broker: BrokerProcess, tmp_path: Path) -> Iterator[Any]:
    """An attestation issuer of ours: its URL, and a function that writes an evidence command for a device's claims."""
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "issuer.key").write_bytes(pem)
    public = json.loads(jwt.algorithms.ECAlgorithm(hashlib.sha384).to_jwk(key.public_key()))
    document = json.dumps({"keys": [{**public, "kid": "nv"}]}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = broker.certificate("issuer")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(serving.certificate, serving.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    class Issuer:
        url = f"https://127.0.0.1:{server.server_port}"

        def command(self, **claims: Any) -> str:
            script = tmp_path / f"collect-{len(list(tmp_path.glob('collect-*')))}.py"
            device = json.dumps({**GPU, **claims})
            script.write_text(
                _COLLECTOR.format(key=str(tmp_path / "issuer.key"), issuer=self.url, claims=device)
            )
            return f"{sys.executable} {script}"

    yield Issuer()
    server.shutdown()
    thread.join()
    server.server_close()


def test_attestation(lab: KeyLab, issuer: Any, sidecar: Any) -> None:
    rule = "object.devices.all(d, d['x-nvidia-gpu-driver-version'] == '575.57.08')"
    lab.spec = {"attestation": {"required": True, "issuer": issuer.url, "rule": rule}}
    lab.cluster.apply(lab.weights())
    lab.granted()
    pod = lab.running_pod()
    token = lab.token(pod)
    assert lab.refusal(token).endswith("the sidecar sent no evidence [WL329]")
    for claims, said in (
        ({"measres": "fail"}, "the measurements of GPU-0 do not match (measres)"),
        ({"secboot": None}, "leaves secboot open (null)"),
        ({"dbgstat": "enabled"}, "runs without secure boot, or with debugging on"),
        ({"x-nvidia-gpu-driver-version": "550.0"}, "the devices do not meet the rule of this model"),
        ({"eat_nonce": "00" * 32}, "the token of GPU-0 was not made for this release (nonce)"),
        ({"iss": "https://evil.example.com"}, "the token of GPU-0 is not the issuer's"),
    ):
        refusal = lab.refusal(token, collect=collector(issuer.command(**claims)))
        assert said in refusal
        assert refusal.endswith("[WL330]")
    agent = sidecar(lab, pod, token)
    eventually(lambda: "[WL329]" in agent.log.read_text(), "without evidence it waits", seconds=20)
    agent.stop()
    agent.arguments.append(f"--evidence-command={issuer.command()}")
    agent.start()
    eventually(agent.ready, "with evidence it is ready", seconds=20)
