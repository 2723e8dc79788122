"""Keyless signing against the interfaces of Fulcio, Rekor v2 and a timestamp authority, and its verification."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import jwt
import pytest

from tests.support.sigstore_world import IN_TOTO, World
from webhook.provenance import errors
from webhook.provenance.trust import Identity, Trust
from webhook.provenance.trusted_root import TrustedRoot
from webhook.provenance.verify import verify_bundle

pytest.importorskip("sigstore", reason="the provenance extra is not installed")

from tests.support.sigstore_server import SigstoreServer
from webhook.provenance.keyless_signing import sign

ISSUER, EMAIL = "https://login.example.com", "release@example.com"
STATEMENT = json.dumps(
    {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": "a" * 64}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {},
    }
).encode()


def token(**claims) -> str:
    now = int(time.time())
    standard = {"iss": ISSUER, "sub": EMAIL, "aud": "sigstore", "iat": now, "exp": now + 600}
    return jwt.encode({**standard, **claims}, "a key of the issuer, 32 bytes or more", algorithm="HS256")


@pytest.fixture
def server():
    server = SigstoreServer(World(rekor=2, stamped=True))
    yield server
    server.close()


def test_signed_and_verified(server):
    """The bundle has the certificate, the log entry and the timestamp that verification needs."""
    bundle, name = sign(STATEMENT, token(), server.trust_config())
    assert name == f"{EMAIL} ({ISSUER})"
    assert server.calls == ["/api/v2/signingCert", "/api/v1/timestamp", "/api/v2/log/entries"]
    root = TrustedRoot.from_json(server.world.trusted_root())
    identity = Identity(issuer=ISSUER, subject=EMAIL)
    verified = verify_bundle(bundle, Trust(identities=(identity,), root=root), datetime.now(UTC))
    assert (verified.payload, verified.payload_type) == (STATEMENT, IN_TOTO)
    assert (verified.signer.issuer, verified.signer.subject) == (ISSUER, EMAIL)
    other = Trust(identities=(Identity(issuer=ISSUER, subject="eve@example.com"),), root=root)
    with pytest.raises(errors.WrongSignerError):
        verify_bundle(bundle, other, datetime.now(UTC))
    document = json.loads(bundle)
    document["verificationMaterial"]["tlogEntries"] = []
    with pytest.raises(errors.UntrustedError):
        verify_bundle(
            json.dumps(document).encode(), Trust(identities=(identity,), root=root), datetime.now(UTC)
        )


@pytest.mark.parametrize("claims", [{"exp": 1}, {"aud": "another"}, {"nbf": 4_000_000_000}])
def test_a_token_that_cannot_be_used(server, claims):
    with pytest.raises(ValueError, match="identity token is not valid"):
        sign(STATEMENT, token(**claims), server.trust_config())
    assert server.calls == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (
            lambda config: config["trustedRoot"]["certificateAuthorities"][0]["subject"].pop("organization"),
            "trustedRoot.certificateAuthorities.0.subject.organization",
        ),
        (lambda config: config.pop("signingConfig"), "signingConfig"),
        (lambda config: config["trustedRoot"].update(tlogs=3), "trustedRoot.tlogs"),
    ],
)
def test_a_trust_configuration_that_is_not_valid(server, change, place):
    """The error is one line that names the field."""
    config = json.loads(server.trust_config())
    change(config)
    with pytest.raises(ValueError, match="trust configuration is not valid") as raised:
        sign(STATEMENT, token(), json.dumps(config))
    assert place in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_instance_whose_log_is_another_one(server):
    """The certificate of an instance that the trust configuration does not describe is rejected."""
    config = json.loads(server.trust_config())
    config["trustedRoot"] = json.loads(World(name="foreign", rekor=2, stamped=True).trusted_root())
    with pytest.raises(errors.UntrustedError, match="the Sigstore instance failed"):
        sign(STATEMENT, token(), json.dumps(config))


def test_an_instance_that_is_down(server):
    config = server.trust_config()
    server.close()
    with pytest.raises(errors.UntrustedError, match="the Sigstore instance failed"):
        sign(STATEMENT, token(), config)


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"signedCertificateEmbeddedSct": {"chain": 3}}'])
@pytest.mark.parametrize("path", ["/api/v2/signingCert", "/api/v2/log/entries", "/api/v1/timestamp"])
def test_hostile_answers(server, path, answer):
    """A response of another form is an error of the instance, never a bundle without its proof."""
    server.answers[path] = lambda *_: answer
    with pytest.raises(errors.UntrustedError, match="the Sigstore instance failed"):
        sign(STATEMENT, token(), server.trust_config())
