"""Google Cloud KMS: Google's real client over gRPC, against a server of our own that does what the API promises.

It is an emulation, since Google's service cannot be run at home: it encrypts for real, binds the associated data,
and checks and returns checksums; what it cannot show is Google's own behaviour beyond its documentation.
"""

from __future__ import annotations

import os

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError

kms_v1 = pytest.importorskip("google.cloud.kms_v1", reason="the gcp extra is not installed")
grpc = pytest.importorskip("grpc", reason="the gcp extra is not installed")

from google.cloud.kms_v1.services.key_management_service.transports import (  # noqa: E402
    KeyManagementServiceGrpcAsyncIOTransport,
)

from webhook.keys.kms.gcp import GcpKms, crc32c  # noqa: E402

KEY = "projects/p/locations/global/keyRings/r/cryptoKeys/atlas"


class Emulator:
    """Encrypt and Decrypt of the KeyManagementService. ``spoil`` changes an answer, ``abort`` ends a call."""

    def __init__(self):
        self.key, self.calls, self.spoil, self.abort = os.urandom(32), 0, lambda answer: None, None

    async def encrypt(self, request, context):
        await self._check(request, context, request.plaintext, request.plaintext_crc32c)
        nonce = os.urandom(12)
        ciphertext = nonce + AESGCM(self.key).encrypt(
            nonce, request.plaintext, request.additional_authenticated_data
        )
        answer = kms_v1.EncryptResponse(
            name=request.name,
            ciphertext=ciphertext,
            ciphertext_crc32c=crc32c(ciphertext),
            verified_plaintext_crc32c=True,
            verified_additional_authenticated_data_crc32c=True,
        )
        self.spoil(answer)
        return answer

    async def decrypt(self, request, context):
        await self._check(request, context, request.ciphertext, request.ciphertext_crc32c)
        nonce, content = request.ciphertext[:12], request.ciphertext[12:]
        try:
            plaintext = AESGCM(self.key).decrypt(nonce, content, request.additional_authenticated_data)
        except (InvalidTag, ValueError):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed: the ciphertext is invalid."
            )
        answer = kms_v1.DecryptResponse(plaintext=plaintext, plaintext_crc32c=crc32c(plaintext))
        self.spoil(answer)
        return answer

    async def _check(self, request, context, data, checksum):
        self.calls += 1
        if self.abort is not None:
            await context.abort(self.abort, "as told")
        if request.name != KEY:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"CryptoKey {request.name} not found.")
        bound = request.additional_authenticated_data
        assert (checksum, request.additional_authenticated_data_crc32c) == (crc32c(data), crc32c(bound))


@pytest.fixture
async def emulator():
    emulator, server = Emulator(), grpc.aio.server()
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=request.deserialize, response_serializer=answer.serialize
        )
        for name, call, request, answer in (
            ("Encrypt", emulator.encrypt, kms_v1.EncryptRequest, kms_v1.EncryptResponse),
            ("Decrypt", emulator.decrypt, kms_v1.DecryptRequest, kms_v1.DecryptResponse),
        )
    }
    service = "google.cloud.kms.v1.KeyManagementService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    emulator.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield emulator
    await server.stop(None)


@pytest.fixture
def client(emulator):
    def make():
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{emulator.port}")
        return kms_v1.KeyManagementServiceAsyncClient(
            transport=KeyManagementServiceGrpcAsyncIOTransport(channel=channel)
        )

    return make


async def test_contract(client, keeps_the_contract):
    await keeps_the_contract(GcpKms(KEY, client))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("PERMISSION_DENIED", KmsRefusedError),
        ("UNAUTHENTICATED", KmsRefusedError),
        ("FAILED_PRECONDITION", KmsRefusedError),
        ("UNAVAILABLE", KmsUnavailableError),
        ("DEADLINE_EXCEEDED", KmsUnavailableError),
        ("RESOURCE_EXHAUSTED", KmsUnavailableError),
        ("INTERNAL", KmsUnavailableError),
    ],
)
async def test_which_errors_may_pass(emulator, client, context, status, kind):
    emulator.abort = grpc.StatusCode[status]
    kms = GcpKms(KEY, client)
    with pytest.raises(kind, match="as told"):
        await kms.unwrap(b"x" * 60, context)
    await kms.close()
    assert emulator.calls == 1


async def test_a_key_that_is_not_there_is_a_refusal(client, data_key, context):
    kms = GcpKms(KEY.replace("atlas", "other"), client)
    with pytest.raises(KmsRefusedError, match="not found"):
        await kms.wrap(data_key, context)
    await kms.close()


@pytest.mark.parametrize(
    "field", ["ciphertext", "verified_plaintext_crc32c", "verified_additional_authenticated_data_crc32c"]
)
async def test_a_wrapped_key_damaged_on_the_way_is_not_taken(emulator, client, data_key, context, field):
    emulator.spoil = lambda answer: setattr(answer, field, b"other" if field == "ciphertext" else False)
    kms = GcpKms(KEY, client)
    with pytest.raises(KmsUnavailableError, match="damaged in transit"):
        await kms.wrap(data_key, context)
    await kms.close()


async def test_a_key_damaged_on_the_way_is_not_taken(emulator, client, data_key, context):
    kms = GcpKms(KEY, client)
    wrapped = await kms.wrap(data_key, context)
    emulator.spoil = lambda answer: setattr(answer, "plaintext", bytes(32))
    with pytest.raises(KmsUnavailableError, match="damaged in transit"):
        await kms.unwrap(wrapped, context)
    await kms.close()


async def test_no_credentials_is_a_matter_of_configuration(monkeypatch, data_key, context):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent.json")
    with pytest.raises(KmsConfigError, match="cannot use"):
        await GcpKms(KEY).wrap(data_key, context)


@pytest.mark.parametrize(
    "path", ["", "projects/p", KEY + "/cryptoKeyVersions/1", KEY.replace("keyRings", "rings")]
)
def test_an_invalid_key_path_is_rejected(path):
    with pytest.raises(KmsConfigError, match="use gcp://projects"):
        GcpKms(path)


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (bytes(range(32)), 0x46DD794E)],
)
def test_crc32c_as_in_rfc_3720(data, value):
    assert crc32c(data) == value
