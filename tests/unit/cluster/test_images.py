"""Pull secrets, local addresses, slow registries and shards: one tenant's images must not affect those of another."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from datetime import UTC, datetime

import aiohttp
import pytest
from harness.waiting import slowness

from webhook.api.config import Images, Registry
from webhook.api.images import ImageTrustSpec
from webhook.cluster.client.api import ApiError
from webhook.cluster.controller import image_statements
from webhook.cluster.images import ImageReader
from webhook.core.images.describe import UNAVAILABLE, ImageQuery
from webhook.core.images.statements import Statement, trust_hash
from webhook.provenance import checker as module
from webhook.provenance.attestations import Attestation
from webhook.provenance.checker import ImageChecker, statement_of
from webhook.provenance.errors import RegistryUnavailableError
from webhook.provenance.images import ImageResult
from webhook.provenance.registry.addresses import Resolver, address_fault, host_fault
from webhook.provenance.registry.client import Endpoint, RegistryClient
from webhook.provenance.registry.source import Reference
from webhook.provenance.trust import Signer

DIGEST = "sha256:" + "a" * 64
IMAGE = f"registry.example.com/acme/trainer@{DIGEST}"


def query(namespace="a", *secrets, reference=IMAGE):
    return ImageQuery(reference, namespace, "default", secrets)


def pull_secret(user, registry="registry.example.com"):
    config = {"auths": {registry: {"username": user, "password": "p"}}}
    data = base64.b64encode(json.dumps(config).encode()).decode()
    return {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}}


class Api:
    def __init__(self, objects):
        self.objects, self.paths = objects, []

    async def get(self, path, query=None, *, seconds=0.0):
        self.paths.append(path)
        if path not in self.objects:
            raise ApiError(404, "NotFound", "not found")
        return self.objects[path]


def reader_of(objects):
    return ImageReader(Api(objects), Images(pullSecrets=True))


async def user_of(client):
    matches = await client.keychain.find("registry.example.com", "acme/trainer")
    return matches.user if matches is not None else None


# Pull secrets


async def test_a_pull_secret_is_used_for_pods_of_its_namespace_only():
    reader = reader_of({"/api/v1/namespaces/a/secrets/s": pull_secret("alice")})
    ours, theirs, other = [await reader._source(query(name, "s")) for name in ("a", "b", "c")]
    assert await user_of(ours) == "alice"
    assert await user_of(theirs) is None
    assert theirs is other
    assert ours is not theirs
    assert await reader._source(query("a", "s")) is ours
    await reader.close()


@pytest.mark.parametrize("name", ["../../kube-system/secrets/s", "..", ".", "", "a/b"])
async def test_a_name_cannot_leave_the_namespace(name):
    reader = reader_of({"/api/v1/namespaces/kube-system/secrets/s": pull_secret("root")})
    assert await user_of(await reader._source(query("a", name))) is None
    assert not any("kube-system" in path for path in reader._api.paths)
    assert await user_of(await reader._source(query("../kube-system", "s"))) is None
    await reader.close()


@pytest.mark.parametrize(
    "secret",
    [
        {"type": "Opaque", "data": {".dockerconfigjson": "e30="}}, {"type": "kubernetes.io/dockerconfigjson"}, {},
        {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "!"}},
        {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": "eA=="}},
        {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "WzFd"}},
        {"type": "kubernetes.io/dockerconfigjson", "data": [1]},
    ],
)  # fmt: skip
async def test_a_secret_of_any_form(secret):
    reader = reader_of({"/api/v1/namespaces/a/secrets/s": secret})
    await reader._source(query("a", "s"))
    await reader.close()


async def test_a_helper_in_a_pull_secret_does_not_run():
    config = base64.b64encode(
        json.dumps({"credsStore": "evil", "credHelpers": {"registry.example.com": "evil"}}).encode()
    )
    secret = {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": config.decode()}}
    reader = reader_of({"/api/v1/namespaces/a/secrets/s": secret})
    assert await user_of(await reader._source(query("a", "s"))) is None
    await reader.close()


async def test_clients_are_bounded_and_the_used_ones_stay(monkeypatch):
    monkeypatch.setattr("webhook.cluster.images._MAX_CLIENTS", 3)
    reader = reader_of({f"/api/v1/namespaces/n{n}/secrets/s": pull_secret(f"u{n}") for n in range(9)})
    first = await reader._source(query("n0", "s"))
    for number in range(1, 9):
        await asyncio.gather(*(reader._source(query(f"n{number}", "s")) for _ in range(3)))
        assert await reader._source(query("n0", "s")) is first
        assert len(reader._clients) <= 3
    await reader.close()


# Local addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.8.9.1", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "fe80::1%1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "2002:7f00:1::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1",
        "fd00:ec2::254",
        "100.100.100.200", "localhost", "LOCALHOST.", "a.localhost", "kubernetes.default.svc", "x.y.svc.cluster.local.",
    ],
)  # fmt: skip
async def test_a_local_host_is_rejected(host):
    assert host_fault(host)
    client = RegistryClient()
    name = f"[{host}]" if ":" in host else host
    with pytest.raises(RegistryUnavailableError, match=r"local|without a host"):
        await client._send(f"https://{name}/v2/", {}, 10, Endpoint())
    await client.close()


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "192.168.1.2", "172.16.0.1", "fd12::1", "registry.example.com", "8.8.8.8", "svc"]
)
def test_other_hosts_are_allowed(host):
    """Many registries have private addresses."""
    assert not host_fault(host)
    assert not address_fault(host)


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1"])
async def test_other_spellings_of_loopback(host):
    with pytest.raises(OSError, match="local"):
        await Resolver(()).resolve(host, 443)


async def test_a_name_that_leads_to_a_local_address(monkeypatch):
    async def resolve(self, host, port=0, family=0):
        return [{"host": "8.8.8.8"}, {"host": "169.254.169.254"}]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    with pytest.raises(OSError, match="local"):
        await Resolver(()).resolve("rebind.example.com")
    assert await Resolver({"rebind.example.com"}).resolve("rebind.example.com")


@pytest.mark.parametrize("host", ["a" * 70 + ".example.com", "a..b"])
async def test_a_name_that_cannot_be_encoded_is_an_error_of_the_network(host):
    with pytest.raises(OSError, match="host name"):
        await Resolver(()).resolve(host, 443)


@pytest.mark.parametrize(
    "location",
    ["https://127.0.0.1:6443/", "https://[::1]/", "https://169.254.169.254/latest", "https://x.svc/"],
)
async def test_a_redirect_to_a_local_host(monkeypatch, location):
    class Answer:
        status, body = 302, b""
        headers = {"Location": location}  # noqa: RUF012

    client, requests = RegistryClient(seconds=1), []
    real = RegistryClient._send

    async def send(self, url, headers, limit, endpoint):
        requests.append(url)
        return Answer if len(requests) == 1 else await real(self, url, headers, limit, endpoint)

    monkeypatch.setattr(RegistryClient, "_send", send)
    with pytest.raises(RegistryUnavailableError, match=r"local|without a host"):
        await client.manifest(Reference.parse(IMAGE), DIGEST)
    await client.close()


def test_configured_hosts_are_exempt():
    endpoints = {"localhost:5000": Endpoint(), "r.example.com": Endpoint(("https://[::1]:8443/cache",))}
    assert RegistryClient(None, endpoints)._exempt == {"localhost", "r.example.com", "::1"}
    assert Registry(registry="localhost:5000")


# Slow and faulty registries


def checker_of(source):
    return ImageChecker(source)


async def test_a_slow_tenant_leaves_slots_to_the_others(monkeypatch):
    async def source(item):
        if item.namespace == "slow":
            await asyncio.sleep(60)
        raise RegistryUnavailableError("no")

    checker = checker_of(source)
    slow = [checker.answer(query("slow", reference=f"r/{n}@{DIGEST}"), {}, 0.01) for n in range(40)]
    assert {answer.reason for answer in await asyncio.gather(*slow)} == {UNAVAILABLE}
    answer = await checker.answer(query("other"), {}, 2)
    assert answer.message == "no"
    await checker.close()
    assert checker._shares == {}
    assert checker._running == {}


async def test_the_queue_of_a_namespace_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_MAX_WAITING", 10)

    async def source(item):
        await asyncio.sleep(60)

    checker = checker_of(source)
    first = await asyncio.gather(
        *(checker.answer(query("a", reference=f"r/{n}"), {}, 0.01) for n in range(10))
    )
    assert all("did not respond" in answer.message for answer in first)
    assert "too many images" in (await checker.answer(query("a", reference="r/x"), {}, 0.01)).message
    assert "did not respond" in (await checker.answer(query("b"), {}, 0.01)).message
    await checker.close()


@pytest.mark.parametrize(
    "fault", [ValueError("x"), KeyError("x"), OverflowError(), OSError(), TimeoutError()]
)
async def test_each_fault_is_an_answer_and_backs_off(fault):
    calls = []

    async def source(item):
        calls.append(item)
        raise fault

    checker = checker_of(source)
    for _ in range(5):
        answer = await checker.answer(query(), {}, 1)
        assert answer.reason == UNAVAILABLE
    assert len(calls) == 1
    entry = checker._cache[query(), frozenset()]
    assert entry.until > time.monotonic() + 1


async def test_tenants_share_no_answer():
    seen = []

    async def source(item):
        seen.append(item)
        raise RegistryUnavailableError(item.namespace)

    checker = checker_of(source)
    items = [query("a"), query("b"), query("a", "s"), ImageQuery(IMAGE, "a", "other")]
    for item in items:
        assert (await checker.answer(item, {}, 1)).message == item.namespace
    assert seen == items


async def test_a_caller_that_leaves_does_not_end_the_verification():
    done = asyncio.Event()

    async def source(item):
        await asyncio.sleep(0.02)
        done.set()
        raise RegistryUnavailableError("no")

    checker = checker_of(source)
    caller = asyncio.create_task(checker.answer(query(), {}, 5))
    await asyncio.sleep(0.005)
    caller.cancel()
    await asyncio.wait_for(done.wait(), 1 * slowness())
    assert (await checker.answer(query(), {}, 1)).message == "no"


# Statements


def test_the_largest_statement_parses_again():
    attestations = tuple(Attestation(f"t{n}", {"x": "é" * 1900}) for n in range(32))
    result = ImageResult(DIGEST, (Signer(key="sha256:k"),), attestations)
    statement = statement_of(result, datetime.now(UTC))
    text = statement.line(DIGEST).partition(" ")[2]
    assert Statement.parse(text) == statement
    assert set(statement.attestations) == {f"t{n}" for n in range(32)}
    assert statement.attestations["t31"] == [{"truncated": True}]


def test_a_shard_is_bounded_in_bytes_and_the_oldest_leave_it():
    statements = {
        f"sha256:{n:064x}": Statement(n, message="界" * 256, attestations={"t": [{"x": "界" * 900}]})
        for n in range(600)
    }
    begun = time.process_time()
    fitting = image_statements._fitting(statements)
    assert time.process_time() - begun < 1
    text = image_statements.lines(fitting)
    assert 990_000 < len(text.encode()) <= image_statements._MAX_SHARD
    assert min(item.checked for item in fitting.values()) == 600 - len(fitting)
    assert image_statements._fitting({}) == {}


def test_only_the_trust_is_in_the_hash():
    """A changed scope keeps the statements; each changed signer is another rule."""
    signers = [{"issuer": "i", "subject": "s"}, {"issuer": "i", "subject": "t"}]
    base = {"images": ["r/a"], "signers": signers, "trustedRoot": "{}"}
    first = trust_hash(ImageTrustSpec.model_validate(base))
    assert first == trust_hash(ImageTrustSpec.model_validate(base | {"images": ["r/b"], "namespaces": ["n"]}))
    for change in (
        {"signers": signers[:1]},
        {"trustedRoot": "[]"},
        {"transparencyLog": True},
        {"signers": signers[::-1]},
    ):
        assert first != trust_hash(ImageTrustSpec.model_validate(base | change))
