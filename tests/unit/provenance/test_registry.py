"""The registry client against registries that are slow, broken or hostile."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import socket
import time

import pytest
from aiohttp import web
from harness.waiting import slowness

from tests.support.signed_images import INDEX, MANIFEST, SIGN, Store
from tests.support.sigstore_world import NOW, World, new_key, pem
from webhook.provenance import errors
from webhook.provenance.images import verify_image
from webhook.provenance.registry import client as module
from webhook.provenance.registry.auth import Chain, Credentials, DockerConfig
from webhook.provenance.registry.client import Endpoint, RegistryClient
from webhook.provenance.registry.source import Reference
from webhook.provenance.signatures import load_public_key
from webhook.provenance.trust import Trust, TrustedKey

KEY, WORLD = new_key(), World(logged=False)
TRUST = Trust(keys=(TrustedKey(load_public_key(pem(KEY))),))


class FakeRegistry:
    """A registry of one `Store`; ``override`` answers before it does."""

    def __init__(self) -> None:
        self.store = Store()
        self.override = None
        self.referrers_api = True
        self.seen: list[web.Request] = []
        self.host = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        if self.override is not None:
            answer = self.override(request)
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer is not None:
                return answer
        kind, _, name = request.path.removeprefix("/v2/acme/trainer/").partition("/")
        if kind == "manifests":
            digest = self.store.tags.get(name, name)
            if digest in self.store.manifests:
                return web.Response(body=self.store.manifests[digest], content_type=self.store.types[digest])
        if kind == "blobs" and name in self.store.blobs:
            return web.Response(body=self.store.blobs[name], content_type="application/octet-stream")
        if kind == "referrers" and self.referrers_api:
            return web.json_response({"manifests": self.store.referrers(name)}, content_type=INDEX)
        return web.json_response({"errors": []}, status=404)


@contextlib.asynccontextmanager
async def serving(registry):
    app = web.Application(client_max_size=1)
    app.router.add_get("/{path:.*}", registry.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    await web.SockSite(runner, listening).start()
    registry.host = f"127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield registry
    finally:
        await runner.cleanup()


@pytest.fixture
async def registry():
    async with serving(FakeRegistry()) as fake:
        yield fake


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_ATTEMPTS", 2)
    monkeypatch.setattr(module.Backoff, "next", lambda self: 0.01)


@contextlib.asynccontextmanager
async def client_of(registry, seconds=3.0, keychain=None, mirrors=(), **options):
    endpoint = Endpoint(tuple(mirrors), plain_http=True, **options)
    client = RegistryClient(keychain, {registry.host: endpoint}, seconds=seconds)
    try:
        yield client
    finally:
        await client.close()


async def verify(registry, reference="v1", **options):
    image = Reference.parse(f"{registry.host}/acme/trainer:{reference}")
    async with client_of(registry, **options) as client:
        (result,) = await verify_image(client, image, [TRUST], NOW)
        return result


@pytest.mark.parametrize("form", ["annotations", "bundle"])
@pytest.mark.parametrize("api", [True, False])
async def test_signed_image(registry, form, api):
    """By the referrers API, and by the fallback tag of registries without it."""
    digest = registry.store.image()
    registry.store.sign(WORLD, digest, form, SIGN, key=KEY)
    registry.referrers_api = api
    if not api and form == "bundle":
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": registry.store.referrers(digest)}
        registry.store.put(json.dumps(index).encode(), digest.replace(":", "-"), INDEX)
    assert (await verify(registry)).verified


async def test_unsigned_image(registry):
    registry.store.image()
    assert (await verify(registry)).reason == "Unsigned"


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503, 418])
@pytest.mark.parametrize("path", ["manifests", "referrers", "blobs"])
async def test_failure_is_not_unsigned(registry, status, path):
    """Each failure of the registry is its own cause: "unsigned" means that the registry said so."""
    digest = registry.store.image()
    registry.store.sign(WORLD, digest, "bundle", SIGN, key=KEY)
    registry.override = lambda request: web.Response(status=status) if f"/{path}/" in request.path else None
    with pytest.raises(errors.RegistryUnavailableError) as caught:
        await verify(registry)
    assert caught.value.code == "RegistryUnavailable"


async def test_rate_limit(registry):
    registry.store.image()
    registry.override = lambda request: web.Response(status=429, headers={"Retry-After": "120"})
    begun = time.monotonic()
    with pytest.raises(errors.RegistryUnavailableError, match="429") as caught:
        await verify(registry)
    assert caught.value.retry_after == 120
    assert time.monotonic() - begun < 2 * slowness()
    assert len(registry.seen) == 1


async def test_short_rate_limit_is_waited_for(registry):
    registry.store.image()
    registry.override = lambda request: (
        web.Response(status=429, headers={"Retry-After": "0"}) if len(registry.seen) == 1 else None
    )
    assert (await verify(registry)).reason == "Unsigned"


@pytest.mark.parametrize("part", ["headers", "body"])
async def test_slow_registry(registry, part):
    async def slow(request):
        if part == "headers":
            await asyncio.sleep(5)
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(50):
            await response.write(b" ")
            await asyncio.sleep(0.1)
        return response

    registry.override = slow
    begun = time.monotonic()
    with pytest.raises(errors.RegistryUnavailableError):
        await verify(registry, seconds=0.4)
    assert time.monotonic() - begun < 2 * slowness()


async def test_absent_registry(registry):
    registry.host = "127.0.0.1:1"
    with pytest.raises(errors.RegistryUnavailableError, match="cannot reach"):
        await verify(registry)


async def test_redirect_without_credentials(registry):
    """A blob may be on another host, which gets no credentials."""
    digest = registry.store.image()
    registry.store.sign(WORLD, digest, "bundle", SIGN, key=KEY)
    async with serving(FakeRegistry()) as other:
        other.store = registry.store

        def override(request):
            if request.headers.get("Authorization") != "Basic dTpw":
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})
            if "/blobs/" in request.path:
                raise web.HTTPTemporaryRedirect(f"http://{other.host}{request.path}")
            return None

        registry.override = override
        keychain = DockerConfig(
            json.dumps({"auths": {registry.host: {"username": "u", "password": "p"}}}).encode()
        )
        assert (await verify(registry, keychain=keychain)).verified
        assert other.seen
        assert all("Authorization" not in request.headers for request in other.seen)


async def test_redirect_loop(registry):
    registry.override = lambda request: web.Response(status=302, headers={"Location": request.path})
    with pytest.raises(errors.RegistryUnavailableError, match="redirects more than"):
        await verify(registry)
    assert len(registry.seen) <= 7


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://x/y", "gopher://x"])
async def test_redirect_to_another_scheme(registry, target):
    registry.override = lambda request: web.Response(status=302, headers={"Location": target})
    with pytest.raises(errors.RegistryUnavailableError, match="not HTTPS"):
        await verify(registry)


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
async def test_wrong_content_for_a_digest(registry, kind):
    digest = registry.store.image()
    registry.store.sign(WORLD, digest, "bundle", SIGN, key=KEY)
    referrer = registry.store.referrers(digest)[0]["digest"]

    def override(request):
        if f"/{kind}/sha256" in request.path and request.path.rpartition("/")[2] in (
            referrer,
            *registry.store.blobs,
        ):
            return web.Response(body=b'{"layers": []}', content_type=MANIFEST)
        return None

    registry.override = override
    result = await verify(registry)
    assert (result.verified, result.reason) == (False, "Tampered")


async def test_wrong_content_for_the_image(registry):
    registry.store.image()
    registry.override = lambda request: (
        web.Response(body=b"{}", content_type=MANIFEST) if "sha256:" in request.path else None
    )
    image = Reference.parse(f"{registry.host}/acme/trainer@sha256:{'ab' * 32}")
    async with client_of(registry) as client:
        with pytest.raises(errors.TamperedError):
            await verify_image(client, image, [TRUST], NOW)


async def test_huge_manifest(registry):
    async def huge(request):
        response = web.StreamResponse(headers={"Content-Type": MANIFEST})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                await response.write(b" " * (1 << 20))
        return response

    registry.override = huge
    with pytest.raises(errors.MalformedError, match="more than"):
        await verify(registry)


async def test_compressed_content(registry):
    """A zip bomb is not decompressed: the client accepts no content encoding."""
    bomb = gzip.compress(b"0" * (64 << 20))
    registry.override = lambda request: web.Response(
        body=bomb, headers={"Content-Encoding": "gzip"}, content_type=MANIFEST
    )
    with pytest.raises(errors.RegistryUnavailableError, match="compressed"):
        await verify(registry)


async def test_loop_of_referrers(registry):
    """Referrers of referrers are never followed."""
    digest = registry.store.image()
    registry.store.sign(WORLD, digest, "bundle", SIGN, key=KEY)
    for _ in range(5):
        for entry in list(registry.store.referrers(digest)):
            registry.store.manifest([], subject=entry["digest"], artifact=entry["artifactType"])
    assert (await verify(registry)).verified
    assert len(registry.seen) < 20


@pytest.mark.parametrize("api", [True, False])
async def test_many_other_referrers(registry, api):
    """Scan reports and SBOMs of other forms are referrers too. They do not crowd out a signature."""
    digest = registry.store.image()
    for number in range(300):
        content = registry.store.blob(b"report %d" % number, "application/json")
        registry.store.manifest([content], subject=digest, artifact="application/vnd.example.report")
    registry.store.sign(WORLD, digest, "bundle", SIGN, key=KEY)
    registry.referrers_api = api
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": registry.store.referrers(digest)}
    registry.store.put(json.dumps(index).encode(), digest.replace(":", "-"), INDEX)
    assert (await verify(registry)).verified


async def test_endless_referrers(registry):
    """Pages and items are bounded, and the reason is that not all were read."""
    registry.store.image()

    def override(request):
        if "/referrers/" not in request.path:
            return None
        items = [
            {"mediaType": MANIFEST, "size": 2, "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
             "digest": f"sha256:{hashlib.sha256(str((len(registry.seen), n)).encode()).hexdigest()}"}
            for n in range(100)
        ]  # fmt: skip
        headers = {"Link": f'<{request.path}?n={len(registry.seen)}>; rel="next"'}
        return web.json_response({"manifests": items}, content_type=INDEX, headers=headers)

    registry.override = override
    result = await verify(registry)
    assert (result.reason, result.message) == (
        "Malformed",
        "the image has 128 signatures or more, and only 128 are read",
    )
    assert len(registry.seen) < 140


async def test_next_page_on_another_host(registry):
    registry.store.image()
    registry.override = lambda request: (
        web.json_response({"manifests": []}, headers={"Link": '<http://127.0.0.1:1/x>; rel="next"'})
        if "/referrers/" in request.path
        else None
    )
    with pytest.raises(errors.RegistryUnavailableError, match="another host"):
        await verify(registry)


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"manifests": 3}', b'{"layers": [{"digest": "sha256:../../x"}]}', b"\xff"]
)
async def test_malformed_manifests(registry, body):
    """A malformed signature is the signature's own problem, a malformed image is the image's."""
    digest = registry.store.image()
    registry.store.put(body, f"{digest.replace(':', '-')}.sig")
    result = await verify(registry)
    assert result.reason in ("Malformed", "Unsigned")
    registry.store.put(body, "bad")
    with contextlib.suppress(errors.ProvenanceError):
        assert not (await verify(registry, "bad")).verified


async def test_bearer_token(registry):
    """The token service gets the credentials, and the registry gets the token."""
    digest = registry.store.image()
    registry.store.sign(WORLD, digest, "bundle", SIGN, key=KEY)

    def override(request):
        if request.path == "/token":
            assert request.query["scope"] == "repository:acme/trainer:pull"
            assert request.headers["Authorization"] == "Basic dTpw"
            return web.json_response({"token": "t0ken", "expires_in": 300})
        if request.headers.get("Authorization") != "Bearer t0ken":
            challenge = f'Bearer realm="http://{registry.host}/token",service="reg"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return None

    registry.override = override
    keychain = DockerConfig(json.dumps({"auths": {f"http://{registry.host}/v1/": {"auth": "dTpw"}}}).encode())
    assert (await verify(registry, keychain=keychain)).verified
    assert sum(request.path == "/token" for request in registry.seen) == 1
    with pytest.raises(errors.RegistryUnavailableError):
        await verify(registry, keychain=Chain([]))


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Bearer",
        'Bearer realm="ftp://x"',
        "Negotiate",
        'Bearer realm="http://127.0.0.1:1/"',
        'Basic realm="x"',
        "Bearer " + "x" * 9000,
    ],
)
async def test_strange_challenges(registry, challenge):
    registry.override = lambda request: web.Response(status=401, headers={"WWW-Authenticate": challenge})
    with pytest.raises(errors.RegistryUnavailableError):
        await verify(registry)


async def test_mirror(registry):
    """A mirror is asked first; the registry itself decides what does not exist."""
    digest = registry.store.image()
    registry.store.sign(WORLD, digest, "bundle", SIGN, key=KEY)
    async with serving(FakeRegistry()) as mirror:
        mirror.store.manifests, mirror.store.types = registry.store.manifests, registry.store.types
        mirror.store.tags, mirror.store.blobs = registry.store.tags, registry.store.blobs
        assert (await verify(registry, mirrors=[f"http://{mirror.host}"])).verified
        assert not [request for request in registry.seen if "/blobs/" in request.path]
        mirror.override = lambda request: web.Response(status=500)
        assert (await verify(registry, mirrors=[f"http://{mirror.host}"])).verified
        with pytest.raises(errors.RegistryUnavailableError):
            await verify(registry, mirrors=[f"http://{mirror.host}"], mirrors_only=True)


async def test_a_failed_mirror_does_not_prove_absence(registry):
    registry.store.image()
    async with serving(FakeRegistry()) as mirror:
        mirror.override = lambda request: web.Response(status=404)
        registry.override = lambda request: web.Response(status=500) if ".sig" in request.path else None
        with pytest.raises(errors.RegistryUnavailableError):
            await verify(registry, mirrors=[f"http://{mirror.host}"])


@pytest.mark.parametrize(
    ("entry", "registry_name", "repository", "found"),
    [
        ("registry.example.com", "registry.example.com", "a/b", True),
        ("https://registry.example.com/v1/", "registry.example.com", "a/b", True),
        ("registry.example.com/a", "registry.example.com", "a/b", True),
        ("registry.example.com/a", "registry.example.com", "ab", False),
        ("*.example.com", "registry.example.com", "a", True),
        ("*.example.com", "a.registry.example.com", "a", False),
        ("https://index.docker.io/v1/", "docker.io", "library/python", True),
        ("registry.example.com.evil.org", "registry.example.com", "a", False),
        ("registry.example.com", "registry.example.com.evil.org", "a", False),
        ("registry.example.com", "registry.example.com:5000", "a", False),
    ],
)
async def test_credentials(entry, registry_name, repository, found):
    config = DockerConfig(json.dumps({"auths": {entry: {"username": "u", "password": "p"}}}).encode())
    assert (await config.find(registry_name, repository) is not None) is found


async def test_credential_helper(tmp_path, monkeypatch):
    program = tmp_path / "docker-credential-cloud"
    program.write_text('#!/bin/sh\nread host\necho "{\\"Username\\": \\"u\\", \\"Secret\\": \\"$host\\"}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = json.dumps({"credHelpers": {"r.example.com": "cloud", "bad.example.com": "../evil"}}).encode()
    assert await DockerConfig(config, helpers=True).find("r.example.com", "a") == Credentials(
        "u", "r.example.com"
    )
    # The pull secret of a user starts no program.
    assert await DockerConfig(config).find("r.example.com", "a") is None
    with pytest.raises(errors.RegistryUnavailableError):
        await DockerConfig(config, helpers=True).find("bad.example.com", "a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/../b",
        "x@sha256:abc",
        "x@md5:00",
        "a b",
        "-x",
        "r.example.com/",
        "x:" + "t" * 200,
        "a" * 2000,
        "x@",
        "x@sha256:" + "G" * 64,
    ],
)
def test_references_that_are_invalid(text):
    with pytest.raises(errors.MalformedError):
        Reference.parse(text)


def test_references():
    parsed = Reference.parse("python")
    assert (parsed.registry, parsed.repository, parsed.tag) == ("docker.io", "library/python", "latest")
    parsed = Reference.parse(f"r.example.com:443/a/b:v1@sha256:{'a' * 64}")
    assert (parsed.registry, parsed.repository, parsed.tag) == ("r.example.com", "a/b", "v1")
