"""Bundles of authorities' certificates, compared text by text.

A bundle counts only where it is made of nothing but certificates that are known, exactly as they were written. So no
two readers of PEM can differ over what it says, and an empty one, which an API server takes for "the system's", is
never good.
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
    """The id of an authority: the SHA-256 of its PEM text as `texts` gives it."""
    return hashlib.sha256(certificate.encode()).hexdigest()


def split(bundle: str) -> list[str]:
    """The texts of a bundle, cut after each certificate's end; what stands after the last is a text of its own."""
    parts = bundle.split(_END)
    texts = [f"{part}{_END}" for part in parts[:-1]]
    return [*texts, parts[-1]] if parts[-1] else texts


def ids(bundle: str) -> frozenset[str]:
    """The ids of the texts in a bundle."""
    return frozenset(id_of(text) for text in split(bundle))


def normalised(bundle: str) -> Iterator[str]:
    """Each certificate of a PEM text, written as we write it. Raises `ValueError` for what holds none."""
    for certificate in x509.load_pem_x509_certificates(bundle[:_MAX_TEXT].encode()):
        yield certificate.public_bytes(Encoding.PEM).decode("ascii")


def of_webhook(webhook: Any) -> str | None:
    """The bundle in one webhook of a configuration, as PEM; None where there is none that can be read."""
    config = webhook.get("clientConfig") if isinstance(webhook, dict) else None
    encoded = config.get("caBundle") if isinstance(config, dict) else None
    if not isinstance(encoded, str) or not encoded or len(encoded) > 2 * _MAX_TEXT:
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None


def is_made_of(bundle: str | None, known: Iterable[str]) -> bool:
    """Whether a bundle holds one or more of the authorities with these ids, and nothing else."""
    found = ids(bundle) if bundle else frozenset()
    return bool(found) and found <= frozenset(known)
