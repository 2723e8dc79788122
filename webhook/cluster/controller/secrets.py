"""Read and write the Secrets with Weightlock's own certificates.

They contain keys. Their content is never logged, and an error names only the Secret.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from webhook.core.certificates.issue import names_of
from webhook.core.certificates.model import ServingCert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from webhook.cluster.client.api import KubeApi
    from webhook.core.certificates.store import StoredCA

AUTHORITIES, CERTIFICATE, KEY, LIST = "authorities.json", "tls.crt", "tls.key", "ca.crt"
_MERGE_PATCH = "application/merge-patch+json"


class Secret(NamedTuple):
    """One Secret as read: its files, and the resource version that a write must match."""

    name: str
    version: str
    data: Mapping[str, bytes]

    def text(self, file: str) -> str:
        """Return a file as text, empty if it is absent or not ASCII."""
        try:
            return self.data.get(file, b"").decode("ascii")
        except UnicodeDecodeError:
            return ""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The Secrets of one namespace."""

    api: KubeApi
    namespace: str

    async def read(self, name: str) -> Secret:
        """Read a Secret. Raises `ApiError`."""
        document = await self.api.get(self._path(name))
        data = document.get("data") or {}
        decoded = {key: _decoded(value) for key, value in data.items() if isinstance(value, str)}
        return Secret(name, str(document["metadata"].get("resourceVersion", "")), decoded)

    async def write(self, secret: Secret, data: Mapping[str, bytes]) -> None:
        """Write files into a Secret if it is unchanged since the read. Raises `ApiError`, 409 for a conflict."""
        body = {
            "metadata": {"resourceVersion": secret.version},
            "data": {name: base64.b64encode(content).decode("ascii") for name, content in data.items()},
        }
        await self.api.request("PATCH", self._path(secret.name), body=body, content_type=_MERGE_PATCH)

    def _path(self, name: str) -> str:
        return f"/api/v1/namespaces/{quote(self.namespace, safe='')}/secrets/{quote(name, safe='')}"


def serving_cert_of(secret: Secret, authorities: Iterable[StoredCA]) -> ServingCert | None:
    """Return the serving certificate in a Secret, with its CA; None without a usable pair."""
    try:
        certificate = x509.load_pem_x509_certificate(secret.data.get(CERTIFICATE, b""))
        key = load_pem_private_key(secret.data.get(KEY, b""), None)
        if key.public_key() != certificate.public_key():
            return None
        names = names_of(certificate)
    except (ValueError, TypeError):
        return None
    signer = next(
        (authority.authority.id for authority in authorities if _signed(certificate, authority)), ""
    )
    return ServingCert(signer, certificate.not_valid_before_utc, certificate.not_valid_after_utc, names)


def _signed(certificate: x509.Certificate, held: StoredCA) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(held.certificate.encode()))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
