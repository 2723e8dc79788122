"""Check certificates and keys in their Secrets. Results contain faults only, never a key or a certificate."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from webhook.cluster.doctor.installation_view import CheckResult, Installation, SkippedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.core.kube.fields import Document

_SOON, _SOONEST = timedelta(days=30), timedelta(days=7)


async def certificate(view: Installation) -> Sequence[CheckResult]:
    """Check that the caBundle trusts the webhook's certificate, that it names the Service, and that it is valid."""
    configuration = await view.configuration("validating")
    if configuration is None:
        raise SkippedError("no webhook configuration")
    client = configuration["webhooks"][0]["clientConfig"]
    fix = "docs/runbook.md#certificate-trouble"
    cas = _certificates(client.get("caBundle", ""))
    if not cas:
        return [CheckResult("fail", "the webhook configuration has no CA (caBundle)", fix)]
    secret = await _mounted(
        view, "webhook", "tls", (f"{view.name}-webhook-serving", f"{view.name}-webhook-tls")
    )
    chain = _certificates((secret.get("data") or {}).get("tls.crt", ""))
    if not chain:
        return [CheckResult("fail", f"Secret {secret['metadata']['name']} contains no certificate", fix)]
    leaf, now = chain[0], datetime.now(UTC)
    if not _trusted(leaf, (*chain[1:], *cas), now):
        return [
            CheckResult(
                "fail", "the CA in the webhook configuration did not sign the serving certificate", fix
            )
        ]
    service = client.get("service")
    if service and not _names(leaf, f"{service['name']}.{service['namespace']}.svc"):
        name = f"{service['name']}.{service['namespace']}.svc"
        return [CheckResult("fail", f"the serving certificate does not contain the name {name}", fix)]
    remaining = leaf.not_valid_after_utc - now
    if remaining < timedelta(0) or now < leaf.not_valid_before_utc:
        return [
            CheckResult(
                "fail",
                f"the serving certificate is not valid now: it expires on {leaf.not_valid_after_utc:%Y-%m-%d}",
                fix,
            )
        ]
    if remaining < _SOON:
        return [
            CheckResult(
                "fail" if remaining < _SOONEST else "warn",
                f"the serving certificate expires in {remaining.days} days",
                fix,
            )
        ]
    return [CheckResult("ok", f"trusted by the caBundle, expires in {remaining.days} days")]


async def signing_key(view: Installation) -> Sequence[CheckResult]:
    """Check that the signing key exists and that its public key matches."""
    secret = await _mounted(view, "controller", "signing", (f"{view.name}-signing",))
    data = {key: _decoded(value) for key, value in (secret.get("data") or {}).items()}
    name = secret["metadata"]["name"]
    try:
        private = load_pem_private_key(data["signing.key"], None).public_key()
        public = load_pem_public_key(data["signing.pub"])
    except (KeyError, ValueError, TypeError):
        fix = "docs/install.md#signatures (a copy from a backup keeps the grants that it signed)"
        return [CheckResult("fail", f"Secret {name} lacks a valid signing.key or signing.pub", fix)]
    if private != public:
        fix = f"run openssl pkey -in signing.key -pubout and store the output in signing.pub of Secret {name}"
        return [CheckResult("fail", f"signing.pub does not match signing.key in Secret {name}", fix)]
    return [CheckResult("ok", f"Secret {name}")]


async def _mounted(view: Installation, part: str, volume: str, otherwise: Sequence[str]) -> Document:
    """Return the Secret that a component mounts under a volume's name, or the first of the chart's candidates."""
    try:
        deployment = await view.deployment(part)
    except SkippedError:
        deployment = None
    volumes = deployment["spec"]["template"]["spec"].get("volumes", ()) if deployment is not None else ()
    secret_names = [
        item["secret"]["secretName"] for item in volumes if item["name"] == volume and "secret" in item
    ]
    names = secret_names or list(otherwise)
    for name in names:
        secret = await view.own("secrets", name)
        if secret is not None:
            return secret
    if deployment is None:
        raise SkippedError(f"Secret {names[-1]} is missing, and no Deployment names another")
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


def _trusted(leaf: x509.Certificate, others: Sequence[x509.Certificate], now: datetime) -> bool:
    """Return whether one of the others signed it and is valid now. API servers trust any certificate of the bundle."""
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
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return name in names.get_values_for_type(x509.DNSName)
