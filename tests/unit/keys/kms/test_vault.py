"""The vault provider against a real Vault server where one is built, and a fake one for what that seldom does."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError
from webhook.keys.kms import KeyContext
from webhook.keys.kms.base import MAX_ANSWER
from webhook.keys.kms.vault import VaultKms
from webhook.keys.secret import Secret


@pytest.fixture(scope="module")
def server(prepared):
    """A real Vault core with Transit: {address, token}."""
    command = [prepared("vaultserver.py"), "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield json.loads(process.stdout.readline())
        process.kill()
        process.stdout.close()


@pytest.fixture
async def transit(server):
    """The environment of a token that may use Transit, with a key ``atlas`` in it."""
    headers = {"X-Vault-Token": server["token"]}
    async with ClientSession(server["address"], headers=headers) as session:
        async with session.post("/v1/sys/mounts/transit", json={"type": "transit"}) as response:
            assert response.status in {204, 400}, "400: mounted already"
        async with session.post("/v1/transit/keys/atlas") as response:
            assert response.status < 300
    return {"VAULT_ADDR": server["address"], "VAULT_TOKEN": server["token"]}


async def test_real_contract(transit, keeps_the_contract):
    await keeps_the_contract(VaultKms("transit/atlas", transit))


async def test_real_rotation_of_the_wrapping_key(transit, server, data_key, context):
    kms = VaultKms("transit/atlas", transit)
    old = await kms.wrap(data_key, context)
    async with (
        ClientSession(server["address"], headers={"X-Vault-Token": server["token"]}) as session,
        session.post("/v1/transit/keys/atlas/rotate") as response,
    ):
        assert response.status < 300
    new = await kms.wrap(data_key, context)
    assert (old[:9], new[:9]) != (b"vault:v1:", b"vault:v1:")
    assert await kms.unwrap(old, context) == await kms.unwrap(new, context) == bytes(range(32))
    await kms.close()


async def test_real_refusals(transit, server, data_key, context):
    async with (
        ClientSession(server["address"], headers={"X-Vault-Token": server["token"]}) as session,
        session.post("/v1/auth/token/create", json={"policies": ["default"]}) as response,
    ):
        weak = (await response.json())["auth"]["client_token"]
    for environment, path, output in (
        (transit | {"VAULT_TOKEN": weak}, "transit/atlas", "the token is not allowed to use this key"),
        (transit | {"VAULT_TOKEN": "nonsense"}, "transit/atlas", "the token is not allowed to use this key"),
        (transit, "nowhere/atlas", "rejects the request"),
    ):
        kms = VaultKms(path, environment)
        with pytest.raises(KmsRefusedError, match=output):
            await kms.wrap(data_key, context)
        await kms.close()
    kms = VaultKms("transit/missing", transit)
    with pytest.raises(KmsRefusedError, match="encryption key not found"):
        await kms.unwrap(b"vault:v1:AAAA", context)
    await kms.close()


async def in_pieces(request, body):
    """An answer whose second half comes when the first has long been read."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    await asyncio.sleep(0.05)
    await response.write(body[len(body) // 2 :])
    await response.write_eof()
    return response


class Fake:
    """A server with prepared answers that records its requests."""

    def __init__(self):
        self.answers, self.requests, self.pieces = [], [], False

    async def handle(self, request):
        self.requests.append((request.path, dict(request.headers), await request.json()))
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        headers = {"Location": "http://127.0.0.1:1/elsewhere"} if status == 307 else None
        if self.pieces:
            return await in_pieces(request, json.dumps(body).encode())
        return web.Response(
            status=status, body=body if isinstance(body, bytes) else json.dumps(body), headers=headers
        )


@pytest.fixture
async def fake():
    fake, app = Fake(), web.Application()
    app.router.add_post("/{path:.*}", fake.handle)
    async with TestServer(app) as server:
        fake.environment = {"VAULT_ADDR": str(server.make_url("/")), "VAULT_TOKEN": "t"}
        yield fake


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (307, {}, KmsUnavailableError),
        (412, {}, KmsUnavailableError),
        (429, {"errors": ["slow down"]}, KmsUnavailableError),
        (473, {}, KmsUnavailableError),
        (500, {"errors": ["oops"]}, KmsUnavailableError),
        (503, {"errors": ["Vault is sealed"]}, KmsUnavailableError),
        (200, b"not json", KmsUnavailableError),
        (200, {"data": None}, KmsUnavailableError),
        (200, {"data": {}}, KmsUnavailableError),
        (200, {"data": {"plaintext": "***"}}, KmsUnavailableError),
        (400, {"errors": ["invalid ciphertext"]}, KmsRefusedError),
        (403, {"errors": ["permission denied"]}, KmsRefusedError),
        (404, [], KmsRefusedError),
    ],
)
async def test_which_answers_may_pass(fake, context, status, body, kind):
    fake.answers = [(status, body)]
    kms = VaultKms("transit/atlas", fake.environment)
    with pytest.raises(kind):
        await kms.unwrap(b"vault:v1:x", context)
    await kms.close()
    assert len(fake.requests) == 1, "one attempt a call, and no redirect followed"


async def test_a_wrap_without_ciphertext_fails(fake, data_key, context):
    fake.answers = [(200, {"data": {}})]
    kms = VaultKms("transit/atlas", fake.environment)
    with pytest.raises(KmsUnavailableError, match="not Transit's"):
        await kms.wrap(data_key, context)
    await kms.close()


async def test_the_wrap_request(fake, context):
    fake.answers = [(200, {"data": {"ciphertext": "vault:v1:x"}})]
    kms = VaultKms("team/transit/atlas", fake.environment | {"VAULT_NAMESPACE": "ns"})
    assert await kms.wrap(Secret(b"k" * 32), context) == b"vault:v1:x"
    await kms.close()
    path, headers, fields = fake.requests[0]
    assert path == "/v1/team/transit/encrypt/atlas"
    assert (headers["X-Vault-Token"], headers["X-Vault-Namespace"], headers["X-Vault-Request"]) == (
        "t",
        "ns",
        "true",
    )
    assert base64.b64decode(fields["plaintext"]) == b"k" * 32
    assert base64.b64decode(fields["associated_data"]) == KeyContext("atlas-70b", "2026-11").encode()


async def test_an_answer_in_pieces_is_read_to_its_end(fake, context):
    key = base64.b64encode(b"k" * 32).decode()
    fake.answers = [(200, {"data": {"plaintext": key}})]
    fake.pieces = True
    kms = VaultKms("transit/atlas", fake.environment)
    assert await kms.unwrap(b"w", context) == b"k" * 32
    await kms.close()


async def test_an_answer_that_is_too_large_is_not_read(fake, context):
    fake.answers = [(200, b" " * (MAX_ANSWER + 1))]
    kms = VaultKms("transit/atlas", fake.environment)
    with pytest.raises(KmsUnavailableError, match="not Transit's: more than 1048576 bytes"):
        await kms.unwrap(b"w", context)
    await kms.close()


async def test_openbao_names_its_variables_differently(fake, data_key, context):
    fake.answers = [(200, {"data": {"ciphertext": "vault:v1:x"}})]
    kms = VaultKms("transit/atlas", {"BAO_ADDR": fake.environment["VAULT_ADDR"], "BAO_TOKEN": "b"})
    await kms.wrap(data_key, context)
    await kms.close()
    assert fake.requests[0][1]["X-Vault-Token"] == "b"


async def test_a_login_that_ended_is_renewed_once(fake, tmp_path, context):
    (tmp_path / "token").write_text("jwt\n")
    del fake.environment["VAULT_TOKEN"]
    environment = fake.environment | {
        "VAULT_K8S_ROLE": "broker",
        "VAULT_K8S_TOKEN_FILE": str(tmp_path / "token"),
    }
    key = (200, {"data": {"plaintext": base64.b64encode(b"k" * 32).decode()}})
    fake.answers = [
        (200, {"auth": {"client_token": "one"}}),
        key,
        (403, {}),
        (200, {"auth": {"client_token": "two"}}),
        key,
    ]
    kms = VaultKms("transit/atlas", environment)
    assert await kms.unwrap(b"w", context) == b"k" * 32
    assert await kms.unwrap(b"w", context) == b"k" * 32
    await kms.close()
    paths = [path for path, _, _ in fake.requests]
    login, decrypt = "/v1/auth/kubernetes/login", "/v1/transit/decrypt/atlas"
    assert paths == [login, decrypt, decrypt, login, decrypt]
    assert fake.requests[0][2] == {"role": "broker", "jwt": "jwt"}
    assert [headers.get("X-Vault-Token") for _, headers, _ in fake.requests] == [
        None,
        "one",
        "one",
        None,
        "two",
    ]


async def test_a_refused_login_is_a_refusal(fake, tmp_path, context):
    (tmp_path / "token").write_text("jwt")
    environment = fake.environment | {"VAULT_K8S_ROLE": "x", "VAULT_K8S_TOKEN_FILE": str(tmp_path / "token")}
    fake.answers = [(403, {"errors": ["permission denied"]})]
    kms = VaultKms("transit/atlas", environment)
    with pytest.raises(KmsRefusedError):
        await kms.unwrap(b"w", context)
    await kms.close()


async def test_a_server_that_is_not_there_may_come_back(context):
    kms = VaultKms("transit/atlas", {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "t"})
    with pytest.raises(KmsUnavailableError, match="cannot reach"):
        await kms.unwrap(b"w", context)
    await kms.close()


@pytest.mark.parametrize(
    ("environment", "output"),
    [
        ({}, "needs VAULT_ADDR"),
        ({"VAULT_ADDR": "vault.example.com"}, "needs VAULT_ADDR"),
        ({"VAULT_ADDR": "http://127.0.0.1:1"}, "needs VAULT_TOKEN"),
        ({"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN_FILE": "/nonexistent"}, "cannot read"),
        (
            {"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_K8S_ROLE": "r", "VAULT_K8S_TOKEN_FILE": "/none"},
            "cannot read",
        ),
    ],
)
async def test_missing_settings_are_reported(environment, output, context):
    with pytest.raises(KmsConfigError, match=output):
        await VaultKms("transit/atlas", environment).unwrap(b"w", context)
