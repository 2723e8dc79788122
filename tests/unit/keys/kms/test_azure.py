"""Azure Key Vault: Microsoft's real client over TLS, against a server of our own that does what the API promises.

It is an emulation, since Key Vault cannot be run at home: it holds a real RSA key, answers the bearer challenge and
unwraps with RSA-OAEP-256; what it cannot show is Azure's own behaviour beyond its documentation.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import ssl
import time

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError
from webhook.keys.kms import KeyContext

pytest.importorskip("azure.keyvault.keys.aio", reason="the azure extra is not installed")
core = pytest.importorskip("azure.core.credentials", reason="the azure extra is not installed")

from webhook.keys.kms.azure import AzureKms  # noqa: E402

OAEP = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


def _encoded(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).rstrip(b"=").decode()


class Emulator:
    """``GET /keys/NAME[/VERSION]`` and ``POST …/unwrapkey``. ``fail`` is a status to answer with instead."""

    def __init__(self):
        self.key, self.fail, self.calls = (
            rsa.generate_private_key(public_exponent=65537, key_size=2048),
            None,
            0,
        )

    async def handle(self, request):
        self.calls += 1
        if "Authorization" not in request.headers:
            challenge = (
                'Bearer authorization="https://login.example/tenant", resource="https://vault.azure.net"'
            )
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if self.fail is not None:
            return self._error(self.fail)
        parts = request.path.strip("/").split("/")
        if parts[1] != "atlas":
            return self._error(404)
        if request.method == "GET":
            numbers = self.key.public_key().public_numbers()
            key = {
                "kid": f"https://{request.host}/keys/atlas/v1",
                "kty": "RSA",
                "key_ops": ["wrapKey", "unwrapKey"],
                "n": _encoded(numbers.n),
                "e": _encoded(numbers.e),
            }
            return web.json_response({"key": key, "attributes": {"enabled": True}})
        fields = await request.json()
        assert fields["alg"] == "RSA-OAEP-256"
        try:
            plain = self.key.decrypt(base64.urlsafe_b64decode(fields["value"] + "=="), OAEP)
        except ValueError:
            return self._error(400)
        value = base64.urlsafe_b64encode(plain).rstrip(b"=").decode()
        return web.json_response({"kid": f"https://{request.host}/keys/atlas/v1", "value": value})

    @staticmethod
    def _error(status):
        return web.json_response({"error": {"code": "Told", "message": "as told"}}, status=status)


class Credential:
    """A credential that returns a fixed token."""

    async def get_token(self, *_scopes, **_options):
        return core.AccessToken("token", int(time.time()) + 3600)

    async def close(self):
        pass

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself; its path, key first."""
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vault")]),
    )
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("tls") / "vault.pem"
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return str(path)


@pytest.fixture
async def vault(certificate):
    emulator, app = Emulator(), web.Application()
    app.router.add_route("*", "/{path:.*}", emulator.handle)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = TestServer(app, scheme="https", host="127.0.0.1")
    await server.start_server(ssl=context)
    emulator.host = f"127.0.0.1:{server.port}"
    emulator.options = {"connection_verify": certificate, "verify_challenge_resource": False}
    yield emulator
    await server.close()


def kms_of(vault, key="atlas", host=None):
    return AzureKms(f"{host or vault.host}/{key}", Credential, vault.options)


async def test_contract(vault, keeps_the_contract):
    await keeps_the_contract(kms_of(vault))


async def test_a_stored_value_cannot_select_another_vault_or_key(vault, data_key, context):
    kms = kms_of(vault)
    saved = orjson.loads(await kms.wrap(data_key, context))
    for kid in ("https://evil.example/keys/atlas/v1", f"https://{vault.host}/keys/atlas2/v1", ""):
        calls = vault.calls
        with pytest.raises(KmsRefusedError, match="was not wrapped by"):
            await kms.unwrap(orjson.dumps(saved | {"kid": kid}), context)
        assert vault.calls == calls, "nobody was asked"
    await kms.close()


async def test_the_one_time_key_alone_does_not_open_it_for_another_model(vault, data_key, context):
    kms = kms_of(vault)
    wrapped = await kms.wrap(data_key, context)
    with pytest.raises(KmsRefusedError, match="for this model and key id"):
        await kms.unwrap(wrapped, KeyContext("other", context.key_id))
    await kms.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, KmsRefusedError),
        (403, KmsRefusedError),
        (404, KmsRefusedError),
        (408, KmsUnavailableError),
        (429, KmsUnavailableError),
        (500, KmsUnavailableError),
        (503, KmsUnavailableError),
    ],
)
async def test_which_errors_may_pass(vault, data_key, context, status, kind):
    vault.fail = status
    kms = kms_of(vault)
    with pytest.raises(kind):
        await kms.wrap(data_key, context)
    await kms.close()


async def test_a_key_that_is_not_there_is_a_refusal(vault, data_key, context):
    kms = kms_of(vault, "other")
    with pytest.raises(KmsRefusedError, match="404"):
        await kms.wrap(data_key, context)
    await kms.close()


async def test_a_service_that_cannot_be_reached_may_come_back(vault, data_key, context):
    kms = kms_of(vault, host="127.0.0.1:1")
    with pytest.raises(KmsUnavailableError, match="is unreachable"):
        await kms.wrap(data_key, context)
    await kms.close()


@pytest.mark.parametrize(
    "path", ["", "name.vault.azure.net", "name.vault.azure.net/", "name.vault.azure.net/a/b/c"]
)
def test_an_invalid_key_path_is_rejected(path):
    with pytest.raises(KmsConfigError, match="use azure://"):
        AzureKms(path, Credential)
