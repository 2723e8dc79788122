"""What the doctor says of certificates and the signing key."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from webhook.cluster.doctor import secrets
from webhook.cluster.doctor.installation_view import SkippedError
from webhook.server.tls.self_signed import make

TLS = "/api/v1/namespaces/weightlock-system/secrets/weightlock-webhook-tls"
SIGNING = "/api/v1/namespaces/weightlock-system/secrets/weightlock-signing"
CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weightlock"
NAME = "weightlock-webhook.weightlock-system.svc"


def encoded(data):
    return base64.b64encode(data).decode()


def install(world, pair):
    world.objects[TLS]["data"] = {"tls.crt": encoded(pair.certificate)}
    world.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"] = encoded(pair.authority)


def ending_in(days):
    begun = datetime.now(UTC) - timedelta(days=100)
    return make([NAME], now=begun, validity=timedelta(days=100 + days, minutes=10))


@pytest.mark.parametrize(
    ("days", "result", "words"),
    [
        (90, "ok", "vouched for by the caBundle, 90 days left"),
        (20, "warn", "ends in 20 days"),
        (3, "fail", "ends in 3 days"),
    ],
)
async def test_the_certificate_that_is_served(patient, world, days, result, words):
    # Made now and not when the tests are collected, which may be many minutes ago.
    install(world, ending_in(days))
    (finding,) = await secrets.certificate(patient)
    assert (finding.result, words in finding.what) == (result, True)


async def test_a_certificate_for_another_name(patient, world):
    install(world, make(["elsewhere"]))
    (finding,) = await secrets.certificate(patient)
    assert (finding.result, f"does not name {NAME}" in finding.what) == ("fail", True)


async def test_an_authority_that_did_not_sign_it(patient, world):
    install(world, make([NAME]))
    world.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"] = encoded(make([NAME]).authority)
    (finding,) = await secrets.certificate(patient)
    assert finding.what == "the authority in the webhook configuration did not sign the certificate served"


@pytest.mark.parametrize(("bundle", "words"), [("", "names no authority"), ("!", "names no authority")])
async def test_no_authority_at_all(patient, world, bundle, words):
    world.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"] = bundle
    (finding,) = await secrets.certificate(patient)
    assert words in finding.what


async def test_the_secret_that_the_controller_fills_comes_before_the_one_that_helm_made(patient, world):
    pair = ending_in(60)
    install(world, pair)
    world.objects[TLS.replace("-tls", "-serving")] = world.objects[TLS]
    world.objects[TLS] = {"metadata": {"name": "weightlock-webhook-tls"}, "data": {}}
    assert (await secrets.certificate(patient))[0].result == "ok"


async def test_a_secret_that_is_missing_or_empty(patient, world):
    world.objects[TLS]["data"] = {}
    assert "holds no certificate" in (await secrets.certificate(patient))[0].what
    del (
        world.objects[TLS],
        world.objects["/apis/apps/v1/namespaces/weightlock-system/deployments/weightlock-webhook"],
    )
    patient._read.clear()
    with pytest.raises(SkippedError, match="no Secret weightlock-webhook-tls"):
        await secrets.certificate(patient)


def keys():
    private = Ed25519PrivateKey.generate()
    return {
        "signing.key": encoded(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
        "signing.pub": encoded(
            private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        ),
    }


@pytest.mark.parametrize(
    ("data", "result", "words"),
    [
        (keys(), "ok", "Secret weightlock-signing"),
        ({**keys(), "signing.pub": keys()["signing.pub"]}, "fail", "is not the public half"),
        ({"signing.pub": keys()["signing.pub"]}, "fail", "lacks signing.key"),
        ({}, "fail", "lacks signing.key"),
    ],
)
async def test_the_signing_key(patient, world, data, result, words):
    world.objects[SIGNING] = {"metadata": {"name": "weightlock-signing"}, "data": data}
    (finding,) = await secrets.signing_key(patient)
    assert (finding.result, words in finding.what) == (result, True)
