"""Checks of certificates and keys, by the Secrets they lie in. No key or certificate is shown, only what is wrong."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from webhook.cluster.doctor.installation_view import Finding, Patient, SkippedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.core.kube.fields import Document

_SOON, _SOONEST = timedelta(days=30), timedelta(days=7)


async def certificate(patient: Patient) -> Sequence[Finding]:
    """The webhook's certificate is vouched for by the caBundle, names the Service, and holds for a while."""
    configuration = await patient.configuration("validating")
    if configuration is None:
        raise SkippedError("no webhook configuration")
    client = configuration["webhooks"][0]["clientConfig"]
    fix = "docs/runbook.md#certificate-trouble"
    authorities = _certificates(client.get("caBundle", ""))
    if not authorities:
        return [Finding("fail", "the webhook configuration names no authority (caBundle)", fix)]
    secret = await _mounted(
        patient, "webhook", "tls", (f"{patient.name}-webhook-serving", f"{patient.name}-webhook-tls")
    )
    found = _certificates((secret.get("data") or {}).get("tls.crt", ""))
    if not found:
        return [Finding("fail", f"Secret {secret['metadata']['name']} holds no certificate", fix)]
    leaf, now = found[0], datetime.now(UTC)
    if not _vouched(leaf, (*found[1:], *authorities), now):
        return [
            Finding(
                "fail", "the authority in the webhook configuration did not sign the certificate served", fix
            )
        ]
    service = client.get("service")
    if service and not _names(leaf, f"{service['name']}.{service['namespace']}.svc"):
        name = f"{service['name']}.{service['namespace']}.svc"
        return [Finding("fail", f"the certificate served does not name {name}", fix)]
    left = leaf.not_valid_after_utc - now
    if left < timedelta(0) or now < leaf.not_valid_before_utc:
        return [
            Finding(
                "fail",
                f"the certificate served is valid until {leaf.not_valid_after_utc:%Y-%m-%d}, not now",
                fix,
            )
        ]
    if left < _SOON:
        return [
            Finding(
                "fail" if left < _SOONEST else "warn", f"the certificate served ends in {left.days} days", fix
            )
        ]
    return [Finding("ok", f"vouched for by the caBundle, {left.days} days left")]


async def signing_key(patient: Patient) -> Sequence[Finding]:
    """The key that signs requests and approvals is there, and its public half belongs to it."""
    secret = await _mounted(patient, "controller", "signing", (f"{patient.name}-signing",))
    data = {key: _decoded(value) for key, value in (secret.get("data") or {}).items()}
    name = secret["metadata"]["name"]
    try:
        private = load_pem_private_key(data["signing.key"], None).public_key()
        public = load_pem_public_key(data["signing.pub"])
    except (KeyError, ValueError, TypeError):
        fix = "docs/install.md#signatures; a copy from a backup keeps the grants that were signed with it"
        return [
            Finding("fail", f"Secret {name} lacks signing.key or signing.pub, or they cannot be read", fix)
        ]
    if private != public:
        fix = f"openssl pkey -in signing.key -pubout, and put that into signing.pub of Secret {name}"
        return [Finding("fail", f"in Secret {name} signing.pub is not the public half of signing.key", fix)]
    return [Finding("ok", f"Secret {name}")]


async def _mounted(patient: Patient, part: str, volume: str, otherwise: Sequence[str]) -> Document:
    """The Secret that a part mounts under a volume's name, or the first of those the chart might have made."""
    try:
        found = await patient.deployment(part)
    except SkippedError:
        found = None
    volumes = found["spec"]["template"]["spec"].get("volumes", ()) if found is not None else ()
    named = [item["secret"]["secretName"] for item in volumes if item["name"] == volume and "secret" in item]
    names = named or list(otherwise)
    for name in names:
        secret = await patient.own("secrets", name)
        if secret is not None:
            return secret
    if found is None:
        raise SkippedError(f"no Secret {names[-1]}, and no Deployment that names another")
    return {"metadata": {"name": names[-1]}}


def _certificates(text: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_decoded(text))
    except ValueError:
        return []


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error:
        return b""


def _vouched(leaf: x509.Certificate, others: Sequence[x509.Certificate], now: datetime) -> bool:
    """Whether one of the others signed it and holds now. API servers take any certificate of the bundle for a root."""
    for other in others:
        try:
            leaf.verify_directly_issued_by(other)
        except (ValueError, TypeError, InvalidSignature):
            continue
        if other.not_valid_before_utc <= now <= other.not_valid_after_utc:
            return True
    return leaf in others


def _names(leaf: x509.Certificate, name: str) -> bool:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return name in found.get_values_for_type(x509.DNSName)
