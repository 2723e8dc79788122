"""Keys that sign models: a real Vault, AWS KMS by moto, and a real PKCS#11 module in software."""

from __future__ import annotations

import hashlib
import json
import subprocess
import urllib.request

import boto3
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from moto import server as moto_server

from webhook.keys.errors import KmsConfigError, KmsError
from webhook.keys.kms.signing import open_signing_key
from webhook.provenance.models import signature_hash

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed"),
]


def check(url):
    key = open_signing_key(url)
    algorithm = ec.ECDSA(signature_hash(key.public))
    key.public.verify(key.sign(b"message"), b"message", algorithm)
    with pytest.raises(InvalidSignature):
        key.public.verify(key.sign(b"message"), b"other", algorithm)
    return key.public.curve.name


def call(server, path, fields=None):
    request = urllib.request.Request(
        server["address"] + path,
        json.dumps(fields or {}).encode(),
        {"X-Vault-Token": server["token"]},
        method="POST",
    )
    with urllib.request.urlopen(request) as response:
        return response.read()


@pytest.fixture(scope="module")
def vault(prepared):
    command = [prepared("vaultserver.py"), "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        server = json.loads(process.stdout.readline())
        call(server, "/v1/sys/mounts/transit", {"type": "transit"})
        yield server
        process.kill()
        process.stdout.close()


@pytest.mark.parametrize(("kind", "curve"), [("ecdsa-p256", "secp256r1"), ("ecdsa-p384", "secp384r1")])
def test_vault(vault, kind, curve, monkeypatch):
    monkeypatch.setenv("VAULT_ADDR", vault["address"])
    monkeypatch.setenv("VAULT_TOKEN", vault["token"])
    call(vault, f"/v1/transit/keys/{kind}", {"type": kind})
    call(vault, f"/v1/transit/keys/{kind}/rotate")
    assert check(f"vault://transit/{kind}") == curve
    call(vault, "/v1/transit/keys/symmetric")
    with pytest.raises(KmsConfigError, match="elliptic curve"):
        open_signing_key("vault://transit/symmetric")
    with pytest.raises(KmsError):
        open_signing_key("vault://transit/missing")


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_aws(endpoint, monkeypatch):
    pytest.importorskip("aiobotocore", reason="the aws extra is not installed")
    for name, value in (("ENDPOINT_URL", endpoint), ("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test")):
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("kms", "eu-west-1")
    created = client.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")
    key = open_signing_key(f"aws://eu-west-1/{created['KeyMetadata']['KeyId']}")
    # moto 5 ignores MessageType and hashes the digest again, so its signature is over the digest as a message.
    key.public.verify(key.sign(b"message"), hashlib.sha256(b"message").digest(), ec.ECDSA(hashes.SHA256()))
    symmetric = client.create_key()["KeyMetadata"]["KeyId"]
    with pytest.raises(KmsError):
        open_signing_key(f"aws://eu-west-1/{symmetric}")


def test_pkcs11(tmp_path, prepared, monkeypatch):
    pkcs11 = pytest.importorskip("pkcs11", reason="the pkcs11 extra is not installed")
    from pkcs11.util.ec import encode_named_curve_parameters

    root = prepared("debpackages.py", "softhsm2", "libsofthsm2", "softhsm2-common")
    module, tool = root / "usr/lib/softhsm/libsofthsm2.so", root / "usr/bin/softhsm2-util"
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\nlog.level = ERROR\n")
    (tmp_path / "pin").write_text("1234\n")
    monkeypatch.setenv("SOFTHSM2_CONF", f"{tmp_path}/softhsm2.conf")
    monkeypatch.setenv("PKCS11_MODULE", str(module))
    monkeypatch.setenv("PKCS11_PIN_FILE", f"{tmp_path}/pin")
    options = f"--init-token --free --label signing --so-pin 0000 --pin 1234 --module {module}"
    subprocess.run([tool, *options.split()], check=True, capture_output=True)
    library = pkcs11.lib(str(module))
    library.reinitialize()
    with library.get_token(token_label="signing").open(user_pin="1234", rw=True) as session:
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        parameters.generate_keypair(store=True, label="models")
    assert check("pkcs11://signing/models") == "secp256r1"
    with pytest.raises(KmsError):
        open_signing_key("pkcs11://signing/missing")


@pytest.mark.parametrize("url", ["local:///keyset", "gcp://x", "azure://x/y", "https://x", "vault://", "x"])
def test_urls_that_cannot_sign(url):
    with pytest.raises(KmsConfigError, match="not a signing key"):
        open_signing_key(url)
