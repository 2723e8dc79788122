"""The trusted root file of a Sigstore instance: its CAs, certificate logs, transparency logs, timestamp authorities.

The file is protobuf-specs' ``trustroot.v1`` as JSON, as ``cosign trusted-root create`` and the public TUF repository
provide it. Everything in it is trusted, so it comes from an admin and never from a registry.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from webhook.core.kube.time import parse_time
from webhook.provenance import documents
from webhook.provenance.errors import MalformedError
from webhook.provenance.signatures import PublicKey, load_public_key, spki

if TYPE_CHECKING:
    from datetime import datetime

_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.trustedroot"
_MAX_ROOT: Final = 1024 * 1024
_MAX_ITEMS: Final = 100
_MAX_CHAIN: Final = 10


@dataclass(frozen=True, slots=True)
class Period:
    """A period of validity; an absent end is open."""

    start: datetime | None = None
    end: datetime | None = None

    def covers(self, time: datetime) -> bool:
        """Return whether the time is within the period."""
        return (self.start is None or self.start <= time) and (self.end is None or time <= self.end)


@dataclass(frozen=True, slots=True)
class Log:
    """A transparency log or certificate log: its key, the id by which entries name it, and its period."""

    id: bytes
    key: PublicKey
    period: Period
    name: str = ""


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA or timestamp authority: its chain, the certificate nearest to the leaf first, and its period."""

    chain: tuple[x509.Certificate, ...]
    period: Period


@dataclass(frozen=True, slots=True)
class TrustedRoot:
    """All authorities of one Sigstore instance."""

    authorities: tuple[Authority, ...]
    certificate_logs: tuple[Log, ...]
    logs: tuple[Log, ...]
    timestamp_authorities: tuple[Authority, ...]
    digest: str

    @classmethod
    def from_json(cls, data: bytes) -> TrustedRoot:
        """Parse a trusted root file. Raises `MalformedError`."""
        root = documents.parse(data, "the trusted root", _MAX_ROOT)
        if not documents.text(root.get("mediaType"), "mediaType").startswith(_MEDIA_TYPE):
            raise MalformedError("the file is not a trusted root of Sigstore: check mediaType")
        return cls(
            authorities=_authorities(root, "certificateAuthorities"),
            certificate_logs=_logs(root, "ctlogs"),
            logs=_logs(root, "tlogs"),
            timestamp_authorities=_authorities(root, "timestampAuthorities"),
            digest=hashlib.sha256(data).hexdigest(),
        )


def _authorities(root: dict[str, Any], name: str) -> tuple[Authority, ...]:
    return tuple(
        Authority(_chain(documents.fields(item, name)), _period(documents.fields(item, name).get("validFor")))
        for item in documents.items(root.get(name), name, _MAX_ITEMS)
    )


def _chain(item: dict[str, Any]) -> tuple[x509.Certificate, ...]:
    chain = documents.fields(item.get("certChain"), "certChain")
    certificates = tuple(
        load_certificate(documents.fields(entry, "certificates").get("rawBytes"))
        for entry in documents.items(chain.get("certificates"), "certificates", _MAX_CHAIN)
    )
    if not certificates:
        raise MalformedError("certChain of the trusted root is empty")
    return certificates


def load_certificate(value: Any) -> x509.Certificate:
    """Load the DER certificate in a base64 field. Raises `MalformedError`."""
    try:
        return x509.load_der_x509_certificate(documents.binary(value, "rawBytes"))
    except ValueError as error:
        raise MalformedError(f"cannot read a certificate: {error}") from error


def _logs(root: dict[str, Any], name: str) -> tuple[Log, ...]:
    return tuple(
        _log(documents.fields(item, name)) for item in documents.items(root.get(name), name, _MAX_ITEMS)
    )


def _log(item: dict[str, Any]) -> Log:
    public = documents.fields(item.get("publicKey"), "publicKey")
    raw = documents.binary(public.get("rawBytes"), "publicKey.rawBytes")
    key = load_public_key(raw)
    log_id = item.get("logId")
    identifier = (
        documents.binary(documents.fields(log_id, "logId").get("keyId"), "logId.keyId")
        if log_id
        else hashlib.sha256(spki(key)).digest()
    )
    name = str(item.get("baseUrl") or "").removeprefix("https://").rstrip("/")
    return Log(identifier, key, _period(public.get("validFor")), name)


def _period(value: Any) -> Period:
    if value is None:
        return Period()
    period = documents.fields(value, "validFor")
    return Period(*(_time(period.get(name), name) for name in ("start", "end")))


def _time(value: Any, name: str) -> datetime | None:
    if value is None:
        return None
    time = parse_time(documents.text(value, f"validFor.{name}"))
    if time is None:
        raise MalformedError(f"validFor.{name} is not a time")
    return time
