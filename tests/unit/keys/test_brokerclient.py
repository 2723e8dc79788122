"""The sidecar's client against the broker's real server over TLS; and the sidecar's whole life on top of both."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import threading
import time
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

pytest.importorskip("jwt", reason="PyJWT is not installed")

from webhook.api.broker import BrokerConfig
from webhook.keys import operations
from webhook.keys.agent import Keeper, Pauses
from webhook.keys.brokerclient import BrokerClient, BrokerRefusedError, BrokerUnavailableError
from webhook.keys.client import open_weights
from webhook.keys.delivery import Target, complete
from webhook.keys.errors import BadInputError, SealedDataError
from webhook.keys.refusal import UnavailableError
from webhook.keys.transfer import NoProgress
from webhook.server import selfsigned
from webhook.server.broker import BrokerServer, write_audit


class Served:
    """A broker that listens in this event loop; clients run in threads, as the sidecar does."""

    def __init__(self, world, home, server):
        self.world, self.home, self.server, self.url = world, home, server, server.address

    def client(self, token="good", url=None, ca="ca.crt", collect=None):
        (self.home / "token").write_text(token + "\n")
        return BrokerClient(url or self.url, self.home / "token", self.home / ca, collect)

    async def release(self, model="atlas-70b", **options):
        keys, lease = await asyncio.to_thread(self.client(**options).release, model)
        return {name: bytes(key.view()) for name, key in keys.items()}, lease

    async def raw(self, method, path, body=b"", headers=None):
        def ask():
            port = int(self.url.rpartition(":")[2])
            context = ssl.create_default_context(cafile=str(self.home / "ca.crt"))
            connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            response = connection.getresponse()
            answer = response.status, response.read(), dict(response.getheaders())
            connection.close()
            return answer

        return await asyncio.to_thread(ask)


@asynccontextmanager
async def serving(world, home, **settings):
    made = selfsigned.make(["127.0.0.1"])
    for name, content in (("ca.crt", made.authority), ("tls.crt", made.certificate), ("tls.key", made.key)):
        (home / name).write_bytes(content)
    tls = {"certificate": str(home / "tls.crt"), "key": str(home / "tls.key")}
    config = {
        "listen": {"host": "127.0.0.1", "port": 0},
        "tls": tls,
        "broker": {"production": False, **settings},
    }
    config = BrokerConfig.model_validate(config)
    broker = world.broker(**settings)
    server = BrokerServer(config, broker, broker._source)
    async with server.running():
        yield Served(world, home, server)
    await broker.close()


@pytest.fixture
async def served(world, tmp_path):
    async with serving(world, tmp_path) as served:
        yield served


async def test_release_and_renewal(served):
    keys, lease = await served.release()
    assert keys == {"k1": served.world.data_key}
    assert (lease.seconds, lease.renew_after) == (900, 300)
    renewed = await asyncio.to_thread(served.client().renew, "atlas-70b")
    assert renewed.seconds == 900


async def test_a_refusal_is_the_brokers_sentence(served):
    with pytest.raises(BrokerRefusedError, match=r"the API server does not accept the token.*\[WL322\]"):
        await served.release(token="bad")


async def test_what_may_pass_is_told_from_a_refusal(served):
    served.world.reviewed = UnavailableError("WL911", "the API server is away")
    with pytest.raises(BrokerUnavailableError, match=r"the API server is away \[WL911\]"):
        await served.release()


async def test_a_broker_of_another_authority_is_not_spoken_to(served):
    made = selfsigned.make(["127.0.0.1"])
    (served.home / "other.crt").write_bytes(made.authority)
    with pytest.raises(BrokerUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
        await served.release(ca="other.crt")
    assert served.world.events == []
    with pytest.raises(BadInputError, match="must begin with https://"):
        await served.release(url=served.url.replace("https", "http"))
    with pytest.raises(BrokerUnavailableError, match="cannot be reached"):
        await served.release(url="https://127.0.0.1:1")
    with pytest.raises(BrokerUnavailableError, match=r"authority .* cannot be read"):
        await served.release(ca="missing.crt")


async def test_evidence_is_collected_for_the_nonce_and_sent(served):
    nonces = []

    def collect(nonce):
        nonces.append(nonce)
        return [["JWT", "x"], {}]

    await served.release(collect=collect)
    assert len(nonces) == 1

    def fails(nonce):
        raise SealedDataError("no attestation evidence: no device")

    with pytest.raises(SealedDataError, match="no device"):
        await served.release(collect=fails)


@pytest.mark.parametrize("path", ["/v1/challenge", "/v1/release", "/v1/renew"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"model": 3}',
        b'{"publicKey": "AAAA"}',
        b'{"surprise": 1}',
        b"\xff",
    ],
)
async def test_what_is_no_request_is_one_line(served, path, body):
    status, answer, headers = await served.raw("POST", path, body)
    document = json.loads(answer)
    assert (status, document["code"]) == (400, "WL320")
    assert document["message"].startswith("the request is malformed: ")
    assert headers["Cache-Control"] == "no-store"


async def test_methods_sizes_and_paths(served):
    assert (await served.raw("GET", "/v1/release"))[0] == 405
    assert (await served.raw("POST", "/v1/other", b"{}"))[0] == 404
    assert (await served.raw("POST", "/v1/release", b"x" * 600_000))[0] == 413
    assert (await served.raw("POST", "/v1/release", b"{}", {"Content-Type": "text/plain"}))[0] == 415
    assert (await served.raw("GET", "/readyz"))[0] == 200
    await served.release()
    metrics = (await served.raw("GET", "/metrics"))[1].decode()
    assert 'weightlock_key_releases_total{code="",result="released"} 1.0' in metrics


async def test_a_fault_of_ours_tells_nothing(served, monkeypatch, caplog):
    async def fault(*_):
        raise RuntimeError("private detail")

    monkeypatch.setattr(served.server._broker, "renew", fault)
    status, answer, _ = await served.raw(
        "POST", "/v1/renew", b'{"model": "m"}', {"Authorization": "Bearer secret-token"}
    )
    assert (status, json.loads(answer)) == (500, {"code": "WL902", "message": "internal error"})
    assert "secret-token" not in caplog.text


async def test_a_cluster_that_does_not_answer_in_time(world, tmp_path):
    async with serving(world, tmp_path, requestTimeoutSeconds=0.2) as served:

        async def hang(question):
            await asyncio.sleep(30)

        world.review_token = hang
        with pytest.raises(
            BrokerUnavailableError, match=r"did not answer the broker's questions in time \[WL911\]"
        ):
            await served.release()


async def test_more_than_it_can_do_at_once(world, tmp_path):
    async with serving(world, tmp_path, maxConcurrentRequests=1) as served:
        held, entered = asyncio.Event(), asyncio.Event()
        known = world.review_token

        async def slow(question):
            entered.set()
            await held.wait()
            return await known(question)

        world.review_token = slow
        first = asyncio.create_task(served.release())
        await entered.wait()
        status, answer, headers = await served.raw("POST", "/v1/renew", b'{"model": "m"}')
        assert (status, json.loads(answer)["code"], headers["Retry-After"]) == (503, "WL904", "5")
        held.set()
        assert (await first)[0]


def test_an_audit_event_is_a_line_of_the_log(caplog):
    with caplog.at_level("INFO", logger="weightlock.audit"):
        write_audit({"event": "key.release", "result": "refused"})
    assert caplog.records[0].fields == {"event": "key.release", "result": "refused"}


@asynccontextmanager
async def keeping(served, target, **pauses):
    """A keeper in its thread; gives the lines it says and the event that stops it."""
    lines, stop = [], threading.Event()
    pauses = Pauses(**{"first": 0.01, "longest": 0.05, "refused": 0.05, **pauses})
    keeper = Keeper(target, served.client(), stop, lines.append, NoProgress(), pauses)
    thread = threading.Thread(target=keeper.run)
    thread.start()
    try:
        yield lines
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)


async def until(probe):
    deadline = time.monotonic() + 10
    while not probe():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def target_in(home, sealed=None):
    base = home / "run" / ("weights" if sealed else "keys")
    directory = base / "atlas-70b"
    directory.mkdir(parents=True)
    return Target("atlas-70b", directory, sealed)


async def test_a_sidecars_life(served):
    target = target_in(served.home)
    key = target.directory / "k1"
    assert not complete(served.home / "run")
    async with keeping(served, target) as lines:
        await until(lambda: complete(served.home / "run"))
        assert key.read_bytes() == served.world.data_key
        assert key.stat().st_mode & 0o777 == 0o400
        assert lines == [f"model atlas-70b: 1 key(s) delivered to {target.directory}"]
    assert list(target.directory.iterdir()) == [], "wiped when told to stop"


async def test_a_refused_renewal_wipes_and_a_new_grant_brings_it_back(world, tmp_path):
    async with serving(world, tmp_path) as served:
        released = served.server._broker._lease
        served.server._broker._lease = lambda ends: released(ends).model_copy(
            update={"seconds": 60, "renew_after": 1}
        )
        target = target_in(served.home)
        async with keeping(served, target) as lines:
            await until(lambda: complete(served.home / "run"))
            then = world.now
            world.now += timedelta(hours=2)
            await until(lambda: not (target.directory / "k1").exists())
            assert any(
                "wiped: service account research/trainer has no active grant" in line for line in lines
            )
            assert not complete(served.home / "run")
            world.now = then
            await until(lambda: complete(served.home / "run"))


async def test_a_lease_that_ends_while_the_broker_is_away_wipes(world, tmp_path):
    async with serving(world, tmp_path) as served:
        released = served.server._broker._lease
        served.server._broker._lease = lambda ends: released(ends).model_copy(
            update={"seconds": 2, "renew_after": 1}
        )
        target = target_in(served.home)
        async with keeping(served, target) as lines:
            await until(lambda: complete(served.home / "run"))
            world.reviewed = UnavailableError("WL911", "away")
            await until(lambda: not (target.directory / "k1").exists())
            assert any("not renewed yet: away" in line for line in lines)
            assert any("the lease ended and the broker could not be asked" in line for line in lines)


async def test_it_says_why_it_waits_once_and_tries_on(served):
    target = target_in(served.home)
    served.world.faults = ("something is missing",)
    async with keeping(served, target) as lines:
        await until(lambda: len(served.world.events) >= 3)
        assert len(lines) == 1
        assert lines[0].endswith("something is missing [WL328]")
        served.world.faults = ()
        await until(lambda: complete(served.home / "run"))


async def sealed_for(served, tree, service, work):
    """The tree, sealed with a key that the broker releases from now on."""
    sealed = served.home / "sealed"
    manifest = await asyncio.to_thread(operations.seal, tree, sealed, service, "atlas-70b", "k1", work)
    served.world.data_key = bytes((await asyncio.to_thread(service.unwrap, manifest.key, "atlas-70b")).view())
    served.world.model["spec"]["keys"] = []
    await served.world.wrap()
    served.server._broker._source = served.world.source()
    return sealed


async def test_plaintext_is_unsealed_once_a_version(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    target = target_in(served.home, sealed)
    async with keeping(served, target) as lines:
        await until(lambda: complete(served.home / "run"))
        assert target.marked()
        for name in ("config.json", "shards/deep/three.bin"):
            assert (target.directory / name).read_bytes() == (tree / name).read_bytes()
        again = Keeper(target, served.client(), threading.Event(), lines.append, NoProgress())
        inode = (target.directory / "config.json").stat().st_ino
        await asyncio.to_thread(again._deliver)
        assert "still in" in lines[-1]
        assert (target.directory / "config.json").stat().st_ino == inode
    assert [path for path in target.directory.rglob("*") if path.is_file()] == []


async def test_files_sealed_with_a_key_that_the_model_no_longer_has(served, tree, service, work):
    sealed = served.home / "sealed"
    await asyncio.to_thread(operations.seal, tree, sealed, service, "atlas-70b", "k9", work)
    target = target_in(served.home, sealed)
    async with keeping(served, target) as lines:
        await until(lambda: lines)
        assert lines[0].endswith("the files are sealed with key k9, which ModelWeights does not hold")


async def test_the_reader_finds_the_delivered_key(served, tree, service, work):
    sealed = await sealed_for(served, tree, service, work)
    target = target_in(served.home)
    async with keeping(served, target):
        await until(lambda: complete(served.home / "run"))
        with open_weights(sealed, keys=served.home / "run" / "keys") as weights:
            assert weights.read("shards/deep/three.bin") == (tree / "shards/deep/three.bin").read_bytes()
