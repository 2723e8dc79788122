"""The stored form of the CAs: one JSON text, so that a single write changes all of it or nothing.

The text contains private keys: it belongs into one Secret that only the controller reads, and is never logged.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from webhook.core.certificates.bundle import id_of
from webhook.core.certificates.issue import make_ca
from webhook.core.certificates.model import CA

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_AUTHORITIES = 32
_MOMENTS = ("published", "signedUntil", "retired")


class StoreError(ValueError):
    """The stored text cannot be read; the message names the place and quotes nothing."""


@dataclass(frozen=True, slots=True)
class StoredCA:
    """A CA with its certificate and, while it signs, its key; both in PEM."""

    authority: CA
    certificate: str
    key: str = field(default="", repr=False)

    def noted(self, authority: CA) -> StoredCA:
        """Return the CA with a new state; its key is dropped if it no longer signs."""
        return replace(self, authority=authority, key=self.key if authority.signs else "")

    def signing(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """Return certificate and key.

        Raises:
            StoreError: the key is gone or of another type.
        """
        certificate = x509.load_pem_x509_certificate(self.certificate.encode())
        return certificate, _key(self.key)


def foreign(certificate: str) -> StoredCA:
    """Return a CA that Weightlock did not create.

    Raises:
        ValueError: the certificate cannot be parsed.
    """
    return StoredCA(_described(certificate, signs=False), certificate)


def create(name: str, key: ec.EllipticCurvePrivateKey, begin: datetime, end: datetime) -> StoredCA:
    """Create a CA."""
    text = make_ca(name, key, begin, end).public_bytes(Encoding.PEM).decode("ascii")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
    return StoredCA(_described(text, signs=True), text, pem)


def encode(stored_cas: Iterable[StoredCA]) -> bytes:
    """Encode all CAs as one text."""
    return orjson.dumps([_entry(one) for one in stored_cas], option=orjson.OPT_INDENT_2)


def decode(text: bytes) -> tuple[StoredCA, ...]:
    """Decode a text that `encode` wrote.

    Raises:
        StoreError: the text cannot be read.
    """
    try:
        entries = orjson.loads(text)
        if not isinstance(entries, list) or len(entries) > _MAX_AUTHORITIES:
            raise StoreError("it is not a list of CAs")
        stored_cas = tuple(_read(entry) for entry in entries)
    except StoreError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError):
        raise StoreError("it is malformed") from None
    if len({one.authority.id for one in stored_cas}) != len(stored_cas):
        raise StoreError("a CA is listed twice")
    return stored_cas


def _entry(one: StoredCA) -> dict[str, Any]:
    ca = one.authority
    moments = zip(_MOMENTS, (ca.published, ca.signed_until, ca.retired), strict=True)
    dates = {name: moment.isoformat() for name, moment in moments if moment is not None}
    return {"certificate": one.certificate, **({"key": one.key} if one.key else {}), **dates}


def _read(entry: dict[str, Any]) -> StoredCA:
    certificate, key = str(entry["certificate"]), str(entry.get("key", ""))
    authority = _described(certificate, signs=bool(key))
    if key and _key(key).public_key() != _public(certificate):
        raise StoreError("a key does not belong to its certificate")
    published, signed_until, retired = (_moment(entry.get(name)) for name in _MOMENTS)
    ca = replace(authority, published=published, signed_until=signed_until, retired=retired)
    return StoredCA(ca, certificate, key)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text is not None else None


def _described(certificate: str, *, signs: bool) -> CA:
    parsed = x509.load_pem_x509_certificate(certificate.encode())
    return CA(id_of(certificate), parsed.not_valid_before_utc, parsed.not_valid_after_utc, signs=signs)


def _public(certificate: str) -> object:
    return x509.load_pem_x509_certificate(certificate.encode()).public_key()


def _key(text: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(text.encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StoreError("a key is not an elliptic-curve key")
    return key
