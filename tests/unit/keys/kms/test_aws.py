"""AWS KMS with its real client against moto's server, which checks the encryption context as KMS does."""

from __future__ import annotations

import boto3
import pytest
from moto import server as moto_server

from webhook.keys.errors import KmsConfigError, KmsRefusedError, KmsUnavailableError

pytest.importorskip("aiobotocore", reason="the aws extra is not installed")

from webhook.keys.kms.aws import AwsKms

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed"),
]


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def region(endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return "eu-west-1"


@pytest.fixture
def client(region):
    return boto3.client("kms", region)


@pytest.fixture
def key(client):
    return client.create_key()["KeyMetadata"]["KeyId"]


async def test_contract(region, key, keeps_the_contract):
    await keeps_the_contract(AwsKms(f"{region}/{key}"))


async def test_an_alias_names_a_key(region, key, client, data_key, context):
    client.create_alias(AliasName="alias/atlas", TargetKeyId=key)
    kms = AwsKms(f"{region}/alias/atlas")
    assert await kms.unwrap(await kms.wrap(data_key, context), context) == bytes(range(32))
    await kms.close()


async def test_a_key_that_is_not_there_is_a_refusal(region, data_key, context):
    kms = AwsKms(f"{region}/00000000-0000-0000-0000-000000000000")
    with pytest.raises(KmsRefusedError, match="rejects the request \\(NotFoundException"):
        await kms.wrap(data_key, context)
    await kms.close()


async def test_a_service_that_cannot_be_reached_may_come_back(region, monkeypatch, data_key, context):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    kms = AwsKms(f"{region}/key")
    with pytest.raises(KmsUnavailableError, match="cannot reach"):
        await kms.wrap(data_key, context)
    await kms.close()


async def test_no_credentials_is_a_matter_of_configuration(region, monkeypatch, data_key, context):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    kms = AwsKms(f"{region}/key")
    with pytest.raises(KmsConfigError, match="credentials"):
        await kms.wrap(data_key, context)
    await kms.close()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "ThrottlingException", KmsUnavailableError),
        (400, "KMSInternalException", KmsUnavailableError),
        (500, "Whatever", KmsUnavailableError),
        (429, "Whatever", KmsUnavailableError),
        (400, "InvalidCiphertextException", KmsRefusedError),
        (400, "AccessDeniedException", KmsRefusedError),
        (400, "KMSInvalidStateException", KmsRefusedError),
    ],
)
def test_which_errors_may_pass(region, status, code, kind):
    response = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert type(AwsKms(f"{region}/key")._failure(response)) is kind
