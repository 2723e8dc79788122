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
        (90, "ok", "trusted by the caBundle, expires in 90 days"),
        (20, "warn", "expires in 20 days"),
        (3, "fail", "expires in 3 days"),
    ],
)
async def test_the_certificate_that_is_served(view, world, days, result, words):
    # Made now and not when the tests are collected, which may be many minutes ago.
    install(world, ending_in(days))
    (check,) = await secrets.certificate(view)
    assert (check.result, words in check.what) == (result, True)


async def test_a_certificate_for_another_name(view, world):
    install(world, make(["elsewhere"]))
    (check,) = await secrets.certificate(view)
    assert (check.result, f"does not contain the name {NAME}" in check.what) == ("fail", True)


async def test_an_authority_that_did_not_sign_it(view, world):
    install(world, make([NAME]))
    world.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"] = encoded(make([NAME]).authority)
    (check,) = await secrets.certificate(view)
    assert check.what == "the CA in the webhook configuration did not sign the serving certificate"


@pytest.mark.parametrize(("bundle", "words"), [("", "has no CA"), ("!", "has no CA")])
async def test_no_authority_at_all(view, world, bundle, words):
    world.objects[CONFIGURATION]["webhooks"][0]["clientConfig"]["caBundle"] = bundle
    (check,) = await secrets.certificate(view)
    assert words in check.what


async def test_the_secret_that_the_controller_fills_comes_before_the_one_that_helm_made(view, world):
    pair = ending_in(60)
    install(world, pair)
    world.objects[TLS.replace("-tls", "-serving")] = world.objects[TLS]
    world.objects[TLS] = {"metadata": {"name": "weightlock-webhook-tls"}, "data": {}}
    assert (await secrets.certificate(view))[0].result == "ok"


async def test_a_secret_that_is_missing_or_empty(view, world):
    world.objects[TLS]["data"] = {}
    assert "contains no certificate" in (await secrets.certificate(view))[0].what
    del (
        world.objects[TLS],
        world.objects["/apis/apps/v1/namespaces/weightlock-system/deployments/weightlock-webhook"],
    )
    view._read.clear()
    with pytest.raises(SkippedError, match="Secret weightlock-webhook-tls is missing"):
        await secrets.certificate(view)


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
        ({**keys(), "signing.pub": keys()["signing.pub"]}, "fail", "does not match signing.key"),
        ({"signing.pub": keys()["signing.pub"]}, "fail", "lacks a valid signing.key"),
        ({}, "fail", "lacks a valid signing.key"),
    ],
)
async def test_the_signing_key(view, world, data, result, words):
    world.objects[SIGNING] = {"metadata": {"name": "weightlock-signing"}, "data": data}
    (check,) = await secrets.signing_key(view)
    assert (check.result, words in check.what) == (result, True)
