"""Bundles of CA certificates, compared by text.

A bundle is valid only if it consists of known certificates, exactly as they were written. So two PEM parsers cannot
disagree about it. An empty bundle, which means the system trust store to an API server, is never valid.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_END = "-----END CERTIFICATE-----\n"
_MAX_TEXT = 512 * 1024


def id_of(certificate: str) -> str:
    """Return the id of a CA: the SHA-256 of its PEM text as `split` returns it."""
    return hashlib.sha256(certificate.encode()).hexdigest()


def split(bundle: str) -> list[str]:
    """Return the texts of a bundle, split after each certificate; a remainder is a text of its own."""
    parts = bundle.split(_END)
    texts = [f"{part}{_END}" for part in parts[:-1]]
    return [*texts, parts[-1]] if parts[-1] else texts


def ids(bundle: str) -> frozenset[str]:
    """Return the ids of the texts in a bundle."""
    return frozenset(id_of(text) for text in split(bundle))


def normalised(bundle: str) -> Iterator[str]:
    """Yield each certificate of a PEM text in Weightlock's own encoding.

    Raises:
        ValueError: the text contains no certificate.
    """
    for certificate in x509.load_pem_x509_certificates(bundle[:_MAX_TEXT].encode()):
        yield certificate.public_bytes(Encoding.PEM).decode("ascii")


def of_webhook(webhook: Any) -> str | None:
    """Return the bundle in one webhook of a configuration, as PEM; None if it is absent or unreadable."""
    config = webhook.get("clientConfig") if isinstance(webhook, dict) else None
    encoded = config.get("caBundle") if isinstance(config, dict) else None
    if not isinstance(encoded, str) or not encoded or len(encoded) > 2 * _MAX_TEXT:
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None


def is_made_of(bundle: str | None, certificates: Iterable[str]) -> bool:
    """Return whether a bundle consists of one or more CAs with these ids, and nothing else."""
    members = ids(bundle) if bundle else frozenset()
    return bool(members) and members <= frozenset(certificates)
