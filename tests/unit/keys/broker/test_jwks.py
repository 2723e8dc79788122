from __future__ import annotations

import asyncio
import ssl

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from webhook.keys.broker import jwks
from webhook.keys.broker.jwks import KeySets
from webhook.keys.broker.refusal import UnavailableError
from webhook.server.tls import self_signed

KEYS = {"keys": [{"kid": "a", "kty": "EC"}]}


async def in_pieces(request, body):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(body[:5])
    await asyncio.sleep(0.05)  # by then the first piece has been read
    await response.write(body[5:])
    await response.write_eof()
    return response


@pytest.fixture
async def issuer(tmp_path):
    """An issuer over TLS: ``answer`` is what it gives, ``asked`` how often it was asked."""
    made = self_signed.make(["127.0.0.1"])
    for name, content in (("ca", made.authority), ("crt", made.certificate), ("key", made.key)):
        (tmp_path / name).write_bytes(content)

    class Issuer:
        answer, asked, pieces = web.json_response, 0, False
        trust = ssl.create_default_context(cafile=str(tmp_path / "ca"))

    async def handle(request):
        Issuer.asked += 1
        if Issuer.pieces:
            return await in_pieces(request, orjson.dumps(KEYS))
        return Issuer.reply()

    Issuer.reply = staticmethod(lambda: web.json_response(KEYS))
    app = web.Application()
    app.router.add_get("/jwks", handle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    server = TestServer(app, scheme="https", host="127.0.0.1")
    await server.start_server(ssl=context)
    Issuer.url = f"https://127.0.0.1:{server.port}/jwks"
    yield Issuer
    await server.close()


@pytest.fixture
async def sets(issuer):
    sets = KeySets(issuer.trust)
    yield sets
    await sets.close()


async def test_it_is_fetched_once_an_hour(issuer, sets, monkeypatch):
    for _ in range(3):
        assert await sets.get(issuer.url, frozenset({"a"})) == KEYS
    assert issuer.asked == 1
    moment = jwks.time.monotonic
    monkeypatch.setattr(jwks.time, "monotonic", lambda: moment() + 3601)
    await sets.get(issuer.url, frozenset({"a"}))
    assert issuer.asked == 2


async def test_a_key_that_is_missing_is_looked_for_once_a_minute(issuer, sets, monkeypatch):
    for _ in range(3):
        await sets.get(issuer.url, frozenset({"new"}))
    assert issuer.asked == 1
    moment = jwks.time.monotonic
    monkeypatch.setattr(jwks.time, "monotonic", lambda: moment() + 61)
    await sets.get(issuer.url, frozenset({"new"}))
    assert issuer.asked == 2


@pytest.mark.parametrize(
    "reply",
    [
        lambda: web.Response(status=500),
        lambda: web.Response(status=302, headers={"Location": "https://127.0.0.1:1/"}),
        lambda: web.Response(text="not json"),
        lambda: web.json_response([1]),
        lambda: web.Response(text='{"keys": "' + "x" * 300_000 + '"}'),
    ],
    ids=["500", "redirect", "not json", "a list", "too large"],
)
async def test_other_documents_than_a_key_set_are_errors(issuer, sets, reply):
    issuer.reply = staticmethod(reply)
    with pytest.raises(UnavailableError) as error:
        await sets.get(issuer.url, frozenset())
    assert error.value.code == "WL913"


async def test_a_key_set_in_two_pieces_is_read_to_its_end(issuer, sets):
    issuer.pieces = True
    assert await sets.get(issuer.url, frozenset({"a"})) == KEYS


async def test_only_https_and_only_with_a_certificate_that_holds(issuer, sets):
    with pytest.raises(UnavailableError, match="must begin with https"):
        await sets.get(issuer.url.replace("https", "http"), frozenset())
    plain = KeySets()
    with pytest.raises(UnavailableError, match="cannot fetch"):
        await plain.get(issuer.url, frozenset())
    await plain.close()
    assert issuer.asked == 0


async def test_one_issuer_that_does_not_respond_delays_no_other(monkeypatch):
    keys, hanging = KeySets(), asyncio.Event()

    async def fetch(_self, url):
        if "dead" in url:
            await hanging.wait()
            raise UnavailableError("WL913", "dead")
        return {"keys": []}

    monkeypatch.setattr(KeySets, "_fetch", fetch)
    dead = asyncio.create_task(keys.get("https://dead", frozenset()))
    await asyncio.sleep(0)
    assert await asyncio.wait_for(keys.get("https://alive", frozenset()), 5) == {"keys": []}
    hanging.set()
    with pytest.raises(UnavailableError):
        await dead


async def test_a_failure_is_remembered_and_an_old_set_is_used_for_some_hours(monkeypatch):
    now, calls, fail = [1000.0], [], [False]

    async def fetch(_self, url):
        calls.append(url)
        if fail[0]:
            raise UnavailableError("WL913", "away")
        return {"keys": [{"kid": "1"}]}

    monkeypatch.setattr(KeySets, "_fetch", fetch)
    monkeypatch.setattr("webhook.keys.broker.jwks.time.monotonic", lambda: now[0])
    keys = KeySets()
    await keys.get("https://i", frozenset({"1"}))
    fail[0] = True
    now[0] += 3601
    for _ in range(3):
        assert await keys.get("https://i", frozenset({"1"})) == {"keys": [{"kid": "1"}]}
    assert len(calls) == 2, "the failure is remembered for some seconds"
    now[0] += 11
    await keys.get("https://i", frozenset({"1"}))
    assert len(calls) == 3
    now[0] += 6 * 3600
    with pytest.raises(UnavailableError, match="away"):
        await keys.get("https://i", frozenset({"1"}))
