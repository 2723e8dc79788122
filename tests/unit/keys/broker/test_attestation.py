"""Attestation against a local issuer with the real claim set. No accelerator is exercised: the tokens are made here."""

from __future__ import annotations

import hashlib
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from webhook.api.codes import EVIDENCE, NO_EVIDENCE
from webhook.keys.broker.attestation import check_rule, compile_rule, verify
from webhook.keys.broker.refusal import RefusedError

ISSUER, NONCE, NOW = "https://nras.example.com", "ab" * 32, 1_800_000_000
CHAIN = {
    "x-nvidia-cert-expiration-date": "2031-01-01T00:00:00Z",
    "x-nvidia-cert-status": "valid",
    "x-nvidia-cert-ocsp-status": "good",
    "x-nvidia-cert-ocsp-nonce-matches": True,
    "x-nvidia-cert-ocsp-response-valid": True,
    "x-nvidia-cert-revocation-reason": None,
}
COMMON = {
    "measres": "success",
    "secboot": True,
    "dbgstat": "disabled",
    "hwmodel": "GH100 A01 GSP BROM",
    "ueid": "478176379286082186618948445787393647364802107249",
    "oemid": "5703",
    "x-nvidia-gpu-driver-version": "575.57.08",
    "x-nvidia-gpu-vbios-version": "96.00.CF.00.01",
    "x-nvidia-gpu-arch-check": True,
    "x-nvidia-gpu-attestation-report-parsed": True,
    "x-nvidia-gpu-attestation-report-nonce-match": True,
    "x-nvidia-gpu-attestation-report-signature-verified": True,
    "x-nvidia-gpu-driver-rim-fetched": True,
    "x-nvidia-gpu-driver-rim-schema-validated": True,
    "x-nvidia-gpu-driver-rim-signature-verified": True,
    "x-nvidia-gpu-driver-rim-measurements-available": True,
    "x-nvidia-gpu-vbios-rim-fetched": True,
    "x-nvidia-gpu-vbios-rim-schema-validated": True,
    "x-nvidia-gpu-vbios-rim-signature-verified": True,
    "x-nvidia-gpu-vbios-rim-measurements-available": True,
    "x-nvidia-gpu-vbios-index-no-conflict": True,
    "x-nvidia-attestation-warning": None,
}
GPU = {
    **COMMON,
    "x-nvidia-device-type": "gpu",
    "x-nvidia-gpu-attestation-report-cert-chain-fwid-match": True,
    "x-nvidia-gpu-attestation-report-cert-chain": CHAIN,
    "x-nvidia-gpu-driver-rim-version-match": True,
    "x-nvidia-gpu-driver-rim-cert-chain": CHAIN,
    "x-nvidia-gpu-vbios-rim-version-match": True,
    "x-nvidia-gpu-vbios-rim-cert-chain": CHAIN,
    "x-nvidia-mismatch-measurement-records": None,
}
GPU_2 = {
    **COMMON,
    "x-nvidia-gpu-attestation-report-cert-chain-validated": True,
    "x-nvidia-gpu-driver-rim-cert-validated": True,
    "x-nvidia-gpu-vbios-rim-cert-validated": True,
}
PARTS = ("attestation-report", "driver-rim", "vbios-rim")


class Issuer:
    """Makes tokens as NVIDIA's attestation service does."""

    def __init__(self):
        self.key, self.kid = ec.generate_private_key(ec.SECP384R1()), "nv-eat-kid"

    @property
    def keys(self):
        public = json.loads(jwt.algorithms.ECAlgorithm(hashlib.sha384).to_jwk(self.key.public_key()))
        return {"keys": [{"kty": "RSA", "kid": "other"}, {**public, "kid": self.kid, "use": "sig"}]}

    def token(self, claims, *, key=None, alg="ES384", headers=None):
        times = {"iss": ISSUER, "iat": NOW - 5, "nbf": NOW - 5, "exp": NOW + 3600, "eat_nonce": NONCE}
        merged = {name: value for name, value in {**times, **claims}.items() if value != "absent"}
        return jwt.encode(
            merged, key or self.key, algorithm=alg, headers={"kid": self.kid, **(headers or {})}
        )

    def bundle(self, gpus=None, overall=None, digest="SHA-256"):
        tokens = {name: self.token(claims) for name, claims in (gpus or {"GPU-0": GPU, "GPU-1": GPU}).items()}
        submods = {
            name: ["DIGEST", [digest, hashlib.sha256(token.encode()).hexdigest()]]
            for name, token in tokens.items()
        }
        claims = {
            "x-nvidia-overall-att-result": True,
            "x-nvidia-ver": "3.0",
            "submods": submods,
            **(overall or {}),
        }
        return [["JWT", self.token(claims)], tokens]


@pytest.fixture(scope="module")
def issuer():
    return Issuer()


def check(issuer, evidence, *, nonce=NONCE, now=NOW, keys=None):
    return verify(evidence, issuer.keys if keys is None else keys, ISSUER, nonce, now)


def refused(issuer, evidence, output, **options):
    with pytest.raises(RefusedError, match=output) as error:
        check(issuer, evidence, **options)
    assert error.value.code == EVIDENCE


def test_good_evidence_gives_its_claims(issuer):
    claims = check(issuer, issuer.bundle())
    assert set(claims.devices) == {"GPU-0", "GPU-1"}
    assert [device["name"] for device in claims.as_cel()["devices"]] == ["GPU-0", "GPU-1"]


@pytest.mark.parametrize("measured", ["success", "comparison-successful"])
def test_the_spellings_of_version_2(issuer, measured):
    gpu = {**GPU_2, "measres": measured}
    claims = check(issuer, issuer.bundle({"GPU-0": gpu}, {"x-nvidia-ver": "2.0"}, digest="SHA256"))
    assert claims.devices["GPU-0"]["measres"] == measured


def test_no_evidence_has_its_own_code(issuer):
    with pytest.raises(RefusedError, match="sent no evidence") as error:
        check(issuer, None)
    assert error.value.code == NO_EVIDENCE


@pytest.mark.parametrize(
    "evidence",
    ["", "x", 3, [], {}, [["JWT", "x"]], [["JWT", "x"], {}], [["JWT", 3], {"GPU-0": "x"}], [["JWS", "x"], {"a": "b"}],
     [["JWT", "x"], {"GPU-0": 3}], [["JWT", "x" * 100_000], {"GPU-0": "x"}],
     [["JWT", "x"], {str(number): "x" for number in range(65)}]],
)  # fmt: skip
def test_other_documents_than_a_bundle_are_rejected(issuer, evidence):
    refused(issuer, evidence, "not a detached EAT bundle")


@pytest.mark.parametrize("claim", ["iss", "iat", "nbf", "exp"])
def test_registered_claims_must_be_there(issuer, claim):
    refused(issuer, issuer.bundle(overall={claim: "absent"}), "is not signed by the issuer")
    refused(
        issuer,
        issuer.bundle({"GPU-0": {**GPU, claim: "absent"}}),
        "the token of GPU-0 is not signed by the issuer",
    )


def test_another_issuer(issuer):
    refused(issuer, issuer.bundle(overall={"iss": "https://evil.example.com"}), "is not signed by the issuer")


@pytest.mark.parametrize(
    "times",
    [{"exp": NOW - 31}, {"nbf": NOW + 31}, {"iat": NOW + 31}, {"exp": True}],
    ids=["expired", "not valid yet", "issued in the future", "no number"],
)
def test_times(issuer, times):
    refused(
        issuer,
        issuer.bundle(overall=times),
        "expired or not valid yet|times that are not numbers|not signed by the issuer",
    )
    refused(
        issuer,
        issuer.bundle({"GPU-0": {**GPU, **times}}),
        "expired or not|not numbers|not signed by the issuer",
    )


def test_a_little_skew_is_allowed(issuer):
    check(issuer, issuer.bundle(overall={"nbf": NOW + 29, "iat": NOW + 29}))
    check(issuer, issuer.bundle(overall={"exp": NOW - 29}))


@pytest.mark.parametrize("nonce", ["cd" * 32, "absent", None, 3, [NONCE], ""])
def test_the_nonce_is_this_releases(issuer, nonce):
    refused(issuer, issuer.bundle(overall={"eat_nonce": nonce}), r"\(nonce\)")
    refused(
        issuer,
        issuer.bundle({"GPU-0": {**GPU, "eat_nonce": nonce}}),
        r"GPU-0 was not issued for this release",
    )


def test_a_signature_by_another_key(issuer):
    bundle, other = issuer.bundle(), Issuer()
    refused(
        issuer,
        [["JWT", other.token({"x-nvidia-overall-att-result": True})], bundle[1]],
        "is not signed by the issuer",
    )
    refused(issuer, other.bundle(), "is not signed by the issuer")
    head, body, signature = bundle[0][1].split(".")
    refused(
        issuer, [["JWT", f"{head}.{body}.{signature[:-4]}AAAA"], bundle[1]], "is not signed by the issuer"
    )


@pytest.mark.parametrize(
    "alter",
    [
        lambda issuer: issuer.token({}, headers={"kid": "unknown"}),
        lambda issuer: issuer.token(
            {}, headers={"kid": "unknown", "jku": "https://evil.example.com/jwks.json"}
        ),
        lambda issuer: issuer.token({}, headers={"crit": ["x"]}),
        lambda issuer: jwt.encode({"iss": ISSUER}, "s" * 64, algorithm="HS384", headers={"kid": issuer.kid}),
        lambda issuer: jwt.encode({"iss": ISSUER}, None, algorithm="none", headers={"kid": issuer.kid}),
    ],
    ids=["unknown key", "jku", "crit", "HS384", "none"],
)
def test_headers_that_would_lead_elsewhere(issuer, alter):
    refused(issuer, [["JWT", alter(issuer)], {"GPU-0": "x"}], "is not signed by the issuer")


def test_keys_of_another_kind_or_none(issuer):
    for keys in (
        {},
        {"keys": []},
        {"keys": None},
        {"keys": ["x"]},
        {"keys": [{"kid": "nv-eat-kid", "kty": "EC"}]},
    ):
        refused(issuer, issuer.bundle(), "is not signed by the issuer", keys=keys)


def test_the_service_says_no(issuer):
    for result in (False, None, "true", "absent", 1):
        refused(
            issuer,
            issuer.bundle(overall={"x-nvidia-overall-att-result": result}),
            "reports a failure|is null",
        )


def test_device_tokens_are_those_of_the_overall_token(issuer):
    overall, tokens = issuer.bundle()
    for altered in (
        {"GPU-0": tokens["GPU-0"]},
        {**tokens, "GPU-2": tokens["GPU-0"]},
        {"GPU-0": tokens["GPU-0"], "GPU-9": tokens["GPU-1"]},
    ):
        refused(issuer, [overall, altered], "do not match the overall token")
    swapped = issuer.token({**GPU, "ueid": "another device"})
    refused(issuer, [overall, {**tokens, "GPU-0": swapped}], "the token of GPU-0 does not match")


@pytest.mark.parametrize(
    "digest", [None, [], ["DIGEST"], ["DIGEST", ["MD5", "x"]], ["DIGEST", ["SHA-256", 3]], "x"]
)
def test_a_digest_of_another_form(issuer, digest):
    bundle = issuer.bundle()
    overall = {"x-nvidia-overall-att-result": True, "submods": {"GPU-0": digest, "GPU-1": digest}}
    refused(
        issuer,
        [["JWT", issuer.token(overall)], bundle[1]],
        "does not match its digest|GPU-0 of the overall token is null",
    )


@pytest.mark.parametrize(
    ("claim", "values"),
    [
        ("measres", ["fail", "comparison-failed", None, "absent", True]),
        ("secboot", [False, None, "absent", "true"]),
        ("dbgstat", ["enabled", None, "absent"]),
        ("x-nvidia-gpu-attestation-report-nonce-match", [False, None, "absent"]),
        ("x-nvidia-gpu-arch-check", [False, None]),
        ("x-nvidia-gpu-driver-version", [None]),
        ("x-nvidia-gpu-attestation-report-signature-verified", [False, None]),
    ],
)
def test_every_check_must_have_been_made_and_passed(issuer, claim, values):
    for value in values:
        refused(issuer, issuer.bundle({"GPU-0": GPU, "GPU-1": {**GPU, claim: value}}), "GPU-1|attestation: ")


@pytest.mark.parametrize("part", PARTS)
def test_a_signature_of_which_nothing_is_said_was_not_checked(issuer, part):
    claim = f"x-nvidia-gpu-{part}-signature-verified"
    for gpu in (GPU, GPU_2):
        for value in ("absent", "true", 1):
            refused(issuer, issuer.bundle({"GPU-0": {**gpu, claim: value}}), rf"GPU-0 is missing \({claim}\)")


@pytest.mark.parametrize("part", PARTS)
def test_a_chain_of_which_nothing_is_said_was_not_checked(issuer, part):
    chain = f"x-nvidia-gpu-{part}-cert-chain"
    verdicts = [name for name in GPU_2 if part in name and name.endswith("-validated") and "-cert-" in name]
    assert len(verdicts) == 1
    without = {name: value for name, value in CHAIN.items() if name != "x-nvidia-cert-status"}
    for gpu in (
        {**GPU, chain: "absent"},
        {**GPU, chain: {}},
        {**GPU, chain: "valid"},
        {**GPU, chain: [CHAIN]},
        {**GPU, chain: without},
        {**GPU, chain: without, verdicts[0]: True},
        {**GPU_2, verdicts[0]: "absent"},
        {**GPU_2, verdicts[0]: "true"},
    ):
        refused(issuer, issuer.bundle({"GPU-0": gpu}), rf"a check of GPU-0 is missing \({chain}\)")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("x-nvidia-cert-status", "revoked"),
        ("x-nvidia-cert-status", "expired"),
        ("x-nvidia-cert-status", "invalid"),
        ("x-nvidia-cert-status", True),
        ("x-nvidia-cert-ocsp-status", "revoked"),
        ("x-nvidia-cert-ocsp-status", "unknown"),
        ("x-nvidia-cert-ocsp-nonce-matches", False),
        ("x-nvidia-cert-ocsp-response-valid", False),
    ],
)
def test_an_invalid_certificate_chain_is_rejected_despite_the_services_verdict(issuer, part, claim, value):
    gpu = {**GPU, f"x-nvidia-gpu-{part}-cert-chain": {**CHAIN, claim: value}}
    refused(
        issuer,
        issuer.bundle({"GPU-0": gpu}),
        rf"(certificate of GPU-0 is invalid|GPU-0 failed) \({claim}\)",
    )


def test_an_unknown_chain_is_checked_too(issuer):
    gpu = {**GPU, "x-nvidia-new": [{"deeper": {**CHAIN, "x-nvidia-cert-status": "revoked"}}]}
    refused(issuer, issuer.bundle({"GPU-0": gpu}), "a certificate of GPU-0 is invalid")


def test_a_null_deep_inside_fails_too(issuer):
    gpu = {
        **GPU,
        "x-nvidia-gpu-driver-rim-cert-chain": {**CHAIN, "x-nvidia-cert-ocsp-status": None},
    }
    refused(issuer, issuer.bundle({"GPU-0": gpu}), "x-nvidia-cert-ocsp-status of the token of GPU-0 is null")


RULE = (
    "object.devices.all(d, d.hwmodel.startsWith('GH100') && d['x-nvidia-gpu-driver-version'] == '575.57.08')"
    " && object.overall['x-nvidia-ver'] == '3.0'"
)


def test_a_rule_over_the_claims(issuer):
    claims = check(issuer, issuer.bundle())
    check_rule(compile_rule(RULE), claims)
    check_rule(compile_rule(""), claims)
    for rule, output in (
        ("object.devices.size() == 8", "do not meet the rule"),
        ("object.devices.all(d, d.nothing == 1)", "cannot evaluate"),
    ):
        with pytest.raises(RefusedError, match=output):
            check_rule(compile_rule(rule), claims)


@pytest.mark.parametrize("rule", ["object.", "claims.x", "1 + 1", "object.overall"])
def test_an_invalid_rule_cannot_be_met(rule):
    with pytest.raises(RefusedError, match="does not compile"):
        compile_rule(rule)


def test_time_is_not_read_here(issuer):
    assert abs(time.time() - NOW) > 3600
    check(issuer, issuer.bundle())
