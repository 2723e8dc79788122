"""Replicas die, are stopped, lose the API server, miss events, have too much to do: what is lost, and what is not.

What else may fail is tried in test_serving (workers killed and hung, orderly stops), test_weightlock and
test_cluster_source (crashes and restarts of the API server, a paused etcd).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import manifests
from harness.controller import SETTLE_SECONDS, USERNAME, Controllers, public_half
from harness.controlplane import ControlPlane
from harness.forwarder import Forwarder
from harness.lab import API, Lab
from harness.load import CLIENTS, PODS, load
from harness.release import signed_request
from harness.rest import Client
from harness.waiting import eventually
from harness.weightlock import Weightlock

from webhook.api.config import Cluster as ClusterConfig
from webhook.api.config import Config
from webhook.cluster.client.reflector import Timing
from webhook.cluster.controller.leader_election import LEASE_SECONDS
from webhook.cluster.snapshot_provider import ClusterProvider
from webhook.core.admission.provider import NotReadyError
from webhook.core.kube.objects import ObjectKey

DRAIN_SECONDS = 3
MAX_AGE = 6.0


@dataclass(frozen=True)
class Replicas:
    """Two replicas that the API server reaches at one address."""

    first: Weightlock
    second: Weightlock
    address: Forwarder


@pytest.fixture
def replicas(own_weightlock: Weightlock) -> Iterator[Replicas]:
    cluster = own_weightlock.control_plane
    shared = {part: own_weightlock.config[part] for part in ("tls", "signing")}
    second = Weightlock(cluster, name="second", config={**shared, "drainSeconds": DRAIN_SECONDS})
    # The certificate is the first's.
    second._authority = own_weightlock._authority
    second.start()
    with Forwarder([own_weightlock.port, second.port]) as address:
        register(own_weightlock, f"https://127.0.0.1:{address.port}")
        eventually(lambda: is_called(second), "the second replica is called", every=0.2)
        yield Replicas(own_weightlock, second, address)
        if not own_weightlock.running:
            own_weightlock.start()
        own_weightlock.add_webhooks()
    second.stop()


def register(weightlock: Weightlock, url: str) -> None:
    """Have the API server ask at another address, with the authority of this Weightlock."""

    def client_config(path: str) -> dict[str, Any]:
        return {**weightlock._client_config(path), "url": f"{url}{path}"}

    weightlock.cluster.apply(*manifests.webhooks(client_config))


def is_called(weightlock: Weightlock) -> bool:
    before = weightlock.metric("weightlock_admission_requests_total", resource="pods")
    for _ in range(4):
        weightlock.cluster.client().post(PODS.format("default"), pod(), dryRun="All")
    return weightlock.metric("weightlock_admission_requests_total", resource="pods") > before


def pod(**container: Any) -> dict[str, Any]:
    main = {"name": "main", "image": "registry.example.com/none:1", **container}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "tried-"},
        "spec": {"containers": [main]},
    }


def test_a_killed_replica_loses_only_its_requests_in_flight(replicas: Replicas, namespace: str) -> None:
    with load(replicas.first.cluster, namespace).running() as running:
        eventually(lambda: running.admitted > 100, "admitted by both")
        replicas.first.kill()
        begun, so_far = time.monotonic(), running.admitted
        eventually(lambda: running.admitted > so_far + 200, "the other answers", seconds=60)
        print(f"200 admitted within {time.monotonic() - begun:.1f} s of the kill; lost: {running.refused}")
        replicas.first.start()
        so_far = running.admitted
        eventually(lambda: running.admitted > so_far + 100, "both again")
    # Each client has one request at a time: a lost request was at the dead replica alone.
    assert len(running.refused) <= CLIENTS, running.refused
    assert all("failed calling webhook" in message for message in running.refused), running.refused


def test_a_replica_that_is_stopped_in_order_loses_nothing(replicas: Replicas, namespace: str) -> None:
    with load(replicas.first.cluster, namespace).running() as running:
        eventually(lambda: running.admitted > 100, "admitted by both")
        # A pod's endpoint is withdrawn when its end begins.
        replicas.address.withdraw(replicas.second.port)
        replicas.second.stop()
        so_far = running.admitted
        eventually(lambda: running.admitted > so_far + 100, "the other answers")
    assert running.refused == []


@pytest.fixture
def wire(own_control_plane: ControlPlane) -> Iterator[Forwarder]:
    """The way to the API server, to be cut or frozen."""
    with Forwarder([own_control_plane.port]) as matches:
        yield matches


def rewired(cluster: ControlPlane, kubeconfig: Path, wire: Forwarder) -> Path:
    """A kubeconfig that reaches the API server by a wire."""
    content = yaml.safe_load(kubeconfig.read_text())
    content["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{wire.port}"
    path = cluster.directory / f"wire-{wire.port}.kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
async def source(
    own_weightlock: Weightlock, own_control_plane: ControlPlane, wire: Forwarder
) -> AsyncIterator[ClusterProvider]:
    """A snapshot over the wire, that is soon found to be old."""
    kubeconfig = rewired(own_control_plane, own_control_plane.kubeconfig(), wire)
    timing = Timing(watch=(1, 2), recheck=1, silence=1.0, absent=1.0, backoff=0.5)
    config = Config(cluster=ClusterConfig(kubeconfig=str(kubeconfig), max_snapshot_age_seconds=MAX_AGE))
    async with ClusterProvider.connect(config, timing=timing) as connected:
        await soon(lambda: why_not(connected) == "", "it is ready")
        yield connected
    # aiohttp lets go of TLS connections once their other end is closed, in the loop's next turns.
    await asyncio.to_thread(wire.cut)
    await asyncio.sleep(0.2)


async def soon(look: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(eventually, look, what, seconds=60, every=0.1)


def why_not(source: ClusterProvider) -> str:
    """Why there is no snapshot to judge by; empty where there is."""
    try:
        source.snapshot()
    except NotReadyError as error:
        return str(error)
    return ""


def holds(source: ClusterProvider, namespace: str) -> bool:
    return source.snapshot().objects.get(ObjectKey("Namespace", "", namespace)) is not None


@pytest.mark.parametrize("trouble", ["cut", "freeze"])
async def test_a_snapshot_that_hears_nothing_is_refused_once_it_is_old_and_recovers(
    source: ClusterProvider, own_control_plane: ControlPlane, wire: Forwarder, trouble: str
) -> None:
    await asyncio.to_thread(getattr(wire, trouble))
    assert why_not(source) == ""
    missed = await asyncio.to_thread(own_control_plane.new_namespace)
    await soon(lambda: "is stale" in why_not(source), "it is refused")
    assert source.age() > MAX_AGE
    await asyncio.to_thread(wire.restore if trouble == "cut" else wire.thaw)
    await soon(lambda: why_not(source) == "" and holds(source, missed), "it is current")
    assert source.age() < MAX_AGE
    own_control_plane.delete_namespace(missed)


async def test_changes_missed_beyond_the_watch_history_are_listed_again(
    source: ClusterProvider,
    own_control_plane: ControlPlane,
    wire: Forwarder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name, other = "missed-policy", "deleted-policy"
    path = f"{API}/weightpolicies"
    client = own_control_plane.client()
    await asyncio.to_thread(lambda: client.post(path, policy(other)).ok())
    await soon(lambda: policy_of(source, other), "it is seen")
    await asyncio.to_thread(wire.cut)
    await asyncio.to_thread(lambda: client.delete(f"{path}/{other}").ok())
    await asyncio.to_thread(lambda: client.post(path, policy(name)).ok())
    # What an API server remembers of the past begins with its start.
    await asyncio.to_thread(own_control_plane.restart_apiserver)
    await asyncio.to_thread(lambda: client.patch(f"{path}/{name}", {"metadata": {"labels": {"a": "b"}}}).ok())
    await asyncio.to_thread(wire.restore)
    await soon(lambda: why_not(source) == "" and policy_of(source, name), "what was made is seen")
    assert policy_of(source, other) is None
    output = [getattr(record, "fields", {}).get("why", "") for record in caplog.records]
    assert any("too old resource version" in why for why in output), output
    await asyncio.to_thread(lambda: client.delete(f"{path}/{name}").ok())


def policy(name: str) -> dict[str, Any]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    nowhere = {"matchLabels": {"weightlock.dev/no-such": "namespace"}}
    spec = {
        "code": "WL500",
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": nowhere},
        "validations": [{"expression": "true"}],
    }
    return {
        "apiVersion": "weightlock.dev/v1alpha1",
        "kind": "WeightPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def policy_of(source: ClusterProvider, name: str) -> object:
    return source.snapshot().objects.get(ObjectKey("WeightPolicy.weightlock.dev", "", name))


@pytest.fixture
def asking(own_weightlock: Weightlock, wire: Forwarder) -> Iterator[Weightlock]:
    """Weightlock on the wire, which may ask the API server two things at a time."""
    cluster = own_weightlock.control_plane
    config = {"maxConcurrentReviews": 2, "reviewTimeoutSeconds": 4}
    matches = Weightlock(cluster, name="asking", config=config)
    matches.config["cluster"] = {
        "kubeconfig": str(rewired(cluster, Path(matches.config["cluster"]["kubeconfig"]), wire))
    }
    matches.start()
    matches.add_webhooks()
    yield matches
    wire.thaw()
    own_weightlock.add_webhooks()
    matches.stop()


def test_too_much_to_do_is_denied_at_once_and_says_so(
    asking: Weightlock, wire: Forwarder, namespace: str
) -> None:
    gpu = pod(resources={"limits": {"nvidia.com/gpu": "1"}})
    path = PODS.format(namespace)

    def attempt(client: Client) -> tuple[float, int, str]:
        begun = time.monotonic()
        answer = client.post(path, gpu, dryRun="All")
        client.close()
        return time.monotonic() - begun, answer.status, answer.message

    clients = [Client.from_kubeconfig(asking.cluster.kubeconfig()) for _ in range(8)]
    wire.freeze()
    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(attempt, clients))
    turned_away = [seconds for seconds, _, message in answers if "[WL904]" in message]
    waited = [seconds for seconds, _, message in answers if "[WL905]" in message]
    assert len(turned_away) + len(waited) == len(answers), answers
    assert (len(turned_away), len(waited)) == (6, 2), answers
    assert max(turned_away) < min(waited), answers
    assert all("retry" in message for _, _, message in answers), answers
    wire.thaw()
    client = asking.cluster.client()
    eventually(lambda: "[WL201]" in client.post(path, gpu, dryRun="All").message, "it judges again")


@pytest.fixture
def signing_controllers(own_weightlock: Weightlock) -> Iterator[Controllers]:
    """Controllers that sign, beside a webhook that has only the stamp key: the chart's default."""
    signing = own_weightlock.config["signing"]
    stamp = own_weightlock.signing_key.with_name("stamp.key")
    stamp.write_bytes(b"a key of the tests, 32 bytes long")
    own_weightlock.config["signing"] = {
        "keys": str(public_half(own_weightlock.signing_key)),
        "stampKey": str(stamp),
    }
    own_weightlock.restart()
    matches = Controllers(own_weightlock, signs=True, stamp=stamp).prepare()
    yield matches
    matches.stop()
    own_weightlock.config["signing"] = signing
    own_weightlock.restart()


def test_a_leader_that_is_killed_is_followed_and_nothing_is_signed_twice(
    signing_controllers: Controllers, own_control_plane: ControlPlane, namespace: str
) -> None:
    lab = Lab(own_control_plane, namespace).build()
    leader = signing_controllers.start()
    signing_controllers.wait_leading()
    # A new controller signs nothing until the webhook configurations have settled: see `signed_request`.
    before = signed_request(lab, "10m")
    follower = signing_controllers.start_ready()

    def signed(document: dict[str, Any]) -> bool:
        matches = own_control_plane.client().get(f"{API}/accessrequests/{document['metadata']['name']}").ok()
        return bool(matches["spec"].get("signature"))

    # The follower signs only requests that it saw arrive after its own settling time.
    time.sleep(2 * SETTLE_SECONDS)
    leader.kill()
    begun = time.monotonic()
    after = [lab.ask(f"after-{number}") for number in range(3)]
    eventually(lambda: all(map(signed, after)), "the other signs", seconds=90)
    took = time.monotonic() - begun
    print(f"signed again {took:.1f} s after the leader was killed")
    assert follower.running
    # No sooner than the lease allows, and not much later.
    assert LEASE_SECONDS / 2 < took < LEASE_SECONDS + 30
    patches = own_control_plane.audit_events(user=USERNAME, verb="patch")
    for document in (before, *after):
        name = document["metadata"]["name"]
        mine = [
            event
            for event in patches
            if event["objectRef"].get("name") == name and "subresource" not in event["objectRef"]
        ]
        assert [event["responseStatus"]["code"] for event in mine] == [200], name
