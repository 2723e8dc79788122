"""Attestation of accelerators: complete verification of NVIDIA's entity attestation tokens (EAT).

Pure: the caller passes the issuer's keys and the time. Keys come from the configured set only, never from a token's
header. Every required claim must be present and true; a null claim fails.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jwt
from jwt.exceptions import PyJWTError

from webhook.api.codes import EVIDENCE, NO_EVIDENCE
from webhook.cel import Bindings, CompileError, EvaluationError, Program, environment
from webhook.core.kube.strict_json import DocumentError, check
from webhook.keys.broker.refusal import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ALGORITHM = "ES384"
SKEW = 30
MAX_TOKENS = 64
_MAX_TOKEN = 64 * 1024
_REGISTERED = ("iss", "exp", "iat", "nbf")
_OVERALL = "x-nvidia-overall-att-result"
_NONCE = "eat_nonce"
# NVIDIA's tokens of version 2 and 3 spell the same success differently.
_GOOD_MEASUREMENTS = frozenset({"success", "comparison-successful"})
_DIGESTS = frozenset({"SHA-256", "SHA256"})
# Claims that may be null; every other null means that a check was not performed.
_MAY_BE_NULL = frozenset({
    "x-nvidia-attestation-warning", "x-nvidia-mismatch-measurement-records", "x-nvidia-cert-revocation-reason",
})  # fmt: skip
# A device's token must state that its report and both reference manifests are signed by a valid chain. Version 3 has
# the chain's state (NVIDIA's guide to GPU claims), version 2 a result under the name in the right column.
_SIGNED = {
    "attestation-report": "x-nvidia-gpu-attestation-report-cert-chain-validated",
    "driver-rim": "x-nvidia-gpu-driver-rim-cert-validated",
    "vbios-rim": "x-nvidia-gpu-vbios-rim-cert-validated",
}
_GOOD_CERTIFICATE = {"x-nvidia-cert-status": "valid", "x-nvidia-cert-ocsp-status": "good"}
_NONCE_MATCHES = ("x-nvidia-gpu-attestation-report-nonce-match", "x-nvidia-attestation-report-nonce-match")


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of verified evidence: of the platform, of each device by its name (``GPU-0``), and of the CPU."""

    overall: dict[str, Any] = field(default_factory=dict)
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    cpu: dict[str, Any] = field(default_factory=dict)

    def as_cel(self) -> dict[str, Any]:
        """The value of ``object`` in a rule: ``overall``, ``cpu``, and ``devices`` as a list with ``name`` in each."""
        return {
            "overall": self.overall,
            "cpu": self.cpu,
            "devices": [{**claims, "name": name} for name, claims in sorted(self.devices.items())],
        }


def split(evidence: Any) -> tuple[Any, Any]:
    """The evidence of the accelerators and that of the CPU: ``{"gpu": …, "cpu": …}``, or the former alone."""
    if isinstance(evidence, dict) and evidence and evidence.keys() <= {"gpu", "cpu"}:
        return evidence.get("gpu"), evidence.get("cpu")
    return evidence, None


def verify(evidence: Any, keys: Mapping[str, Any], issuer: str, nonce: str, now: float) -> Claims:
    """Verify ``evidence``, the attestation service's response: ``[["JWT", overall], {name: token, …}]``.

    ``keys`` is the issuer's JSON web key set; ``nonce`` is the nonce of the evidence; ``now`` is in Unix seconds.

    Raises:
        RefusedError: a check failed; the message names it.
    """
    overall_token, device_tokens = _tokens(evidence)
    overall = _claims(overall_token, keys, issuer, nonce, now, "the overall token")
    if overall.get(_OVERALL) is not True:
        raise RefusedError(EVIDENCE, f"attestation: the service reports a failure ({_OVERALL})")
    submods = overall.get("submods")
    if not isinstance(submods, dict) or not submods or set(submods) != set(device_tokens):
        raise RefusedError(EVIDENCE, "attestation: the devices' tokens do not match the overall token")
    devices = {}
    for name, token in device_tokens.items():
        _check_digest(name, submods[name], token)
        claims = _claims(token, keys, issuer, nonce, now, f"the token of {name}")
        _check_device(name, claims)
        devices[name] = claims
    return Claims(overall, devices)


def check_rule(rule: Program | None, claims: Claims) -> None:
    """Evaluate an admin's rule over the claims.

    Raises:
        RefusedError: it is false, or cannot be evaluated.
    """
    if rule is None:
        return
    try:
        document = claims.as_cel()
        check(document)
        holds = rule.evaluate(Bindings({"object": document}))
    except (EvaluationError, DocumentError) as error:
        raise RefusedError(
            EVIDENCE, f"attestation: cannot evaluate the rule of this model: {error}"
        ) from None
    if holds is not True:
        raise RefusedError(EVIDENCE, "attestation: the devices do not meet the rule of this model")


@lru_cache(maxsize=64)
def compile_rule(rule: str) -> Program | None:
    """Compile a rule; None for an empty one.

    Raises:
        RefusedError: the rule does not compile, so no evidence can meet it.
    """
    if not rule:
        return None
    try:
        return environment(authorizer=False, params=False, weightlock=False).compile(rule)
    except CompileError as error:
        raise RefusedError(
            EVIDENCE, f"attestation: the rule of this model does not compile: {error}"
        ) from None


def _tokens(evidence: Any) -> tuple[str, dict[str, str]]:
    if evidence is None:
        raise RefusedError(
            NO_EVIDENCE, "this model requires attested accelerators, but the sidecar sent no evidence"
        )
    match evidence:
        case [["JWT", str(overall)], dict(devices)] if 0 < len(devices) <= MAX_TOKENS:
            tokens = {str(name): token for name, token in devices.items() if isinstance(token, str)}
            if len(tokens) == len(devices) and all(
                len(token) <= _MAX_TOKEN for token in (overall, *tokens.values())
            ):
                return overall, tokens
    raise RefusedError(EVIDENCE, "attestation: the evidence is not a detached EAT bundle")


def _claims(
    token: str, keys: Mapping[str, Any], issuer: str, nonce: str, now: float, what: str
) -> dict[str, Any]:
    try:
        key = _key(jwt.get_unverified_header(token), keys)
        # The times are checked below, against ``now``.
        options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
        options["require"] = list(_REGISTERED)
        claims = jwt.decode(token, key, algorithms=[ALGORITHM], issuer=issuer, options=options)
    except (PyJWTError, ValueError, TypeError) as error:
        raise RefusedError(EVIDENCE, f"attestation: {what} is not signed by the issuer ({error})") from None
    _check_times(claims, now, what)
    actual = claims.get(_NONCE)
    if not isinstance(actual, str) or not hmac.compare_digest(
        actual.lower().encode("utf-8", "replace"), nonce.encode()
    ):
        raise RefusedError(EVIDENCE, f"attestation: {what} was not issued for this release (nonce)")
    _refuse_nulls(claims, what)
    return claims


def _key(header: Mapping[str, Any], keys: Mapping[str, Any]) -> jwt.PyJWK:
    """The issuer's key with the token's key id. Headers with the URL of a key (``jku``, ``x5u``) are ignored."""
    if header.get("alg") != ALGORITHM or "crit" in header:
        raise ValueError(f"its algorithm is not {ALGORITHM}")
    for item in keys.get("keys") or ():
        if isinstance(item, dict) and item.get("kid") == header.get("kid") and item.get("kty") == "EC":
            return jwt.PyJWK(item, algorithm=ALGORITHM)
    raise ValueError("it is signed with a key that the issuer does not publish")


def _check_times(claims: Mapping[str, Any], now: float, what: str) -> None:
    times = [claims[name] for name in ("nbf", "iat", "exp")]
    if any(isinstance(moment, bool) or not isinstance(moment, int | float) for moment in times):
        raise RefusedError(EVIDENCE, f"attestation: {what} has times that are not numbers")
    not_before, issued, expires = times
    if not (max(not_before, issued) - SKEW <= now < expires + SKEW):
        raise RefusedError(EVIDENCE, f"attestation: {what} is expired or not valid yet")


def _check_digest(name: str, digest: Any, token: str) -> None:
    actual = hashlib.sha256(token.encode()).hexdigest()
    match digest:
        case ["DIGEST", [str(algorithm), str(expected)]] if algorithm in _DIGESTS:
            if hmac.compare_digest(actual.encode(), expected.lower().encode()):
                return
    raise RefusedError(
        EVIDENCE, f"attestation: the token of {name} does not match its digest in the overall token"
    )


def _check_device(name: str, claims: Mapping[str, Any]) -> None:
    if claims.get("measres") not in _GOOD_MEASUREMENTS:
        raise RefusedError(EVIDENCE, f"attestation: the measurements of {name} do not match (measres)")
    if not any(claims.get(claim) is True for claim in _NONCE_MATCHES):
        raise RefusedError(EVIDENCE, f"attestation: the report of {name} has another nonce")
    if claims.get("secboot") is not True or claims.get("dbgstat") != "disabled":
        raise RefusedError(
            EVIDENCE, f"attestation: {name} runs without secure boot or with debugging enabled"
        )
    for claim, value in _walk(claims):
        if value is False and claim.startswith("x-nvidia-") and claim not in _MAY_BE_NULL:
            raise RefusedError(EVIDENCE, f"attestation: a check of {name} failed ({claim})")
        if value != _GOOD_CERTIFICATE.get(claim, value):
            raise RefusedError(EVIDENCE, f"attestation: a certificate of {name} is invalid ({claim})")
    for what, verdict in _SIGNED.items():
        signature, chain = f"x-nvidia-gpu-{what}-signature-verified", f"x-nvidia-gpu-{what}-cert-chain"
        if claims.get(signature) is not True:
            raise RefusedError(EVIDENCE, f"attestation: a check of {name} is missing ({signature})")
        state = claims.get(chain)
        if not (claims.get(verdict) is True if state is None else _is_good(state)):
            raise RefusedError(EVIDENCE, f"attestation: a check of {name} is missing ({chain})")


def _is_good(chain: Any) -> bool:
    return isinstance(chain, dict) and _GOOD_CERTIFICATE.items() <= chain.items()


def _refuse_nulls(claims: Any, what: str) -> None:
    for claim, value in _walk(claims):
        if value is None and claim not in _MAY_BE_NULL:
            raise RefusedError(EVIDENCE, f"attestation: {claim} of {what} is null")


def _walk(claims: Any) -> Iterator[tuple[str, Any]]:
    """Every claim with its value, at any depth."""
    stack = [claims]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield from value.items()
            stack += value.values()
        elif isinstance(value, list):
            stack += value
