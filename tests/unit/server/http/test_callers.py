"""The token of the API server (KEP-6060): bound to our configurations, to one path, and verified by the cluster."""

import asyncio

import pytest

from webhook.server.http import callers as module
from webhook.server.http.callers import AddressRates, TokenVerifier

AUDIENCE = "https://weightlock.weightlock-system.svc:443/validate"
NAME = "authentication.kubernetes.io/validatingwebhookconfiguration-name"
GROUPS = "authentication.kubernetes.io/attestation-admissionReviewAPIGroups"


def status(**changes):
    extra = {NAME: ["weightlock"], GROUPS: ["*"], **changes.pop("extra", {})}
    return {
        "authenticated": True,
        "audiences": [AUDIENCE],
        "user": {"username": "system:apiserver", "extra": extra},
        **changes,
    }


@pytest.fixture
def verify():
    def make(answer):
        calls = []

        async def review(token, audience):
            calls.append((token, audience))
            await asyncio.sleep(0)
            return answer

        verifier = TokenVerifier(review, ["weightlock"], {"/validate": [AUDIENCE]})
        verifier.calls = calls
        return verifier

    return make


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        (status(), True),
        (status(extra={GROUPS: ["apps"]}), True),
        (status(extra={GROUPS: ["batch"]}), False),
        (status(extra={GROUPS: []}), False),
        (status(extra={NAME: ["another"]}), False),
        (status(extra={NAME: []}), False),
        (status(extra={NAME: ["weightlock", "another"]}), False),
        (status(authenticated=False), False),
        (status(audiences=["https://another.svc:443/validate"]), False),
        (status(audiences=None), False),
        (status(user=None), False),
        ({}, False),
    ],
)
async def test_only_a_token_for_our_configuration_and_path_counts(verify, answer, accepted):
    verifier = verify(answer)
    assert await verifier.verify("token", "/validate", "apps") is accepted
    assert await verifier.verify("token", "/mutate", "apps") is False


async def test_a_token_is_reviewed_once_for_many_requests(verify, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    verifier = verify(status())
    assert await asyncio.gather(*(verifier.verify("t", "/validate", "apps") for _ in range(5))) == [True] * 5
    assert len(verifier.calls) == 1
    now[0] += module._TOKEN_SECONDS + 1
    assert await verifier.verify("t", "/validate", "apps")
    assert len(verifier.calls) == 2


def test_each_address_has_its_own_rate(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    rates = AddressRates(2)
    assert [rates.take("10.0.0.1") for _ in range(5)] == [True] * 4 + [False]
    assert rates.take("10.0.0.2")
    now[0] += 0.5
    assert [rates.take("10.0.0.1") for _ in range(2)] == [True, False]
